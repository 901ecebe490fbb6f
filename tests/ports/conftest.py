# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox whose Nomad clients have packet filters of their owner, firewalld and ufw; its tests in the order of the file, each building on the one before."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import aptmirror, docker, images, layout, machine, suite, verbs  # noqa: E402 - the path is set above
from sandbox import site as sandbox_site  # noqa: E402 - as above

STATE = "/var/lib/onprem-circleci"
# Which packet filter the host has, as its owner has set it up; the registry and the store have nftables and nothing before it.
FILTERS = {"registry": "nftables", "store": "nftables", "nomad1": "firewalld", "nomad2": "ufw"}
CLIENTS = ("nomad1", "nomad2")
# A host on the network of the site that stands in no inventory, and outside of all networks that the rules name.
STRANGER = layout.PREFIX + "stranger"
STRANGER_ADDRESS = "10.93.0.200"
# Where clouds answer with credentials: the stranger plays such a cloud.
METADATA = "169.254.169.254"
# Another address of the bastion, which the rules let in as long as they name the whole network of administrators.
SECOND_ADDRESS = "10.93.0.12"
ADMINISTRATORS = "10.93.0.8/29"
# All hosts of the inventory, and not the stranger.
USERS = "10.93.0.0/26"
# Ports on which something listens that is not ours: one that the filter's owner has opened, and one that he drops.
OWN_OPEN, OWN_CLOSED = 9000, 7777
# Ports that Docker publishes on the clients: among those of jobs that are rerun with SSH, and one that no rule names.
RERUN, PUBLISHED, OTHER = 64535, 64600, 8500
GIVEN: dict[str, Any] = {
    "circleci_gates_passed": verbs.ANSWERED_GATES,
    "circleci_ports": {"users": [USERS], "administrators": [ADMINISTRATORS]},
    "circleci_load_balancer_sources": [USERS],
    # Of a machine with two cores: firewalld itself takes a while for a change.
    "circleci_firewall_revert_after": 40,
}
# What is on each of these hosts before us: a table of nftables, and what listens on ports of which some are ours later.
SOMEBODY = f"""
table inet somebody {{
  chain input {{
    type filter hook input priority 10; policy accept;
    ip saddr 198.51.100.9 tcp dport {OWN_CLOSED} counter drop comment "of somebody else"
  }}
}}
"""
LISTENS = f"""
import select, socket
ears = [socket.create_server(("", port)) for port in ({OWN_OPEN}, {OWN_CLOSED}, {RERUN}, 65535)]
while True:
    for ear in select.select(ears, [], [])[0]:
        ear.accept()[0].close()
"""
UNITS = {
    "somebody-filters": "DefaultDependencies=no\nBefore=network-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/sbin/nft -f /etc/somebody/table.nft",
    "somebody-listens": "[Service]\nExecStart=/usr/bin/python3 /etc/somebody/listens.py",
}
OWNERS: dict[str, str] = {
    "firewalld": f"""
systemctl enable --now firewalld
firewall-cmd --quiet --permanent --add-port={OWN_OPEN}/tcp
firewall-cmd --quiet --permanent --add-rich-rule='rule priority="-100" family="ipv4" source address="198.51.100.7" drop'
firewall-cmd --quiet --permanent --add-rich-rule='rule family="ipv4" source address="198.51.100.8" port port="9100" protocol="tcp" accept'
firewall-cmd --quiet --permanent --new-zone=monitoring
firewall-cmd --quiet --permanent --zone=monitoring --add-source=198.51.100.128/25
firewall-cmd --quiet --permanent --zone=monitoring --add-port=9200/tcp
firewall-cmd --quiet --permanent --direct --add-rule ipv4 filter INPUT 0 -p tcp --dport {OWN_CLOSED} -j DROP
firewall-cmd --quiet --reload
""",
    "ufw": f"""
ufw allow 22/tcp
ufw allow {OWN_OPEN}/tcp comment 'of somebody else'
ufw deny from 198.51.100.7
ufw allow proto tcp from 198.51.100.128/25 to any port 9200
sed -i '/^# End required lines/a -A ufw-before-input -p tcp --dport {OWN_CLOSED} -j DROP' /etc/ufw/before.rules
ufw --force enable
""",
    # The file of Debian begins by flushing all that there is.
    "nftables": f"""
grep -q 'flush ruleset' /etc/nftables.conf
cat >> /etc/nftables.conf <<'END'
include "/etc/somebody/table.nft"
table inet owner {{
  chain input {{
    type filter hook input priority 0; policy accept;
    tcp dport {OWN_CLOSED} counter drop
  }}
}}
END
systemctl enable --quiet nftables
systemctl restart nftables
""",
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)


@dataclass
class Site:
    """Commands of an operator, and looks from outside."""

    logs: Path
    backends: dict[str, str] = field(default_factory=dict)

    def run(self, verb: str, *arguments: str, name: str = "", given: Mapping[str, Any] | None = None) -> verbs.Result:
        host = verbs.host_of(verb)
        path = f"{verbs.INVENTORY}/hosts.yml"
        hosts = yaml.safe_load(verbs.read(host, path))
        for client, facts in hosts["site_sandbox"]["hosts"].items():
            facts.pop("circleci_firewall_backend", None)
            facts.update({"circleci_firewall_backend": self.backends[client]} if client in self.backends else {})
        docker.execute(layout.host(host).container, ["sh", "-c", f"cat > {path}"], stdin=yaml.safe_dump(hosts).encode())
        return verbs.run(verb, extra={**GIVEN, **(given or {})}, arguments=arguments, log=self.logs / f"{name or verb}.log")

    def on(self, host: str, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        container = STRANGER if host == "stranger" else layout.host(host).container
        return docker.execute(container, list(command), check=False, stdin=stdin)

    def told(self, host: str, *command: str) -> str:
        done = self.on(host, *command)
        assert done.returncode == 0, (host, command, done.stderr or done.stdout)
        return done.stdout

    def shell(self, host: str, script: str) -> str:
        return self.told(host, "sh", "-euc", script)

    def kubectl(self, *arguments: str) -> str:
        done = sandbox_site.kubectl(list(arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def report(self) -> dict[str, Any]:
        return dict(json.loads(verbs.read("bastion", f"{STATE}/reports/report.json")))

    def until(self, what: Callable[[], bool], words: str) -> None:
        """The deadline ends a test that would hang, it judges nothing."""
        deadline = time.monotonic() + 300
        while not what():
            assert time.monotonic() < deadline, f"never seen: {words}"
            time.sleep(0.5)

    # -- the packet filters of the hosts ------------------------------------------------------------------------------------

    def own(self, host: str) -> str:
        """What the filter's owner has written down in the filter's own words, without what is ours."""
        looks = {
            "firewalld": "for zone in public monitoring; do firewall-cmd --info-zone=$zone; firewall-cmd --permanent --info-zone=$zone; done;"
            " firewall-cmd --direct --get-all-rules; firewall-cmd --permanent --direct --get-all-rules",
            "ufw": "ufw show added; cat /etc/ufw/before.rules /etc/ufw/after.rules /etc/default/ufw /etc/ufw/ufw.conf; cat /etc/ufw/user.rules /etc/ufw/user6.rules",
            "nftables": "cat /etc/nftables.conf; nft -s list table inet owner",
        }
        text = self.shell(host, f"{looks[FILTERS[host]]}; nft -s list table inet somebody")
        # A rule of ufw is three lines of its file: an empty one, its tuple, and what iptables gets.
        text = re.sub(rf"\n### tuple ### [^\n]* comment={b'onprem-circleci'.hex()}[0-9a-f]*\n-A [^\n]*\n", "", text)
        return "\n".join(line for line in text.splitlines() if not re.search(r'priority="-204(70|69)"| comment \'onprem-circleci ', line))

    def kernel(self, host: str) -> dict[str, list[str]]:
        """All chains and sets of the kernel by place, as both tools print them; counters left out, and tables that iptables made as it looked."""
        found: dict[str, list[str]] = {}
        place = ""
        for line in self.shell(host, "nft -s list ruleset 2>/dev/null").splitlines():
            if line.startswith("table "):
                table = line.removesuffix(" {")
            elif re.match(r"\t[a-z]", line) and line.endswith("{"):
                place = f"{table}: {line.strip().removesuffix(' {')}"
                found[place] = []
            elif line.startswith("\t\t"):
                found[place].append(line)
        for tool in ("iptables", "ip6tables"):
            for line in self.shell(host, f"{tool}-save 2>/dev/null").splitlines():
                if line.startswith("*"):
                    table = line[1:]
                elif line.startswith(":"):
                    found[f"{tool} {table}: {line[1:].split()[0]}"] = []
                elif line.startswith("-A"):
                    found[f"{tool} {table}: {line.split()[1]}"].append(line)
        return found

    # -- connections ---------------------------------------------------------------------------------------------------------

    def connect(self, host: str, targets: Sequence[tuple[str, int]], inside: Sequence[str] = ()) -> dict[tuple[str, int], str]:
        """What TCP connections from the host meet, or from what a command on it makes."""
        wanted = list(dict.fromkeys(targets))
        program = Path(__file__).with_name("connect.py").read_text(encoding="utf-8")
        done = self.on(host, *inside, "python3", "-c", program, stdin=json.dumps(wanted).encode())
        assert done.returncode == 0, done.stderr
        return dict(zip(wanted, json.loads(done.stdout), strict=True))


def problems(result: verbs.Result) -> list[str]:
    """Why a run failed, also what is told by its last task only."""
    return [*result.failures(), result.errors[-1500:]] if result.code else []


def address(host: str) -> str:
    return layout.host(host).address


def is_empty(lines: Iterable[str]) -> bool:
    """Whether a chain is as iptables makes the chains of a table at its first look."""
    return all("policy accept;" in line for line in lines)


def owners_filter(made: Site, host: str) -> None:
    """Install and set up the filter as the owner of the host does, from a mirror that he takes away again."""
    kind = FILTERS[host]
    container = layout.host(host).container
    files = {"/etc/somebody/table.nft": SOMEBODY, "/etc/somebody/listens.py": LISTENS}
    units = ["somebody-listens", *(["somebody-filters"] if kind != "nftables" else [])]
    files.update({f"/etc/systemd/system/{name}.service": f"[Unit]\n{UNITS[name]}\n[Install]\nWantedBy=multi-user.target\n" for name in units})
    docker.call(["cp", "-", f"{container}:/"], stdin=sandbox_site.tar_of({path: (text.encode(), 0o644) for path, text in files.items()}))
    if kind != "nftables":
        docker.execute(container, ["mkdir", "-p", "/srv/owner"])
        docker.call(["cp", f"{aptmirror.ensure()}/.", f"{container}:/srv/owner"])
        made.shell(host, f"""
echo 'deb [signed-by=/srv/owner/key.gpg] file:/srv/owner/debian {aptmirror.SUITE} main' > /etc/apt/sources.list.d/owner.list
export DEBIAN_FRONTEND=noninteractive
apt-get update -q && apt-get install -y -q --no-install-recommends {kind}
rm -rf /srv/owner /etc/apt/sources.list.d/owner.list /var/lib/apt/lists/*
""")
    made.shell(host, f"systemctl daemon-reload; systemctl enable --quiet --now {' '.join(units)}\n{OWNERS[kind]}\ntouch /etc/somebody/ready")


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Site:
    logs = ROOT / "build" / "ports"
    logs.mkdir(parents=True, exist_ok=True)
    suite.bring_up(pytestconfig)
    # It may be the sandbox's own daemon, which is not the machine's.
    assert machine.daemon_answers()
    made = Site(logs)
    for host in ("workstation", "bastion"):
        verbs.prepare(host)
    # Goes with the sandbox, by its label.
    docker.call(["rm", "--force", STRANGER], check=False)
    net = layout.NETWORKS["site"]
    docker.call(
        ["run", "--detach", f"--name={STRANGER}", f"--network={net.name}", f"--ip={STRANGER_ADDRESS}", f"--label={layout.LABEL}=stranger",
         "--cap-add=NET_ADMIN", images.IMAGES["host"].reference, "sh", "-c",
         f"ip address add {METADATA}/32 dev eth0 && cd /srv && exec python3 -m http.server 80"]
    )  # fmt: skip
    made.shell("bastion", f"ip address show dev eth0 | grep -q {SECOND_ADDRESS}/ || ip address add {SECOND_ADDRESS}/24 dev eth0")
    for host in FILTERS:
        if made.on(host, "test", "-e", "/etc/somebody/ready").returncode != 0:
            owners_filter(made, host)
    return made
