# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site trusts, as the playbooks hand it on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.first_look.world import NAMESPACE, World

BASTION = "bastion.example.com"
OWN = {"onprem-circleci-site-ca": {"ca.crt": "own\n"}}


@pytest.mark.parametrize(
    ("given", "secrets", "trusted"),
    [("", OWN, "own\n"), ("corporate\n", OWN, "corporate\nown\n"), ("corporate\n", {}, "corporate\n"), ("", {}, "")],
    ids=["own", "both", "given", "none"],
)
def test_a_registry_and_a_domain_of_two_authorities_are_both_trusted(world: World, given: str, secrets: dict[str, Any], trusted: str) -> None:
    read = {"ansible.builtin.set_fact": {"__circleci_site_secrets": {"values": secrets}}}
    said = {"ansible.builtin.debug": {"msg": "{{ {'trusted': __circleci_site_ca} }}"}}
    playbook = world.home / "authorities.yml"
    play = {"hosts": BASTION, "gather_facts": False, "roles": [f"{NAMESPACE}.site"], "tasks": [read, said]}
    playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    result = world.run(str(playbook), "single-site", local=(BASTION,), extra={"circleci_ca_certificate": given})
    assert result.results("debug")[BASTION]["msg"] == {"trusted": trusted}, result.messages()
