# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asked for a yes before uninstall touches a host; the clusters of the sites are here, and empty."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.first_look.world import ROOT, World

TOKYO, OSAKA = "bastion.tokyo.example.com", "bastion.osaka.example.com"


class Nothing(BaseHTTPRequestHandler):
    """A Kubernetes API that has no object."""

    def do_GET(self) -> None:
        body = json.dumps({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def kubeconfig(world: World) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = world.home / "kubeconfig"
    path.write_text(json.dumps(document), encoding="utf-8")
    yield str(path)
    server.shutdown()
    server.server_close()


def test_a_site_that_has_not_said_yes_loses_no_host_when_another_has(world: World, kubeconfig: str) -> None:
    # Nothing of this machine is at stake: the cluster is empty, the packet filter is only looked at, and no other host is reached.
    common: dict[str, Any] = {"circleci_kubeconfig": kubeconfig, "circleci_firewall": "reported"}
    hosts: dict[str, dict[str, Any]] = {TOKYO: common, OSAKA: {**common, "circleci_uninstall_confirmed": True}}
    result = world.run("uninstall", "multi-site", local=(TOKYO, OSAKA), hosts=hosts)
    assert set(result.stats) == {TOKYO, OSAKA}, result.messages()
    assert (result.code, result.changed) == (2, {})
    assert result.messages().count("with circleci_uninstall_confirmed: true") == 1


@pytest.mark.parametrize(("said", "data"), [(False, False), ("false", False), ("true", False), (True, "false")])
def test_a_host_alone_is_asked_too(world: World, said: Any, data: Any) -> None:
    extra = {"circleci_uninstall_confirmed": said, "circleci_uninstall_data": data}
    result = world.run("uninstall", "multi-site", local=(), extra=extra, arguments=["--limit", "nomad1.osaka.example.com"])
    assert result.code == 2 and f"circleci_uninstall_confirmed is {json.dumps(said)}" in result.messages()
    assert f"circleci_uninstall_data is {json.dumps(data)}" in result.messages()
    assert result.stats["nomad1.osaka.example.com"]["unreachable"] == 0


def test_records_go_and_what_else_lies_in_their_folder_stays(world: World) -> None:
    last = yaml.safe_load((ROOT / "playbooks/uninstall.yml").read_text(encoding="utf-8"))[-1]
    playbook = world.home / "records.yml"
    playbook.write_text(yaml.safe_dump([{**last, "hosts": TOKYO, "roles": last["roles"][:1]}], sort_keys=False), encoding="utf-8")
    state = world.home / "state"
    for name in ("mirror", "receipts", "records", "reports", "restore-points", "plan", "files", "feed", "bundle"):
        (state / name).mkdir(parents=True)
        (state / name / "file").write_text("x", encoding="utf-8")
    (state / "site.json").write_text(json.dumps({"format": 1, "site": "tokyo", "domain": "ci.tokyo.example.com"}), encoding="utf-8")
    extra = {"circleci_state_dir": str(state), "circleci_uninstall_data": True}
    predicted = world.run(str(playbook), "multi-site", local=(TOKYO,), extra=extra, arguments=["--check"])
    done = world.run(str(playbook), "multi-site", local=(TOKYO,), extra=extra)
    assert (done.code, done.changed) == (0, predicted.changed) == (0, {TOKYO: 2}), done.messages()
    assert [path.name for path in state.iterdir()] == ["bundle"]
    (state / "bundle" / "file").unlink()
    (state / "bundle").rmdir()
    again = world.run(str(playbook), "multi-site", local=(TOKYO,), extra=extra)
    assert (again.code, again.changed) == (0, {}) and not state.exists()


def test_another_host_of_the_site_leaves_records_alone(world: World) -> None:
    # It may be the control host of another site, whose folder has the same path.
    last = yaml.safe_load((ROOT / "playbooks/uninstall.yml").read_text(encoding="utf-8"))[-1]
    store = "store.tokyo.example.com"
    playbook = world.home / "records.yml"
    playbook.write_text(yaml.safe_dump([{**last, "hosts": store, "roles": last["roles"][:1]}], sort_keys=False), encoding="utf-8")
    state = world.home / "state"
    (state / "records").mkdir(parents=True)
    (state / "records" / "gates.json").write_text("{}", encoding="utf-8")
    (state / "site.json").write_text("{}", encoding="utf-8")
    before = world.files()
    result = world.run(str(playbook), "multi-site", local=(store,), extra={"circleci_state_dir": str(state), "circleci_uninstall_data": True}, arguments=["--check"])
    assert result.code == 0 and world.files() == before, result.messages()
    assert str(state) not in json.dumps(result.results("host_units")[store])
