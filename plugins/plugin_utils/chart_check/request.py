# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the chart is rendered with: values as the collection would compose them for a plain cut-off site. No secret is in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalog import Catalog
from ..values import SiteFacts, compose, site_facts

REGISTRY = "registry.example.invalid:5000"
_PEM = "-----BEGIN EXAMPLE-----\nplaceholder\n-----END EXAMPLE-----\n"


def sample_facts(release: str, values: Mapping[str, Any] | None = None) -> SiteFacts:
    """A plain cut-off site of a release, with the operator's own values."""
    facts, _problems = site_facts(
        {
            "release": release,
            "platform": "generic",
            "domain": "ci.example.com",
            "registry": {"host": REGISTRY},
            "object_storage": {"endpoint": "https://store.example.com", "bucket": "circleci-data", "agent_bucket": "circleci-agents"},
            "github": {"hostname": "github.example.com"},
            "tls": {"certificate": _PEM, "private_key": _PEM, "issued_by_site_ca": True},
            "nomad": {"mtls": {"ca": _PEM, "certificate": _PEM, "private_key": _PEM}},
            "overlay": dict(values or {}),
        }
    )
    return facts


def sample_request(catalog: Catalog, release: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the module chart_facts is asked with."""
    keys = {key for image in catalog.images(release) if image.group == "chart" and image.values_keys for key in image.values_keys.names()}
    return {"values": compose(sample_facts(release, values), catalog).values, "registry": REGISTRY, "image_keys": sorted(keys)}
