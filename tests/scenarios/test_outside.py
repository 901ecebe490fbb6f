# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of an installed scenario as they look to others, by testinfra: what the verbs say of themselves is not asked.

Molecule runs it at the end of each platform's scenario; MOLECULE_SCENARIO_NAME says which.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
import testinfra  # type: ignore[import-untyped]
import yaml

from sandbox import layout, machine, scenarios, site, verbs

NAME = os.environ.get("MOLECULE_SCENARIO_NAME", "")
pytestmark = pytest.mark.skipif(NAME not in scenarios.SCENARIOS, reason="MOLECULE_SCENARIO_NAME names no scenario of a platform")
OURS = ("/etc", "/usr/local", "/srv", "/var/lib")
SERVICES = {
    "circleci_registry": ("registry", ("onprem-circleci-registry",)),
    "circleci_object_storage": ("store", ("onprem-circleci-object-storage", "onprem-circleci-object-storage-health.timer")),
    "circleci_nomad_clients": ("nomad1", ("docker", "circleci-network", "nomad", "docker-gc")),
}


@pytest.fixture(scope="module", autouse=True)
def daemon() -> None:
    """That of the sandbox, which is not the machine's own."""
    assert machine.daemon_answers(), "the sandbox is not up"


def host(name: str) -> Any:
    return testinfra.get_host(f"docker://{layout.host(name).container}")


@pytest.fixture(scope="module")
def wish() -> Mapping[str, Any]:
    """Variables of the site as the scenario gives them."""
    given = yaml.safe_load((scenarios.ROOT / "inventories/sandbox/group_vars/site_sandbox.yml").read_text(encoding="utf-8"))
    names = {"circleci_object_storage_bucket": "circleci-data", "circleci_object_storage_agent_bucket": "circleci-agents", "circleci_firewall": "managed"}
    return {"circleci_object_storage_region": "us-east-1", "circleci_object_storage_agent_port": 0, **names, **given, **scenarios.find(NAME).extra()}


@pytest.fixture(scope="module")
def agents(wish: Mapping[str, Any]) -> str:
    """Where the agents are loaded from: a bucket, or a port of the store's host."""
    parts, port = urlsplit(str(wish["circleci_object_storage_endpoint"])), wish["circleci_object_storage_agent_port"]
    return f"{parts.scheme}://{parts.hostname}:{port}" if port else f"{parts.geturl()}/{wish['circleci_object_storage_agent_bucket']}"


@pytest.fixture(scope="module")
def groups() -> Mapping[str, Any]:
    return scenarios.find(NAME).hosts((scenarios.ROOT / "inventories/sandbox/hosts.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def authority() -> str:
    """File on a host that trusts nothing else of the site."""
    path = "/run/authority-of-the-site.crt"
    text = site.kubectl(["get", "secret", "-n", "circleci-server", "onprem-circleci-site-ca", "-o", 'go-template={{index .data "ca.crt" | base64decode}}'])
    assert text.returncode == 0, text.stderr
    for name in ("nomad1", "nomad2"):
        assert host(name).run(f"printf %s {shlex.quote(text.stdout)} > {path}").rc == 0
    return path


def curl(name: str, authority: str, words: str) -> tuple[int, bytes]:
    """Status and body of a request from a host."""
    done = host(name).run(f"curl -s --cacert {authority} -o /run/answer -w '%{{http_code}}' {words}; code=$?; echo; cat /run/answer; rm -f /run/answer; exit $code")
    assert done.rc == 0, f"{words.split()[-1]}: curl ended with {done.rc}"
    status, _line, body = done.stdout_bytes.partition(b"\n")
    return int(status), body


def test_nomad_clients_load_an_agent_without_a_key_and_it_is_the_vendors(agents: str, authority: str) -> None:
    status, release = curl("nomad1", authority, f"{agents}/release.txt")
    assert status == 200
    folder = f"{agents}/{release.decode().strip()}"
    status, sums = curl("nomad1", authority, f"{folder}/checksums.txt")
    assert status == 200
    digest, path = sums.decode().split("\n")[0].split()
    status, agent = curl("nomad1", authority, f"{folder}/{path}")
    assert (status, hashlib.sha256(agent).hexdigest()) == (200, digest)


def test_nobody_without_a_key_lists_or_writes_or_reads_data(wish: Mapping[str, Any], agents: str, authority: str) -> None:
    data = f"{wish['circleci_object_storage_endpoint']}/{wish['circleci_object_storage_bucket']}"
    for words in (f"{agents}/", f"-X PUT -d x {agents}/release.txt", f"-X DELETE {agents}/release.txt", data, f"{data}/.onprem-circleci-site", f"-X PUT -d x {data}/x"):
        status, _body = curl("nomad2", authority, words)
        # The server of the hosts knows neither listings nor other methods.
        assert status in ((404, 501) if wish["circleci_object_storage_agent_port"] and agents in words else (401, 403)), f"{words}: {status}"


def test_another_s3_client_writes_what_a_third_host_reads(wish: Mapping[str, Any], authority: str) -> None:
    if wish["circleci_object_storage_kind"] in ("gcs_key", "gcs_workload_identity"):
        pytest.skip("curl does not sign for Google")
    keys = f"{wish['circleci_object_storage_access_key']}:{verbs.made_secrets()['circleci_object_storage_secret_key']}"
    signed = f"--aws-sigv4 aws:amz:{wish['circleci_object_storage_region']}:s3 -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD'"
    address = f"{wish['circleci_object_storage_endpoint']}/{wish['circleci_object_storage_bucket']}/from-outside/text"
    assert curl("nomad1", authority, f"{signed} --user {keys} -X PUT --data-binary 'said by curl' {address}")[0] == 200
    assert curl("nomad2", authority, f"{signed} --user {keys} {address}") == (200, b"said by curl")
    assert curl("nomad2", authority, f"{signed} --user {keys}x {address}")[0] == 403
    assert curl("nomad2", authority, f"{signed} --user {keys} -X DELETE {address}")[0] == 204


@pytest.mark.parametrize("group", SERVICES)
def test_services_run_and_come_back_after_a_boot(group: str, groups: Mapping[str, Any], wish: Mapping[str, Any]) -> None:
    if not groups[group]["hosts"]:
        pytest.skip(f"nobody runs one: {group} is empty")
    name, units = SERVICES[group]
    if name == "store" and wish["circleci_object_storage_agent_port"]:
        units = (*units, "onprem-circleci-agents")
    state = {unit: (host(name).service(unit).is_running, host(name).service(unit).is_enabled) for unit in units}
    assert state == dict.fromkeys(units, (True, True))
    if name == "store":
        looked = host(name).run("systemctl start onprem-circleci-object-storage-health.service")
        assert looked.rc == 0, host(name).check_output("journalctl -o cat -n 20 -u onprem-circleci-object-storage-health.service")


def test_store_is_no_root_and_its_keys_stay_in_a_file_of_roots(wish: Mapping[str, Any], groups: Mapping[str, Any]) -> None:
    if not groups["circleci_object_storage"]["hosts"]:
        pytest.skip("nobody runs one: circleci_object_storage is empty")
    store = host("store")
    pid = store.check_output("systemctl show --property=MainPID --value onprem-circleci-object-storage")
    assert store.check_output(f"ps -o user:32= -p {pid}").strip() == "circleci-store"
    arguments = store.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline")
    secrets = [verbs.made_secrets()["circleci_object_storage_secret_key"], str(wish.get("circleci_object_storage_backend_key") or "no key of a store behind")]
    assert not [text for text in secrets if text in arguments]
    environment = store.file("/etc/onprem-circleci/object-storage/environment")
    assert (environment.user, environment.mode) == ("root", 0o600) and secrets[0] in environment.content_string
    # 2 is what grep says when it may not read a file at all
    found = store.run(f"runuser -u nobody -- grep -rlsF -e {' -e '.join(map(shlex.quote, secrets))} {' '.join(OURS)}")
    assert found.stdout == ""
    assert host("nomad1").addr("store.site.example").port(urlsplit(str(wish["circleci_object_storage_endpoint"])).port or 443).is_reachable


@pytest.mark.parametrize(("group", "name"), [("circleci_cluster_nodes", "node1"), ("circleci_object_storage", "store")])
def test_hosts_that_are_not_in_the_inventory_are_left_alone(group: str, name: str, groups: Mapping[str, Any]) -> None:
    found = host(name).check_output(f"find {' '.join(OURS)} -maxdepth 3 -name '*onprem-circleci*' -not -path '/srv/stand-in/*'").split()
    assert bool(found) == bool(groups[group]["hosts"]), found


def test_packet_filters_are_ours_only_where_the_site_wants_it(wish: Mapping[str, Any]) -> None:
    tables = {name: host(name).check_output("nft list tables") for name in ("bastion", "registry", "nomad1", "nomad2")}
    found = {name for name, text in tables.items() if "onprem_circleci" in text}
    assert {"registry", "nomad1", "nomad2"} <= found if wish["circleci_firewall"] == "managed" else not found, found
