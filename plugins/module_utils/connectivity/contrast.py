# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What one host alone cannot tell of UDP, and two can: silence is proved to be a packet filter's where another host gets an answer from the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What a datagram found that did arrive: an answer, or the host's word that nothing listens.
_ARRIVED = ("open", "refused")


def with_contrast(flows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same flows; those over UDP that must not get through, and could not be judged, are judged beside those that may.

    Silence is proved where another host was answered or refused. A refusal is proved to be the filter's where another host was answered, since then
    something listens. Where nobody heard anything, nothing is proved: a listener may keep silent to all.
    """
    arrived: dict[tuple[str, int], Mapping[str, Any]] = {}
    for flow in flows:
        if flow.get("protocol") == "udp" and flow.get("expect") != "closed" and flow.get("found") in _ARRIVED:
            place = _place(flow)
            if place not in arrived or flow["found"] == "open":
                arrived[place] = flow
    result = []
    for flow in flows:
        other = arrived.get(_place(flow))
        judged = dict(flow)
        if flow.get("protocol") == "udp" and flow.get("expect") == "closed" and flow.get("verdict") == "unproved" and other:
            heard = "an answer" if other["found"] == "open" else "the host's refusal"
            if flow["found"] == "no answer" or (flow["found"] == "refused" and other["found"] == "open"):
                judged.update(verdict="proved", detail=f"{flow['found']} here, while {other.get('from')} got {heard}")
        result.append(judged)
    return result


def _place(flow: Mapping[str, Any]) -> tuple[str, int]:
    return str(flow.get("address")), int(flow.get("port") or 0)
