# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of the infrastructure probe against real parts: what it proves, and what it says when one of them is broken."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.probe import (
    InfrastructureProbe,
    Outcome,
    Settings,
    Wanted,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import Response, S3Client
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials

from .conftest import ACCESS, BUCKET, SECRET, Cluster, Docker, Registry, Store, until


def probe(cluster: Cluster, store: Store, *names: str, client: S3Client | None = None, **options: Any) -> Outcome:
    given = {"image": "registry/cimg/base:1", "registry": "registry", "driver": "raw_exec", "timeout": 30.0, "node_timeout": 1.0, "placement_grace": 1.0, **options}
    settings = Settings(bucket=BUCKET, ca=store.ca, poll=0.1, **given)
    outcome = InfrastructureProbe(cluster.api, client or store.client, settings).run([Wanted(name) for name in names])
    assert "X-Amz" not in json.dumps([outcome.problems, [item.as_dict() for item in outcome.clients]])
    return outcome


class Misled(S3Client):
    """Gives links that lead elsewhere than the store that it reads from."""

    def __init__(self, store: Store, endpoint: str = "", secret: str = SECRET) -> None:
        super().__init__(store.endpoint, Credentials(ACCESS, SECRET), ca_data=store.ca)
        self._other = S3Client(endpoint or store.endpoint, Credentials(ACCESS, secret))

    def presign(self, method: str, bucket: str, key: str, expires: int, **_options: Any) -> str:
        return self._other.presign(method, bucket, key, expires)


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def in_background(call: Any) -> Iterator[dict[str, Any]]:
    """Run a call beside the test; its result is there at the end."""
    kept: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: kept.update(result=call()))
    thread.start()
    try:
        yield kept
    finally:
        thread.join()


def test_every_client_is_proved(cluster: Cluster, store: Store) -> None:
    outcome = probe(cluster, store, "nomad1", "nomad2")
    assert outcome.problems == []
    assert outcome.passed and [client.name for client in outcome.clients] == ["nomad1", "nomad2"]
    assert all(client.scheduled and client.pulled and client.uploaded and client.read_back for client in outcome.clients)


def test_a_store_with_the_certificate_of_the_site(cluster: Cluster, tls_store: Store) -> None:
    assert probe(cluster, tls_store, "nomad1").passed
    assert tls_store.objects() == []
    (problem,) = probe(cluster, Store(tls_store.endpoint, tls_store.folder), "nomad1", client=tls_store.client).problems
    assert problem.startswith("nomad1: the certificate of the object store is not trusted there") and "circleci_ca_certificate" in problem


def test_a_bucket_that_keeps_versions_keeps_none_of_the_probe(cluster: Cluster, versioned_store: Store) -> None:
    client = versioned_store.client
    client.put(BUCKET, "artifact-of-a-user", b"one")
    client.put(BUCKET, "artifact-of-a-user", b"two")
    assert probe(cluster, versioned_store, "nomad1").passed
    versions = client.send("GET", f"/{BUCKET}", {"versions": ""}).body.decode()
    assert "nomad-probe" not in versions and versions.count("<Key>artifact-of-a-user</Key>") == 2


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("http://127.0.0.1:1", "cannot be reached from containers there"),
        ("http://no-such-store.invalid", "does not resolve in containers there"),
        ("tls", "does not speak TLS as asked"),
    ],
)
def test_a_store_that_a_client_does_not_reach(cluster: Cluster, store: Store, endpoint: str, found: str) -> None:
    endpoint = store.endpoint.replace("http:", "https:") if endpoint == "tls" else endpoint
    outcome = probe(cluster, store, "nomad1", client=Misled(store, endpoint))
    (problem,) = outcome.problems
    assert problem.startswith("nomad1: ") and found in problem
    assert outcome.clients[0].scheduled and not outcome.clients[0].uploaded


def test_a_store_that_refuses_the_link(cluster: Cluster, store: Store) -> None:
    (problem,) = probe(cluster, store, "nomad1", "nomad2", client=Misled(store, secret="wrong")).problems
    assert problem.startswith("nomad1, nomad2: the object store refused the upload: ") and "answered 403 (SignatureDoesNotMatch" in problem


def test_a_store_that_changes_what_is_written(cluster: Cluster, store: Store) -> None:
    class Changing(S3Client):
        def get(self, bucket: str, key: str, **options: Any) -> Response:
            path = store.folder / bucket / key
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            return super().get(bucket, key, **options)

    (problem,) = probe(cluster, store, "nomad1", client=Changing(store.endpoint, Credentials(ACCESS, SECRET))).problems
    assert "its artifact came back different" in problem


def test_a_client_that_is_drained(cluster: Cluster, store: Store) -> None:
    node = cluster.node("nomad2").id
    cluster.ask("POST", f"node/{node}/eligibility", {"NodeID": node, "Eligibility": "ineligible"})
    try:
        outcome = probe(cluster, store, "nomad1", "nomad2", "nomad3")
    finally:
        cluster.ask("POST", f"node/{node}/eligibility", {"NodeID": node, "Eligibility": "eligible"})
    assert [client.passed for client in outcome.clients] == [True, False, False]
    first, second = outcome.problems
    assert first.startswith("nomad2: the client is not eligible") and second.startswith("nomad3: Nomad has no client of that name")


def test_a_client_without_the_driver(cluster: Cluster, store: Store) -> None:
    (problem,) = probe(cluster, store, "nomad1", driver="podman").problems
    assert problem.startswith("nomad1: its driver podman is not there")


def test_a_client_without_room(cluster: Cluster, store: Store) -> None:
    filler = {
        "ID": "filler", "Type": "batch", "Datacenters": ["default", "dc1"],
        "TaskGroups": [{"Name": "g", "Count": 1, "Constraints": [{"LTarget": "${node.unique.id}", "Operand": "=", "RTarget": cluster.node("nomad2").id}],
                        "Tasks": [{"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["600"]},
                                   "Resources": {"CPU": 50, "MemoryMB": 990}}]}],
    }  # fmt: skip
    cluster.ask("POST", "jobs", {"Job": filler})
    try:
        until(lambda: cluster.api.allocations("filler")[0].client_status == "running", "the filler")
        outcome = probe(cluster, store, "nomad1", "nomad2", timeout=4.0)
    finally:
        cluster.api.purge("filler")
    (problem,) = outcome.problems
    assert problem.startswith("nomad2: not proved after 4 seconds; last known: the client has no room for the job (exhausted: memory)")


def test_a_job_that_hangs_is_told_with_its_last_state_and_stopped_and_shows_no_link(cluster: Cluster, store: Store) -> None:
    with black_hole() as endpoint:
        with in_background(lambda: probe(cluster, store, "nomad1", client=Misled(store, endpoint), timeout=6.0)) as kept:
            until(lambda: [line for line in arguments() if "--upload-file" in line], "curl")
            assert [line for line in arguments() if "X-Amz" in line] == [], "the link stands in a list of processes"
    (problem,) = kept["result"].problems
    assert problem.startswith("nomad1: not proved after 6 seconds; last known: Started: Task started by client")
    until(lambda: not [line for line in arguments() if "--upload-file" in line], "the end of the job")


def arguments() -> list[str]:
    """What a list of processes shows."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_a_job_that_somebody_stops(cluster: Cluster, store: Store) -> None:
    with black_hole() as endpoint:
        with in_background(lambda: probe(cluster, store, "nomad1", client=Misled(store, endpoint))) as kept:
            job = until(cluster.api.jobs, "the job")[0]
            until(lambda: cluster.api.allocations(job)[0].client_status == "running", "its start")
            cluster.ask("DELETE", f"job/{job}")
    assert kept["result"].problems[0].startswith("nomad1: somebody stopped the job")


def test_a_client_that_dies(cluster: Cluster, store: Store) -> None:
    cluster.start_client("mortal")
    until(lambda: cluster.node("mortal"), "the client")
    with black_hole() as endpoint:
        with in_background(lambda: probe(cluster, store, "mortal", client=Misled(store, endpoint), timeout=60.0, node_timeout=5.0)) as kept:
            job = until(cluster.api.jobs, "the job")[0]
            until(lambda: cluster.api.allocations(job)[0].client_status == "running", "its start")
            cluster.stop_client("mortal", signal.SIGKILL)
    assert kept["result"].problems[0].startswith("mortal: the client lost its servers while the job ran")
    assert probe(cluster, store, "mortal").problems[0].startswith("mortal: Nomad says that the client is down")


# --- Docker ---------------------------------------------------------------------------------------------------------


def in_docker(cluster: Cluster, store: Store, registry: str, client: str, image: str) -> Outcome:
    return probe(cluster, store, client, driver="docker", registry=registry, image=f"{registry}/{image}")


def test_a_container_is_pulled_with_the_login_of_the_client_every_time(cluster: Cluster, store: Store, registry: Registry, docker_client: str, docker: Docker) -> None:
    for _time in range(2):
        outcome = in_docker(cluster, store, registry.name, docker_client, "cimg/base:1")
        assert outcome.problems == [] and outcome.passed
    assert docker.run("ps", "--all", "--quiet") == "", "no container stays"
    with docker.without_login():
        (problem,) = in_docker(cluster, store, registry.name, docker_client, "cimg/base:1").problems
    assert "refused the client's login" in problem, "an image that is already there must not hide a wrong login"


def test_images_that_cannot_be_pulled_or_run(cluster: Cluster, store: Store, registry: Registry, docker_client: str) -> None:
    for image, found in (
        ("cimg/base:2", "the registry does not have it"),
        ("no/such:1", "the registry does not have it"),
        ("no-curl:1", "has no curl"),
        ("no-shell:1", "its container cannot start"),
    ):
        (problem,) = in_docker(cluster, store, registry.name, docker_client, image).problems
        assert problem.startswith("docker1: ") and found in problem, problem


def test_registries_that_a_client_does_not_reach(cluster: Cluster, store: Store, untrusted_registry: Registry, docker_client: str) -> None:
    for name, found in (
        (untrusted_registry.name, "does not trust the certificate of the registry"),
        ("127.0.0.1:1", "the registry cannot be reached from there"),
        ("no-such-registry.invalid:5000", "the name of the registry does not resolve there"),
    ):
        (problem,) = in_docker(cluster, store, name, docker_client, "cimg/base:1").problems
        assert problem.startswith("docker1: cannot pull ") and found in problem, problem
