#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module connectivity: proves the port rules from one host by connecting."""

from __future__ import annotations

DOCUMENTATION = r"""
module: connectivity
short_description: Prove by real connections what a host reaches and what it does not
version_added: 0.1.0
description:
  - Tries all connections of one host in one call, many at once, and says of each what was found and whether that was expected.
  - Lists what listens on the host and no rule explains.
  - Changes nothing and does not fail because of what it finds; the role verify judges the findings of all hosts together.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  flows:
    description:
      - List of the connections to try, as the filter P(onprem.circleci_server.port_flows#filter) gives them, its JSON text, or that text packed by
        the filter P(onprem.circleci_server.packed_json#filter).
      - Give the packed text when they are many, for the reason that RV(connections) is a text; with pipelining, Python reads what it is given byte by byte.
      - The keys are C(name), C(address), C(port), C(protocol) (V(tcp) or V(udp)), C(expect), C(server_name) (name for TLS and HTTP),
        C(path) and C(status) (for HTTP), C(timeout), C(datagram) (for UDP, V(serf) is a ping that Nomad servers
        answer), and C(rule), C(from), C(to), C(reason), which are passed on.
      - C(expect) is V(open) (a listener answers), V(reachable) (a listener, or a refusal by the host itself), V(closed) (no answer, or
        a packet filter's rejection), V(tls) (a trusted chain that has not ended), V(http) or V(https) (an answer below 500, or one of C(status)).
      - Over UDP, V(closed) is proved by a packet filter's rejection and refuted by an answer. Silence and a refusal prove nothing by themselves;
        M(onprem.circleci_server.site_verdict) judges them beside what other hosts heard from the same place.
    type: json
    default: "[]"
  timeout:
    description: Seconds until a connection counts as not answered.
    type: float
    default: 3
  parallel:
    description: How many connections are open at once, 1 to 512. Those that must stay closed are waited for beside them, 256 at once, 2 seconds each.
    type: int
    default: 64
  ca_certificate:
    description: PEM of a private authority that TLS connections trust beside those of the system.
    type: str
    default: ""
  minimum_days:
    description: A certificate that ends sooner is told in RV(connections).
    type: int
    default: 30
  listeners:
    description: Whether to look for listeners that no rule explains.
    type: bool
    default: false
  rules:
    description: Rules of this host, from the filter P(onprem.circleci_server.port_rules#filter), as O(flows) are given; they explain listeners.
    type: json
    default: "[]"
  known_ports:
    description: Further ports whose listeners need no rule.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode; nothing ever changes.
    support: none
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Prove the port rules from this host
  onprem.circleci_server.connectivity:
    flows: "{{ groups | onprem.circleci_server.port_flows(hostvars, inventory_hostname, '4.10.0', 'generic', port_options)
      | onprem.circleci_server.packed_json }}"
    ca_certificate: "{{ lookup('ansible.builtin.file', 'site-ca.pem') }}"
    listeners: true
    rules: "{{ groups | onprem.circleci_server.port_rules(hostvars, inventory_hostname, '4.10.0', 'generic', port_options)
      | onprem.circleci_server.packed_json }}"
"""

RETURN = r"""
connections:
  description:
    - JSON text of a list with one mapping for each flow.
    - A text, since Ansible handles every value of a list by itself, which takes it minutes for the thousands of connections of a large site.
  returned: success
  type: str
  contains:
    name:
      description: Name of the flow.
      type: str
    address:
      description: Address that was connected to.
      type: str
    port:
      description: Port that was connected to.
      type: int
    protocol:
      description: Either V(tcp) or V(udp).
      type: str
    expect:
      description: What was expected.
      type: str
    found:
      description: What was found, for instance V(open), V(refused), V(timeout), V(rejected), V(tls), V(untrusted).
      type: str
    verdict:
      description: V(proved), V(failed), or V(unproved) when the finding says nothing either way.
      type: str
    detail:
      description: Why, in words.
      type: str
    milliseconds:
      description: How long it took.
      type: int
    days_left:
      description: Days until the certificate ends, for TLS.
      type: int
listeners:
  description: Listeners that no rule explains.
  returned: success
  type: list
  elements: dict
summary:
  description: How many flows were proved, failed and unproved.
  returned: success
  type: dict
  sample: {"proved": 12, "failed": 0, "unproved": 1}
"""

import json
import ssl
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.connectivity import FlowError, listeners, parse_flows, probe, unexplained
from ..module_utils.json_option import mappings_of


def arguments() -> dict[str, Any]:
    """Options of the module."""
    return {
        "flows": {"type": "json", "default": "[]"},
        "timeout": {"type": "float", "default": 3},
        "parallel": {"type": "int", "default": 64},
        "ca_certificate": {"type": "str", "default": ""},
        "minimum_days": {"type": "int", "default": 30},
        "listeners": {"type": "bool", "default": False},
        "rules": {"type": "json", "default": "[]"},
        "known_ports": {"type": "list", "elements": "int", "default": []},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=arguments(), supports_check_mode=True)
    options = module.params
    problems = []
    if not 1 <= options["parallel"] <= 512:
        problems.append(f"parallel is {options['parallel']}; a number from 1 to 512 is needed")
    if not 0 < options["timeout"] <= 60:
        problems.append(f"timeout is {options['timeout']}; more than 0 and at most 60 seconds are needed")
    given = {name: mappings_of(name, options[name], problems) for name in ("flows", "rules")}
    flows = []
    try:
        flows = parse_flows(given["flows"], options["timeout"])
    except FlowError as error:
        problems.extend(error.problems)
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    try:
        outcomes = probe(flows, options["parallel"], options["ca_certificate"], options["minimum_days"])
    except ssl.SSLError as error:
        module.fail_json(msg=f"ca_certificate is no PEM certificate: {error}")
    found = unexplained(listeners(), given["rules"], options["known_ports"]) if options["listeners"] else []
    summary = {verdict: sum(item.verdict == verdict for item in outcomes) for verdict in ("proved", "failed", "unproved")}
    module.exit_json(
        changed=False,
        connections=json.dumps([item.as_dict() for item in outcomes]),
        listeners=[item.as_dict() for item in found],
        summary=summary,
    )


if __name__ == "__main__":
    main()
