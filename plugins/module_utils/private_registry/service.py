# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired and current state of the registry's host, in one call."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..host.units import folder_is_left, remove_folder
from .passwords import PasswordError, merged_htpasswd

PACKAGE = "docker-registry"
PACKAGED_UNIT = "docker-registry.service"
UNIT = "onprem-circleci-registry.service"
USER = "docker-registry"
PROGRAM = "/usr/bin/docker-registry"
HEALTH_SECONDS = 60
HEADROOM = 64 << 20
"""Bytes that must stay free beside what a bundle needs."""


class RegistryHostError(Exception):
    """One sentence for the operator, or several lines with all problems."""


@dataclass(frozen=True)
class Wanted:
    """What the host is to be."""

    storage_dir: Path
    certificate: str
    private_key: str = field(repr=False, default="")
    users: Mapping[str, str] = field(repr=False, default_factory=dict)
    port: int = 5000
    address: str = ""
    packages: Sequence[Mapping[str, str]] = ()
    archive: Optional[Path] = None
    needed_bytes: int = 0
    config_dir: Path = Path("/etc/onprem-circleci/registry")


@dataclass
class Outcome:
    """What was or would be done; ``before`` and ``after`` are lines for a difference and never hold secrets."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    changed: bool = False
    restarted: bool = False
    packages: list[str] = field(default_factory=list)

    def note(self, name: str, before: str, after: str) -> None:
        if before:
            self.before.append(f"{name}: {before}")
        if after:
            self.after.append(f"{name}: {after}")
        self.changed = self.changed or before != after


@dataclass(frozen=True)
class _File:
    path: Path
    content: str
    mode: int
    group: str
    restart: bool
    secret: bool = False


class Host:
    """The programs of the host, apart so that tests can stand in for them."""

    def run(self, argv: Sequence[str], environment: Optional[Mapping[str, str]] = None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                list(argv), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C", **(environment or {})}
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(list(argv), 127, "", f"{argv[0]}: not found")

    def installed(self, package: str) -> str:
        """The version of an installed package, empty when there is none."""
        found = self.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]).stdout.split(" ", 1)
        return found[1].strip() if found[0] == "installed" and len(found) == 2 else ""

    def unit(self, name: str) -> dict[str, str]:
        shown = self.run(["systemctl", "show", name, "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload"]).stdout
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def free(self, path: Path) -> int:
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free

    def has_user(self, name: str) -> bool:
        try:
            pwd.getpwnam(name)
        except KeyError:
            return False
        return True

    def chown(self, path: Path, user: str, group: str) -> None:
        shutil.chown(path, user, group)

    def name(self) -> str:
        return socket.gethostname()


class Registry:
    """One registry on this host."""

    def __init__(self, wanted: Wanted, host: Optional[Host] = None) -> None:
        self.wanted = wanted
        self.host = host or Host()
        self.unit_path = Path("/etc/systemd/system") / UNIT
        self.masked_path = Path("/etc/systemd/system") / PACKAGED_UNIT

    # --- what is missing --------------------------------------------------------------------------------------------

    def missing_packages(self) -> list[Mapping[str, str]]:
        """Packages to install: the registry's own in its version, the others when they are not there at all."""
        missing = []
        for package in self.wanted.packages:
            version = self.host.installed(package["package"])
            if not version or (package["package"] == PACKAGE and version != package["version"]):
                missing.append(package)
        return missing

    def check(self) -> None:
        """All that can be wrong with what was given, at once."""
        problems = []
        if not any(package["package"] == PACKAGE for package in self.wanted.packages) and not self.host.installed(PACKAGE):
            problems.append(f"circleci_bundle_packages must hold {PACKAGE}: the bundle brings none and {self.host.name()} has none; make the bundle again")
        problems += self._certificate_problems()
        if not self.wanted.users:
            problems.append("circleci_registry_username and circleci_registry_password must be given: a registry without a login is not set up")
        if not self.wanted.storage_dir.is_absolute():
            problems.append(f"circleci_registry_storage_dir is {self.wanted.storage_dir}; allowed is an absolute path")
        problems += self._space_problems()
        if problems:
            raise RegistryHostError("\n".join(problems))

    def _certificate_problems(self) -> list[str]:
        with tempfile.TemporaryDirectory(prefix="onprem-circleci-tls-") as work:
            place = Path(work) / "pair.pem"
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(f"{self.wanted.certificate.strip()}\n{self.wanted.private_key.strip()}\n")
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(place))
            except ssl.SSLError as error:
                if "KEY_VALUES_MISMATCH" in str(error):
                    return ["circleci_registry_private_key does not belong to circleci_registry_certificate"]
                reason = error.reason or "no PEM"
                return [f"circleci_registry_certificate and circleci_registry_private_key cannot be read as PEM ({reason}); the verb secrets makes them"]
        return []

    def _space_problems(self) -> list[str]:
        needed, storage = self.wanted.needed_bytes, self.wanted.storage_dir
        free = self.host.free(storage)
        if free < HEADROOM or free < needed + HEADROOM:
            # Only now is it worth the walk: much of the bundle may be there already.
            needed = max(0, needed - used_bytes(storage / "docker" / "registry" / "v2" / "blobs"))
            if free < needed + HEADROOM:
                return [
                    f"the disk of {self.host.name()} that holds circleci_registry_storage_dir ({storage}) has {free} bytes free, "
                    f"{needed + HEADROOM} are needed for the bundle; enlarge it, collect garbage, or name another folder"
                ]
        return []

    # --- files ------------------------------------------------------------------------------------------------------

    def _files(self) -> list[_File]:
        folder = self.wanted.config_dir
        return [
            _File(folder / "config.yml", self.config(), 0o640, USER, True),
            _File(folder / "tls.crt", self.wanted.certificate.strip() + "\n", 0o644, USER, True),
            _File(folder / "tls.key", self.wanted.private_key.strip() + "\n", 0o640, USER, True, secret=True),
            _File(folder / "environment", self._environment(), 0o600, "root", True, secret=True),
            # The registry reads it again when it has changed.
            _File(folder / "htpasswd", self._htpasswd(), 0o640, USER, False, secret=True),
            _File(self.unit_path, self.unit_text(), 0o644, "root", True),
        ]

    def config(self) -> str:
        """The registry's own configuration."""
        folder = self.wanted.config_dir
        return (
            "# Written by onprem.circleci_server; changes are overwritten.\n"
            "version: 0.1\n"
            "log:\n  level: warn\n  accesslog:\n    disabled: true\n"
            "storage:\n"
            f"  filesystem:\n    rootdirectory: {json.dumps(str(self.wanted.storage_dir))}\n"
            "  delete:\n    enabled: true\n"
            "  cache:\n    blobdescriptor: inmemory\n"
            # An upload that was cut off goes on a week later; after that its bytes are given back.
            "  maintenance:\n    uploadpurging:\n      enabled: true\n      age: 168h\n      interval: 24h\n      dryrun: false\n"
            "http:\n"
            f"  addr: {json.dumps(f'{self.wanted.address}:{self.wanted.port}')}\n"
            f"  tls:\n    certificate: {folder}/tls.crt\n    key: {folder}/tls.key\n"
            "  headers:\n    X-Content-Type-Options: [nosniff]\n"
            "auth:\n"
            f"  htpasswd:\n    realm: onprem-circleci\n    path: {folder}/htpasswd\n"
            "health:\n  storagedriver:\n    enabled: true\n    interval: 10s\n    threshold: 3\n"
        )

    def unit_text(self) -> str:
        """The systemd unit."""
        return (
            "# Written by onprem.circleci_server; changes are overwritten.\n"
            "[Unit]\nDescription=Private registry of CircleCI Server\nAfter=network-online.target\nWants=network-online.target\n"
            f"RequiresMountsFor={self.wanted.storage_dir}\n\n"
            f"[Service]\nUser={USER}\nEnvironmentFile={self.wanted.config_dir}/environment\nExecStart={PROGRAM} serve {self.wanted.config_dir}/config.yml\n"
            "Restart=always\nRestartSec=2\nLimitNOFILE=65536\nUMask=0027\n"
            f"NoNewPrivileges=true\nProtectSystem=full\nPrivateTmp=true\nReadWritePaths={self.wanted.storage_dir}\n\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )

    def _environment(self) -> str:
        # Signs the state of uploads: with a new one each start, no upload could go on after a restart.
        known = re.search(r"^REGISTRY_HTTP_SECRET=(\S+)$", _read(self.wanted.config_dir / "environment"), re.MULTILINE)
        return f"REGISTRY_HTTP_SECRET={known.group(1) if known else secrets.token_hex(32)}\nOTEL_TRACES_EXPORTER=none\n"

    def _htpasswd(self) -> str:
        try:
            return merged_htpasswd(_read(self.wanted.config_dir / "htpasswd"), self.wanted.users)
        except PasswordError as error:
            raise RegistryHostError(str(error)) from error

    # --- doing it ---------------------------------------------------------------------------------------------------

    def apply(self, *, write: bool) -> Outcome:
        """Compare, and with *write* bring the host to it."""
        self.check()
        outcome = Outcome()
        missing = self.missing_packages()
        for package in missing:
            outcome.note(f"package {package['package']}", self.host.installed(package["package"]), package["version"])
        outcome.packages = [package["package"] for package in missing]
        if write and missing:
            self._install(missing)
        self._storage(outcome, write)
        restart = bool(missing)
        for file in self._files():
            restart = (self._file(file, outcome, write) and file.restart) or restart
        self._service(outcome, write, restart)
        if write:
            self.wait_until_healthy()
        return outcome

    def _install(self, missing: Sequence[Mapping[str, str]]) -> None:
        archive = self.wanted.archive
        names = ", ".join(package["package"] for package in missing)
        if archive is None or not archive.is_file():
            raise RegistryHostError(f"{names}: the packages were not brought to {self.host.name()} ({archive} is not there)")
        # The package would start a registry of its own on the same port, open to everybody, before ours is configured.
        if not self.masked_path.exists() and not self.masked_path.is_symlink():
            self.masked_path.symlink_to("/dev/null")
        with tempfile.TemporaryDirectory(prefix="onprem-circleci-packages-") as work:
            paths = []
            with tarfile.open(archive) as bundle:
                for package in missing:
                    try:
                        stream = bundle.extractfile(package["name"])
                    except KeyError:
                        stream = None
                    data = stream.read() if stream else b""
                    if hashlib.sha256(data).hexdigest() != package["sha256"]:
                        raise RegistryHostError(f"{archive}: {package['name']} is missing or damaged; run the same command again")
                    path = Path(work) / package["name"]
                    path.write_bytes(data)
                    paths.append(str(path))
            done = self.host.run(["dpkg", "--install", "--force-confold", *paths], {"DEBIAN_FRONTEND": "noninteractive"})
        if done.returncode:
            reasons = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower() or "depends on" in line]
            raise RegistryHostError(f"dpkg cannot install {names} on {self.host.name()}: {'; '.join(reasons)[:600] or 'no reason given'}")

    def _storage(self, outcome: Outcome, write: bool) -> None:
        storage = self.wanted.storage_dir
        there = storage.is_dir()
        owned = there and self.host.has_user(USER) and storage.stat().st_uid == pwd.getpwnam(USER).pw_uid
        outcome.note(f"folder {storage}", "there" if owned else "there, of another owner" if there else "", "there")
        if write and not owned:
            storage.mkdir(parents=True, exist_ok=True, mode=0o750)
            self.host.chown(storage, USER, USER)

    def _file(self, file: _File, outcome: Outcome, write: bool) -> bool:
        current = _read(file.path) if file.path.exists() else None
        same = current == file.content and file.path.stat().st_mode & 0o777 == file.mode
        short = "secret content" if file.secret else hashlib.sha256(file.content.encode()).hexdigest()[:12]
        if same:
            outcome.note(str(file.path), short, short)
            return False
        before = "" if current is None else "other content or mode"
        outcome.note(str(file.path), before, short)
        if write:
            file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            handle, name = tempfile.mkstemp(prefix=f".{file.path.name}.", dir=file.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(file.content)
                self.host.chown(Path(name), "root", file.group)
                Path(name).chmod(file.mode)
                Path(name).replace(file.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        return True

    def _service(self, outcome: Outcome, write: bool, restart: bool) -> None:
        state = self.host.unit(UNIT)
        enabled, active = state.get("UnitFileState") == "enabled", state.get("ActiveState") == "active"
        outcome.note(f"unit {UNIT}", ", ".join(word for word, holds in (("enabled", enabled), ("active", active)) if holds), "enabled, active")
        outcome.restarted = restart
        if not write:
            return
        steps = []
        if restart or state.get("NeedDaemonReload") == "yes":
            steps.append(["systemctl", "daemon-reload"])
        if not enabled:
            steps.append(["systemctl", "enable", UNIT])
        if restart or not active:
            steps.append(["systemctl", "restart", UNIT])
        for step in steps:
            done = self.host.run(step)
            if done.returncode:
                raise RegistryHostError(f"{' '.join(step)} failed on {self.host.name()}: {done.stderr.strip()[:300]}{self._journal()}")

    def _journal(self) -> str:
        lines = self.host.run(["journalctl", "--unit", UNIT, "--lines=3", "--no-pager", "--output=cat"]).stdout.strip().splitlines()
        return f" The registry's last words: {' | '.join(lines)[:600]}" if lines else ""

    # --- health -----------------------------------------------------------------------------------------------------

    def answers(self) -> str:
        """What is wrong with the registry's answers; empty when it asks for a login and takes ours."""
        name, password = next(iter(self.wanted.users.items()))
        login = base64.b64encode(f"{name}:{password}".encode()).decode()
        # The certificate names the host, not its loopback address; whether others trust it is checked from the control host.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for headers, wanted in (({}, 401), ({"Authorization": f"Basic {login}"}, 200)):
            connection = http.client.HTTPSConnection(self.wanted.address or "127.0.0.1", self.wanted.port, timeout=10, context=context)
            try:
                connection.request("GET", "/v2/", headers=headers)
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException) as error:
                return f"port {self.wanted.port} does not answer ({error})"
            finally:
                connection.close()
            if status != wanted:
                return f"port {self.wanted.port} answers {status} {'with' if headers else 'without'} a login, expected was {wanted}"
        return ""

    def wait_until_healthy(self) -> None:
        """Until the registry answers as it should."""
        ends = time.monotonic() + HEALTH_SECONDS
        while problem := self.answers():
            if time.monotonic() > ends or self.host.unit(UNIT).get("ActiveState") == "failed":
                raise RegistryHostError(f"the registry on {self.host.name()} is not healthy: {problem}.{self._journal()}")
            time.sleep(0.5)

    # --- taking away ------------------------------------------------------------------------------------------------

    def remove(self, *, write: bool, purge_storage: bool) -> Outcome:
        """Take the service away, and with *purge_storage* what it holds. The package goes with the service that needed it."""
        outcome = Outcome()
        state = self.host.unit(UNIT)
        if state.get("LoadState") == "loaded":
            outcome.note(f"unit {UNIT}", state.get("ActiveState", ""), "")
            if write:
                self.host.run(["systemctl", "disable", "--now", UNIT])
        version = self.host.installed(PACKAGE) if self.masked_path.is_symlink() else ""
        if version:
            outcome.note(f"package {PACKAGE}", version, "")
            if write:
                done = self.host.run(["dpkg", "--purge", PACKAGE])
                if done.returncode:
                    raise RegistryHostError(f"dpkg cannot remove {PACKAGE} on {self.host.name()}: {done.stderr.strip()[:300]}")
        places = [self.unit_path, self.masked_path, self.wanted.config_dir]
        if purge_storage:
            places.append(self.wanted.storage_dir)
        for place in places:
            if not place.is_symlink() and not (folder_is_left(place) if place.is_dir() else place.exists()):
                continue
            outcome.note(str(place), "there", "")
            if write:
                _remove(place)
        if write and outcome.changed:
            self.host.run(["systemctl", "daemon-reload"])
        return outcome

    def collect_garbage(self, *, write: bool) -> tuple[Outcome, int]:
        """Delete blobs that no manifest names. The registry stands still meanwhile: an upload in that moment would lose its blobs."""
        config = f"{self.wanted.config_dir}/config.yml"
        if not Path(config).is_file():
            raise RegistryHostError(f"{self.host.name()} has no registry of this collection: {config} is not there")
        blobs = self.wanted.storage_dir / "docker" / "registry" / "v2" / "blobs"
        before = used_bytes(blobs)
        planned = self.host.run([PROGRAM, "garbage-collect", "--dry-run", config])
        found = re.findall(r"blob eligible for deletion: (sha256:[0-9a-f]{64})", planned.stdout + planned.stderr)
        outcome = Outcome()
        for digest in sorted(set(found)):
            outcome.note(digest, "no manifest names it", "")
        if not write or not found:
            return outcome, 0
        self.host.run(["systemctl", "stop", UNIT])
        try:
            done = self.host.run(["runuser", "--user", USER, "--", PROGRAM, "garbage-collect", config])
            if done.returncode:
                raise RegistryHostError(f"collecting garbage failed on {self.host.name()}: {done.stderr.strip()[-300:]}")
        finally:
            self.host.run(["systemctl", "start", UNIT])
        self.wait_until_healthy()
        return outcome, before - used_bytes(blobs)


def used_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for place, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOTDIR:
            return ""
        raise RegistryHostError(f"{path}: cannot be read: {error}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink()
