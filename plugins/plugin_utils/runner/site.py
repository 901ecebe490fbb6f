# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runners of a site together: what is still to be given, and what users lose when some do not run. No token leaves this module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.preflight.findings import PROBLEM, WARNING, Finding
from ..catalog import Catalog
from .service import RESOURCE_CLASS

GROUP = "circleci_runners_linux"
GATE = "runner_tokens"
_SOURCE = "machine runner 3 installation page"


def runners(names: Sequence[str], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``name``, ``host``, ``resource_class`` and ``has_token`` of each runner of a site."""
    return [
        {
            "host": name,
            "name": str(hostvars[name].get("circleci_runner_name") or name),
            "resource_class": str(hostvars[name].get("circleci_runner_resource_class") or ""),
            "has_token": bool(hostvars[name].get("circleci_runner_token")),
        }
        for name in names
    ]


def _classes(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    by_class: dict[str, list[Mapping[str, Any]]] = {}
    for item in found:
        by_class.setdefault(str(item["resource_class"]), []).append(item)
    return by_class


def gate(found: Sequence[Mapping[str, Any]], domain: str) -> list[dict[str, Any]]:
    """The gate at which ``install`` waits for tokens; no gate at a site without runners.

    A token is made by the server only, and shown once: there is no way to it but its API, which the vendor's command line speaks.
    """
    if not found:
        return []
    missing = [item for item in found if not item["has_token"]]
    commands = []
    for name, members in _classes(missing).items():
        known = RESOURCE_CLASS.fullmatch(name)
        shown = name if known else "<namespace>/<class>"
        nickname = re.sub(r"[^A-Za-z0-9.-]", "-", str(members[0]["host"])) if len(members) == 1 else domain
        commands.append(
            f"`circleci runner resource-class create {shown} \"machine runners\" --generate-token`, or where that class is there already "
            f"`circleci runner token create {shown} {nickname}`, for {', '.join(str(item['host']) for item in members)}"
        )
    told = "; ".join(commands) or "none is missing now"
    return [
        {
            "name": GATE,
            "sentence": (
                f"Make a token for the runners with the command line of the vendor (version 0.1), CIRCLECI_CLI_HOST=https://{domain} and CIRCLECI_CLI_TOKEN of "
                f"an administrator of the organization: {told}. It is shown once: put it into the encrypted inventory as circleci_runner_token of these hosts, "
                "with circleci_runner_resource_class beside it"
            ),
            "waits_for": [str(item["host"]) for item in missing],
        }
    ]


def inventory_findings(found: Sequence[Mapping[str, Any]], release: str, domain: str, catalog: Catalog) -> list[dict[str, Any]]:
    """What preflight says of the runners that the inventory names."""
    if not found:
        return []
    result = []
    if not catalog.release(release).machine_runner.value:
        result.append(
            Finding(
                "runner_release", PROBLEM, GROUP, f"hosts, and release {release}", "release 4.4 or later, which machine runner 3 needs", _SOURCE,
                "Take the hosts out of the group, or upgrade first.",
            )
        )  # fmt: skip
    names: dict[str, list[str]] = {}
    for item in found:
        names.setdefault(str(item["name"]), []).append(str(item["host"]))
        given = str(item["resource_class"])
        if not RESOURCE_CLASS.fullmatch(given):
            result.append(
                Finding(
                    "runner_resource_class", PROBLEM, f"{item['host']}: circleci_runner_resource_class", repr(given) if given else "not set",
                    "<namespace>/<class> of the organization, as in acme/linux", _SOURCE, "Set it for the host or for the group.",
                )
            )  # fmt: skip
        if not item["has_token"]:
            result.append(
                Finding(
                    "runner_token", WARNING, f"{item['host']}: circleci_runner_token", "not set", f"the token of {given or 'its resource class'}", _SOURCE,
                    f"install stops at the gate {GATE} with the commands that make it on https://{domain}.",
                )
            )  # fmt: skip
    for name, hosts in names.items():
        if len(hosts) > 1:
            result.append(
                Finding(
                    "runner_name", PROBLEM, "circleci_runner_name", f"{name} on {', '.join(hosts)}", "a name of its own for each runner", _SOURCE,
                    "Set circleci_runner_name of the hosts, or leave it out: each host then has its name in the inventory.",
                )
            )  # fmt: skip
    return [item.as_dict() for item in result]


def _trouble(item: Mapping[str, Any], look: Mapping[str, Any], heard: Mapping[str, Any], asked: bool) -> str:
    """What is wrong with a runner; empty when nothing is."""
    state = str(look.get("state") or "")
    if state and state not in ("running", "draining"):
        return str(look.get("detail") or state)
    # One that ends its last job before a restart polls no more; it comes back by itself.
    if not asked or state == "draining":
        return ""
    known = dict(heard.get(str(item["name"])) or {})
    if known.get("online"):
        return ""
    last = str(known.get("last_connected") or "")
    return f"its server {'has heard nothing of it since ' + last if last else 'does not know it'}"


def look_findings(found: Sequence[Mapping[str, Any]], looks: Mapping[str, Mapping[str, Any]], connected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings of the report: *looks* is what each host saw of its runner, *connected* what the server says of those that it hears."""
    told: list[dict[str, Any]] = []
    heard = dict(connected.get("runners") or {})
    asked = bool(connected.get("asked"))
    for name, members in _classes(found).items():
        bad = {}
        for item in members:
            text = _trouble(item, looks.get(str(item["host"]), {}), heard, asked) if item["has_token"] else "it has no token yet"
            if text:
                bad[str(item["host"])] = (item, text)
        left = len(members) - len(bad)
        lost = f"longer, as {left} of {len(members)} runners {'is' if left == 1 else 'are'} left for it" if left else "for ever, as no runner is left for it"
        for host, (item, text) in bad.items():
            told.append(
                {
                    "urgency": 1 if item["has_token"] else 2,
                    "subject": f"runner {item['name']} of {name or 'no resource class'}",
                    "found": f"{text}. Jobs with this resource class wait without an error, {lost}",
                    "expected": "a runner that runs and that the server hears",
                    "remedy": f"Look at `journalctl -u circleci-runner` on {host}, mend it, and run install again."
                    if item["has_token"]
                    else "Give it circleci_runner_token and run install again; docs/how-to/runners.md has the commands that make one.",
                    "source": "machine runner 3 documentation",
                }
            )
    if found and not asked and connected.get("missing"):
        told.append(
            {
                "urgency": 4,
                "subject": "runners",
                "found": f"the server was not asked which runners it hears. {connected['missing']}",
                "expected": "each runner online at the server",
                "remedy": "Give circleci_personal_token, the personal token of a member of the organization, and run verify again.",
                "source": "CircleCI runner API",
            }
        )
    return told
