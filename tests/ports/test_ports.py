# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports on hosts with firewalld, ufw and nftables: foreseen, opened, proved from outside, kept over a restart, taken back, and nothing of others touched."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from sandbox import aptmirror, docker, layout, verbs
from sandbox import site as sandbox_site

from .conftest import (
    CLIENTS,
    FILTERS,
    GIVEN,
    METADATA,
    OTHER,
    OWN_CLOSED,
    OWN_OPEN,
    PUBLISHED,
    RERUN,
    ROOT,
    SECOND_ADDRESS,
    STRANGER_ADDRESS,
    Site,
    address,
    is_empty,
    problems,
)

INVENTORY = ("bastion", "registry", "node1", "store", "nomad1", "nomad2")
PASSED = ("open", "refused")
STOPPED = ("silent", "rejected")
LOAD_BALANCER = layout.LOAD_BALANCER_POOL[0]
# Where rules of ours stand among those of others; everything else of ours has a table or chains of its own.
SHARED = {
    "nftables": r"(?!)",
    "firewalld": r"table inet firewalld: chain filter_IN_(public|monitoring)_pre",
    "ufw": r"(table ip6? filter: chain |ip6?tables filter: )ufw6?-user-input|(table ip6? mangle: chain |ip6?tables mangle: )FORWARD",
}
OURS = r"table inet onprem_circleci: .*|.*\bONPREM-CIRCLECI"
ABSENT = """
- hosts: registry:store:nomad1:nomad2
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: onprem.circleci_server.firewall
      vars:
        circleci_firewall_state: absent
        circleci_firewall_rules: []
"""

Rules = set[tuple[str, str, str, str]]
told: dict[str, Any] = {}


# --- how rules are read ---------------------------------------------------------------------------------------------------


def called(result: verbs.Result) -> dict[str, dict[str, Any]]:
    """What the module told of each host whose packet filter is not that of the control host."""
    rows = {host: row for host, row in result.results("circleci_server.firewall") if "rules" in row and host in FILTERS}
    return {host: {name: row[name] for name in ("backend", "rules", "added", "removed", "would_change")} for host, row in rows.items()}


def foreseen(lines: Sequence[str]) -> Rules:
    """Rules for what comes in, as (action, protocol, port, source), of the lines that people are shown."""
    found: Rules = set()
    for line in lines:
        match = re.fullmatch(r"(accept|drop)(?: IPv4)? (tcp|udp) ([\d, -]+) from ([^()]+?)(?: \(.*\))?", line)
        if match is None:
            assert line.startswith("drop from containers to"), line
            continue
        sources = [""] if match[4] in ("everybody else", "anywhere") else match[4].split(", ")
        found |= {(match[1], match[2], port, source) for port in match[3].split(", ") for source in sources}
    return found


def loaded(site: Site, host: str) -> Rules:
    """The same of what the kernel holds."""
    kernel = site.kernel(host)
    kind = FILTERS[host]
    if kind == "ufw":
        pattern = r"-A \S+ (?:-s (?P<source>\S+) )?-p (?P<protocol>\w+) -m \w+ --dports? (?P<ports>\S+) -j (?P<action>\w+)"
        lines = kernel["iptables filter: ufw-user-input"]
    else:
        pattern = r"(?:ip saddr (?P<source>\{.*?\}|\S+) )?(?P<protocol>tcp|udp) dport (?P<ports>\{.*?\}|\S+) (?:counter )?(?P<action>accept|drop)"
        chain = "inet onprem_circleci: chain input" if kind == "nftables" else "inet firewalld: chain filter_IN_public_pre"
        lines = kernel[f"table {chain}"]
    found: Rules = set()
    for line in lines:
        match = re.search(pattern, line)
        if match is not None and not {OWN_OPEN, 9200} & {int(port) for port in re.findall(r"\d+", match["ports"])}:
            ports = match["ports"].strip("{ }").replace(" ", "").replace(":", "-").split(",")
            sources = (match["source"] or "").strip("{ }").replace(" ", "").replace("/32", "").split(",")
            action = {"ACCEPT": "accept", "DROP": "drop"}.get(match["action"], match["action"])
            found |= {(action, match["protocol"], port, source) for port in ports for source in sources}
    # The owner's way in is a line of ufw beside ours.
    return found - {("accept", "tcp", "22", "")}


def added(before: Mapping[str, list[str]], after: Mapping[str, list[str]], host: str) -> dict[str, list[str]]:
    """What the kernel has more than before, by chain, after all that is not ours has been found unchanged to the byte."""
    extra: dict[str, list[str]] = {}
    for place in sorted({*before, *after}):
        old, new = before.get(place, []), after.get(place, [])
        if re.fullmatch(OURS, place):
            extra[place] = new
        elif re.fullmatch(SHARED[FILTERS[host]], place) and place in after:
            rest = iter(new)
            assert all(line in rest for line in old), (host, place, old, new)
            extra[place] = list((Counter(new) - Counter(old)).elements())
        else:
            assert old == new or (place not in before and is_empty(new)), (host, place, old, new)
    return extra


def ordered(kernel: Mapping[str, list[str]], host: str) -> dict[str, list[str]]:
    """firewalld has rules of one priority in an order of its own, and not always in the same one."""
    return {place: sorted(lines) if re.fullmatch(SHARED[FILTERS[host]], place) else lines for place, lines in kernel.items()}


def allowed(rules: Sequence[Mapping[str, Any]], host: str, port: int) -> list[ipaddress.IPv4Network]:
    """Networks that rules let reach a port."""
    found = []
    for rule in rules:
        spans = [part.partition("-") for part in map(str, rule["ports"]) if part != "any"]
        inside = any(int(low) <= port <= int(high or low) for low, _dash, high in spans)
        if rule["host"] == host and rule["direction"] == "ingress" and rule["protocol"] == "tcp" and rule["state"] == "apply" and inside:
            found += [ipaddress.IPv4Network(peer) for peer in rule["peers"] if ":" not in peer]
    return found


def doors(rules: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[ipaddress.IPv4Network]]:
    """Every port of every host that our packet filters open, both ends of a range, and the networks that may come in."""
    found = {}
    for rule in rules:
        if rule["direction"] == "ingress" and rule["protocol"] == "tcp" and rule["state"] == "apply" and rule["host"] in INVENTORY:
            for part in map(str, rule["ports"]):
                for port in {int(end) for end in part.split("-")}:
                    found[rule["host"], port] = allowed(rules, rule["host"], port)
    return found


def met(site: Site) -> dict[tuple[str, str, int], str]:
    """What a connection meets from every host, and from the stranger, to every port that rules open, and to some that they do not name."""
    wanted = [*doors(told["rules"]), *((host, port) for host in FILTERS for port in (OWN_OPEN, OWN_CLOSED))]
    wanted += [(client, port) for client in CLIENTS for port in (PUBLISHED, OTHER)]
    found: dict[tuple[str, str, int], str] = {}
    for source in (*INVENTORY, "stranger"):
        targets = {(address(host), port): (source, host, port) for host, port in wanted if host != source}
        targets |= {(LOAD_BALANCER, port): (source, "load balancer", port) for port in (80, 443, 4647)}
        found |= {targets[target]: what for target, what in site.connect(source, list(targets)).items()}
    return found


# --- the story ------------------------------------------------------------------------------------------------------------


def test_owners_of_the_hosts_have_set_up_their_packet_filters(site: Site) -> None:
    assert site.told("nomad1", "firewall-cmd", "--state").strip() == "running"
    assert "Status: active" in site.told("nomad2", "ufw", "status")
    targets = [(address(host), port) for host in FILTERS for port in (OWN_OPEN, OWN_CLOSED)]
    assert site.connect("stranger", targets) == {target: "open" if target[1] == OWN_OPEN else "silent" for target in targets}
    told["own"] = {host: site.own(host) for host in FILTERS}
    for host, text in told["own"].items():
        assert "198.51.100" in text and "onprem" not in text, host


def test_bundle_and_secrets_are_there(site: Site) -> None:
    if site.on("bastion", "test", "-d", "/srv/bundle").returncode != 0:
        assert not problems(site.run("bundle"))
        carried = subprocess.run([sys.executable, "-m", "sandbox", "carry", "/srv/bundle", "/srv/bundle"], cwd=ROOT, check=False, capture_output=True, text=True)
        assert carried.returncode == 0, carried.stderr
    assert not problems(site.run("secrets"))


def test_check_mode_tells_the_rules_of_each_host(site: Site) -> None:
    before = {host: site.kernel(host) for host in FILTERS}
    result = site.run("install", "--check", "--diff", name="check-empty")
    assert not problems(result)
    told["foreseen"] = called(result)
    assert {host: row["backend"] for host, row in told["foreseen"].items()} == FILTERS
    assert all(row["would_change"] and row["added"] == row["rules"] for row in told["foreseen"].values())
    for host in FILTERS:
        assert not any(added(before[host], site.kernel(host), host).values()), host


def test_run_makes_the_rules_that_were_foreseen_and_leaves_those_of_the_owners(site: Site) -> None:
    result = site.run("install", "--diff")
    assert not problems(result)
    assert called(result) == told["foreseen"]
    for host, row in told["foreseen"].items():
        assert loaded(site, host) == foreseen(row["rules"]) != set(), host
        blocked = [line for line in row["rules"] if line.startswith("drop from containers")]
        assert ("169.254.0.0/16" in str({place: lines for place, lines in site.kernel(host).items() if re.fullmatch(OURS, place)})) == bool(blocked)
        assert site.own(host) == told["own"][host]
    assert [host for host in CLIENTS if "drop from containers to 169.254.0.0/16" in told["foreseen"][host]["rules"]] == list(CLIENTS)


def test_verify_had_proved_each_port_by_connecting(site: Site) -> None:
    report = site.report()
    told["rules"] = report["rules"]
    assert {flow["verdict"] for flow in report["flows"]} == {"proved"}, [flow for flow in report["flows"] if flow["verdict"] != "proved"]
    proved = {(flow["to"], flow["port"]): flow["expect"] for flow in report["flows"] if flow["expect"] != "closed"}
    shut = {(flow["to"], flow["port"]) for flow in report["flows"] if flow["expect"] == "closed"}
    wanted = doors(report["rules"])
    assert len(wanted) >= 12
    assert set(wanted) - set(proved) == set()
    # Where some host of the inventory has no business, two of these have tried to come in.
    wrong = {door for door, networks in wanted.items() if [host for host in INVENTORY if host != door[0] and not lets_in(networks, address(host))]}
    low_ends = {(rule["host"], int(str(part).partition("-")[0])) for rule in report["rules"] for part in rule["ports"] if part != "any"}
    assert (wrong & low_ends) - shut == set()
    # What the owners' programs listen on is told, since no rule of ours explains it.
    assert {(item["host"], item["port"]) for item in report["listeners"]} >= {(host, OWN_OPEN) for host in FILTERS}


def lets_in(networks: Sequence[ipaddress.IPv4Network], source: str) -> bool:
    return any(ipaddress.IPv4Address(source) in network for network in networks)


def test_second_run_changes_nothing_with_the_packet_filters_named(site: Site) -> None:
    site.backends = dict(FILTERS)
    again = site.run("install", "--diff", name="second-run")
    assert (problems(again), again.changes()) == ([], [])
    assert {host: row["backend"] for host, row in called(again).items()} == FILTERS
    assert not [row for row in called(again).values() if row["added"] or row["removed"]]


def test_another_packet_filter_than_the_active_one_is_refused(site: Site) -> None:
    site.backends = {"nomad1": "nftables", "nomad2": "firewalld"}
    result = site.run("install", "--check", name="wrong-filter")
    site.backends = {}
    said = " ".join(problems(result))
    assert result.code == 2 and not [change for change in result.changes() if change[0] in CLIENTS]
    assert "backend nftables is asked for, but firewalld is active on this host" in said and "backend firewalld is asked for, but ufw is active" in said


@pytest.fixture(scope="module")
def published(site: Site) -> None:
    """A container on each client with ports that Docker publishes, as a job that is rerun with SSH has one."""
    for client in CLIENTS:
        files = {"bin/busybox": (aptmirror.unpack("busybox-static", "bin/busybox"), 0o755)}
        if site.on(client, "docker", "inspect", "somebody").returncode != 0:
            assert site.on(client, "docker", "import", "-", "somebody:local", stdin=sandbox_site.tar_of(files)).returncode == 0
            ports = [f"--publish={port}:80" for port in (PUBLISHED, OTHER)]
            site.told(client, "docker", "run", "--detach", "--name=somebody", "--restart=always", *ports, "somebody:local", "/bin/busybox", "httpd", "-f", "-p", "80")


def test_ports_are_open_from_the_right_places_and_closed_from_wrong_ones(site: Site, published: None) -> None:
    told["met"] = met(site)
    sources = {**{host: address(host) for host in INVENTORY}, "stranger": STRANGER_ADDRESS}
    for (host, port), networks in doors(told["rules"]).items():
        for source in set(sources) - {host}:
            what = told["met"][source, host, port]
            assert what in (PASSED if lets_in(networks, sources[source]) else STOPPED), (source, host, port, what)
        assert told["met"]["stranger", host, port] == "silent"
    for source, host, port in told["met"]:
        if host == "load balancer":
            assert told["met"][source, host, port] == ("silent" if source == "stranger" else "open"), (source, port)
    for host in FILTERS:
        assert (told["met"]["stranger", host, OWN_OPEN], told["met"]["stranger", host, OWN_CLOSED]) == ("open", "silent")
    # A port that Docker publishes never meets the chain for what comes in.
    for client, other in (CLIENTS, reversed(CLIENTS)):
        assert [told["met"][source, client, PUBLISHED] for source in (other, "bastion", "stranger")] == ["open", "open", "silent"]
        assert [told["met"][source, client, RERUN] for source in (other, "bastion", "stranger")] == ["open", "open", "silent"]
        assert told["met"]["stranger", client, OTHER] == "open", "a port that no rule names stays as Docker has it"


def test_containers_of_no_network_of_docker_reach_where_clouds_answer_with_credentials(site: Site, published: None) -> None:
    for client in CLIENTS:
        site.shell(client, f"ip route replace {METADATA} via {STRANGER_ADDRESS}")
        site.until(lambda: set(site.connect(client, [(METADATA, 80)]).values()) == {"open"}, "the stand-in for a cloud, which the host itself may ask")  # noqa: B023 - called at once
        for network in ("bridge", "ci-privileged"):
            inside = ["docker", "run", "--rm", "--interactive", f"--network={network}", "--volume=/:/host:ro", "somebody:local", "/bin/busybox", "chroot", "/host"]
            assert site.connect(client, [(METADATA, 80)], inside) == {(METADATA, 80): "silent"}, (client, network)
        site.shell(client, f"ip route delete {METADATA}")


def test_restart_of_the_hosts_keeps_the_rules(site: Site) -> None:
    before = {host: loaded(site, host) for host in FILTERS}
    hosts = [layout.host(name) for name in FILTERS]
    for host in hosts:
        docker.call(["restart", host.container])
    sandbox_site.wait_ready(hosts)
    targets = [(address(client), port) for client in CLIENTS for port in (PUBLISHED, OTHER, RERUN)] + [(address("registry"), 5000), (address("store"), 7070)]
    site.until(lambda: set(site.connect("bastion", targets).values()) == {"open"}, "what listened before the restart")
    assert met(site) == told["met"]
    assert {host: loaded(site, host) for host in FILTERS} == before
    assert {host: site.own(host) for host in FILTERS} == told["own"]


def test_change_that_shuts_ansible_out_is_taken_back_by_each_host_and_told(site: Site) -> None:
    before = {host: site.kernel(host) for host in FILTERS}
    files = {host: site.own(host) for host in FILTERS}
    # The connection that is open lets the change through; each new one comes from an address of the bastion that the change leaves out.
    bind = f"-o BindAddress={{{{ '{SECOND_ADDRESS}' if __circleci_firewall_result is defined else '{address('bastion')}' }}}}"
    shut = {"circleci_ports": {**GIVEN["circleci_ports"], "administrators": [f"{address('bastion')}/32"]}, "ansible_ssh_common_args": bind}
    result = site.run("install", name="lock-out", given=shut)
    assert result.code == 2
    unreachable = {host for event in result.events if event.get("_event") == "v2_runner_on_unreachable" for host in event.get("hosts", {})}
    assert unreachable == set(FILTERS), "only what was really cut off proves anything"
    for host in FILTERS:
        sentence = f"The rules of {host} cut Ansible off, so the host took them back after {GIVEN['circleci_firewall_revert_after']} seconds."
        assert [message for message in result.failures() if sentence in message], (host, result.failures())
        # Nobody could come in: the host's own timer has done it.
        assert site.on(host, "test", "-s", "/var/lib/onprem-circleci-firewall/reverted").returncode == 0
    for host in FILTERS:
        assert ordered(site.kernel(host), host) == ordered(before[host], host)
    assert {host: site.own(host) for host in FILTERS} == files == told["own"]
    # The bastion keeps the change: nothing cuts it off from itself.
    assert [(way, what) for way, what in met(site).items() if what != told["met"][way] and way[1] != "bastion"] == []


@pytest.fixture(scope="module")
def taken_away(site: Site, published: None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What the kernel of each host has with our rules and without them, as the role takes them away."""
    full = {host: site.kernel(host) for host in FILTERS}
    docker.execute(layout.host("bastion").container, ["sh", "-c", "cat > /root/absent.yml"], stdin=ABSENT.encode())
    environment = [f"{name}={value}" for name, value in verbs.QUIET.items()]
    site.told("bastion", "env", "HOME=/root", *environment, f"{verbs.VENV}/ansible-playbook", "-i", verbs.INVENTORY, "/root/absent.yml")
    yield full, {host: site.kernel(host) for host in FILTERS}


def test_rules_of_others_and_chains_of_docker_are_the_same_to_the_byte_with_ours_and_without(site: Site, taken_away: tuple[dict[str, Any], dict[str, Any]]) -> None:
    full, bare = taken_away
    for host in FILTERS:
        assert "onprem" not in str(bare[host]).lower() and site.own(host) == told["own"][host]
        assert any(added(bare[host], full[host], host).values())
    for client in CLIENTS:
        chains = {place for place in bare[client] if "DOCKER" in place}
        assert {"iptables nat: DOCKER", "iptables filter: DOCKER", "iptables filter: DOCKER-USER"} <= chains
        assert [place for place in chains if bare[client][place] != full[client][place]] == []
    # It was our rules that closed these, and nothing else.
    targets = [(address("registry"), 5000), (address("store"), 7070), *((address(client), PUBLISHED) for client in CLIENTS)]
    assert set(site.connect("stranger", targets).values()) == {"open"}


def test_rules_come_back_as_they_were(site: Site, taken_away: tuple[dict[str, Any], dict[str, Any]]) -> None:
    full, _bare = taken_away
    result = site.run("install", "--diff", name="install-again")
    assert not problems(result)
    # The bastion had kept the change of the test before. The report tells of what Docker publishes since.
    changed = {(host, task.rpartition(" : ")[2]) for host, task in result.changes()} - {("bastion", "Write the report")}
    assert changed == {(host, "Bring the packet filter of this host to the rules") for host in (*FILTERS, "bastion")}
    assert called(result) == told["foreseen"]
    for host in FILTERS:
        assert ordered(site.kernel(host), host) == ordered(full[host], host)
        assert site.own(host).splitlines() == told["own"][host].splitlines(), host
    assert met(site) == told["met"]


def test_a_service_that_is_stopped_is_in_the_report_with_what_fails_for_users(site: Site) -> None:
    site.kubectl("-n", "circleci-server", "scale", "deployment", "frontend", "--replicas=0")
    try:
        assert not problems(site.run("report", name="report-stopped"))
    finally:
        site.kubectl("-n", "circleci-server", "scale", "deployment", "frontend", "--replicas=1")
    (health,) = [item for item in site.report()["services"] if item["name"] == "frontend"]
    assert (health["state"], health["detail"]) == ("down", "scaled to 0") and len(health["impact"]) > 20, health
    assert health["impact"] in verbs.read("bastion", "/var/lib/onprem-circleci/reports/report.html").decode()
