# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings of a large site as verify makes them: rules and connections of the real model, services of the real catalog."""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.circleci_server.plugins.filter.health import service_wants
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.port_model import (
    build_model,
    flows_of,
    options_from,
    port_facts,
    site_inventory,
)

RELEASE = "4.10.0"
CLIENTS = 52
# The groups of a site with 60 hosts.
SIZES = {"circleci_sites": 1, "circleci_registry": 1, "circleci_object_storage": 1, "circleci_cluster_nodes": 5, "circleci_nomad_clients": CLIENTS}
SHORT = {"circleci_sites": "bastion", "circleci_registry": "registry", "circleci_object_storage": "store", "circleci_cluster_nodes": "node",
         "circleci_nomad_clients": "nomad"}  # fmt: skip


def _inventory(number: int) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    groups: dict[str, list[str]] = {}
    variables: dict[str, dict[str, str]] = {}
    address = 10
    for group, size in SIZES.items():
        for index in range(1, size + 1):
            name = SHORT[group] + (str(index) if size > 1 else "")
            groups.setdefault(group, []).append(name)
            variables[name] = {"ansible_host": f"10.{90 + number}.0.{address}"}
            address += 1
    return groups, variables


def _services(trouble: bool) -> list[dict[str, Any]]:
    result = []
    for index, wanted in enumerate(service_wants(RELEASE)):
        state, detail = "healthy", ""
        if wanted["optional"]:
            state, detail = "not installed", f"needs {wanted['needs']}" if wanted["needs"] else "optional"
        elif trouble and index in (3, 11):
            state, detail = ("down", "0 of 1 ready: CrashLoopBackOff") if index == 3 else ("degraded", "1 of 2 ready")
        works = [{"kind": work["kind"], "name": work["name"], "wanted": 1, "ready": int(state == "healthy"), "restarts": index % 4,
                  "images": [f"registry.site.example/circleci/{work['name']}:{RELEASE}-{index:04x}"]} for work in wanted["workloads"]]  # fmt: skip
        result.append({**{key: wanted[key] for key in ("name", "component", "description", "impact")}, "state": state, "detail": detail,
                       "workloads": [] if state == "not installed" else works})  # fmt: skip
    return result


def findings(site: str, number: int = 0, trouble: bool = False, generated: str = "2026-11-24T05:00:00Z") -> dict[str, Any]:
    """Findings of one site; with trouble a bit of everything that a report can tell."""
    groups, variables = _inventory(number)
    options, _problems = options_from({"load_balancer": [f"10.{90 + number}.0.200"], "registry_port": 5000, "administrators": ["10.1.0.0/24"]})
    model = build_model(site_inventory(groups, variables, "bastion"), port_facts(Catalog.load().ports(RELEASE)), RELEASE, "generic", options)
    flows = []
    for host in model.inventory.hosts:
        for flow in flows_of(model, host.name):
            found = {"closed": "timeout", "reachable": "refused"}.get(flow["expect"], flow["expect"])
            flows.append({**flow, "found": found, "verdict": "proved", "detail": "", "milliseconds": 3})
    steps = {"scheduled": True, "pulled": True, "uploaded": True, "read_back": True}
    clients = [{"name": name, "node": name, **steps, "seconds": 6.0, "problem": ""} for name in groups["circleci_nomad_clients"]]
    result: dict[str, Any] = {
        "site": site, "release": RELEASE, "platform": "generic", "domain": f"ci.{site}.example", "generated": generated,
        "hosts": [{"name": host.name, "addresses": list(host.addresses), "groups": sorted(host.groups)} for host in model.inventory.hosts],
        "rules": [rule.as_dict() for rule in model.rules], "flows": flows, "services": _services(trouble),
        "evidence": [{"level": "infrastructure probe", "state": "passed", "detail": f"{CLIENTS} of {CLIENTS} clients", "when": generated, "clients": clients}],
        "certificates": [{"name": f"ci.{site}.example:443", "days_left": 12 if trouble else 300}, {"name": "registry:5000", "days_left": 340}],
        "versions": [{"component": "Kubernetes", "found": "1.33.1", "expected": "1.30-1.34", "state": "ok"}],
        "storage": [{"name": "volume data-postgresql-0", "used_bytes": (7 if trouble else 3) * 2**30, "capacity_bytes": 8 * 2**30,
                     "used_percent": 88 if trouble else 38, "detail": ""},
                    {"name": "node node1", "used_bytes": 40 * 2**30, "capacity_bytes": 100 * 2**30, "used_percent": 40, "detail": "disk of the kubelet"}],
        "queues": [{"name": "Nomad", "waiting": 3, "detail": "allocations that no client has room for"}],
        "licence": {"present": True, "end": "2027-03-31", "days_left": 120},
        "unmeasured": [{"what": "queues of RabbitMQ", "why": "pod rabbitmq-0 gives no metrics on 15692"}] if trouble else [],
        "images": {"checked": True, "missing": ["circleci/picard:1"] if trouble else []}, "chart": {"compared": not trouble},
        "waivers": [{"name": "cluster_size", "reason": "a laboratory, no users"}],
    }  # fmt: skip
    if trouble:
        for number_of_flow, flow in enumerate(flows):
            if flow["to"] == "nomad7" and flow["expect"] != "closed":
                flow.update(found="timeout", verdict="failed", detail="no answer in time")
            elif flow["expect"] == "closed" and number_of_flow % 3 == 0:
                flow.update(found="refused", verdict="unproved", detail="nothing listens, or a packet filter refused")
        result["listeners"] = [{"host": "nomad3", "protocol": "tcp", "address": "0.0.0.0", "port": 9100, "process": "node_exporter"}]
        clients[6].update(pulled=False, uploaded=False, read_back=False, problem="the image cannot be pulled: no route to host")
        result["evidence"][0].update(state="failed", detail=f"{CLIENTS - 1} of {CLIENTS} clients", problems=["the infrastructure probe: nomad7: the image cannot be pulled."])
        result["findings"] = [{"urgency": 2, "subject": "host node5", "found": "nothing was tried from it", "expected": "connections from it",
                               "remedy": "Make the host reachable and run verify again.", "source": ""}]  # fmt: skip
    return result
