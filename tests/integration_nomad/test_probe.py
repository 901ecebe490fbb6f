# SPDX-License-Identifier: GPL-3.0-or-later
"""The infrastructure probe against real parts."""

from __future__ import annotations

from typing import Any

from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.probe import (
    InfrastructureProbe,
    Outcome,
    Settings,
    Wanted,
)

from .conftest import BUCKET, Cluster, Store


def probe(cluster: Cluster, store: Store, *names: str, **options: Any) -> Outcome:
    settings = Settings(image="registry/cimg/base:1", registry="registry", bucket=BUCKET, driver="raw_exec", poll=0.1,
                        **{"timeout": 30.0, "node_timeout": 5.0, "placement_grace": 0.5, **options})  # fmt: skip
    return InfrastructureProbe(cluster.api, store.client, settings).run([Wanted(name) for name in names])


def test_every_client_is_proved(cluster: Cluster, store: Store) -> None:
    outcome = probe(cluster, store, "nomad1", "nomad2")
    assert outcome.problems == []
    assert outcome.passed and [client.name for client in outcome.clients] == ["nomad1", "nomad2"]
    assert all(client.scheduled and client.pulled and client.uploaded and client.read_back for client in outcome.clients)
