# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Known ways to fail that an installed site shows: the texts are the catalog's, the looks are here, by the id of the catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Callable

RPC_LIMIT = 100
MACHINES = ("eks", "gke")
Look = Callable[[Mapping[str, Any]], str]


def _docker_provisioner(site: Mapping[str, Any]) -> str:
    there = [work for work in site["workloads"] if work["name"].startswith("docker-provisioner") and work["wanted"] > 0]
    return "" if there else "no workload docker-provisioner that is wanted"


def _images_outside(site: Mapping[str, Any]) -> str:
    registry = site["registry"]
    outside = [image for image in site["images"] if not image.startswith(f"{registry}/")] if registry else []
    return f"{len(outside)} images of pods that do not begin with {registry}: {', '.join(outside[:3])}" if outside else ""


def _agents(site: Mapping[str, Any]) -> str:
    found = site["agents"]
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def _docker_gc(site: Mapping[str, Any]) -> str:
    words = {"restarting": "does not stay up", "stopped": "does not run", "missing": "is not there"}
    found = [f"docker-gc {words[client['docker_gc']]} on {name}" for name, client in sorted(site["clients"].items()) if client["docker_gc"] in words]
    full = [name for name, client in sorted(site["clients"].items()) if client["docker_disk_full"]]
    return "; ".join([*found, *([f"nine tenths of Docker's disk are used on {', '.join(full)}"] if full else [])])


def _cgroup_v2(site: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name, client in site["clients"].items() if client["cgroup"] == "v2"))


def _docker_29(site: Mapping[str, Any]) -> str:
    found = [f"{client['name']} {client['docker']}" for client in site["nomad"]["clients"] if client["docker"].split(".")[0].isdigit()
             and int(client["docker"].split(".")[0]) >= 29]  # fmt: skip
    return f"Docker of {', '.join(sorted(found))}" if found else ""


def _secret_length(site: Mapping[str, Any]) -> str:
    wanted = {"session-cookie-key": 16, "gossip-key": 32}
    wrong = [f"{name} of {length}" for name, length in sorted(site["secret_lengths"].items()) if length != wanted[name.rpartition(" ")[2]]]
    return f"{', '.join(wrong)} characters" if wrong else ""


def _machine_service(site: Mapping[str, Any]) -> str:
    names = sorted(work["name"] for work in site["workloads"] if work["name"].startswith(("machine-provisioner", "vm-service")) and work["wanted"] > 0)
    return f"{', '.join(names)} on platform {site['platform']}" if names and site["platform"] not in MACHINES else ""


def _external_ips(site: Mapping[str, Any]) -> str:
    # No key of the chart makes them.
    patched = {name: addresses for name, addresses in site["external_ips"].items() if addresses}
    return ", ".join(f"Service {name} with externalIPs {', '.join(addresses)}" for name, addresses in sorted(patched.items()))


def _rpc_limit(site: Mapping[str, Any]) -> str:
    for address, count in Counter(client["address"] for client in site["nomad"]["clients"]).most_common(1):
        if count > RPC_LIMIT:
            return f"{count} clients come from {address}"
    return ""


def _pod_security(site: Mapping[str, Any]) -> str:
    return "the namespace enforces restricted" if site["pod_security"] == "restricted" else ""


def _no_leader(site: Mapping[str, Any]) -> str:
    return "Nomad answers and has no leader" if site["nomad"]["leader"] is False else ""


# Urgency as in the report: 1 keeps verify from passing, 2 will, 3 deserves a glance.
LOOKS: dict[str, tuple[int, Look]] = {
    "docker-provisioner-off": (1, _docker_provisioner),
    "third-party-images-outside": (1, _images_outside),
    "agents-incomplete": (1, _agents),
    "docker-gc-loop": (2, _docker_gc),
    "cgroup-v2": (2, _cgroup_v2),
    "docker-29": (2, _docker_29),
    "secret-length": (1, _secret_length),
    "machine-service-on": (1, _machine_service),
    "external-ips-lost": (2, _external_ips),
    "nomad-rpc-limit": (2, _rpc_limit),
    "pod-security-restricted": (3, _pod_security),
    "nomad-servers-no-quorum": (1, _no_leader),
}


def known_failures(modes: Sequence[Mapping[str, Any]], site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings for the report; *modes* are those of the release, so that a look which does not concern it is not made."""
    result = []
    for mode in modes:
        urgency, look = LOOKS.get(str(mode["id"]), (0, None))
        found = look(site) if look is not None else ""
        if found:
            result.append({"urgency": urgency, "subject": str(mode["title"]), "found": found, "expected": f"nothing of it: {mode['symptom']}".rstrip("."),
                           "remedy": str(mode["remedy"]), "source": str(mode["source"])})  # fmt: skip
    return result
