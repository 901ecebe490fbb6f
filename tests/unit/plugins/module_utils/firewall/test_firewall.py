# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules, texts and refusals of the packet filter engine on a host that is only played."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import (
    Engine,
    FirewallError,
    base,
    firewalld,
    iptables,
    nftables,
    parse_plan,
    ufw,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import engine as engine_module
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.nftables import forward_chain
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.plan import plan_of, together
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.system import Result, System
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.way_in import WayIn, parse_connection
from ansible_collections.onprem.circleci_server.plugins.modules import firewall as firewall_module

RULES: list[dict[str, Any]] = [
    {"id": "ssh", "ports": ["22"], "peers": ["10.0.0.1/32", "fd00::1"]},
    {"id": "rerun", "ports": ["64535-65535"], "peers": [], "any_peer": True, "published": True},
    {"id": "serf", "protocol": "udp", "ports": [4648], "peers": ["10.0.0.0/24"]},
    {"id": "metadata", "direction": "egress_from_containers", "protocol": "any", "action": "drop", "peers": ["169.254.0.0/16"]},
    {"id": "dns", "direction": "egress_from_containers", "protocol": "udp", "ports": ["53"], "peers": ["10.0.0.2"]},
    {"id": "told", "ports": ["1"], "peers": ["10.0.0.9"], "state": "documented, not served"},
    {"id": "out", "direction": "egress", "ports": ["443"], "peers": ["10.0.0.9"]},
]


class Played(System):
    """Commands answer from a table; scripts are remembered."""

    def __init__(self, root: Path, programs: Sequence[str], answers: Optional[dict[str, Any]] = None) -> None:
        super().__init__(root=str(root))
        self.programs = {"sh", *programs}
        self.answers: dict[str, Any] = answers or {}
        self.scripts: list[str] = []
        self.spawned: list[Sequence[str]] = []
        self.on_script: Optional[Callable[[str], Result]] = None

    def which(self, program: str) -> Optional[str]:
        return f"/usr/sbin/{program}" if program in self.programs else None

    def run(self, argv: Sequence[str], stdin: str = "", check: bool = False, env: Optional[Mapping[str, str]] = None) -> Result:
        self.calls += 1
        line = " ".join(argv)
        if argv[0] == "sh":
            self.scripts.append(stdin or (self.read(argv[1].replace(self.root, "", 1)) or ""))
            return self.on_script(stdin) if self.on_script and stdin else Result(0, "", "")
        for start, answer in self.answers.items():
            if line.startswith(start):
                result: Result = answer() if callable(answer) else answer
                if check and result.code:
                    raise FirewallError(f"{line} failed: {result.err}")
                return result
        return Result(1, "", "unknown")

    def spawn(self, argv: Sequence[str]) -> None:
        self.spawned.append(argv)


@pytest.fixture
def nft(tmp_path: Path) -> Played:
    """A host with nftables whose kernel lists what was loaded last."""
    system = Played(tmp_path, ["nft"])
    system.answers["nft -s list table"] = lambda: Result(0 if system.read(nftables.RULES) else 1, system.read(nftables.RULES) or "", "")
    system.answers["nft list chains"] = Result(0, "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n", "")
    return system


# The plan


def test_plan_reads_the_models_rules() -> None:
    plan = parse_plan(RULES, "guard")
    assert plan.lines() == [
        "accept IPv4 tcp 22 from 10.0.0.1 (ssh)",
        "accept IPv6 tcp 22 from fd00::1 (ssh)",
        "accept IPv4 tcp 64535-65535 from anywhere (rerun)",
        "accept IPv6 tcp 64535-65535 from anywhere (rerun)",
        "accept IPv4 udp 4648 from 10.0.0.0/24 (serf)",
        "drop from containers to 169.254.0.0/16 except name resolution by 10.0.0.2/32",
        "drop tcp 22, 64535-65535 from everybody else",
        "drop udp 4648 from everybody else",
    ]


def test_every_problem_of_the_rules_is_told_at_once() -> None:
    with pytest.raises(FirewallError) as caught:
        parse_plan(
            [
                {"id": "backwards", "ports": ["65535-64535"], "peers": ["10.0.0.1"]},
                {"id": "cidr", "ports": [22], "peers": ["10.0.0.1/8", "here"]},
                {"id": "nobody", "ports": [22], "peers": []},
                {"id": "high", "ports": [70000], "peers": ["10.0.0.1"]},
                {"id": "name", "ports": ["ssh"], "peers": ["10.0.0.1"]},
                {"id": "sctp", "protocol": "sctp", "ports": [22], "peers": ["10.0.0.1"]},
                {"id": 'in"jection', "ports": [22], "peers": ["10.0.0.1"]},
                {"id": "sideways", "direction": "sideways"},
                {"id": "drop", "action": "drop", "ports": [22], "peers": ["10.0.0.1"]},
                {"id": "noport", "peers": ["10.0.0.1"]},
            ],
            "half-open",
            ["eth0; reboot"],
        )
    text = str(caught.value)
    for part in (
        "port range '65535-64535' runs backwards; write 64535-65535", "peer '10.0.0.1/8' is not", "peer 'here' is not",
        "rule nobody: no peer has an address", "port 70000 is outside", "port 'ssh'; a number", "protocol 'sctp'",
        "the id needs letters", "direction 'sideways'", "action 'drop'", "rule noport: no port is named",
        "mode 'half-open' is unknown; known are open, guard, enforce", "interface 'eth0; reboot'",
    ):  # fmt: skip
        assert part in text


def test_verdict() -> None:
    guard, enforce, opened = (parse_plan(RULES, mode) for mode in ("guard", "enforce", "open"))
    assert guard.verdict("10.0.0.1", "tcp", 22) == "accept"
    assert guard.verdict("::ffff:10.0.0.1", "tcp", 22) == "accept"
    assert guard.verdict("10.0.0.2", "tcp", 22) == "drop"
    assert guard.verdict("10.0.0.2", "tcp", 80) == "continue"
    assert guard.verdict("127.0.0.1", "tcp", 22) == "accept"
    assert guard.verdict("fd00::9%eth0", "tcp", 65000) == "accept"
    assert enforce.verdict("10.0.0.2", "tcp", 80) == "drop"
    assert opened.verdict("10.0.0.2", "tcp", 22) == "continue"


def test_guarded_ports_are_merged() -> None:
    rules = [{"id": str(n), "ports": [p], "peers": ["10.0.0.1"]} for n, p in enumerate(("80-90", "85-100", "101", "22"))]
    assert parse_plan(rules, "guard").guarded("tcp") == ((22, 22), (80, 101))


# Texts


def test_nftables_names_no_table_but_ours() -> None:
    text = nftables.table_text(parse_plan(RULES, "guard"))
    assert {line.split()[-2 if line.endswith("{") else -1] for line in text.splitlines() if "table " in line} == {"onprem_circleci"}
    assert "flush" not in text
    assert 'ip saddr 10.0.0.1 tcp dport 22 accept comment "ssh"' in text
    assert 'ct status dnat meta l4proto tcp ct original proto-dst { 22, 64535-65535 } counter drop' in text
    assert "policy drop" not in nftables.table_text(parse_plan(RULES, "enforce"))
    assert "everybody else" not in nftables.table_text(parse_plan(RULES, "open"))


def test_iptables_fills_own_chains_only() -> None:
    for version in (4, 6):
        text = iptables.restore_text(parse_plan(RULES, "guard"), version, ("filter", "mangle"))
        rules = [line for line in text.splitlines() if not line.startswith(("#", "*", "COMMIT"))]
        assert all(line.startswith(("-A ONPREM-CIRCLECI ", ":ONPREM-CIRCLECI ")) for line in rules)
    ports = [(port, port) for port in range(1000, 1040, 2)] + [(2000, 2999)]
    assert [len(part) for part in iptables.chunks(ports)] == [15, 6]


def test_ufw_keeps_what_others_wrote() -> None:
    others = (
        "*filter\n### RULES ###\n\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=" + b"mine".hex()
        + "\n-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n\n### END RULES ###\n"
    )  # fmt: skip
    ours = ufw.tuples(parse_plan(RULES, "guard"), 4)
    assert "-A ufw-user-input -p tcp --dport 22 -s 10.0.0.1 -j ACCEPT" in ours
    assert "### tuple ### allow udp 4648 0.0.0.0/0 any 10.0.0.0/24 in comment=" in ours
    first = ufw.merged(others, ours, True)
    assert first.index("10.0.0.1") < first.index(b"mine".hex())
    last = ufw.merged(others, ours, False)
    assert last.index("10.0.0.1") > last.index(b"mine".hex())
    for text in (first, last):
        assert ufw.without_ours(text)[0] == others
        assert ufw.merged(text, ours, text is first) == text
    with pytest.raises(FirewallError, match="no RULES section"):
        ufw.merged("", ours, True)


def test_firewalld_rules_are_told_apart_by_priority() -> None:
    rules = firewalld.rich_rules(parse_plan(RULES, "guard"))
    assert 'rule priority="-20470" family="ipv4" source address="10.0.0.1" port port="22" protocol="tcp" accept' in rules
    assert 'rule priority="-20469" port port="22" protocol="tcp" drop' in rules
    listing = [*rules, 'rule family="ipv4" source address="1.2.3.4" accept']
    assert firewalld.ours(listing) == sorted(rules)


# Choosing


LOOK = json.dumps({"default": "public", "active": ["docker"], "rules": {"now": {"public": [], "docker": []}, "always": {"public": [], "docker": []}}})


def with_firewalld(root: Path, answer: Result, interpreter: str = "#!/usr/bin/python3 -sP\n") -> Played:
    """A host whose firewalld answers, or does not."""
    system = Played(root, ["firewall-cmd", "nft", "systemctl"], {"/usr/bin/python3 -c": answer})
    system.write("/usr/sbin/firewall-cmd", interpreter)
    return system


def test_two_active_filters_are_refused(tmp_path: Path) -> None:
    system = with_firewalld(tmp_path, Result(0, LOOK, ""))
    system.write("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    with pytest.raises(FirewallError, match=r"two packet filters are active on this host \(firewalld and ufw\)"):
        Engine(system).choose("auto")


def test_the_active_one_is_taken_and_another_refused(tmp_path: Path) -> None:
    system = Played(tmp_path, ["nft", "iptables-restore"])
    assert Engine(system).choose("auto").name == "nftables"
    assert Engine(system).choose("iptables").name == "iptables"
    with pytest.raises(FirewallError, match="backend ufw is asked for, but it is not active"):
        Engine(system).choose("ufw")
    system.write("/etc/ufw/ufw.conf", 'ENABLED="yes"\n')
    assert Engine(system).choose("auto").name == "ufw"
    with pytest.raises(FirewallError, match="backend nftables is asked for, but ufw is active"):
        Engine(system).choose("nftables")
    with pytest.raises(FirewallError, match="backend 'pf' is unknown; known are auto, nftables, firewalld, ufw, iptables"):
        Engine(system).choose("pf")
    with pytest.raises(FirewallError, match="nft or iptables is not installed"):
        Engine(Played(tmp_path / "empty", [])).choose("auto")


@pytest.mark.parametrize("words", ["not running", "FAILED", "org.freedesktop.DBus.Error.FileNotFound: no socket"])
def test_firewalld_that_does_not_answer(tmp_path: Path, words: str) -> None:
    system = with_firewalld(tmp_path, Result(1, "", words))
    assert Engine(system).choose("auto").name == "nftables", "not started: what else is there is used"
    system.answers["systemctl is-active"] = Result(0, "", "")
    system.systemd = lambda: True  # type: ignore[method-assign]
    with pytest.raises(FirewallError, match=rf"firewalld is started but does not answer \({words}\)"):
        Engine(system).choose("auto")


def test_firewalld_that_refuses_is_no_absent_one(tmp_path: Path) -> None:
    system = with_firewalld(tmp_path, Result(1, "", "firewalld refuses: org.fedoraproject.FirewallD1.NotAuthorizedException"))
    with pytest.raises(FirewallError, match=r"firewalld refuses: .*NotAuthorizedException; look at"):
        Engine(system).choose("auto")


def test_a_firewall_cmd_that_is_no_python(tmp_path: Path) -> None:
    system = with_firewalld(tmp_path, Result(0, "", ""), "#!/bin/sh\n")
    assert Engine(system).choose("auto").name == "nftables"
    system.answers["firewall-cmd --state"] = Result(0, "running\n", "")
    with pytest.raises(FirewallError, match="does not name the Python that runs it in its first line"):
        Engine(system).apply(parse_plan(RULES, "guard"))


def test_firewalld_is_asked_once_for_all(tmp_path: Path) -> None:
    system = with_firewalld(tmp_path, Result(0, LOOK, ""))
    answers = [Result(0, LOOK, "")]
    system.answers["/usr/bin/python3 -c"] = answers.pop
    outcome = Engine(system).apply(parse_plan(RULES, "open"), check=True)
    assert outcome.backend == "firewalld" and outcome.changed
    assert not answers, "a second look would have found no answer"


# The engine


def test_check_mode_writes_nothing(nft: Played, tmp_path: Path) -> None:
    outcome = Engine(nft).apply(parse_plan(RULES, "guard"), check=True)
    assert outcome.changed and outcome.added == outcome.rules and not outcome.pending
    assert not list(tmp_path.rglob("*")) and not nft.scripts
    assert outcome.warnings == ["the chain ip filter INPUT drops by default: what our own table accepts must be accepted there as well"]


def test_second_run_changes_nothing(nft: Played) -> None:
    plan = parse_plan(RULES, "guard")
    assert Engine(nft).apply(plan, revert_after=30).pending
    assert nft.spawned and "sleep 30" in nft.spawned[0][2]
    Engine(nft).confirm()
    scripts = len(nft.scripts)
    again = Engine(nft).apply(plan)
    assert not again.changed and not again.added and len(nft.scripts) == scripts
    assert not Engine(nft).confirm().reverted


def test_a_removed_rule_is_told(nft: Played) -> None:
    Engine(nft).apply(parse_plan(RULES, "open"), revert_after=0)
    outcome = Engine(nft).apply(parse_plan(RULES[:1], "open"), revert_after=0)
    assert outcome.added == []
    assert outcome.removed[0] == "accept IPv4 tcp 64535-65535 from anywhere (rerun)"


def test_a_refused_ruleset_is_taken_back_at_once(nft: Played) -> None:
    nft.on_script = lambda script: Result(1, "", "syntax error")
    with pytest.raises(FirewallError, match="refused the rules: syntax error"):
        Engine(nft).apply(parse_plan(RULES, "guard"), revert_after=30)
    assert "rm -f" in nft.scripts[-1] and "rules.nft" in nft.scripts[-1]
    assert not nft.exists(engine_module.RECORD)


def test_a_broken_record_is_no_obstacle(nft: Played) -> None:
    nft.write(engine_module.RECORD, "{half")
    assert Engine(nft).apply(parse_plan(RULES, "guard"), revert_after=0).changed
    assert json.loads(nft.read(engine_module.RECORD) or "")["backend"] == "nftables"


def test_rules_left_in_another_backend_are_not_forgotten(nft: Played) -> None:
    Engine(nft).apply(parse_plan(RULES, "guard"), revert_after=0)
    nft.programs.add("iptables-restore")
    with pytest.raises(FirewallError, match="still has our rules in nftables, but iptables is to be used"):
        Engine(nft).apply(parse_plan(RULES, "guard"), backend="iptables")


def test_a_host_without_rules_of_its_own_gets_no_table(nft: Played) -> None:
    egress = [{"id": "out", "direction": "egress", "ports": ["443"], "peers": ["10.0.0.9"]}]
    assert not Engine(nft).apply(parse_plan(egress, "guard")).changed
    Engine(nft).apply(parse_plan(RULES, "guard"), revert_after=0)
    gone = Engine(nft).apply(parse_plan(egress, "guard"), revert_after=0)
    assert gone.changed and gone.rules == []
    assert not nft.exists(engine_module.STATE), "nothing is left to be remembered"
    assert not Engine(nft).apply(parse_plan(egress, "guard")).changed


def test_taken_away_and_confirmed_leaves_nothing_behind(nft: Played) -> None:
    Engine(nft).apply(parse_plan(RULES, "guard"), revert_after=0)
    assert Engine(nft).apply(None, revert_after=60).pending
    assert nft.exists(engine_module.REVERT), "the way back is there until the change is confirmed"
    Engine(nft).confirm()
    assert not nft.exists(engine_module.STATE) and not nft.exists(base.FOLDER)
    assert not Engine(nft).apply(None).changed


TOKYO = [{"id": "ssh", "ports": ["22"], "peers": ["10.0.0.1"]}, {"id": "feed", "ports": ["8081"], "peers": ["10.0.1.0/24"]}]
OSAKA = [{"id": "ssh", "ports": ["22"], "peers": ["10.0.0.2"]}]


def apply(system: Played, site: str, rules: Optional[Sequence[Mapping[str, Any]]], **more: Any) -> engine_module.Outcome:
    return Engine(system).apply(None if rules is None else parse_plan(rules, "guard"), revert_after=0, site=site, **more)


def test_sites_of_one_host_keep_their_rules(nft: Played) -> None:
    apply(nft, "tokyo.example.com", TOKYO)
    added = apply(nft, "osaka.example.com", OSAKA)
    assert added.added == ["accept IPv4 tcp 22 from 10.0.0.1, 10.0.0.2 (ssh)"]
    assert added.removed == ["accept IPv4 tcp 22 from 10.0.0.1 (ssh)"]
    for site, rules in (("tokyo.example.com", TOKYO), ("osaka.example.com", OSAKA)):
        again = apply(nft, site, rules)
        assert not again.changed and not again.added and not again.removed
    gone = apply(nft, "tokyo.example.com", None)
    assert gone.rules == ["accept IPv4 tcp 22 from 10.0.0.2 (ssh)", "drop tcp 22 from everybody else"]
    assert apply(nft, "osaka.example.com", None).rules == [] and not nft.exists(engine_module.STATE)


def test_a_site_whose_rules_another_has_already_is_remembered(nft: Played) -> None:
    apply(nft, "tokyo.example.com", OSAKA)
    second = apply(nft, "osaka.example.com", OSAKA)
    assert second.changed and second.added == second.removed == []
    assert not apply(nft, "osaka.example.com", OSAKA).changed
    assert apply(nft, "tokyo.example.com", None).rules == second.rules


def test_what_no_site_is_named_for_is_all_that_there_is(nft: Played) -> None:
    apply(nft, "tokyo.example.com", TOKYO)
    apply(nft, "osaka.example.com", OSAKA)
    assert apply(nft, "", OSAKA).rules == parse_plan(OSAKA, "guard").lines()
    apply(nft, "tokyo.example.com", TOKYO)
    assert apply(nft, "", None).rules == [] and not nft.exists(engine_module.STATE)


def test_a_site_with_another_name_leaves_nothing_under_the_old_one(nft: Played) -> None:
    apply(nft, "old.example.com", TOKYO)
    renamed = apply(nft, "new.example.com", TOKYO, former_sites=["old.example.com"])
    assert renamed.added == renamed.removed == []
    assert list(json.loads(nft.read(engine_module.RECORD) or "")["sites"]) == ["new.example.com"]


def test_a_record_without_sites_is_that_of_whoever_comes(nft: Played) -> None:
    apply(nft, "", TOKYO)
    record = json.loads(nft.read(engine_module.RECORD) or "")
    del record["sites"]
    nft.write(engine_module.RECORD, json.dumps(record))
    assert not apply(nft, "tokyo.example.com", TOKYO).changed
    assert apply(nft, "tokyo.example.com", OSAKA).rules == parse_plan(OSAKA, "guard").lines()


def test_rules_of_other_sites_that_cannot_be_read_are_not_thrown_away(nft: Played) -> None:
    apply(nft, "tokyo.example.com", TOKYO)
    record = json.loads(nft.read(engine_module.RECORD) or "")
    record["sites"]["tokyo.example.com"] = {"accepts": 1}
    nft.write(engine_module.RECORD, json.dumps(record))
    with pytest.raises(FirewallError, match=r"record\.json cannot be read, so that rules of other sites"):
        apply(nft, "osaka.example.com", OSAKA)


def test_containers_of_the_network_that_the_role_nomad_client_makes_are_held_back_too() -> None:
    unit = (Path(__file__).parents[5] / "roles/nomad_client/templates/circleci-network.service.j2").read_text(encoding="utf-8")
    (bridge,) = re.findall(r"com\.docker\.network\.bridge\.name=(\S+)", unit)
    plan = parse_plan(RULES, "guard")
    assert f'iifname "{bridge}" ip daddr 169.254.0.0/16 counter drop comment "not for containers"' in forward_chain(plan)
    assert firewall_module.arguments()["container_interfaces"]["default"] == list(plan.interfaces)


def test_the_strictest_of_the_sites_decides_and_all_of_their_blocks_hold() -> None:
    blocked = [{"id": "b", "direction": "egress_from_containers", "action": "drop", "peers": ["10.9.0.0/16"]}]
    whole = together([parse_plan(TOKYO, "open"), parse_plan([*RULES, *blocked], "guard", ["podman*"]), parse_plan(TOKYO, "open")])
    assert whole and whole.mode == "guard" and whole.interfaces == (*parse_plan(TOKYO, "open").interfaces, "podman*")
    assert whole.block and whole.block.networks == ("169.254.0.0/16", "10.9.0.0/16")
    assert plan_of(json.loads(json.dumps(whole.as_data()))) == whole
    assert whole.verdict("10.0.1.9", "tcp", 8081) == "accept" and whole.verdict("10.0.2.9", "tcp", 8081) == "drop"


def test_ansibles_port_stays_open(nft: Played) -> None:
    with pytest.raises(FirewallError, match=r"would close the port Ansible came in by: 10\.0\.0\.7 to port 22"):
        Engine(nft).apply(parse_plan(RULES, "guard"), ways=[WayIn("10.0.0.7", 22)])
    with pytest.raises(FirewallError, match="no rule names that port"):
        Engine(nft).apply(parse_plan(RULES, "enforce"), ways=[WayIn("10.0.0.1", 2222)])


def test_a_host_that_is_no_linux_is_refused_with_what_to_do(tmp_path: Path) -> None:
    system = Played(tmp_path, ["pfctl"])
    system.kernel = "Darwin"
    with pytest.raises(FirewallError, match=r"this host runs Darwin.*circleci_runners_macos.*verb plan prints"):
        Engine(system).apply(parse_plan(RULES, "guard"))
    assert system.scripts == []


def test_ssh_connection() -> None:
    assert parse_connection("10.0.0.1 5555 10.0.0.2 22") == WayIn("10.0.0.1", 22)
    assert parse_connection("fe80::1%eth0 5555 fe80::2%eth0 22") == WayIn("fe80::1", 22)
    assert parse_connection("") is None


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    system = System(str(tmp_path))
    system.write("/a/b", "one")
    (tmp_path / "a/b").chmod(0o640)
    system.write("/a/b", "two")
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert system.read("/a/b") == "two" and system.read("/a/b/c") is None
    system.remove("/a/b")
    system.remove("/a/b")
