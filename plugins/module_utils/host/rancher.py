# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""K3s and RKE2 on a node: which it is, what it knows of registries, and a restart that never takes two servers of a cluster down."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .units import HostError, Runner

KUBELET = "http://127.0.0.1:10248/healthz"
_KUBECTL = {
    "k3s": ("/usr/local/bin/k3s", "kubectl", "--kubeconfig", "/etc/rancher/k3s/k3s.yaml"),
    "rke2": ("/var/lib/rancher/rke2/bin/kubectl", "--kubeconfig", "/etc/rancher/rke2/rke2.yaml"),
}
# unit -> distribution, whether it is a server
UNITS = {"k3s": ("k3s", True), "k3s-agent": ("k3s", False), "rke2-server": ("rke2", True), "rke2-agent": ("rke2", False)}


@dataclass(frozen=True)
class Node:
    """What runs on this host."""

    unit: str
    distribution: str
    server: bool

    def registries(self, root: Path = Path("/")) -> Path:
        return root / f"etc/rancher/{self.distribution}/registries.yaml"


def find(run: Runner) -> Optional[Node]:
    """The unit of K3s or RKE2 that is active here, or enabled; None when there is none."""
    for question in ("is-active", "is-enabled"):
        for unit, (distribution, server) in UNITS.items():
            if run(["systemctl", question, "--quiet", unit]).returncode == 0:
                return Node(unit, distribution, server)
    return None


def stale(node: Node, run: Runner, root: Path = Path("/")) -> bool:
    """Whether registries.yaml is newer than the service, which reads it only when it starts. A run that was killed in between is healed by that."""
    path = node.registries(root)
    if not path.exists():
        return False
    # Microseconds since boot: every systemd says that, and no time zone is in it.
    text = run(["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "--value", node.unit]).stdout.strip()
    if not text.isdigit():
        return True
    started = time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - int(text) / 1e6)
    return path.stat().st_mtime > started


def kubelet_answers(timeout: float = 2) -> bool:
    """Whether the kubelet of this host says that it is well."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(KUBELET, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def why_not(node: Node, run: Runner) -> str:
    """Why the cluster is not whole, as a server sees it; empty when it is. etcd is part of what readyz looks at."""
    kubectl: Sequence[str] = _KUBECTL[node.distribution]
    ready = run([*kubectl, "get", "--raw", "/readyz?verbose"])
    if ready.returncode != 0 or "readyz check passed" not in ready.stdout:
        failed = [line for line in (ready.stdout + ready.stderr).splitlines() if line.startswith("[-]")]
        return f"the API server is not ready: {'; '.join(failed) or (ready.stderr or ready.stdout).strip()[-300:] or 'no answer'}"
    listed = run([*kubectl, "get", "nodes", "-o", "json"])
    try:
        items = json.loads(listed.stdout)["items"]
    except (ValueError, KeyError):
        return f"nodes cannot be listed: {listed.stderr.strip()[-300:]}"
    lame = [
        str(item["metadata"]["name"])
        for item in items
        if not any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in (item.get("status") or {}).get("conditions") or ())
    ]
    return f"not Ready: {', '.join(sorted(lame))}" if lame else ""


def restart(
    node: Node,
    run: Runner,
    seconds: float,
    *,
    kubelet: Callable[[], bool] = kubelet_answers,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Restart the service of this node, and only while the cluster can bear it; then wait until it is whole again."""
    if node.server:
        reason = why_not(node, run)
        if reason:
            raise HostError(
                f"{node.unit} is not restarted: {reason}. A server is only restarted while all others are well, or etcd loses its majority. "
                "Bring the cluster in order and run the same command again."
            )
    done = run(["systemctl", "restart", node.unit])
    if done.returncode != 0:
        raise HostError(f"systemctl restart {node.unit} ended with {done.returncode}: {done.stderr.strip()[-300:]}. Its log: journalctl -u {node.unit}")
    end = clock() + seconds
    while True:
        reason = "" if kubelet() else "the kubelet does not answer"
        if not reason and node.server:
            reason = why_not(node, run)
        if not reason:
            return
        if clock() >= end:
            raise HostError(
                f"{node.unit} was restarted, and after {seconds:.0f} seconds {reason}. No other node was restarted after it. Its log: journalctl -u {node.unit}"
            )
        sleep(2)
