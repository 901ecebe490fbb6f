# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan itself: everything a bundle is to hold, each with its digest of now, or all problems at once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..discovery import DiscoveryError, DiscoveryResult, FoundRef, Why, discover
from ..discovery.references import parse_or_none
from ..mirror.access import Access
from ..mirror.errors import MirrorError, NetworkError
from ..mirror.lock import FORMAT, Lock
from ..mirror.oci import Reference
from ..oci_file import FileError, extract_member
from ..orbs import Api
from ..os_packages import PackageError, Target, index_text, local_path, resolve, resolve_rpm
from .orbs import CLOUD, collect_orbs
from .tools import NotThere, PlanError, Web, checksum_of, fetch_chart, fingerprint, sha256_file, write_private
from .wheels import REQUIREMENTS, WHEELS_TYPE, artifact_of, requirements_text, resolve_wheels, sizes

PACKAGES_TYPE = "application/vnd.onprem.packages.v1"
SIDECAR_FORMAT = 1


@dataclass(frozen=True)
class PlanOptions:
    """What the role hands over."""

    lock: Path
    work_dir: Path
    chart: str
    values: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[Mapping[str, Any]] = ()
    known_repositories: Sequence[str] = ()
    relocation_keys: Sequence[str] = ()
    extra_images: Sequence[str] = ()
    platforms: Sequence[str] = ("linux/amd64",)
    files: Sequence[Mapping[str, Any]] = ()
    local_files: Sequence[Mapping[str, Any]] = ()
    packages: Sequence[Mapping[str, Any]] = ()
    packages_tag: str = "1"
    python: Sequence[str] = ()
    python_requirements: Sequence[str] = ()
    orbs: Sequence[str] = ()
    private_registries: Sequence[str] = ()
    helm: str = "helm"
    refresh: bool = False
    access: Access = field(default_factory=Access)
    web: Web = field(default_factory=Web)
    ca_certificate: str = ""
    orb_api: Api = field(default_factory=lambda: Api(CLOUD))


@dataclass
class Plan:
    """A lock, and what is to be told about it."""

    lock: dict[str, Any]
    before: dict[str, Any]
    side_files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    reused: bool = False
    fingerprint: str = ""

    @property
    def changed(self) -> bool:
        return self.lock != self.before


def make_plan(options: PlanOptions) -> Plan:
    """Work the lock out. Writes below the work folder's cache only; :func:`write_plan` puts the lock down."""
    before = _read_lock(options.lock)
    inputs = _fingerprint(options)
    sidecar = _sidecar(options.lock)
    if before and not options.refresh and sidecar.get("fingerprint") == inputs and _side_files_there(options, before):
        return Plan(before, before, warnings=list(sidecar.get("warnings", [])), left_out=list(sidecar.get("left_out", [])), reused=True, fingerprint=inputs)
    plan = Plan({}, before, fingerprint=inputs)
    pinned = {} if options.refresh else {str(entry["ref"]): entry.get("digest") for entry in before.get("refs", [])}
    options.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="plan-", dir=options.work_dir) as work:
        chart_dir, chart_digest = fetch_chart(options.access, options.chart, Path(work))
        helm = _helm(options, Path(work))
        found = _discover(options, chart_dir, helm)
        problems: list[str] = []
        refs = _pin(options, found, pinned, plan, problems)
        chart = Reference.parse(options.chart)
        refs.append(
            {
                "ref": chart.name,
                "digest": chart_digest,
                "platforms": [],
                "target": f"charts/{chart.repository.rsplit('/', 1)[-1]}:{chart.tag}",
                "why": [Why("release", "chart", "chart of the release").as_dict()],
            }
        )
        files = _files(options, found.tags, plan, problems)
        artifacts = [*_packages(options, plan, problems), *_wheels(options, plan, problems), *_orbs(options, refs, plan, problems)]
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise PlanError(f"{len(problems)} problem(s), the lock was not changed:\n{listing}")
    plan.lock = {"format": FORMAT, "refs": sorted(refs, key=lambda entry: (entry["ref"], entry.get("target", ""))), "files": files, "artifacts": artifacts}
    for key, reason in sorted(found.skipped_switches.items()):
        plan.warnings.append(f"{key} could not be switched on to look for its images: {reason}")
    # The engine's own check: two names that would end under one, names that no registry takes.
    Lock.from_data(plan.lock, options.lock.parent, str(options.lock))
    return plan


def write_plan(options: PlanOptions, plan: Plan) -> None:
    """Put the lock and the indexes that it names where they belong."""
    for name, text in plan.side_files.items():
        write_private(options.lock.parent / name, text)
    if plan.changed:
        write_private(options.lock, json.dumps(plan.lock, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    if not plan.reused:
        # The fingerprint says something of the values, which may hold secrets.
        note = {"format": SIDECAR_FORMAT, "fingerprint": plan.fingerprint, "warnings": plan.warnings, "left_out": plan.left_out}
        write_private(_sidecar_path(options.lock), json.dumps(note, indent=1, sort_keys=True) + "\n", 0o600)


def names(lock: Mapping[str, Any]) -> dict[str, str]:
    """Every name of a lock with what pins it, for differences."""
    result = {str(entry["ref"]): str(entry.get("digest")) for entry in lock.get("refs", [])}
    for entry in lock.get("files", []):
        result[f"onprem/files/{entry['name']}:{entry['version']}"] = f"sha256:{entry['sha256']}"
    for entry in lock.get("artifacts", []):
        result[f"{entry['repo']}:{entry['tag']}"] = fingerprint([item.get("sha256") for item in entry["files"]])[:16] + f", {len(entry['files'])} files"
    return result


# --- what was there before ---------------------------------------------------------------------------------------------


def _read_lock(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: cannot be read as a lock file: {error}. Move it away and run the same command again.") from error
    return data if isinstance(data, dict) else {}


def _sidecar_path(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.inputs")


def _sidecar(lock: Path) -> dict[str, Any]:
    try:
        data = json.loads(_sidecar_path(lock).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and data.get("format") == SIDECAR_FORMAT else {}


def _side_files_there(options: PlanOptions, lock: Mapping[str, Any]) -> bool:
    paths = [item["path"] for entry in lock.get("artifacts", []) for item in entry["files"] if item.get("path")]
    paths += [item["path"] for item in lock.get("files", []) if item.get("path")]
    return all((options.lock.parent / path).is_file() for path in paths)


def _fingerprint(options: PlanOptions) -> str:
    local = [{**entry, "sha256": sha256_file(Path(entry["path"]))[0] if Path(entry["path"]).is_file() else ""} for entry in options.local_files]
    return fingerprint(
        [
            options.chart, options.values, options.images, options.known_repositories, options.relocation_keys, options.extra_images, options.platforms,
            options.files, local, options.packages, options.packages_tag, options.private_registries,
            options.python, options.python_requirements if options.python else (), options.orbs,
        ]
    )  # fmt: skip


# --- images ------------------------------------------------------------------------------------------------------------


def _helm(options: PlanOptions, work: Path) -> str:
    """The host's helm, else the one that the bundle carries anyway."""
    if shutil.which(options.helm):
        return options.helm
    spec = next((item for item in options.files if item["name"] == "helm"), None)
    if spec is None:
        raise PlanError(f"helm is not on the connected host ({options.helm!r} was looked for) and is no file of the bundle: install Helm 3.16 or later")
    program = options.work_dir / "tools" / f"helm-{spec['version']}"
    if not program.is_file():
        wanted = _checksum(options, spec, str(spec["url"]))
        archive = work / "helm-archive"
        options.web.to_file(str(spec["url"]), archive)
        if wanted and sha256_file(archive)[0] != wanted:
            raise PlanError(f"{spec['url']} has the sha256 {sha256_file(archive)[0]}, {spec['checksum_url']} says {wanted}; it was not used")
        new = work / "helm"
        try:
            extract_member(archive, "helm", str(spec["url"]), new)
        except FileError as error:
            raise PlanError(str(error)) from error
        new.chmod(0o755)
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new, program)
    return str(program)


def _discover(options: PlanOptions, chart_dir: Path, helm: str) -> DiscoveryResult:
    try:
        return discover(
            chart_dir,
            options.values,
            helm=helm,
            listed=[item for item in options.images if item.get("needed")],
            known=options.known_repositories,
            relocation_keys=options.relocation_keys,
            private_registries=options.private_registries,
            extras=options.extra_images,
        )
    except DiscoveryError as error:
        raise PlanError(str(error)) from error


def _pin(options: PlanOptions, found: DiscoveryResult, pinned: Mapping[str, Optional[str]], plan: Plan, problems: list[str]) -> list[dict[str, Any]]:
    """Each reference with its digest of now; what only looked like an image may be missing, what runs may not."""
    entries = {entry.ref.name: entry for entry in found.refs}
    for item in options.images:
        reference = Reference.parse(str(item["ref"]))
        entry = entries.setdefault(reference.name, FoundRef(reference))
        why = Why("catalog", str(item.get("path", "images")), str(item["why"]))
        if why not in entry.why:
            entry.why.append(why)

    def look(entry: FoundRef) -> tuple[Optional[str], str]:
        known = pinned.get(entry.ref.name) or entry.ref.digest
        if known:
            return known, ""
        try:
            digest = options.access.client(entry.ref.registry).head_manifest(entry.ref.repository, entry.ref.lookup)
            return digest, "" if digest else f"{entry.ref.registry} has no such image"
        except NetworkError as error:
            return None, str(error) if entry.sure else f"{error} (found as {entry.why[0].rule} only)"
        except MirrorError as error:
            return None, str(error)

    ordered = sorted(entries.values(), key=lambda entry: entry.ref.name)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(look, ordered))
    refs = []
    for entry, (digest, reason) in zip(ordered, answers):
        if digest is None:
            first = entry.why[0]
            if entry.sure:
                problems.append(f"{entry.ref.name} ({first.file}: {first.path}): {reason}")
            else:
                plan.left_out.append({"ref": entry.ref.name, "reason": reason, "file": first.file, "path": first.path, "rule": first.rule})
            continue
        refs.append({"ref": entry.ref.name, "digest": digest, "platforms": list(options.platforms), "why": [why.as_dict() for why in entry.why]})
    if plan.left_out:
        left_out = ", ".join(item["ref"] for item in plan.left_out)
        plan.warnings.append(f"{len(plan.left_out)} image(s) are not at their registry and no part of the installation itself; they are left out: {left_out}")
    return refs


# --- files -------------------------------------------------------------------------------------------------------------


def _checksum(options: PlanOptions, spec: Mapping[str, Any], url: str) -> Optional[str]:
    if spec.get("sha256"):
        return str(spec["sha256"])
    if not spec.get("checksum_url"):
        return None
    text = options.web.small(str(spec["checksum_url"])).decode("utf-8", "replace")
    found = checksum_of(text, url)
    if found is None:
        raise PlanError(f"{spec['checksum_url']} has no sha256 for {url}; the file is not taken without it")
    return found


def _digest_and_size(options: PlanOptions, spec: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Both from the publisher where possible; else the file is read once now, so that the lock pins it all the same."""
    url = str(spec["url"])
    try:
        wanted = _checksum(options, spec, url)
    except NotThere as error:
        wanted = None
        plan.warnings.append(f"file {spec['name']}: its checksums are not where they should be ({error}); the lock pins what is there now")
    size = options.web.size(url) if wanted else None
    if wanted and size is not None:
        return {"sha256": wanted, "size": size}
    digest, size = options.web.measure(url)
    if wanted and digest != wanted:
        raise PlanError(f"{url} has the sha256 {digest}, {spec['checksum_url']} says {wanted}")
    return {"sha256": digest, "size": size}


def _files(options: PlanOptions, tags: Mapping[str, str], plan: Plan, problems: list[str]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for template in options.files:
        version = str(template.get("version") or tags.get(str(template.get("version_from")), ""))
        if not version:
            plan.warnings.append(f"file {template['name']} is left out: images.yaml of the chart has no {template.get('version_from')}")
            continue
        spec = {key: value.replace("{version}", version) if isinstance(value, str) else value for key, value in template.items()}
        entry = {"name": spec["name"], "version": version, "url": spec["url"], "filename": spec["filename"], "mode": spec.get("mode", "0644")}
        try:
            entry.update(_digest_and_size(options, spec, plan))
        except PlanError as error:
            problems.append(f"file {spec['name']}: {error}")
            continue
        why = [Why("catalog", str(spec.get("object_path") or "files"), str(spec.get("why", "file of the release"))).as_dict()]
        result.append({**entry, "why": why})
    for own in options.local_files:
        path = Path(str(own["path"]))
        if not path.is_file():
            problems.append(f"file {own['name']}: {path} is not on the connected host")
            continue
        digest, size = sha256_file(path)
        result.append(
            {
                "name": own["name"], "version": str(own["version"]), "path": str(path), "sha256": digest, "size": size,
                "filename": own.get("filename") or path.name, "mode": own.get("mode", "0644"),
                "why": [Why("your variables", "local files", str(own.get("why", "asked for by you"))).as_dict()],
            }
        )  # fmt: skip
    return sorted(result, key=lambda entry: (str(entry["name"]), str(entry["version"])))


# --- packages ----------------------------------------------------------------------------------------------------------


def _packages(options: PlanOptions, plan: Plan, problems: list[str]) -> list[dict[str, Any]]:
    result = []
    for wanted in options.packages:
        names = [str(name) for name in wanted["names"]]
        try:
            target = Target.parse(str(wanted["target"]))
            collect_files = _rpm_files if target.family == "rpm" else _apt_files
            files, texts = collect_files(options, target, names, str(wanted.get("sources") or "")) if names else ([], {})
        except PackageError as error:
            problems.append(str(error))
            continue
        if not files:
            continue
        for name, text in sorted(texts.items()):
            path = f"packages/{target}/{name}"
            plan.side_files[path] = text
            files.append({"path": path, "sha256": _sha256(text), "size": len(text.encode()), "filename": name, "mode": "0644"})
        why = [Why("your variables", "packages", f"packages for {target}: {', '.join(names)}").as_dict()]
        result.append({"repo": f"onprem/packages/{target}", "tag": options.packages_tag, "artifact_type": PACKAGES_TYPE, "files": files, "why": why})
    return result


Files = tuple[list[dict[str, Any]], dict[str, str]]
"""Package files of others, and texts that are written here."""


def _apt_files(_options: PlanOptions, target: Target, names: Sequence[str], sources: str) -> Files:
    packages = resolve(names, target, sources=sources)
    files = [
        {**({"path": package.local_path} if package.local_path else {"url": package.url}), "sha256": package.sha256, "size": package.size,
         "filename": package.filename, "mode": "0644"}
        for package in packages
    ]  # fmt: skip
    return files, {"Packages": index_text(packages)}


def _rpm_files(options: PlanOptions, target: Target, names: Sequence[str], sources: str) -> Files:
    found = resolve_rpm(names, target, options.web, sources=sources)
    files: list[dict[str, Any]] = []
    for package in found.packages:
        url = found.urls[package.filename]
        path = local_path(url)
        place = {"path": path} if path else {"url": url}
        files.append({**place, "sha256": package.sha256, "size": package.size, "filename": package.filename, "mode": "0644"})
    return files, found.texts


def _wheels(options: PlanOptions, plan: Plan, problems: list[str]) -> list[dict[str, Any]]:
    result = []
    for python in options.python:
        try:
            wheels = resolve_wheels(python, options.python_requirements, options.ca_certificate)
            lengths = sizes(wheels, options.web)
        except PlanError as error:
            problems.append(str(error))
            continue
        text = requirements_text(wheels)
        name = f"wheels/{python}/{REQUIREMENTS}"
        plan.side_files[name] = text
        files: list[dict[str, Any]] = [{"path": name, "sha256": _sha256(text), "size": len(text.encode()), "filename": REQUIREMENTS, "mode": "0644"}]
        for wheel, length in zip(wheels, lengths):
            files.append({"url": wheel.url, "sha256": wheel.sha256, "size": length, "filename": wheel.filename, "mode": "0644"})
        why = [Why("your variables", "circleci_bundle_python", f"Ansible and its libraries for a control host with Python {python}").as_dict()]
        result.append({"repo": artifact_of(python), "tag": options.packages_tag, "artifact_type": WHEELS_TYPE, "files": files, "why": why})
    return result


def _orbs(options: PlanOptions, refs: Sequence[Mapping[str, Any]], plan: Plan, problems: list[str]) -> list[dict[str, Any]]:
    if not options.orbs:
        return []
    orbs = collect_orbs(options.orbs, options.orb_api, plan.before, options.lock.parent, refresh=options.refresh)
    problems += orbs.problems
    plan.side_files.update(orbs.side_files)
    held = {str(entry["ref"]) for entry in refs}
    lacking = sorted({image for image in orbs.images if (found := parse_or_none(image)) is not None and found.name not in held})
    if lacking:
        plan.warnings.append(
            f"executors and jobs of the orbs run in {len(lacking)} image(s) that the bundle does not hold: {', '.join(lacking)}. "
            "Name those that your jobs use in circleci_extra_images"
        )
    return [{**orbs.artifact, "tag": options.packages_tag}] if orbs.artifact else []


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
