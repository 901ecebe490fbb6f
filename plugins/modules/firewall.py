#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module firewall: all packet filter rules of one host in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Open and guard the ports of CircleCI Server on one host
version_added: 0.1.0
description:
  - Brings all packet filter rules that this collection wants on a host into being with one call, compares them in memory and changes
    nothing when they are there.
  - Touches its own scope only. With nftables that is the table C(inet onprem_circleci), with iptables the chains C(ONPREM-CIRCLECI),
    with ufw the rules whose comment begins with C(onprem-circleci), with firewalld the rich rules of priority -20470 and -20469.
    Rules of others and of Docker stay as they are and nothing is flushed or reloaded.
  - A change is taken back by the host itself unless it is confirmed within O(revert_after) seconds by a second call with
    O(state=confirmed) over a new connection.
  - Refuses rules that would shut the port by which Ansible came in, and a host on which two packet filters are active.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  state:
    description:
      - V(present) brings the rules into being, V(absent) takes those of O(site) away, or everything of ours, V(confirmed) keeps the last change.
    type: str
    choices: [present, absent, confirmed]
    default: present
  rules:
    description:
      - Rules of this host as the filter P(onprem.circleci_server.port_rules#filter) gives them.
      - The keys C(id), C(direction) (V(ingress), or V(egress_from_containers)), C(protocol) (V(tcp) or V(udp)), C(ports) (numbers and ranges),
        C(peers) (addresses and networks) and C(any_peer) are read. A rule whose C(state) is not V(apply) is skipped.
    type: list
    elements: dict
    default: []
  mode:
    description:
      - V(open) only lets in what the rules say. Where another packet filter closes ports by default, this opens them.
      - V(guard) lets in what the rules say and drops everybody else on the ports that the rules name. Other ports are not touched.
      - V(enforce) drops whatever no rule lets in. For nftables and iptables only.
    type: str
    choices: [open, guard, enforce]
    default: guard
  backend:
    description:
      - V(auto) takes firewalld or ufw where one is active, else nftables, else iptables.
    type: str
    choices: [auto, nftables, firewalld, ufw, iptables]
    default: auto
  revert_after:
    description:
      - Seconds after which the host undoes a change that nobody confirmed, 10 or more. V(0) applies it for good at once.
    type: int
    default: 60
  container_interfaces:
    description:
      - Network interfaces of containers on this host; a name may end in C(*). C(ci-privileged) is the network of Docker that CircleCI's Nomad
        clients have beside the usual ones.
    type: list
    elements: str
    default: ["docker*", "br-*", "ci-privileged"]
  management:
    description:
      - Further ways in that the rules must not shut, beside the SSH connection that Ansible uses just now.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address of the client.
        type: str
        required: true
      port:
        description: Port on this host.
        type: int
        default: 22
  site:
    description:
      - Site whose rules these are, by a name that no other site on this host has, such as its domain. Rules that other sites have on the host
        stay, whether they come or go; a port is open to whom any of them lets in.
      - Empty means that the rules are all that our scope holds, and with O(state=absent) that all of it goes.
    type: str
    default: ""
  former_sites:
    description:
      - Names that the site had before. What is known under them is replaced.
    type: list
    elements: str
    default: []
  check_only:
    description:
      - Tell what would be done and change nothing. C(changed) is then always V(false) and RV(would_change) says the truth.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns the rules before and after.
    support: full
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: Open and guard the ports of this host
  onprem.circleci_server.firewall:
    rules: "{{ groups | onprem.circleci_server.port_rules(hostvars, inventory_hostname, '4.10.0', 'generic', port_options) }}"
    revert_after: 60
  register: firewall

- name: Keep the change, over a new connection
  onprem.circleci_server.firewall:
    state: confirmed
  when: firewall.pending

- name: Let the office reach one more port
  onprem.circleci_server.firewall:
    rules:
      - id: metrics
        ports: [9100]
        peers: [192.0.2.0/24]
"""

RETURN = r"""
backend:
  description: Packet filter that was used.
  returned: success
  type: str
  sample: nftables
rules:
  description: What our scope holds, one line each.
  returned: when O(state) is not V(confirmed)
  type: list
  elements: str
  sample: ["accept IPv4 tcp 4647 from 10.0.0.21 (nomad-in-rpc)"]
added:
  description: Lines that were not there before.
  returned: when O(state) is not V(confirmed)
  type: list
  elements: str
removed:
  description: Lines that are no longer there.
  returned: when O(state) is not V(confirmed)
  type: list
  elements: str
pending:
  description: Whether the host undoes the change unless it is confirmed.
  returned: success
  type: bool
would_change:
  description: Whether the host differs from the rules.
  returned: when O(state) is not V(confirmed)
  type: bool
reverted:
  description: When the host took back an earlier change, empty if it did not.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.firewall import Engine, FirewallError, System, parse_plan
from ..module_utils.firewall.way_in import WayIn, find_way_in


def arguments() -> dict[str, Any]:
    """Options of the module."""
    return {
        "state": {"type": "str", "choices": ["present", "absent", "confirmed"], "default": "present"},
        "rules": {"type": "list", "elements": "dict", "default": []},
        "mode": {"type": "str", "choices": ["open", "guard", "enforce"], "default": "guard"},
        "backend": {"type": "str", "choices": ["auto", "nftables", "firewalld", "ufw", "iptables"], "default": "auto"},
        "revert_after": {"type": "int", "default": 60},
        "container_interfaces": {"type": "list", "elements": "str", "default": ["docker*", "br-*", "ci-privileged"]},
        "management": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"address": {"type": "str", "required": True}, "port": {"type": "int", "default": 22}},
        },
        "site": {"type": "str", "default": ""},
        "former_sites": {"type": "list", "elements": "str", "default": []},
        "check_only": {"type": "bool", "default": False},
    }


def run(module: AnsibleModule, engine: Engine) -> None:
    """Do what the options say and leave the module."""
    options = module.params
    if options["state"] == "confirmed":
        if module.check_mode:
            module.exit_json(changed=False, backend="", pending=False, reverted="")
        outcome = engine.confirm()
        module.exit_json(changed=False, backend=outcome.backend, pending=False, reverted=outcome.reverted)
    if options["revert_after"] < 0 or 0 < options["revert_after"] < 10:
        raise FirewallError(
            f"revert_after is {options['revert_after']}; 0, or at least 10 seconds for a new connection to confirm the change, is needed"
        )
    plan = None
    if options["state"] == "present":
        plan = parse_plan(options["rules"], options["mode"], options["container_interfaces"])
    ways = [WayIn(item["address"], item["port"]) for item in options["management"]]
    found = find_way_in()
    if found is not None:
        ways.append(found)
    outcome = engine.apply(
        plan,
        backend=options["backend"],
        check=module.check_mode or options["check_only"],
        revert_after=options["revert_after"],
        ways=ways,
        site=options["site"],
        former_sites=options["former_sites"],
    )
    for warning in outcome.warnings:
        module.warn(warning)
    if outcome.reverted:
        module.warn(f"an earlier change of the packet filter was not confirmed and the host took it back at {outcome.reverted}")
    module.exit_json(
        changed=outcome.changed and not options["check_only"],
        would_change=outcome.changed,
        backend=outcome.backend,
        rules=outcome.rules,
        added=outcome.added,
        removed=outcome.removed,
        pending=outcome.pending,
        reverted=outcome.reverted,
        diff={"before": outcome.before, "after": outcome.after, "before_header": "packet filter", "after_header": "packet filter"},
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=arguments(), supports_check_mode=True)
    try:
        run(module, Engine(System()))
    except FirewallError as error:
        module.fail_json(msg="; ".join(error.problems), problems=list(error.problems))


if __name__ == "__main__":
    main()
