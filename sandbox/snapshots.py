# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep and bring back the whole state of all hosts: root file system and volumes, copied while everything stands still."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

from . import docker, layout, site
from .common import SandboxError, cache_dir, run, say, step, write_atomic

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")


def place() -> Path:
    return cache_dir() / "snapshots"


def names() -> list[str]:
    return sorted(path.name for path in place().iterdir() if (path / "snapshot.json").is_file()) if place().is_dir() else []


def _hosts() -> list[layout.Host]:
    return [item for item in layout.HOSTS if item.keeps_state]


def _upper(item: layout.Host) -> Path:
    """Where docker keeps what the host changed in its root file system."""
    found = docker.inspect("container", [item.container]).get(item.container)
    if found is None:
        raise SandboxError(f"host {item.name} does not exist: run `python3 -m sandbox up`")
    if found["GraphDriver"]["Name"] != "overlay2":
        raise SandboxError(f"docker stores containers with {found['GraphDriver']['Name']}; snapshots need overlay2")
    return Path(found["GraphDriver"]["Data"]["UpperDir"])


def _identity(item: layout.Host) -> str:
    return str(docker.inspect("container", [item.container])[item.container]["Image"])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # whiteouts are devices and opaque folders are trusted.* attributes: --archive keeps both; shared blocks where the disk can
    run(["cp", "--archive", "--reflink=auto", "--one-file-system", str(source), str(target)])


def stop_hosts() -> None:
    with step("stopping the hosts", 10):
        site._parallel(lambda item: _stop(item), _hosts())


def _stop(item: layout.Host) -> None:
    docker.call(["stop", "--time", "20", item.container])


def save(name: str) -> None:
    """Stop, copy, start again."""
    if not NAME.fullmatch(name):
        raise SandboxError(f"snapshot name {name!r}: use small letters, digits, dot, dash and underscore")
    target = place() / name
    work = place() / f".{name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    uppers = {item.name: _upper(item) for item in _hosts()}
    identities = {item.name: _identity(item) for item in _hosts()}
    stop_hosts()
    with step("copying their state", 15):
        for item in _hosts():
            _copy(uppers[item.name], work / item.name / "root")
            for volume in item.volumes:
                _copy(site.volume_dir(item, volume), work / item.name / "volumes" / site.volume_dir(item, volume).name)
        shutil.copytree(site.keys_dir(), work / "keys")
        (work / "keys").chmod(0o700)
        write_atomic(work / "snapshot.json", json.dumps({"format": 1, "images": identities, "made": time.time()}) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    _start()
    say(f"snapshot {name}: {size(target)} MiB in {target}")


def size(path: Path) -> int:
    return int(run(["du", "-sm", str(path)]).stdout.split()[0])


def restore(name: str) -> None:
    """Stop, put the copy in place, start again. A site that has been removed is made anew first."""
    source = place() / name
    if not (source / "snapshot.json").is_file():
        raise SandboxError(f"there is no snapshot {name!r}; snapshots: {', '.join(names()) or 'none'}")
    record = json.loads((source / "snapshot.json").read_text(encoding="utf-8"))
    known = site.containers()
    if any(item.container not in known for item in layout.HOSTS) or not site.same_keys(source / "keys"):
        # the keys are part of the state: hosts made with others would not know each other
        site.down()
        site.keys_dir().parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / "keys", site.keys_dir())
        site.up(start=False)
    for item in _hosts():
        if _identity(item) != record["images"][item.name]:
            raise SandboxError(f"snapshot {name} was made with another image of {item.name}; take a new one")
    uppers = {item.name: _upper(item) for item in _hosts()}
    stop_hosts()
    with step("putting the copy in place", 15):
        for item in _hosts():
            for wanted, present in [(source / item.name / "root", uppers[item.name])] + [
                (source / item.name / "volumes" / site.volume_dir(item, volume).name, site.volume_dir(item, volume)) for volume in item.volumes
            ]:
                site.empty(present)
                run(["cp", "--archive", "--reflink=auto", f"{wanted}/.", str(present)])
    _start()


def _start() -> None:
    known = site.containers()
    with step("starting the hosts", 15):
        site._parallel(site.start_host, [item for item in layout.HOSTS if not known[item.container]["State"]["Running"]])
    site.wait_ready()
    site.finish_hosts()
    site.wait_pods()
