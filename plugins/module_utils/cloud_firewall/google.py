# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""VPC firewall rules of Google Cloud, by the REST API compute v1; google-auth finds the credentials.

Not google.cloud.gcp_compute_firewall: it skips check mode, knows one rule at a time, and cannot take away what nobody wants any more.

Firewall rules of Google have no labels. A rule is ours when its name is one that we give and its description begins with our mark. Each holds the
networks of one protocol and range of ports in one address family (the API takes no mixture), and applies to machines with the tag of its group.
"""

from __future__ import annotations

import re
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ..cloud import MARK, CloudError, endpoints
from ..cloud.google import finished, google_api, google_token
from .model import Change, Found, RuleKey, plain, together

SCOPE = "https://www.googleapis.com/auth/compute"
NETWORK = re.compile(r"projects/(?P<project>[a-z0-9.:-]+)/global/networks/(?P<name>[a-z0-9-]+)")
NAME = re.compile(r"(?P<group>circleci-.+)-(?:tcp|udp|icmp|all)(?:-[0-9]+){0,2}-v[46]")
PRIORITY = 1000
"""The default of the API."""
ELSEWHERE = ("sourceTags", "sourceServiceAccounts", "targetServiceAccounts", "destinationRanges")
"""Fields by which a rule would mean other machines or sources than ours do."""


class Google:
    """Firewall rules of one VPC network."""

    def __init__(self, site: str, network: str, token: str, endpoint: str = "") -> None:
        match = NETWORK.fullmatch(network)
        if not match:
            raise CloudError(f"circleci_cloud_network is {network!r}; Google needs the network as projects/<project>/global/networks/<name>")
        self.network, self.project = network, match["project"]
        self.site_prefix, self.prefix = f"circleci-{site}-", f"{MARK} {site}: "
        allowed = endpoints("gcp", "", endpoint)
        self.rest = google_api(allowed[0], google_token(token, SCOPE, allowed))
        self.there: dict[str, dict[str, Any]] = {}
        self.firewalls = f"/compute/v1/projects/{self.project}/global/firewalls"

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        wanted = set(names)
        result: dict[str, Found] = {}
        problems = []
        for rule in self._all():
            match = NAME.fullmatch(rule["name"])
            if not match:
                continue
            group = match["group"]
            if not (rule.get("description") or "").startswith(self.prefix) or not group.startswith(self.site_prefix):
                if group in wanted:
                    problems.append(f"its description does not begin with {self.prefix!r}|{rule['name']}")
                continue
            if not rule["network"].endswith(f"/{self.network}") or rule.get("direction", "INGRESS") != "INGRESS":
                problems.append(f"it is ours, but another network's or for outgoing traffic|{rule['name']}")
                continue
            self.there[rule["name"]] = rule
            found = result.setdefault(group, Found(id=group, owned=True))
            note = _edited(rule, group)
            for key in _keys(rule):
                found.rules[key] = ""
                if note:
                    found.edited[key] = note
        if problems:
            raise CloudError(*(
                f"firewall rule {name} of the project {self.project} stands in the way: {why}; rename or remove it, or give the site another name"
                for why, _bar, name in (problem.partition("|") for problem in sorted(problems))))  # fmt: skip
        return result

    def apply(self, change: Change) -> None:
        wanted = {body["name"]: body for body in self._bodies(change)}
        there = {name: rule for name, rule in self.there.items() if name in wanted or _group(name) == change.name}
        changed = []
        for name, body in wanted.items():
            old = there.get(name)
            if old is None:
                changed.append(("POST", self.firewalls, body))
            elif _edited(old, change.name) or set(_keys(old)) != set(_keys(body)):
                # A replacement forgets what it does not name; whether a rule is logged is the business of others.
                kept = {"logConfig": old["logConfig"]} if old.get("logConfig") else {}
                changed.append(("PUT", f"{self.firewalls}/{name}", {**body, **kept}))
        # Opened before closed: nobody is cut off while a rule is replaced.
        self._finish(changed)
        self._finish([("DELETE", f"{self.firewalls}/{name}", None) for name in sorted(set(there) - set(wanted))])

    def _all(self) -> Iterable[dict[str, Any]]:
        query = {"maxResults": "500"}
        while True:
            data = self.rest.call("GET", f"{self.firewalls}?{urllib.parse.urlencode(query)}").data
            yield from data.get("items") or []
            if not data.get("nextPageToken"):
                return
            query["pageToken"] = str(data["nextPageToken"])

    def _bodies(self, change: Change) -> Iterable[dict[str, Any]]:
        for (_action, protocol, low, high, family), networks in together(change.wanted).items():
            whole = (low, high) == (0, 65535)
            ports = str(low) if low == high else f"{low}-{high}"
            word = "all" if protocol == "any" else protocol
            reasons = sorted({reason for key, reason in change.wanted.items() if key[:3] == (protocol, low, high) and key.family == family})
            yield {
                "name": "-".join(filter(None, (change.name, word, "" if whole else ports, family))),
                "description": (self.prefix + ", ".join(reasons))[:2000],
                "network": self.network,
                "direction": "INGRESS",
                "priority": PRIORITY,
                "disabled": False,
                "targetTags": [change.name],
                "sourceRanges": sorted(networks),
                "allowed": [{"IPProtocol": word, **({} if whole else {"ports": [ports]})}],
            }

    def _finish(self, requests: Iterable[tuple[str, str, Any]]) -> None:
        """Ask for changes, wait until all of them are made, and tell what could not be."""
        # The number lets Google know a request that is made again.
        started = [(f"{method} {path}", self.rest.call(method, f"{path}?requestId={uuid.uuid4()}", body).data) for method, path, body in requests]
        problems = [f"Google refused {what}: {said}" for what, operation in started if (said := finished(self.rest, self.project, what, operation))]
        if problems:
            raise CloudError(*problems)


def _group(name: str) -> str:
    match = NAME.fullmatch(name)
    return match["group"] if match else ""


def _keys(rule: Mapping[str, Any]) -> Iterable[RuleKey]:
    """What a rule opens, or closes. One without networks is shown as for everybody; a note of C(_edited) says when it names machines instead."""
    networks = rule.get("sourceRanges") or ["0.0.0.0/0"]
    for kind, action in (("allowed", "allow"), ("denied", "deny")):
        for part in rule.get(kind) or []:
            protocol = "any" if part["IPProtocol"] == "all" else part["IPProtocol"]
            for text in part.get("ports") or ["0-65535"]:
                low, _dash, high = text.partition("-")
                for network in networks:
                    yield RuleKey(protocol, int(low), int(high or low), plain(network), action)


def _edited(rule: Mapping[str, Any], group: str) -> str:
    """What makes a rule of ours mean something else than its protocol, ports and networks say."""
    notes = ["disabled"] if rule.get("disabled") else []
    if rule.get("priority", PRIORITY) != PRIORITY:
        notes.append(f"priority {rule['priority']}")
    if rule.get("targetTags") != [group]:
        notes.append(f"for the tags {', '.join(rule.get('targetTags') or ['of every machine'])}")
    notes += [f"{name} {', '.join(rule[name])}" for name in ELSEWHERE if rule.get(name)]
    return "; ".join(notes)
