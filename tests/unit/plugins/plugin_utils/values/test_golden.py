# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""The values of each release on each platform, reviewed in git.

Made again by: ONPREM_CIRCLECI_REGENERATE_GOLDEN=1 pytest tests/unit/plugins/plugin_utils/values/test_golden.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import compose_data
from ansible_collections.onprem.circleci_server.tests.unit.plugins.plugin_utils.values.sites import (
    FULL,
    OLD,
    PLATFORMS,
    site,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = [(release, platform) for release in FULL for platform in PLATFORMS] + [(release, "generic") for release in OLD]


def rendered(release: str, platform: str) -> str:
    result = compose_data(site(release, platform))
    assert result["errors"] == []
    head = [
        "# SPDX-License-Identifier: GPL-3.0-or-later",
        f"# Values of CircleCI Server {release} on {platform}, composed from tests/unit/plugins/plugin_utils/values/sites.py.",
        *(f"# Warning: {text}" for text in result["warnings"]),
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(result["values"], sort_keys=True, width=150)


@pytest.mark.parametrize(("release", "platform"), CASES, ids=[f"{release}-{platform}" for release, platform in CASES])
def test_values_are_the_reviewed_ones(release: str, platform: str) -> None:
    path = GOLDEN / f"{release}-{platform}.yaml"
    text = rendered(release, platform)
    if os.environ.get("ONPREM_CIRCLECI_REGENERATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_every_supported_release_of_the_catalog_has_a_golden_file() -> None:
    assert set(FULL) | set(OLD) == set(Catalog.load().last_patches())
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {f"{release}-{platform}" for release, platform in CASES}
