#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operating system must bring for parts of the tests: named, and on Debian installed when root runs this.

Runs with the plain Python of the system, before there is a tool chain.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sandbox import machine
from sandbox.common import SandboxError, cache_dir

SIGNING = {"ssh-keygen": "openssh-client", "gpg": "gpg", "gpg-agent": "gpg-agent"}
# Part -> program -> Debian packages.
PARTS: dict[str, dict[str, str]] = {
    "toolchain": {"git": "git"},
    "units": {"openssl": "openssl", **SIGNING},
    "programs": {"go": ""},
    "mirror": {"docker-registry": "docker-registry", "htpasswd": "apache2-utils", "minisign": "minisign", "skopeo": "skopeo", **SIGNING},
    "store": {"nginx": "nginx-light"},
    "firewall": {
        "unshare": "util-linux",
        "ip": "iproute2",
        "nft": "nftables",
        "iptables-restore": "iptables",
        "ufw": "ufw",
        "firewalld": "firewalld",
        "dbus-daemon": "dbus",
    },
    "bootstrap": {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "shellcheck": "shellcheck", "minisign": "minisign", **SIGNING},
    "nomad": {"docker-registry": "docker-registry", "dockerd": "docker.io", "curl": "curl", "ip": "iproute2", "openssl": "openssl"},
    "packages": {"rpmbuild": "rpm", "createrepo_c": "createrepo-c", "dnf": "dnf", **SIGNING},
    "runner": {
        "systemctl": "systemd", "unshare": "util-linux", "ip": "iproute2", "update-ca-certificates": "ca-certificates", "git": "git", "ssh": "openssh-client",
    },
    "browser": {"chromium": "chromium"},
    "postgres": {"pg_createcluster": "postgresql"},
    "databases": {"pg_createcluster": "postgresql", "rabbitmq-server": "rabbitmq-server"},
    "sandbox": {},
}
ROOT_ONLY = {"firewall": "makes network namespaces", "nomad": "starts Nomad clients", "runner": "starts a systemd of its own"}


def missing(parts: list[str]) -> dict[str, str]:
    """Programs that are not there, with the packages that bring them."""
    found = {tool: packages for part in parts for tool, packages in PARTS[part].items() if shutil.which(tool) is None}
    # with a filled cache the sandbox starts without it
    if "sandbox" in parts and not (cache_dir() / "artifacts").is_dir() and shutil.which("go") is None:
        found["go"] = ""
    # Debian has it apart from Python itself
    if "toolchain" in parts and importlib.util.find_spec("ensurepip") is None:
        found[f"{Path(sys.executable).name} -m venv"] = "python3-venv"
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parts = parser.parse_args(argv).parts
    try:
        if "sandbox" in parts:
            machine.check()
        if os.geteuid() != 0:
            for part in parts:
                if part in ROOT_ONLY:
                    raise SandboxError(f"this is user {os.geteuid()}; the part {part} {ROOT_ONLY[part]} and needs root. Use sudo")
        # a test wants the program alone: no registry and no packet filter starts on this machine
        machine.install(missing(parts), start_services=False)
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
