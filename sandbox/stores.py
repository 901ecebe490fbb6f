# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores of others on the store's host: what a gateway stands before, or what is in the place of a cloud's own store. Units there go with the host."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import artifacts, docker, layout
from .common import SandboxError, cache_dir

FOLDER = "/srv/stand-in"
"""Where they keep their data."""
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of Azure's emulator, the same everywhere."""
MINIO, AZURITE = "stand-in-minio", "stand-in-azurite"
"""Units of them."""
LOOPBACK = "127.0.0.1"


def host() -> str:
    return layout.host("store").container


def start(unit: str, command: list[str], environment: Mapping[str, str]) -> None:
    """Run a program as a unit, anew if it runs."""
    words = ["systemd-run", f"--unit={unit}", "--collect", *(f"--setenv={name}={value}" for name, value in environment.items()), *command]
    stop(unit)
    docker.execute(host(), words)


def stop(unit: str) -> None:
    docker.execute(host(), ["systemctl", "stop", unit], check=False)


def put(source: Path, target: str) -> None:
    docker.execute(host(), ["mkdir", "-p", str(Path(target).parent)])
    docker.call(["cp", "--follow-link", str(source), f"{host()}:{target}"])


def there(path: str) -> bool:
    return docker.execute(host(), ["test", "-e", path], check=False).returncode == 0


def minio(access_key: str, secret_key: str, more: Mapping[str, str] | None = None) -> None:
    """A MinIO server of the last community sources."""
    program = "/opt/stand-in/minio"
    if not there(program):
        put(artifacts.ensure(artifacts.find("minio")) / "minio", program)
    environment = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "HOME": "/root", **(more or {})}
    start(MINIO, [program, "server", "--quiet", "--address", ":9000", FOLDER], environment)


def azurite(address: str = LOOPBACK, accounts: Mapping[str, str] | None = None) -> None:
    """Azurite at an address of the host; a gateway on the host itself needs no more than its loopback. Without accounts there is the one of the emulator."""
    modules = "/opt/stand-in/node_modules"
    if not there(modules):
        _put_azurite(modules)
    script = f"{modules}/azurite/dist/src/blob/main.js"
    # The name of a host is not that of an account.
    words = ["--silent", "--disableTelemetry", "--loose", "--skipApiVersionCheck", "--disableProductStyleUrl", "--blobHost", address, "--blobPort", "10000"]
    own = {"AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in accounts.items())} if accounts else {}
    start(AZURITE, ["/opt/stand-in/node", script, *words, "--location", FOLDER], {"HOME": "/root", **own})


def _put_azurite(modules: str) -> None:
    folder = cache_dir() / "azurite-3.35.0"
    if not (folder / ".ready").exists():
        raise SandboxError("Azurite is not there: make test-store sets it up")
    found = subprocess.run(["sh", "-c", "command -v node"], check=False, capture_output=True, text=True).stdout.strip()
    if not found:
        raise SandboxError("node is not there, which Azurite needs")
    put(Path(found), "/opt/stand-in/node")
    docker.call(["cp", str(folder / "node_modules"), f"{host()}:{modules}"])
    if docker.execute(host(), ["/opt/stand-in/node", "--version"], check=False).returncode != 0:
        library = subprocess.run(["sh", "-c", "ldconfig -p | sed -n 's/.*libstdc++.so.6 .*=> //p' | head -1"], check=True, capture_output=True, text=True).stdout.strip()
        put(Path(library), "/usr/lib/x86_64-linux-gnu/libstdc++.so.6")
