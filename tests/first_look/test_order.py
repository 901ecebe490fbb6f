# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order plays go through many hosts, where it matters."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.first_look.world import ROOT, World

CLIENTS = ("nomad1.osaka.example.com", "nomad2.osaka.example.com")


@pytest.mark.parametrize("verb", ["install", "upgrade", "uninstall"])
def test_rules_of_a_host_are_confirmed_before_those_of_the_next_host_change(world: World, verb: str) -> None:
    # With more hosts than forks, the first ones would otherwise have taken their rules back when they are asked.
    plays = yaml.safe_load((ROOT / f"playbooks/{verb}.yml").read_text(encoding="utf-8"))
    (found,) = [play for play in plays if "firewall" in str([play.get("roles"), play.get("tasks")])]
    steps = [{"ansible.builtin.command": {"argv": ["true", step]}, "name": step, "changed_when": False} for step in ("change", "confirm")]
    playbook = world.home / "order.yml"
    playbook.write_text(yaml.safe_dump([{**found, "hosts": ",".join(CLIENTS), "roles": [], "tasks": steps}], sort_keys=False), encoding="utf-8")
    result = world.run(str(playbook), "multi-site", local=CLIENTS, arguments=["--forks", "1"])
    assert result.code == 0, result.messages()
    done = [(host, event["task"]["name"]) for event in result.events if event.get("_event") == "v2_runner_on_ok" for host in event["hosts"]]
    assert sorted(done) == [(host, step) for host in CLIENTS for step in ("change", "confirm")]
    assert [done[0][0], done[2][0]] == [done[1][0], done[3][0]]
