# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs by version and checksum: upstream's release file where its checksum is known, Go modules otherwise."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import machine
from .common import SandboxError, cache_dir, lock, run, say, sha256_file, short_hash, write_atomic

CATALOGUE = Path(__file__).with_name("artifacts.yml")
USES = ("up", "content", "bench")
BUILD = "ONPREM_CIRCLECI_SANDBOX_BUILD"
# seconds for a first answer, and for each piece of a download
CONNECT, STALL = 8.0, 30.0
# hosts that did not answer in this run; they are asked once
_no_way: set[str] = set()


@dataclass(frozen=True)
class Artifact:
    """One entry of the catalogue."""

    name: str
    version: str
    use: tuple[str, ...]
    seconds: int
    files: tuple[str, ...]
    release: Mapping[str, Any] | None
    build: Mapping[str, Any]
    module_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """Changes when the result may change; usual durations and users of it do not count."""
        build = {key: value for key, value in self.build.items() if key != "sum"}
        return short_hash({"name": self.name, "version": self.version, "files": list(self.files), "build": build})

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def outputs(self) -> tuple[str, ...]:
        return (*self.files, *self.module_files)

    def folder(self, cache: Path | None = None) -> Path:
        return (cache or cache_dir()) / "artifacts" / f"{self.name}-{self.version}-{self.recipe}"


def load(path: Path = CATALOGUE) -> list[Artifact]:
    """Read and check the catalogue."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    found: list[Artifact] = []
    problems: list[str] = []
    for entry in document["artifacts"]:
        build = entry.get("build") or {}
        label = f"{entry.get('name')} {entry.get('version')}"
        if not isinstance(entry.get("version"), str):
            problems.append(f"{label}: version must be quoted")
        if not build.get("module") or not build.get("packages") or not build.get("module_version"):
            problems.append(f"{label}: build needs module, module_version and packages")
        problems.extend(f"{label}: use {use!r} is not one of {', '.join(USES)}" for use in entry["use"] if use not in USES)
        release = entry.get("release")
        if release and set(release["members"]) != set(entry["files"]):
            problems.append(f"{label}: release.members must name each of files")
        found.append(
            Artifact(
                name=entry["name"],
                version=entry["version"],
                use=tuple(entry["use"]),
                seconds=int(entry["seconds"]),
                files=tuple(entry["files"]),
                release=release,
                build=build,
                module_files=build.get("module_files") or {},
            )
        )
    keys = [(item.name, item.version) for item in found]
    problems.extend(f"{name} {version}: listed twice" for name, version in sorted({key for key in keys if keys.count(key) > 1}))
    if problems:
        raise SandboxError(f"{path}: " + "; ".join(problems))
    return found


def find(name: str, version: str | None = None, catalogue: Iterable[Artifact] | None = None) -> Artifact:
    """One artifact by name, and by version where there are several."""
    items = list(catalogue) if catalogue is not None else load()
    matching = [item for item in items if item.name == name and version in (None, item.version)]
    if not matching:
        known = ", ".join(sorted(item.label for item in items))
        raise SandboxError(f"artifact {name}{f' {version}' if version else ''} is not in {CATALOGUE.name}; known: {known}")
    if len(matching) > 1:
        raise SandboxError(f"artifact {name} has several versions: {', '.join(item.version for item in matching)}; name one")
    return matching[0]


def is_ready(item: Artifact) -> bool:
    """Whether it lies complete in the cache. Folders appear by one rename, so a killed build leaves nothing half."""
    return (item.folder() / "artifact.json").is_file()


def verify(item: Artifact) -> None:
    """Compare every file with the checksum written when it was made."""
    folder = item.folder()
    record = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    for name, digest in record["sha256"].items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            shutil.rmtree(folder)
            raise SandboxError(f"{path} is not what was put there; the folder has been removed, run the same command again")


def ensure(item: Artifact, *, check: bool = True) -> Path:
    """The folder with the files of an artifact; makes it when it is not there yet."""
    if not is_ready(item):
        with lock(cache_dir() / "locks" / f"artifact-{item.name}-{item.version}.lock", f"making {item.label}", wait=True):
            if not is_ready(item):
                _make(item)
    elif check:
        verify(item)
    return item.folder()


def _make(item: Artifact) -> None:
    parent = item.folder().parent
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f".{item.folder().name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{item.folder().name}.", dir=parent))
    begin = time.monotonic()
    try:
        way = _from_release(item, work) or _from_modules(item, work)
        digests = {}
        for name in item.outputs:
            path = work / name
            if not path.is_file():
                raise SandboxError(f"{item.label}: {name} is missing after it was made")
            path.chmod(0o755 if name in item.files else 0o644)
            digests[name] = sha256_file(path)
        record = {"name": item.name, "version": item.version, "recipe": item.recipe, "sha256": digests, **way}
        write_atomic(work / "artifact.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
        write_atomic(work / "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))
        work.chmod(0o755)
        work.rename(item.folder())
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    say(f"{item.label}: ready after {time.monotonic() - begin:.0f} s")


def _from_release(item: Artifact, work: Path) -> dict[str, Any] | None:
    """Upstream's release file, or None where its checksum is unknown or there is no way to it."""
    algorithm = _known(item)
    release = item.release
    if not release or not algorithm:
        return None
    url = str(release["url"])
    host = urllib.parse.urlsplit(url).netloc
    if host in _no_way:
        return None
    archive = work / "release.download"
    try:
        digest = _download(url, archive, algorithm, item.label)
    except (OSError, http.client.HTTPException) as exc:
        archive.unlink(missing_ok=True)
        # an answer with an error is about this file, silence is about the host
        if host and not isinstance(exc, urllib.error.HTTPError):
            _no_way.add(host)
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        say(f"{item.label}: no way to the release file at {host or url} ({reason}); building it from Go modules instead")
        return None
    if digest != release[algorithm]:
        raise SandboxError(
            f"{url} is not the file that {CATALOGUE.name} names and was thrown away: its {algorithm} is {digest}, expected {release[algorithm]}. "
            f"Find out who answers in upstream's place, or set {BUILD}=1 to build from Go modules"
        )
    unpack(archive, release["members"], work)
    archive.unlink()
    return {"way": "release", "url": url}


def _known(item: Artifact) -> str:
    """The algorithm of the release file's checksum, empty where the program can only be built."""
    if not item.release or item.module_files or os.environ.get(BUILD) == "1":
        return ""
    return next((name for name in ("sha256", "sha512") if item.release.get(name)), "")


def _open(url: str) -> Any:
    """Open a URL. Names and connection together get a few seconds: a resolver that is cut off can take half a minute."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(urllib.request.urlopen(url, timeout=STALL))
        except (OSError, http.client.HTTPException) as exc:
            answer.append(exc)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(CONNECT)
    if not answer:
        raise TimeoutError(f"no answer within {CONNECT:g} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def _download(url: str, target: Path, algorithm: str, label: str) -> str:
    """Fetch a file, saying how far it is, and return its checksum."""
    digest = hashlib.new(algorithm)
    with _open(url) as answer, target.open("wb") as output:
        size = int(answer.headers.get("Content-Length") or 0)
        say(f"{label}: downloading {url}" + (f" ({size / 2**20:.0f} MiB)" if size else ""))
        done, told = 0, time.monotonic()
        while block := answer.read(1 << 20):
            digest.update(block)
            output.write(block)
            done += len(block)
            if time.monotonic() - told > 15:
                told = time.monotonic()
                say(f"{label}: {done / 2**20:.0f} MiB" + (f" of {size / 2**20:.0f}" if size else ""))
    if size and done != size:
        raise OSError(f"it broke off after {done} of {size} bytes")
    return digest.hexdigest()


def unpack(archive: Path, members: Mapping[str, str], target: Path) -> None:
    """Take the named members out of a zip or tar file, in one pass."""
    wanted_names = {member: name for name, member in members.items()}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            for member in wanted_names.keys() & set(bundle.namelist()):
                with bundle.open(member) as source, (target / wanted_names.pop(member)).open("wb") as output:
                    shutil.copyfileobj(source, output)
    else:
        with tarfile.open(archive, "r|*") as bundle:
            for info in bundle:
                stream = bundle.extractfile(info) if info.isreg() and info.name in wanted_names else None
                if stream is not None:
                    with (target / wanted_names.pop(info.name)).open("wb") as output:
                        shutil.copyfileobj(stream, output)
    if wanted_names:
        raise SandboxError(f"{archive.name} does not hold {', '.join(sorted(wanted_names))}; release.members in {CATALOGUE.name} must name what it holds")


_REPLACE_BLOCK = re.compile(r"^replace\s*\((.*?)^\)", re.MULTILINE | re.DOTALL)
_REPLACE_LINE = re.compile(r"^replace\s+([^(\s].*)$", re.MULTILINE)


def replace_lines(go_mod: str, replace_local: Mapping[str, str]) -> list[str]:
    """The replace lines of a module, with local folders turned into published versions.

    `go install pkg@version` refuses modules with replace lines, and a dependency's replace lines do not count: so a module
    of our own has to carry them.
    """
    body = "\n".join([*_REPLACE_BLOCK.findall(go_mod), *_REPLACE_LINE.findall(go_mod)])
    lines: list[str] = []
    for raw in body.splitlines():
        line = raw.split("//", 1)[0].strip()
        if not line:
            continue
        old, new = (side.strip() for side in line.split("=>", 1))
        if new.startswith((".", "/")):
            module = old.split()[0]
            version = next((replace_local[prefix] for prefix in sorted(replace_local, key=len, reverse=True) if module.startswith(prefix)), None)
            if version is None:
                raise SandboxError(f"replace {old} => {new} points to a folder and replace_local has no version for it")
            new = f"{module} {version}"
        lines.append(f"{old} => {new}")
    return lines


def _from_modules(item: Artifact, work: Path) -> dict[str, Any]:
    build = item.build
    provide_go()
    if build["cgo"]:
        machine.provide({"gcc": "gcc libc6-dev"})
    say(f"{item.label}: building from Go modules (usually {item.seconds} s on two cores, once)")
    env = {
        **os.environ,
        "GOFLAGS": "-mod=mod -trimpath -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "1" if build["cgo"] else "0",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GO111MODULE": "on",
    }
    module, version = str(build["module"]), str(build["module_version"])
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-build-") as temporary:
        place = Path(temporary)
        # outside any module, so that no other go.mod has a say
        answer = json.loads(run(["go", "mod", "download", "-json", f"{module}@{version}"], env={**env, "GOFLAGS": "-mod=mod"}, cwd=place).stdout)
        if build.get("sum") and answer["Sum"] != build["sum"]:
            raise SandboxError(f"{module}@{version}: checksum is {answer['Sum']}, {CATALOGUE.name} has {build['sum']}")
        for name, member in item.module_files.items():
            shutil.copyfile(Path(answer["Dir"]) / member, work / name)
        own = Path(answer["GoMod"]).read_text(encoding="utf-8")
        go_line = re.search(r"^go\s+(\S+)", own, re.MULTILINE)
        lines = ["module onprem.invalid/build", "", f"go {go_line.group(1) if go_line else '1.21'}", "", f"require {module} {version}", ""]
        lines += [f"replace {line}" for line in replace_lines(own, build.get("replace_local") or {})]
        (place / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
        out = place / "out"
        out.mkdir()
        run(["nice", "-n", "10", "go", "build", "-ldflags", str(build["ldflags"]), "-o", f"{out}/", *build["packages"]], env=env, cwd=place)
        for name in item.files:
            made = out / name
            if made.is_file():
                shutil.move(made, work / name)
    go_version = run(["go", "env", "GOVERSION"]).stdout.strip()
    return {"way": "build", "module": f"{module}@{version}", "sum": answer["Sum"], "go": go_version}


def check_builder(items: Iterable[Artifact]) -> None:
    """Say before anything else that Go is missing, where something can only be built."""
    if any(not is_ready(item) and not _known(item) for item in items):
        provide_go()


def provide_go() -> None:
    machine.provide({"go": ""})
    version = run(["go", "env", "GOVERSION"]).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    # from 1.21 on it fetches the version that a module asks for
    if found and (int(found[1]), int(found[2])) < (1, 21):
        raise SandboxError(f"`go` is {version}: {machine.ELSEWHERE['go']}. Then run the same command again")


def wanted(uses: Iterable[str], catalogue: Iterable[Artifact] | None = None) -> list[Artifact]:
    """The artifacts that somebody in `uses` asks for, in the order of the catalogue."""
    ask = set(uses)
    return [item for item in (catalogue if catalogue is not None else load()) if ask.intersection(item.use)]


def executable(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & stat.S_IXUSR)
