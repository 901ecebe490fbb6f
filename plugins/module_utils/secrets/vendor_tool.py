# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vendor's own program for keysets, out of its mirrored image.

A cut-off control host need not have a container engine, but there is a cluster, which pulls from the private registry. So the
image runs as a pod of the namespace for a moment. The pod only sleeps and the program runs by exec: what a container prints
lies in a log file on its node and goes to whoever collects logs, what an exec prints does not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ..helm.kube import KubeApi, KubeError, core
from ..kubernetes_api.pulling import Refusal, last_word, pod, verdict
from .database_roles import Exec
from .store import ToolError

NAME = "onprem-circleci-server-keysets"
CONTAINER = "pull"
SECONDS = 180
# Should this host die in between, the cluster ends the pod.
DEADLINE = 600
KINDS = {"signing_keyset": "signing", "encryption_keyset": "encryption"}


class VendorTool:
    """C(find) gives the digest of the image, None when the registry has none; its errors are sentences of ToolError."""

    def __init__(
        self,
        api: KubeApi,
        runs: Callable[[], Exec],
        namespace: str,
        item: Mapping[str, Any],
        find: Callable[[Mapping[str, Any]], Optional[str]],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._runs, self._namespace, self._item, self._find = api, runs, namespace, item, find
        self._sleep, self._clock = sleep, clock
        self._digest: Optional[str] = None

    @property
    def image(self) -> str:
        return f"{self._item['registry']}/{self._item['repository']}"

    def missing(self) -> str:
        """Why there is no program to run, empty when there is one."""
        try:
            self._digest = self._find(self._item)
        except ToolError as error:
            return str(error)
        return "" if self._digest else f"the private registry has no {self._item['repository']}:{self._item['tag']}"

    def make(self) -> dict[str, str]:
        """A keyset for each kind. Nothing is left behind."""
        wish = pod("", f"{self.image}@{self._digest}", str(self._item["pull_secret"]))
        wish["metadata"] = {"name": NAME, "labels": {"app.kubernetes.io/managed-by": "onprem.circleci_server", "app.kubernetes.io/component": "keysets"}}
        spec: dict[str, Any] = wish["spec"]
        for name in ("nodeName", "tolerations"):
            del spec[name]  # any node that takes pods will do
        spec["activeDeadlineSeconds"] = DEADLINE
        spec["containers"][0]["command"] = ["sleep", str(DEADLINE)]
        self._remove()
        try:
            self._api.request("POST", core(self._namespace, "pods"), None, wish)
            self._wait()
            return {form: self._run(kind) for form, kind in KINDS.items()}
        finally:
            self._remove()

    def _wait(self) -> None:
        end = self._clock() + SECONDS
        while True:
            found = self._api.request("GET", core(self._namespace, "pods", NAME))
            states = [item.get("state") or {} for item in (found.get("status") or {}).get("containerStatuses") or ()]
            if any("running" in state for state in states):
                return
            said = verdict(found)
            if said and said != "pulled":
                refusal = Refusal("", last_word(self._api, self._namespace, NAME) or said)
                raise ToolError(f"{self.image} cannot be pulled: {refusal.message}; {refusal.hint}")
            if any("terminated" in state for state in states):
                raise ToolError(f"{self.image} ended at once: it has no program sleep, so it is not the image of the vendor")
            if self._clock() >= end:
                raise ToolError(f"the pod {NAME} of {self.image} does not run within {SECONDS} seconds: look at its events")
            self._sleep(1)

    def _run(self, kind: str) -> str:
        code, out, err = self._runs().run(self._namespace, NAME, CONTAINER, ["server-keysets", "generate", kind, "-a", "stdout"], "")
        if code:
            raise ToolError(f"{self.image}: generate {kind} ended with {code}: {' '.join(err.split()) or 'no message'}")
        return out.strip()

    def _remove(self) -> None:
        with contextlib.suppress(KubeError):
            self._api.request("DELETE", core(self._namespace, "pods", NAME), {"gracePeriodSeconds": "0"})
