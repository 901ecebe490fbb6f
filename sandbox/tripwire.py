# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway counted: questions about outside names and packets to outside addresses, by source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import docker, layout


def read() -> dict[str, Any]:
    """Counts per source host, and their sum."""
    gateway = layout.host("gateway").container
    names = json.loads(docker.execute(gateway, ["cat", "/run/onprem-names.json"]).stdout)
    ruleset = json.loads(docker.execute(gateway, ["nft", "--json", "list", "table", "inet", "tripwire"]).stdout)
    return combine(names, ruleset)


def combine(names: Mapping[str, Any], ruleset: Mapping[str, Any]) -> dict[str, Any]:
    """One report out of the name server's count and the packet filter's."""
    hosts = {item.address: item.name for item in layout.HOSTS}
    sources: dict[str, dict[str, Any]] = {}

    def entry(address: str) -> dict[str, Any]:
        name = hosts.get(address, address)
        return sources.setdefault(name, {"queries": 0, "packets": 0, "names": {}, "destinations": {}})

    for address, asked in names["outside"].items():
        found = entry(address)
        for name, count in asked.items():
            found["names"][name] = count
            found["queries"] += count
    for item in ruleset["nftables"]:
        for element in item.get("set", {}).get("elem", []):
            value = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element, "counter": {"packets": 1}}
            parts = [str(part) for part in value["val"]["concat"]]
            count = int(value.get("counter", {}).get("packets", 1))
            found = entry(parts[0])
            target = f"{parts[1]} {'/'.join(parts[2:])}"
            found["destinations"][target] = found["destinations"].get(target, 0) + count
            found["packets"] += count
    total = sum(found["queries"] + found["packets"] for found in sources.values())
    return {"total": total, "sources": sources}


def reset() -> None:
    """Start counting anew."""
    gateway = layout.host("gateway").container
    docker.execute(gateway, ["sh", "-c", "nft flush set inet tripwire outside && nft flush set inet tripwire outside_other && systemctl reload onprem-names.service && sleep 0.3"])
