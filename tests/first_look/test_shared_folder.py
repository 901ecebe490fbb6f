# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sites with one control host, which is this machine: each keeps to its own folder of records, or is told before it touches that of the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.first_look.world import ROOT, World

TOKYO, OSAKA = "bastion.tokyo.example.com", "bastion.osaka.example.com"
BOTH = (TOKYO, OSAKA)


@pytest.fixture
def folder(world: World) -> Path:
    return world.home / "shared"


def mark(folder: Path, site: str = "tokyo") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "site.json").write_text(json.dumps({"format": 1, "site": site, "domain": f"ci.{site}.example.com"}), encoding="utf-8")


def given(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "circleci_state_dir": str(folder), "circleci_kubeconfig": "/nowhere/kubeconfig", "circleci_firewall": "reported", "circleci_uninstall_confirmed": True,
        "circleci_uninstall_data": True, **more,
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["plan", "install", "uninstall"])
def test_one_folder_for_two_sites_of_an_inventory_is_refused_by_the_arguments(world: World, folder: Path, verb: str) -> None:
    # No host is asked: a plan may be made anywhere, so there it is the address that counts.
    hosts = {name: {"ansible_host": "192.0.2.10"} for name in BOTH} if verb == "plan" else {}
    before = world.files()
    result = world.run(verb, "multi-site", local=BOTH, hosts=hosts, extra=given(folder), arguments=["--check", "--limit", "site_osaka"])
    assert (result.code, result.changed) == (2, {})
    assert f"circleci_state_dir: found '{folder}', which {TOKYO} (site tokyo) has on the same host too" in result.messages()
    assert "a folder of its own for each site" in result.messages()
    assert world.files() == before


def test_the_gate_of_every_verb_that_has_the_folder_looks_whose_it_is() -> None:
    arguments = yaml.safe_load((ROOT / "arguments.yml").read_text(encoding="utf-8"))["arguments"]
    # The verb secrets writes into the cluster only.
    for verb in {*arguments["circleci_state_dir"]["verbs"]} - {"plan", "secrets"}:
        gate = yaml.safe_load((ROOT / f"playbooks/{verb}.yml").read_text(encoding="utf-8"))[0]["tasks"][0]
        assert gate["ansible.builtin.import_role"] == {"name": "onprem.circleci_server.site", "tasks_from": "gate"}, verb


@pytest.mark.parametrize(("verb", "arguments"), [("install", ["--check"]), ("uninstall", []), ("uninstall", ["--check"]), ("report", [])])
def test_the_folder_of_another_inventory_is_refused_by_its_mark(world: World, folder: Path, verb: str, arguments: list[str]) -> None:
    mark(folder)
    before = world.files()
    secret = dict.fromkeys(
        ("circleci_license", "circleci_registry_password", "circleci_object_storage_secret_key", "circleci_github_client_id", "circleci_github_client_secret"), "x"
    )
    result = world.run(verb, "multi-site", local=(OSAKA,), extra=given(folder, **secret), arguments=[*arguments, "--limit", "site_osaka"])
    assert (result.code, result.changed) == (2, {})
    assert f"circleci_state_dir: found {folder}, which belongs to the site tokyo (ci.tokyo.example.com)" in result.messages()
    assert "circleci_former_domains" in result.messages()
    assert world.files() == before


def test_preflight_tells_it_with_all_else_that_is_wrong(world: World, folder: Path) -> None:
    mark(folder)
    result = world.run("preflight", "multi-site", local=(OSAKA,), extra={"circleci_state_dir": str(folder)}, arguments=["--limit", "site_osaka"])
    assert {("state_folder", "circleci_state_dir"), ("cluster_reachable", "circleci_kubeconfig")} <= result.problems(OSAKA)
    assert world.files().keys() == {"shared", "shared/site.json"}
    free = world.run("preflight", "multi-site", local=(OSAKA,), arguments=["--limit", "site_osaka"])
    assert "state_folder" not in {check for check, _subject in free.problems(OSAKA)}


def test_plan_tells_it_in_the_document_and_writes_none_into_that_folder(world: World, folder: Path) -> None:
    mark(folder)
    extra: dict[str, Any] = {"circleci_state_dir": str(folder)}
    elsewhere = world.run("plan", "multi-site", local=(OSAKA,), extra=extra, arguments=["--limit", "site_osaka"])
    assert elsewhere.code == 0, elsewhere.messages()
    (finding,) = [item for item in world.plan("osaka")["findings"] if item["subject"] == "circleci_state_dir"]
    assert finding["severity"] == "problem" and "ci.tokyo.example.com" in finding["found"]
    before = world.files()
    result = world.run("plan", "multi-site", local=(OSAKA,), extra={**extra, "circleci_plan_dir": ""}, arguments=["--limit", "site_osaka"])
    assert result.code == 2 and "ci.tokyo.example.com" in result.messages()
    assert world.files() == before
    # A domain on paper may change until there is a site: a plan marks nothing.
    (folder / "site.json").unlink()
    assert world.run("plan", "multi-site", local=(OSAKA,), extra={**extra, "circleci_plan_dir": ""}, arguments=["--limit", "site_osaka"]).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["plan"]


def test_plans_of_all_sites_can_be_made_on_one_machine(world: World) -> None:
    result = world.run("plan", "multi-site", local=BOTH, extra={"circleci_state_dir": str(world.home / "nowhere")})
    assert result.code == 0, result.messages()


@pytest.mark.parametrize("verb", ["install", "upgrade", "verify", "report", "rollback", "restore_point", "restart", "scale"])
def test_the_folder_is_claimed_before_anything_is_written_into_it(verb: str) -> None:
    """In each play that comes first on the control host and writes; what they say of it is one file of tasks."""
    plays = yaml.safe_load((ROOT / f"playbooks/{verb}.yml").read_text(encoding="utf-8"))
    words = [json.dumps(task) for play in plays for task in play.get("tasks", [])]
    claims = [number for number, text in enumerate(words) if "claim_folder.yml" in text or '"__circleci_site_folder_state": "claimed"' in text]
    writers = ("feed_registry.yml", "mirror.yml", "prove.yml", "look.yml", "release.yml", "records_dir", "reports_dir", "restore_points_dir", "state_dir")
    writes = [number for number, text in enumerate(words) if any(word in text for word in writers) and number not in claims]
    assert claims and writes and min(claims) < min(writes)


def test_a_folder_is_claimed_once_and_a_second_run_says_so(world: World, folder: Path) -> None:
    plays = [{
        "hosts": OSAKA, "gather_facts": False, "roles": [{"role": "onprem.circleci_server.site"}],
        "tasks": [
            {"name": "look", "ansible.builtin.import_role": {"name": "onprem.circleci_server.site", "tasks_from": "folder"}},
            {"name": "claim", "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/claim_folder.yml")},
        ],
    }]  # fmt: skip
    playbook = world.home / "claim.yml"
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    foreseen = world.run(str(playbook), "multi-site", local=(OSAKA,), extra=given(folder), arguments=["--check", "--diff"])
    assert (foreseen.code, foreseen.changed) == (0, {OSAKA: 1}) and not folder.exists(), foreseen.messages()
    assert "ci.osaka.example.com" in foreseen.results("site_folder")[OSAKA]["diff"]["after"]
    assert world.run(str(playbook), "multi-site", local=(OSAKA,), extra=given(folder)).changed == {OSAKA: 1}
    for arguments in ([], ["--check"]):
        assert world.run(str(playbook), "multi-site", local=(OSAKA,), extra=given(folder), arguments=arguments).changed == {}
