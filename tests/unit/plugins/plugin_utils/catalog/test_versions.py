# SPDX-License-Identifier: GPL-3.0-or-later
"""Release numbers, ranges, paths of values keys."""

from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import (
    KubernetesRange,
    MinorRange,
    key_path,
    parse_release,
)


def test_parse_release() -> None:
    assert parse_release("4.10.0") == (4, 10, 0)
    for wrong in ("4.10", "4.10.0.0", "v4.10.0", "4.x.0", "", "4.10.00"):
        with pytest.raises(ValueError, match="not a three-part release"):
            parse_release(wrong)


def test_minor_range() -> None:
    span = MinorRange.parse("4.1, 4.3-4.10")
    assert "4.1" in span and "4.10" in span and "4.2" not in span and "4.11" not in span
    assert (span.first, span.last) == ("4.1", "4.10")
    assert 4.1 not in span  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("wrong", ["4.3-4.1", "4.3, 4.1", "4.1-4.3, 4.2", "4", "4.0.0", ""])
def test_minor_range_refuses(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"range|spans|version"):
        MinorRange.parse(wrong)


def test_kubernetes_range() -> None:
    span = KubernetesRange.parse("1.9", "1.33")
    for inside in ("1.9", "1.10", "v1.33.4+k3s1", "1.33.0-gke.100", "1.33"):
        assert inside in span
    for outside in ("1.8", "1.34.0", "2.1", "", "1", "1.333"):
        assert outside not in span
    assert 1.33 not in span  # type: ignore[comparison-overlap]
    assert str(span) == "1.9-1.33"
    assert (span.minimum, span.maximum) == ("1.9", "1.33")
    with pytest.raises(ValueError, match="ends before"):
        KubernetesRange.parse("1.33", "1.9")


def test_key_path() -> None:
    assert key_path("global.domainName") == ("global", "domainName")
    assert key_path("telegraf.args[0]") == ("telegraf", "args", 0)
    assert key_path("inputs[0].statsd.percentiles[1]") == ("inputs", 0, "statsd", "percentiles", 1)
    assert key_path('mongodb.podAnnotations."backup.velero.io/backup-volumes"') == (
        "mongodb",
        "podAnnotations",
        "backup.velero.io/backup-volumes",
    )
    for wrong in ("", "a..b", "a[", "."):
        with pytest.raises(ValueError, match="not a values key"):
            key_path(wrong)
