# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The registry of a DigitalOcean account integrated with clusters of it, by its REST API. It is one switch of a cluster, and is never put back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..cloud import CloudError
from ..cloud.digitalocean import DigitalOceanApi
from .model import NODES, Rights, wrong_nodes

NODE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NODE_FORM = "ids of clusters, such as bd5f5959-5e1e-4205-a714-a914373942af"
REGISTRY_FORM = "nothing: the account's own registry is meant"


class IntegratedClusters(Rights):
    """DigitalOcean then keeps a Secret for pulling in each namespace of the cluster."""

    def __init__(self, host: str, nodes: Sequence[str], token: str, endpoint: str = "") -> None:
        super().__init__(host, nodes)
        problems = [*wrong_nodes(nodes, NODE, NODE_FORM)]
        if problems:
            raise CloudError(*problems)
        self.rest = DigitalOceanApi(token, endpoint)

    def read(self) -> tuple[list[str], list[str]]:
        problems = []
        for name in self.nodes:
            answer = self.rest.call("GET", f"/v2/kubernetes/clusters/{name}", absent=True)
            if answer.status == 404:
                problems.append(f"{NODES}: there is no cluster {name} in the account; doctl kubernetes cluster list shows those that are")
            elif (answer.data.get("kubernetes_cluster") or {}).get("registry_enabled"):
                self.found[name] = "the integration of the registry"
            self.wanted[name] = "the integration of the registry"
        return self.lines(problems)

    def apply(self) -> Iterator[str]:
        self.rest.call("POST", "/v2/kubernetes/registry", {"cluster_uuids": self.missing})
        yield from self.missing
