# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run over two sites ends when a person must act for one of them; the filters stand in plays as in the verb install."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.first_look.world import World

TOKYO, OSAKA = "bastion.tokyo.example.com", "bastion.osaka.example.com"
_FILTER = "{{ %s | onprem.circleci_server.%s(groups, hostvars | default({}), ansible_check_mode) }}"


def _facts(**facts: str) -> dict[str, Any]:
    return {"ansible.builtin.set_fact": {f"__circleci_{name}": f"{{{{ {value} }}}}" for name, value in facts.items()}}


PLAYS = [
    {
        "hosts": "circleci_sites",
        "gather_facts": False,
        "tasks": [
            _facts(site_secrets="{}"),
            {"ansible.builtin.fail": {"msg": "fails before the gates"}, "when": "gate == 'fails'"},
            _facts(gates_open="{'open': gate, 'sentence': 'Do it.'}"),
        ],
    },
    {
        "hosts": _FILTER % (["circleci_sites"], "past_gates"),
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.debug": {"msg": "went on"}},
            {"ansible.builtin.fail": {"msg": "fails behind the gates"}, "when": "fails_later | default(false)"},
            _facts(verify_site="{'reasons': []}"),
        ],
    },
    {"hosts": _FILTER % (["circleci_sites"], "exit_at_open_gates"), "gather_facts": False},
]


@pytest.mark.parametrize(
    ("tokyo", "osaka", "code", "went_on"),
    [
        pytest.param({"gate": "dns"}, {"gate": ""}, 75, {OSAKA}, id="one-waits"),
        pytest.param({"gate": "dns"}, {"gate": "dns"}, 75, set(), id="both-wait"),
        pytest.param({"gate": ""}, {"gate": ""}, 0, {TOKYO, OSAKA}, id="none-waits"),
        pytest.param({"gate": "dns"}, {"gate": "fails"}, 2, set(), id="one-waits-one-failed"),
        pytest.param({"gate": "dns"}, {"gate": "", "fails_later": True}, 2, {OSAKA}, id="one-waits-one-fails-later"),
    ],
)
def test_a_gate_of_one_site_holds_up_no_other(world: World, tokyo: dict[str, Any], osaka: dict[str, Any], code: int, went_on: set[str]) -> None:
    playbook = world.home / "gates.yml"
    playbook.write_text(yaml.safe_dump(json.loads(json.dumps(PLAYS)), sort_keys=False), encoding="utf-8")
    result = world.run(str(playbook), "multi-site", local=(TOKYO, OSAKA), hosts={TOKYO: tokyo, OSAKA: osaka})
    assert result.code == code, result.messages() + result.said
    assert set(result.results("debug")) == went_on
    assert ("A person must act" in result.said) == (code == 75)
