# SPDX-License-Identifier: GPL-3.0-or-later
"""Each kind of store as the role runs it: filled, tried, changed, broken."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.health.agents import look_at_agents
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials, timestamp
from ansible_collections.onprem.circleci_server.plugins.modules import (
    object_storage_agents,
    object_storage_buckets,
    object_storage_health,
    object_storage_probe,
)
from ansible_collections.onprem.circleci_server.tests.integration_mirror.wire import Request

from .conftest import SETUPS, Site, agent_trees, bring_release, keep
from .stores import Store, azure_container

Start = Callable[..., Site]
BUCKETS: dict[str, Any] = {"site": "ci.site.example", "bucket": "circleci-data", "agent_bucket": "circleci-agents"}
GATEWAYS = [name for name, (_kind, behind, _tls) in SETUPS.items() if behind]


def make_buckets(at: Site, **options: Any) -> dict[str, Any]:
    return at.module(object_storage_buckets, **{**BUCKETS, "agents_listed": at.listed, **options})


@pytest.mark.parametrize("name", SETUPS)
def test_store_is_filled_tried_and_found_as_the_catalog_says(name: str, start: Start) -> None:
    site = start(name, versioning=SETUPS[name][0] in ("versitygw_posix", "versitygw_s3", "minio_server"))
    store = site.store
    assert store.process is not None
    shown = Path(f"/proc/{store.process.pid}/cmdline").read_text()
    assert not [secret for secret in (store.secret_key, *filter(None, [store.behind.get("key")])) if secret in shown]
    healthy = site.module(object_storage_health, bucket="circleci-data", endpoint=store.endpoint, address="127.0.0.1", wait=30)
    assert healthy.get("bucket_exists") is False, healthy
    assert store.look().returncode == 1, "no object is there yet"

    wish = {"versioning": True} if store.versioning else {}
    predicted = make_buckets(site, check=True, **wish)
    assert not predicted.get("failed"), predicted
    made = make_buckets(site, **wish)
    assert not made.get("failed"), made
    assert made["changed"] and made["changes"] == predicted["changes"] and "circleci-data" in made["changes"][0], made
    assert not make_buckets(site, **wish)["changed"]

    options = site.agents(bring_release(site.registry, "1.0.1"))
    predicted = site.module(object_storage_agents, check=True, **options)
    brought = site.module(object_storage_agents, **options)
    assert brought["changed"] and brought["uploaded"] == predicted["uploaded"] and brought["uploaded"][-1] == "release.txt", brought
    again = site.module(object_storage_agents, **options)
    assert not again["changed"] and again["bytes"] == 0

    client = store.client()
    before = sorted(entry.key for entry in client.list("circleci-agents"))
    probed = site.module(object_storage_probe, bucket="circleci-data", agent_bucket="circleci-agents", agents_listed=site.listed)
    assert not probed.get("failed"), probed["msg"]
    kind, behind, _tls = SETUPS[name]
    emulated = behind == "azurite"
    blind = "managed identities, copies of large objects" if emulated else ""
    keep(
        name, kind=kind, behind={"azurite": "Azurite", "minio_server": "MinIO", "versitygw_posix": "versitygw"}.get(behind, "a folder"), level="emulator" if emulated else "real component", blind=blind, results=probed["results"],
        changes=made["changes"],
    )  # fmt: skip
    assert sorted(entry.key for entry in client.list("circleci-agents")) == before
    assert [entry.key for entry in client.list("circleci-data")] == [".onprem-circleci-site"]

    seen = {result["name"]: result["works"] for result in probed["results"]}
    answers = site.capabilities["answers"]
    assert answers["presigned"] is (seen["presigned_get"] and seen["presigned_put"])
    assert answers["multipart"] is seen["multipart"]
    assert (answers["versioning"] is True) is (seen["versioning"] is True)
    assert answers["anonymous_bucket"] is seen["anonymous_agents"]
    assert answers["anonymous_prefix"] is seen["anonymous_agents_scope"]

    plain = client.anonymous("GET", "circleci-agents", "release.txt")
    assert (plain.status, plain.body) == (200, b"1.0.1\n")
    looked = store.look()
    assert looked.returncode == 0, looked.stdout


def test_containers_of_azure_that_the_cloud_made_before_are_filled_through_the_gateway(start: Start) -> None:
    """As cloud_prepare leaves them: the gateway has kept nothing in their metadata yet, and what is there stays."""
    site = start("versitygw_azure-azurite")
    for name in ("circleci-data", "circleci-agents"):
        assert azure_container(site.behind, name, {"onprem_circleci_site": "ci.example.com"}) == 201
    options: dict[str, Any] = {"site": "ci.example.com", "bucket": "circleci-data", "agent_bucket": "circleci-agents"}
    found = site.module(object_storage_buckets, **options)
    assert not found.get("failed") and "objects of bucket circleci-agents can be read by everybody" in found["changes"], found
    assert "bucket circleci-data" not in found["changes"]
    assert not site.module(object_storage_buckets, **options)["changed"]


@pytest.mark.parametrize("name", SETUPS)
def test_new_key_pair_opens_the_old_objects_and_the_old_one_nothing(name: str, start: Start) -> None:
    site = start(name)
    assert make_buckets(site)["changed"]
    old = site.store.secret_key
    site.store.client().put("circleci-data", "artifact", b"kept")
    site.store.stop()
    site.store.secret_key = "another secret key"
    site.store.start()
    assert site.store.client().get("circleci-data", "artifact").body == b"kept"
    with pytest.raises(S3Error, match="circleci_object_storage_secret_key") as refused:
        site.store.client(secret_key=old).get("circleci-data", "artifact")
    assert refused.value.status == 403
    assert site.store.look().returncode == 0
    assert not make_buckets(site)["changed"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_gateway_whose_store_behind_is_down_is_not_healthy(name: str, start: Start) -> None:
    site = start(name)
    make_buckets(site)
    assert site.store.look().returncode == 0
    if isinstance(site.behind, Store):
        site.behind.stop()
    else:
        site.behind["process"].kill()
        site.behind["process"].wait()
    looked = site.store.look()
    assert looked.returncode == 1 and "unhealthy" in looked.stdout
    found = site.module(object_storage_health, bucket="circleci-data", endpoint=site.store.endpoint, address="127.0.0.1", wait=1, service="onprem-circleci-object-storage")
    assert found["failed"] and "not healthy" in found["msg"] and "journalctl -u onprem-circleci-object-storage" in found["msg"]


@pytest.mark.parametrize("name", [name for name in GATEWAYS if name.startswith("versitygw")])
def test_key_of_the_store_behind_that_was_changed_there_is_named(name: str, start: Start) -> None:
    site = start(name)
    make_buckets(site)
    site.store.stop()
    site.store.behind["key"] = "AAAA"
    service = site.store.service
    # The bucket of policies is there already; with the wrong key it could not be asked for.
    site.store.service = lambda: {**service(), "policies": ""}  # type: ignore[method-assign]
    try:
        site.store.start(wait=False)
    except RuntimeError as error:
        assert "ended with" in str(error)  # the gateway says no at once, which systemd and the health check show
        return
    found = site.module(object_storage_health, bucket="circleci-data", endpoint=site.store.endpoint, address="127.0.0.1", wait=5, backend=True)
    assert found["failed"] and "circleci_object_storage_backend_key" in found["msg"], found["msg"]
    assert site.store.look().returncode == 1


# --- rules for browsers, expiry ------------------------------------------------------------------------------------------


def preflight(store: Store, origin: str) -> str:
    """What a browser asks before a page of *origin* may read an object."""
    wire = {"origin": origin, "access-control-request-method": "GET"}
    return store.client().send("OPTIONS", "/circleci-data/artifact", headers=wire, signed=False).header("access-control-allow-origin")


@pytest.mark.parametrize("name", [name for name in SETUPS if name.startswith("versitygw") and not name.endswith("-tls")])
def test_only_pages_of_the_site_may_use_presigned_urls(name: str, start: Start) -> None:
    site = start(name)
    wish = {"origins": ["https://app.ci.site.example"]}
    predicted = make_buckets(site, check=True, **wish)
    made = make_buckets(site, **wish)
    assert made["changes"] == predicted["changes"] and "pages of https://app.ci.site.example may use presigned URLs" in made["changes"][2], made
    assert not make_buckets(site, **wish)["changed"]
    site.store.client().put("circleci-data", "artifact", b"x")
    assert preflight(site.store, "https://app.ci.site.example") == "https://app.ci.site.example"
    assert preflight(site.store, "https://elsewhere.example") == ""
    assert make_buckets(site, origins=[])["changed"] and not make_buckets(site, origins=[])["changed"]
    assert preflight(site.store, "https://app.ci.site.example") == ""


def test_origins_of_minio_are_those_of_the_whole_server(start: Start) -> None:
    site = start("minio_server", origins=["https://app.ci.site.example"])
    make_buckets(site)
    assert preflight(site.store, "https://app.ci.site.example") == "https://app.ci.site.example"
    assert preflight(site.store, "https://elsewhere.example") == ""


def test_expiry_of_minio_touches_neither_audit_logs_nor_agents(start: Start) -> None:
    site = start("minio_server")
    make_buckets(site)
    client = site.store.client()
    for key in ("artifacts/1", "audit-logs/2026/1"):
        client.put("circleci-data", key, b"x")
    made = make_buckets(site, expiry_days=30)
    assert made["changes"] == ["bucket circleci-data: objects below artifacts/ expire after 30 days"], made
    assert not make_buckets(site, expiry_days=30)["changed"]
    assert client.configuration("circleci-agents", "lifecycle") == b""
    assert make_buckets(site, expiry_days=0)["changed"] and client.configuration("circleci-data", "lifecycle") == b""


# --- a run that is killed -----------------------------------------------------------------------------------------------

DRIVER = """
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.onprem.circleci_server.plugins.modules import object_storage_agents
with patch_module_args({**json.load(sys.stdin), "_ansible_check_mode": False, "_ansible_diff": False}):
    object_storage_agents.main()
"""


@pytest.mark.parametrize(
    ("name", "at"),
    [
        *(("versitygw_posix", at) for at in (1, 1 << 20, (3 << 20) + 1, (6 << 20) + 10, "checksums", "switch", "last switch")),
        *(("minio_server", at) for at in (1 << 20, "last switch")),
        ("versitygw_azure-azurite", 1 << 20),
    ],
)
def test_killed_upload_of_agents_leaves_the_old_version_working(name: str, at: Any, start: Start, wire: Callable[..., Any]) -> None:
    site = start(name)
    make_buckets(site)
    site.module(object_storage_agents, **site.agents(bring_release(site.registry, "1.0.1")))
    options = site.agents(bring_release(site.registry, "1.0.2"))

    between = wire(("127.0.0.1", site.store.port))
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if isinstance(at, int):
        between.watch.append((at, process.kill))
    else:
        wanted = {"checksums": "docker-provisioner/1.0.2/checksums.txt", "switch": "docker-provisioner/release.txt", "last switch": "agents/release.txt"}[at]

        def kill(request: Request) -> tuple[int, dict[str, str], bytes] | None:
            if request.method != "PUT" or not request.path.endswith(wanted):
                return None
            process.kill()
            return 503, {}, b""

        between.handler = kill
    process.communicate(json.dumps({**options, "endpoint": f"http://{between.host}"}).encode())
    assert process.returncode == -9, "it was not killed"

    client = site.store.client()
    assert client.get("circleci-agents", "release.txt").body == b"1.0.1\n"
    for folder, agent in (("", "circleci-agent"), ("docker-provisioner/", "agent")):
        version = client.get("circleci-agents", f"{folder}release.txt").body.decode().strip()
        assert version == ("1.0.2" if folder and at == "last switch" else "1.0.1")
        content = client.get("circleci-agents", f"{folder}{version}/linux/amd64/{agent}").body
        assert hashlib.sha256(content).hexdigest() in client.get("circleci-agents", f"{folder}{version}/checksums.txt").body.decode()
    again = site.module(object_storage_agents, **options)
    assert again["changed"] and again["uploaded"][-1] == "release.txt", again
    assert client.get("circleci-agents", "release.txt").body == b"1.0.2\n"
    assert client.get("circleci-agents", "1.0.2/linux/amd64/circleci-agent").body.startswith(b"build-agent 1.0.2\n")


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def posix(start: Start) -> Site:
    site = start("versitygw_posix")
    make_buckets(site)
    return site


def test_wrong_key_is_a_sentence_without_the_key(posix: Site) -> None:
    found = make_buckets(posix, secret_key="wrong-and-not-shown")
    assert found["failed"] and "circleci_object_storage_secret_key" in found["msg"] and "wrong-and-not-shown" not in str(found["msg"])


def test_bucket_of_another_site_is_refused_and_never_deleted(posix: Site) -> None:
    found = make_buckets(posix, site="ci.other.example")
    assert found["failed"] and "'ci.site.example'" in found["msg"] and "cannot share" in found["msg"]
    gone = make_buckets(posix, site="ci.other.example", state="absent")
    assert not gone["changed"] and posix.store.client().bucket_exists("circleci-data")


def test_data_bucket_that_everybody_can_read_is_refused(posix: Site) -> None:
    found = make_buckets(posix, bucket="circleci-agents", agent_bucket="others")
    assert found["failed"] and "can be read by everybody" in found["msg"]


def test_own_buckets_go_with_all_that_is_in_them(start: Start) -> None:
    site = start("versitygw_posix", versioning=True)
    make_buckets(site, versioning=True)
    client = site.store.client()
    for content in (b"first", b"second"):
        client.put("circleci-data", "kept/in/versions", content)
    client.delete("circleci-data", "kept/in/versions")
    assert make_buckets(site, state="absent", check=True)["changed"] and client.bucket_exists("circleci-data")
    assert make_buckets(site, state="absent")["changed"]
    assert not client.bucket_exists("circleci-data") and not client.bucket_exists("circleci-agents")
    assert not make_buckets(site, state="absent")["changed"]


def test_store_that_is_gone_already_leaves_nothing_to_delete(posix: Site) -> None:
    posix.store.stop()
    gone = make_buckets(posix, state="absent", store_may_be_missing=True)
    assert not gone["changed"] and not gone.get("failed")
    assert make_buckets(posix, state="absent")["failed"]


def test_clock_that_is_wrong_is_named(posix: Site) -> None:
    client = posix.store.client()
    late = timestamp(datetime.now(timezone.utc) - timedelta(minutes=20))
    with pytest.raises(S3Error, match="clocks"):
        client.expect("reading", client.send("GET", "/circleci-data", {"list-type": "2"}, when=late), 200)


@pytest.mark.parametrize(("name", "scheme", "other"), [("versitygw_posix", "https", "http"), ("versitygw_posix-tls", "http", "https")])
def test_http_and_https_mixed_up_is_named(name: str, scheme: str, other: str, start: Start) -> None:
    store = start(name).store
    client = S3Client(f"{scheme}://127.0.0.1:{store.port}", Credentials("a", "b", "us-east-1"))
    with pytest.raises(S3Error, match=f"write {other}:// in circleci_object_storage_endpoint"):
        client.bucket_exists("circleci-data")


def test_certificate_of_an_unknown_authority_is_named(start: Start) -> None:
    store = start("versitygw_posix-tls").store
    with pytest.raises(S3Error, match="not trusted"):
        S3Client(store.endpoint, Credentials("a", "b", "us-east-1"), address="127.0.0.1").bucket_exists("circleci-data")


def test_agent_that_is_stored_compressed_is_replaced(posix: Site) -> None:
    options = posix.agents(bring_release(posix.registry, "1.0.1"))
    posix.module(object_storage_agents, **options)
    key = "1.0.1/linux/amd64/circleci-agent"
    client = posix.store.client()
    where, trees = f"http://127.0.0.1:{posix.store.port}/circleci-agents", agent_trees()
    assert look_at_agents(where, trees) == [], "verify loads them without a login"
    client.put("circleci-agents", key, b"\x1f\x8bcompressed", headers={"content-encoding": "gzip"})
    assert look_at_agents(where, trees) == [f"{key}: still gzip-encoded"]
    again = posix.module(object_storage_agents, **options)
    assert again["uploaded"] == [key]
    assert client.head("circleci-agents", key).header("content-encoding") == ""  # type: ignore[union-attr]


def test_program_that_contradicts_the_vendors_sums_is_refused(posix: Site) -> None:
    files = bring_release(posix.registry, "1.0.1")
    posix.registry.artifact("onprem/files/build-agent", "1.0.1", {"circleci-agent": b"something else"})
    found = posix.module(object_storage_agents, **posix.agents(files))
    assert found["failed"] and "Nothing was uploaded" in found["msg"]
    assert [entry.key for entry in posix.store.client().list("circleci-agents")] == [".onprem-circleci-site"]
