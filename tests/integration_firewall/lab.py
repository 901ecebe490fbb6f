# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts made of a network and a mount namespace each, on one bridge: real packet filters, nothing of the machine touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.errors import FirewallError
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.system import Result, System

# Packet filters, and the program that tells whether one is here.
FILTERS = {"nftables": "nft", "iptables": "iptables-restore", "ufw": "ufw", "firewalld": "firewalld"}
LISTENER = """
import socket, sys
sockets = []
for family, address in ((socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')):
    for port in map(int, sys.argv[1:]):
        s = socket.socket(family)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, port)); s.listen(1024); sockets.append(s)
sys.stdout.write('ready\\n'); sys.stdout.flush()
import select
while True:
    for s in select.select(sockets, [], [])[0]:
        s.accept()[0].close()
"""
# What sshd is to hosts elsewhere; the connection plugin lab_exec speaks to it.
EXEC_PORT = 8022
COMMANDS = """
import base64, json, socketserver, subprocess, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        if not line: return
        asked = json.loads(line)
        done = subprocess.run(["sh", "-c", asked["command"]], input=base64.b64decode(asked["input"]), capture_output=True)
        answer = {"code": done.returncode, "out": base64.b64encode(done.stdout).decode(), "err": base64.b64encode(done.stderr).decode()}
        self.wfile.write(json.dumps(answer).encode() + b"\\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
server = Server(("0.0.0.0", int(sys.argv[1])), Handler)
sys.stdout.write('ready\\n'); sys.stdout.flush()
server.serve_forever()
"""
CONNECT = """
import errno, socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(float(sys.argv[3]))
try:
    s.connect((sys.argv[1], int(sys.argv[2]))); sys.stdout.write('open')
except socket.timeout: sys.stdout.write('timeout')
except OSError as e: sys.stdout.write('refused' if e.errno == errno.ECONNREFUSED else 'rejected' if e.errno in (errno.EHOSTUNREACH, errno.EACCES, errno.ENETUNREACH) else str(e))
"""


class HostSystem(System):
    """The engine's view of a host of the lab."""

    def __init__(self, pid: int) -> None:
        super().__init__(root=f"/proc/{pid}/root")
        self.pid = pid

    def run(
        self, argv: Sequence[str], stdin: str = "", check: bool = False, env: Optional[Mapping[str, str]] = None
    ) -> Result:
        if self.which(argv[0]) is None:
            return super().run(argv, stdin, check, env)
        return super().run(["nsenter", "-t", str(self.pid), "-m", "-n", *argv], stdin, check, env)

    def spawn(self, argv: Sequence[str]) -> None:
        super().spawn(["/usr/bin/nsenter", "-t", str(self.pid), "-m", "-n", *argv])


class Host:
    """One host; ``folders`` of the machine are copied and mounted over themselves, so that the host may change them."""

    def __init__(self, folder: Path, name: str, folders: Sequence[str] = ()) -> None:
        self.name = name
        self.children: list[subprocess.Popen[str]] = []
        self.made: list[str] = []
        script = "mount --make-rprivate / && "
        for number, source in enumerate(("/var/lib", "/etc/onprem-circleci", "/etc/systemd/system", "/run", *folders)):
            copy = folder / f"{name}-{number}"
            if source in folders and os.path.isdir(source):
                shutil.copytree(source, copy, symlinks=True)
            elif source in folders and os.path.isfile(source):
                shutil.copy2(source, copy)
            else:
                copy.mkdir()
            if not os.path.exists(source):
                # something to mount over; taken away again
                os.makedirs(source)
                self.made.append(source)
            script += f"mount --bind {copy} {source} && "
        script += "ip link set lo up && echo ready && exec sleep infinity"
        self.process = subprocess.Popen(
            ["unshare", "-m", "-n", "sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise FirewallError("namespaces could not be made")
        self.pid = self.process.pid
        self.system = HostSystem(self.pid)

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        """A command inside the host."""
        result = self.system.run(argv, stdin=stdin)
        if check and result.code:
            raise AssertionError(f"{argv}: {result.out}{result.err}")
        return result.out

    def listen(self, *ports: int) -> None:
        """Listen on TCP ports of both address families."""
        child = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-n", sys.executable, "-c", LISTENER, *map(str, ports)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        assert child.stdout is not None and child.stdout.readline().strip() == "ready"

    def serve_commands(self, python: str) -> None:
        """Run what the connection plugin lab_exec asks for."""
        child = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-m", "-n", python, "-c", COMMANDS, str(EXEC_PORT)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.children.append(child)
        assert child.stdout is not None and child.stdout.readline().strip() == "ready"

    def background(self, *argv: str) -> subprocess.Popen[str]:
        """A process inside the host that ends with it."""
        child = subprocess.Popen(
            ["nsenter", "-t", str(self.pid), "-m", "-n", *argv],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        return child

    def connect(self, address: str, port: int, timeout: float = 0.6) -> str:
        """What a connection from this host finds: open, refused, timeout or rejected."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", sys.executable, "-c", CONNECT, address, str(port), str(timeout)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout

    def close(self) -> None:
        """End the host's processes, and with the last one its namespaces."""
        for child in [*self.children, self.process]:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for folder in self.made:
            os.rmdir(folder)


class Lab:
    """Hosts on one bridge, 10.77.0.0/24 and fd77::/64."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        self.switch = Host(folder, "switch")
        self.hosts.append(self.switch)
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        self.switch.run("ip", "link", "set", "br0", "up")

    def add(self, name: str, number: int, folders: Sequence[str] = ()) -> Host:
        """A host with the addresses 10.77.0.<number> and fd77::<number>."""
        host = Host(self.folder, name, folders)
        self.hosts.append(host)
        port = f"p{number}"
        self.switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self.switch.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        host.run("ip", "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        return host

    def guarded(self, name: str, number: int, backend: str, more: Sequence[str] = ()) -> Host:
        """A host whose filter is ``backend``, started and with a default deny where the filter has one."""
        if backend == "ufw":
            host = self.add(name, number, ["/etc/ufw", "/etc/default/ufw", *more])
            host.run("ufw", "--force", "enable")
            host.run("ufw", "allow", "9000/tcp")
        elif backend == "firewalld":
            host = self.add(name, number, ["/etc/firewalld", *more])
            # Docker makes this zone when it finds firewalld.
            host.system.write(
                "/etc/firewalld/zones/docker.xml",
                '<?xml version="1.0" encoding="utf-8"?>\n<zone target="ACCEPT">\n  <short>docker</short>\n</zone>\n',
            )
            host.run("mkdir", "-p", "/run/dbus")
            host.background("dbus-daemon", "--system", "--nofork", "--nopidfile")
            assert wait(lambda: host.system.exists("/run/dbus/system_bus_socket"))
            host.background("firewalld", "--nofork", "--nopid")
            assert wait(lambda: "running" in host.run("firewall-cmd", "--state", check=False), 15)
            host.run("firewall-cmd", "--permanent", "--add-port=9000/tcp")
            host.run("firewall-cmd", "--add-port=9000/tcp")
            host.run("firewall-cmd", "--zone=public", "--add-interface=eth0")
        else:
            host = self.add(name, number)
        return host

    def close(self) -> None:
        """End everything; the first host last, for it made what the others mount over."""
        for host in reversed(self.hosts):
            host.close()


def usable() -> str:
    """Why the lab cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "needs root for namespaces"
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return ""


def wait(condition, seconds: float = 5.0) -> bool:  # type: ignore[no-untyped-def]
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


__all__ = ["Host", "Lab", "socket", "usable", "wait"]
