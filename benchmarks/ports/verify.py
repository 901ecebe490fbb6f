# SPDX-License-Identifier: GPL-3.0-or-later
"""50 hosts that each try 400 connections: the engine on one host, all engines at once, and the whole as a playbook with verdict and report.

Hosts are network namespaces on one bridge, the packets are real: of each host's 400 connections 294 find a listener, 49 a port without one, 49 a port that
a packet filter keeps silent, and 8 a server with TLS or HTTP. The hosts share the cores of this machine, which those of a site do not; Ansible reaches
them without SSH. Root. Times are published; what is gated is counted: the verdicts, and one remote call per host.

    make benchmark-ports BENCHMARK='verify --runs 3'
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.onprem.circleci_server.plugins.module_utils.json_option import packed
from ansible_collections.onprem.circleci_server.tests.integration_firewall.lab import Host, Lab, usable

from .playbooks import cpu_seconds, play

OPEN = (4647, 5000, 5001, 5002, 5003, 5004)
NO_LISTENER = 6000
SILENT = 7000
TLS, HTTP = (8443, 8444, 8445, 8446), (8080, 8081, 8082, 8083)
SERVICES = 250
ROUTER = "10.77.0.254"
NAME = "site.example"
GUARD = f"table inet guard {{ chain input {{ type filter hook input priority 0; tcp dport {SILENT} drop; }}; }};\n"
SERVER = """
import asyncio, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1], sys.argv[2])
async def answer(reader, writer):
    try:
        if await reader.read(1000): writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')
        await writer.drain()
    except (OSError, ssl.SSLError): pass
    writer.close()
async def main():
    for word in sys.argv[3:]:
        kind, port = word.split(':')
        await asyncio.start_server(answer, '0.0.0.0', int(port), ssl=context if kind == 'tls' else None, backlog=1024)
    sys.stdout.write('ready\\n'); sys.stdout.flush()
    await asyncio.Event().wait()
asyncio.run(main())
"""
# The engine alone, without Ansible around it: flows come in by a file, the seconds and what was found go out.
ENGINE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity import parse_flows, probe
with open(sys.argv[2]) as handle: given = json.load(handle)
with open(sys.argv[3]) as handle: authority = handle.read()
begin = time.monotonic()
found = probe(parse_flows(given, 3), 64, authority)
seconds = time.monotonic() - begin
verdicts = {}
for item in found: verdicts[item.verdict] = verdicts.get(item.verdict, 0) + 1
sys.stdout.write(json.dumps({'seconds': seconds, 'verdicts': verdicts, 'wrong': [item.as_dict() for item in found if item.verdict != 'proved'][:3]}))
"""


def address(number: int) -> str:
    return f"10.77.0.{number}"


def flows(me: int, hosts: int) -> list[dict[str, Any]]:
    """What one host has to try, in the shape of the filter port_flows."""
    result = []
    for other in range(1, hosts + 1):
        if other == me:
            continue
        wanted = [(port, "open") for port in OPEN] + [(NO_LISTENER, "reachable"), (SILENT, "closed")]
        for port, expect in wanted:
            result.append({"name": f"host{me} to host{other} {port}", "rule": f"rule-{port}", "from": f"host{me}", "to": f"host{other}",
                           "address": address(other), "port": port, "protocol": "tcp", "expect": expect, "reason": "benchmark"})  # fmt: skip
    for ports, expect in ((TLS, "tls"), (HTTP, "http")):
        for port in ports:
            result.append({"name": f"host{me} to services {port}", "rule": f"rule-{port}", "from": f"host{me}", "to": "services",
                           "address": address(SERVICES), "port": port, "protocol": "tcp", "expect": expect, "server_name": NAME})  # fmt: skip
    return result


def certificate(folder: Path) -> tuple[Path, Path]:
    key, pem = folder / "site.key", folder / "site.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90", "-subj", f"/CN={NAME}",
         "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(pem)],
        check=True, capture_output=True,
    )  # fmt: skip
    return pem, key


class Site:
    """The hosts, their listeners and the files that the engines read."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self.pem, self.key = certificate(folder)
        self.lab = Lab(folder)
        # A router instead of a bridge: the kernel keeps 1024 neighbours for all namespaces together, and 50 hosts that know each other are 2450.
        self.lab.switch.run("ip", "address", "add", f"{ROUTER}/24", "dev", "br0")
        self.lab.switch.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.br0.send_redirects=0")
        try:
            self._fill(folder, hosts)
        except BaseException:
            self.lab.close()
            raise

    def _fill(self, folder: Path, hosts: int) -> None:
        for number in range(1, hosts + 1):
            host = self._add(f"host{number}", number)
            host.run("nft", "-f", "-", stdin=GUARD)
            host.listen(*OPEN, SILENT)
            (folder / f"flows-{number}.json").write_text(json.dumps(flows(number, hosts)), encoding="utf-8")
            # Ansible's interpreter for the host: Python in the host's network.
            python = folder / f"python-{number}"
            python.write_text(f'#!/bin/sh\nexec nsenter -t {host.pid} -n {sys.executable} "$@"\n', encoding="utf-8")
            python.chmod(0o755)
            self.hosts.append(host)
        services = self._add("services", SERVICES)
        server = subprocess.Popen(
            ["nsenter", "-t", str(services.pid), "-n", sys.executable, "-c", SERVER, str(self.pem), str(self.key),
             *(f"tls:{port}" for port in TLS), *(f"http:{port}" for port in HTTP)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        services.children.append(server)
        if server.stdout is None or server.stdout.readline().strip() != "ready":
            raise SystemExit("the server of the lab does not start")

    def _add(self, name: str, number: int) -> Host:
        host = self.lab.add(name, number)
        host.run("ip", "address", "flush", "dev", "eth0")
        host.run("ip", "address", "add", f"{address(number)}/32", "dev", "eth0")
        host.run("ip", "route", "add", ROUTER, "dev", "eth0")
        host.run("ip", "route", "add", "default", "via", ROUTER, "onlink", "dev", "eth0")
        return host

    def engine(self, number: int) -> dict[str, Any]:
        """The engine on one host."""
        root = Path(__file__).resolve().parents[5]
        done = subprocess.run(
            ["nsenter", "-t", str(self.hosts[number - 1].pid), "-n", sys.executable, "-c", ENGINE, str(root),
             str(self.folder / f"flows-{number}.json"), str(self.pem)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def inventory(self) -> dict[str, Any]:
        names = {
            f"host{number}": {
                "ansible_python_interpreter": str(self.folder / f"python-{number}"),
                "circleci_verify_flows": packed(json.loads((self.folder / f"flows-{number}.json").read_text(encoding="utf-8"))),
            }
            for number in range(1, len(self.hosts) + 1)
        }
        control = {"control": {"ansible_python_interpreter": sys.executable}}
        return {"all": {"vars": {"ansible_connection": "local", "circleci_verify_rules": "[]", "circleci_verify_ca_certificate": self.pem.read_text("utf-8")},
                        "children": {"circleci_nomad_clients": {"hosts": names}, "circleci_sites": {"hosts": control}}}}  # fmt: skip

    def plays(self) -> list[dict[str, Any]]:
        """Connections on each host, then verdict and report on the control host, with the modules of the verb verify."""
        names = [f"host{number}" for number in range(1, len(self.hosts) + 1)]
        model = {"hosts": [{"name": name, "addresses": [address(number)], "groups": ["circleci_nomad_clients"]} for number, name in enumerate(names, 1)]}
        joined = "{{ '__circleci_verify_host' | onprem.circleci_server.site_connections(groups, hostvars, inventory_hostname) }}"
        connect = {"ansible.builtin.import_role": {"name": "onprem.circleci_server.verify", "tasks_from": "host"},
                   "vars": {"circleci_verify_listeners": False}}  # fmt: skip
        judge = {"onprem.circleci_server.site_verdict": {"site": {"site": "benchmark"}, "hosts": joined, "model": model, "fail": False}, "register": "judged"}
        report = {"onprem.circleci_server.site_report": {"path": str(self.folder / "report"), "findings": "{{ judged.findings }}"}}
        first = "{{ 'circleci_nomad_clients' | onprem.circleci_server.with_filters_loaded }}"
        return [{"hosts": first, "gather_facts": False, "tasks": [connect]},
                {"hosts": "circleci_sites", "gather_facts": False, "tasks": [judge, report]}]  # fmt: skip


def _reported(folder: Path) -> list[Any]:
    flows: list[Any] = json.loads((folder / "report/report.json").read_text(encoding="utf-8"))["flows"]
    return flows


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    if usable():
        sys.stderr.write(usable() + "\n")
        return 1
    each = len(flows(1, given.hosts))
    wrong: list[str] = []
    tasks: Mapping[str, float] = {}
    found: dict[str, list[float]] = {"one engine": [], "all engines": [], "all engines, CPU": [], "playbook": [], "playbook, CPU": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-verify-") as folder:
        site = Site(Path(folder), given.hosts)
        try:
            for turn in range(given.runs):
                alone = site.engine(1 + turn % given.hosts)
                found["one engine"].append(alone["seconds"])
                begin, used = time.monotonic(), cpu_seconds()
                with ThreadPoolExecutor(given.hosts) as pool:
                    together = list(pool.map(site.engine, range(1, given.hosts + 1)))
                found["all engines"].append(time.monotonic() - begin)
                found["all engines, CPU"].append(cpu_seconds() - used)
                run = play(Path(folder) / "plays", f"verify-{turn}", site.plays(), site.inventory(), None, given.forks)
                found["playbook"].append(run.seconds)
                found["playbook, CPU"].append(run.cpu)
                tasks = run.tasks
                verdicts: Counter[str] = Counter()
                for result in run.results:
                    # The report's summary is lines of text.
                    if isinstance(result.get("summary"), dict):
                        verdicts.update(result["summary"])
                for name, counted, expected in (
                    ("one engine: proved", alone["verdicts"].get("proved", 0), each),
                    ("all engines: proved", sum(item["verdicts"].get("proved", 0) for item in together), each * given.hosts),
                    ("playbook: proved", verdicts["proved"], each * given.hosts),
                    ("playbook: in the report", len(_reported(Path(folder))), each * given.hosts),
                    ("playbook: remote calls", run.remote_calls, given.hosts + 2),
                ):
                    if counted != expected:
                        wrong.append(f"run {turn + 1}: {name} {counted}, not {expected} {(alone['wrong'] or '') if 'one' in name else ''}")
        finally:
            site.lab.close()
    for name, seconds in found.items():
        sys.stdout.write(f"{name:16} {statistics.median(seconds):5.1f} s (from {min(seconds):.1f} to {max(seconds):.1f})\n")
    sys.stdout.write(f"of the last playbook: {', '.join(f'{name} {seconds} s' for name, seconds in tasks.items())}\n")
    sys.stdout.write(f"{given.hosts} hosts, {each} connections each, {each * given.hosts} in all, {given.forks} forks\n")
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps({"hosts": given.hosts, "connections": each, "seconds": found}, indent=2) + "\n", encoding="utf-8")
    for text in wrong:
        sys.stderr.write(f"REFUSED {text}\n")
    return 1 if wrong else 0
