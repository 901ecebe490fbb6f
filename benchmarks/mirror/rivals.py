# SPDX-License-Identifier: GPL-3.0-or-later
"""How each tool fetches the set from one registry into files and loads it into another, with the flags its documentation advises for speed.

Each step is a shell script. ``keeps_names`` says whether every image ends under its own name; ``end_to_end`` marks tools that put a package together
and take it apart again, so that only the sum of both sides is comparable.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What is to be moved in one run."""

    refs: list[str]  # repository:tag
    digests: dict[str, str]
    source: str
    target: str
    folder: Path  # the tool's own files
    ca: Path | None  # TLS, else plain HTTP
    pyz: Path

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return shlex.quote(str(path))

    def each(self, line: Callable[[str, str], str]) -> str:
        """One line of shell for each reference, with a name that is good for a file or a tag."""
        return "\n".join(line(ref, flat(ref)) for ref in self.refs) + "\n"


def flat(ref: str) -> str:
    return ref.replace("/", "-").replace(":", "-")


@dataclass(frozen=True)
class Tool:
    """One competitor."""

    name: str
    program: str
    fetch: Callable[[Tool, Job], str]
    load: Callable[[Tool, Job], str]
    version: str = "version"
    keeps_names: bool = True
    end_to_end: bool = False
    again: bool = True  # whether a second fetch into the same place is something that the tool offers
    environment: dict[str, str] = field(default_factory=dict)

    def binary(self) -> str | None:
        """From the environment (CRANE=/path/to/crane), else from PATH."""
        return os.environ.get(self.program.upper().replace("-", "_")) or shutil.which(self.program)

    @property
    def run(self) -> str:
        return shlex.quote(str(self.binary()))


def _own_fetch(_tool: Tool, job: Job) -> str:
    refs = job.write("refs", job.each(lambda ref, _flat: f"{job.source}/{ref}"))
    way = f"--ca-file {job.ca}" if job.ca else "--plain-http"
    return f"{sys.executable} {job.pyz} fetch --refs {refs} --output {job.folder}/bundle {way} --quiet"


def _own_load(_tool: Tool, job: Job) -> str:
    way = f"--ca-file {job.ca}" if job.ca else "--plain-http"
    return f"{sys.executable} {job.pyz} load {job.folder}/bundle --registry {job.target} --allow-unsigned --state {job.folder}/state {way} --quiet"


def _skopeo(tool: Tool, job: Job, fetch: bool) -> str:
    way = "" if job.ca else "--src-tls-verify=false " if fetch else "--dest-tls-verify=false "

    def line(ref: str, name: str) -> str:
        layout = f"oci:{job.folder}/layout:{name}"
        places = f"docker://{job.source}/{ref} {layout}" if fetch else f"{layout} docker://{job.target}/{ref}"
        return f"{tool.run} copy --quiet --all --preserve-digests {way}{places}"

    return job.each(line)


def _crane(tool: Tool, job: Job, fetch: bool) -> str:
    way = "" if job.ca else "--insecure"
    if fetch:
        lines = job.each(lambda ref, name: f"{job.source}/{ref} {job.folder}/layouts/{name}")
        command = f"{tool.run} pull --format oci {way}"
    else:
        lines = job.each(lambda ref, name: f"{job.folder}/layouts/{name} {job.target}/{ref}")
        command = f"{tool.run} push {way}"
    return f"mkdir -p {job.folder}/layouts\nxargs -P4 -L1 {command} < {job.write('jobs', lines)} > /dev/null"


def _oras(tool: Tool, job: Job, fetch: bool) -> str:
    plain = "" if job.ca else "--from-plain-http " if fetch else "--to-plain-http "

    def line(ref: str, name: str) -> str:
        if fetch:
            return f"{tool.run} cp {plain}--no-tty --to-oci-layout {job.source}/{ref} {job.folder}/layout:{name} > /dev/null"
        return f"{tool.run} cp {plain}--no-tty --from-oci-layout {job.folder}/layout:{name} {job.target}/{ref} > /dev/null"

    return job.each(line)


def _regclient_hosts(job: Job) -> dict[str, dict[str, str]]:
    settings = {"tls": "enabled", "regcert": job.ca.read_text(encoding="ascii")} if job.ca else {"tls": "disabled"}
    return {host: {"hostname": host, **settings} for host in (job.source, job.target)}


def _regctl(tool: Tool, job: Job, fetch: bool) -> str:
    job.write("config.json", json.dumps({"hosts": _regclient_hosts(job)}))

    def line(ref: str, name: str) -> str:
        layout = f"ocidir://{job.folder}/layout:{name}"
        places = f"{job.source}/{ref} {layout}" if fetch else f"{layout} {job.target}/{ref}"
        return f"{tool.run} image copy {places} > /dev/null"

    return f"export REGCTL_CONFIG={job.folder}/config.json\n" + job.each(line)


def _regsync(tool: Tool, job: Job, fetch: bool) -> str:
    hosts = _regclient_hosts(job)
    sync = []
    for ref in job.refs:
        layout = f"ocidir://{job.folder}/layout:{flat(ref)}"
        source, target = (f"{job.source}/{ref}", layout) if fetch else (layout, f"{job.target}/{ref}")
        sync.append({"source": source, "target": target, "type": "image"})
    creds = [{"registry": host, **settings} for host, settings in hosts.items()]
    config = {"version": 1, "creds": creds, "defaults": {"parallel": 4}, "sync": sync}
    return f"{tool.run} once --config {job.write('regsync.yml', json.dumps(config))} 2> /dev/null"


def _imgpkg_way(job: Job) -> str:
    return f"--registry-ca-cert-path {job.ca}" if job.ca else "--registry-insecure"


def _imgpkg_fetch(tool: Tool, job: Job) -> str:
    images = [{"image": f"{job.source}/{ref.rpartition(':')[0]}@{job.digests[ref]}"} for ref in job.refs]
    lock = job.write("images.yml", json.dumps({"apiVersion": "imgpkg.carvel.dev/v1alpha1", "kind": "ImagesLock", "images": images}))
    return f"{tool.run} copy --lock {lock} --to-tar {job.folder}/images.tar {_imgpkg_way(job)} > /dev/null"


def _imgpkg_load(tool: Tool, job: Job) -> str:
    return f"{tool.run} copy --tar {job.folder}/images.tar --to-repo {job.target}/all {_imgpkg_way(job)} > /dev/null"


def _hauler_fetch(tool: Tool, job: Job) -> str:
    images = [{"name": f"{job.source}/{ref}"} for ref in job.refs]
    manifest = {"apiVersion": "content.hauler.cattle.io/v1", "kind": "Images", "metadata": {"name": "set"}, "spec": {"images": images}}
    where = f"--store {job.folder}/store --log-level error"
    return (
        f"{tool.run} store sync {where} --exclude-extras --filename {job.write('manifest.yaml', json.dumps(manifest))}\n"
        f"{tool.run} store save {where} --filename {job.folder}/haul.tar.zst"
    )


def _hauler_load(tool: Tool, job: Job) -> str:
    where = f"--store {job.folder}/store-far --log-level error"
    return (
        f"rm -rf {job.folder}/store-far\n{tool.run} store load {where} --filename {job.folder}/haul.tar.zst\n"
        f"{tool.run} store copy {where} {'' if job.ca else '--plain-http '}registry://{job.target}"
    )


def _zarf_fetch(tool: Tool, job: Job) -> str:
    component = {"name": "set", "required": True, "images": [f"{job.source}/{ref}" for ref in job.refs]}
    package = {"kind": "ZarfPackageConfig", "metadata": {"name": "set", "version": "1.0.0", "architecture": "amd64"}, "components": [component]}
    job.write("zarf.yaml", json.dumps(package))
    way = "" if job.ca else "--plain-http"
    return f"{tool.run} package create {job.folder} --output {job.folder}/out --skip-sbom --confirm --no-progress {way} --log-level error"


def _zarf_load(tool: Tool, job: Job) -> str:
    way = "" if job.ca else "--plain-http"
    return (
        f"{tool.run} package mirror-resources {job.folder}/out/zarf-package-*.tar.zst --images --registry-url {job.target} "
        f"--confirm --no-progress {way} --log-level error"
    )


def _oc_mirror_config(job: Job) -> str:
    images = [{"name": f"{job.source}/{ref}"} for ref in job.refs]
    return job.write("imageset.yaml", json.dumps({"kind": "ImageSetConfiguration", "apiVersion": "mirror.openshift.io/v2alpha1", "mirror": {"additionalImages": images}}))


def _oc_mirror_fetch(tool: Tool, job: Job) -> str:
    way = "" if job.ca else "--src-tls-verify=false"
    return f"{tool.run} --v2 -c {_oc_mirror_config(job)} --cache-dir {job.folder}/cache {way} --log-level error file://{job.folder}/out > /dev/null"


def _oc_mirror_load(tool: Tool, job: Job) -> str:
    way = "" if job.ca else "--dest-tls-verify=false"
    return (
        f"{tool.run} --v2 -c {_oc_mirror_config(job)} --from file://{job.folder}/out --cache-dir {job.folder}/cache-far {way} --log-level error "
        f"docker://{job.target} > /dev/null"
    )


OWN = Tool("circleci-mirror", "python3", _own_fetch, _own_load, "--version")
RIVALS = [
    Tool("imgpkg, lock file, one repository", "imgpkg", _imgpkg_fetch, _imgpkg_load, keeps_names=False, again=False),
    Tool("regsync, 4 at once", "regsync", lambda tool, job: _regsync(tool, job, True), lambda tool, job: _regsync(tool, job, False)),
    Tool("crane, 4 at once", "crane", lambda tool, job: _crane(tool, job, True), lambda tool, job: _crane(tool, job, False)),
    Tool("skopeo copy", "skopeo", lambda tool, job: _skopeo(tool, job, True), lambda tool, job: _skopeo(tool, job, False), "--version"),
    Tool("oras cp", "oras", lambda tool, job: _oras(tool, job, True), lambda tool, job: _oras(tool, job, False)),
    Tool("regctl image copy", "regctl", lambda tool, job: _regctl(tool, job, True), lambda tool, job: _regctl(tool, job, False)),
    Tool("hauler", "hauler", _hauler_fetch, _hauler_load, end_to_end=True),
    Tool("zarf", "zarf", _zarf_fetch, _zarf_load, keeps_names=False, end_to_end=True),
    Tool("oc-mirror v2", "oc-mirror", _oc_mirror_fetch, _oc_mirror_load, end_to_end=True),
]
