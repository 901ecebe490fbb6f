# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Layers of the product down and up, and single services anew, in the way the vendor tells operators to do it.

Down is replicas at zero for what carries the label layer=application. Up is the number that the release was installed with, not
one that somebody remembers, and never before the databases are ready.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..helm.kube import MERGE_PATCH, KubeApi, KubeError, core
from ..helm.objects import WORKLOADS
from ..helm.waiter import Outcome, Patience, Target, Waiter, targets_of
from .kubectl import OperationError
from .stores import POSTGRES, UNFINISHED

APPLICATION = "application"
SCALED = ("Deployment", "StatefulSet")


@dataclass(frozen=True)
class Scale:
    """A workload with the replicas it has and those it is to have."""

    kind: str
    name: str
    have: int
    want: int

    @property
    def differs(self) -> bool:
        return self.have != self.want

    def __str__(self) -> str:
        return f"{self.kind}/{self.name} replicas {self.have} → {self.want}"


class Layers:
    """One release. C(clock) and C(sleep) are given by tests."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        documents: Sequence[Mapping[str, Any]],
        *,
        patience: Optional[Patience] = None,
        expected_to_fail: Sequence[str] = (),
        progress: Optional[Callable[[dict[str, Any]], None]] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.namespace = namespace
        self.documents = list(documents)
        self.patience = patience or Patience()
        self.expected = list(expected_to_fail)
        self.progress = progress or (lambda _state: None)
        self.clock = clock
        self.sleep = sleep

    # -- what there is ----------------------------------------------------------------------------------------------

    def targets(self, layer: str = "") -> list[Target]:
        """Workloads of the release, of one layer or of all."""
        return [target for target in targets_of(self.documents) if not layer or target.layer == layer]

    def scales(self, stopped: bool) -> list[Scale]:
        """The application layer as it is and as it is to be. What is not in the cluster is left out."""
        documents = {
            (str(item["kind"]), str(item["metadata"]["name"])): item for item in self.documents if item.get("kind") in WORKLOADS
        }
        found = []
        for kind in SCALED:
            for item in self._list(f"/apis/apps/v1/namespaces/{self.namespace}/{kind.lower()}s", f"layer={APPLICATION}"):
                name = str(item["metadata"]["name"])
                spec = (documents.get((kind, name)) or {}).get("spec")
                if spec is None and not stopped:
                    continue  # not of this release: nobody knows its number
                want = 0 if stopped else int((spec or {}).get("replicas", 1))
                found.append(Scale(kind, name, int((item.get("spec") or {}).get("replicas", 1)), want))
        return found

    def stopped(self) -> bool:
        """Whether there is an application layer and all of it is at zero."""
        scales = self.scales(stopped=True)
        return bool(scales) and not any(scale.differs for scale in scales) and not self._pods()

    # -- down and up ------------------------------------------------------------------------------------------------

    def stop(self) -> list[Scale]:
        """Replicas to zero; returns when no pod of the layer is left. Returns what was changed."""
        changed = self._apply(self.scales(stopped=True))
        deadline = self.clock() + self.patience.total
        while True:
            left = self._pods()
            self.progress({"phase": "stop the application layer", "done": 0, "total": 0, "waiting_for": left[:10]})
            if not left:
                return changed
            if self.clock() >= deadline:
                raise OperationError(
                    "still_running", f"after {self.patience.total:.0f} s these pods of the application layer are still there: {', '.join(left)}."
                )
            self.sleep(min(2.0, self.patience.poll))

    def start(self) -> tuple[list[Scale], Outcome]:
        """The databases ready, then the replicas of the release, then all of it ready. Never on half of the data."""
        self._need_whole_data()
        below = [target for target in self.targets() if target.layer in ("data", "execution")]
        self._ready(below, "The application layer is not started, since what it needs is not ready")
        changed = self._apply(self.scales(stopped=False))
        return changed, self._ready(self.targets(), "The application layer did not become ready")

    def _need_whole_data(self) -> None:
        for item in self._list(f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets", f"app.kubernetes.io/name={POSTGRES}"):
            point = (item["metadata"].get("annotations") or {}).get(UNFINISHED)
            if point:
                raise OperationError(
                    "unfinished",
                    f"The application layer is not started: PostgreSQL is on its way into another version, from restore point {point}. Run the verb "
                    f"upgrade again as it was begun, or the verb rollback with circleci_restore_point: {point}.",
                )

    def _apply(self, scales: Sequence[Scale]) -> list[Scale]:
        changed = [scale for scale in scales if scale.differs]
        for scale in changed:
            path = f"/apis/apps/v1/namespaces/{self.namespace}/{scale.kind.lower()}s/{scale.name}"
            self.api.request("PATCH", path, None, {"spec": {"replicas": scale.want}}, MERGE_PATCH)
        return changed

    # -- anew -------------------------------------------------------------------------------------------------------

    def pods_of(self, names: Sequence[str]) -> list[str]:
        """Pods of workloads of the release."""
        found = []
        pods = self.api.request("GET", core(self.namespace, "pods")).get("items", [])
        for target in self._named(names):
            if target.kind == "Job":
                continue
            live = self.api.request("GET", f"/apis/apps/v1/namespaces/{self.namespace}/{target.kind.lower()}s/{target.name}")
            selector = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
            found += [str(pod["metadata"]["name"]) for pod in pods if selector and selector.items() <= (pod["metadata"].get("labels") or {}).items()]
        return found

    def restart(self, names: Sequence[str]) -> list[str]:
        """Delete the pods, all at once (Nomad servers that come up one by one find no leader), and wait for new ones."""
        pods = self.pods_of(names)
        for pod in pods:
            try:
                self.api.request("DELETE", core(self.namespace, "pods", pod))
            except KubeError as error:
                if error.status != 404:
                    raise
        deadline = self.clock() + self.patience.total
        while set(pods) & set(self._existing(pods)) and self.clock() < deadline:
            self.progress({"phase": "restart", "done": 0, "total": len(pods), "waiting_for": pods[:10]})
            self.sleep(min(2.0, self.patience.poll))
        self._ready(self._named(names), f"After the restart of {', '.join(names)} not everything is ready")
        return pods

    def _existing(self, names: Sequence[str]) -> list[str]:
        """Those pods that still run in the shape in which they were deleted; a StatefulSet gives the name to the next one."""
        items = self.api.request("GET", core(self.namespace, "pods")).get("items", [])
        return [str(item["metadata"]["name"]) for item in items if item["metadata"].get("deletionTimestamp") and item["metadata"]["name"] in names]

    def _named(self, names: Sequence[str]) -> list[Target]:
        known = self.targets()
        unknown = sorted(set(names) - {target.name for target in known})
        if unknown:
            raise OperationError("unknown_workload", f"the release has no workload {', '.join(unknown)}.")
        return [target for target in known if target.name in names]

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _ready(self, targets: Sequence[Target], sentence: str) -> Outcome:
        waiter = Waiter(
            self.api, self.namespace, targets, patience=self.patience, expected_to_fail=self.expected, progress=self.progress,
            clock=self.clock, sleep=self.sleep,
        )  # fmt: skip
        outcome = waiter.wait()
        if not outcome.ready:
            raise OperationError("not_ready", f"{sentence}: {' '.join(outcome.problems)}")
        return outcome

    def _list(self, path: str, selector: str) -> list[dict[str, Any]]:
        return list(self.api.request("GET", path, {"labelSelector": selector}).get("items", []))

    def _pods(self) -> list[str]:
        return sorted(
            str(item["metadata"]["name"])
            for item in self._list(core(self.namespace, "pods"), f"layer={APPLICATION}")
            if (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        )
