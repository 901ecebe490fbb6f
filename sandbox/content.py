# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in internet serves: registries by host, release files, an APT mirror. Made on the machine, mounted read-only."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import aptmirror, artifacts, layout
from .artifacts import Artifact
from .common import SandboxError, cache_dir, lock, say, sha256_file, short_hash, step, write_atomic

STANDIN = Path(__file__).with_name("standin")
# Objects that the vendor's bucket stores compressed and sends with Content-Encoding: gzip, one host/path a line.
GZIP_ENCODED = "gzip-encoded.txt"
FORMAT = 4
EPOCH = 1767225600


@dataclass(frozen=True)
class Content:
    """A complete folder of content."""

    folder: Path
    file_hosts: tuple[str, ...]
    gzip_encoded: tuple[str, ...]
    apt_sources: str
    apt_key: bytes


def releases() -> list[str]:
    """All releases that the stand-in vendor has: they share their layers, so the older ones cost next to nothing."""
    try:
        chart = importlib.import_module("sandbox.standin.chart")
    except ModuleNotFoundError:
        return []
    return list(chart.known_releases())


def source_key() -> str:
    """Changes when the content may: stand-in sources, programs, packages, releases."""
    sources = {
        str(path.relative_to(STANDIN)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(STANDIN.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return short_hash(
        {
            "format": FORMAT,
            "standin": sources,
            "releases": releases(),
            "artifacts": [item.folder().name for item in artifacts.wanted(["up", "content"])],
            "apt": aptmirror.folder().name,
        }
    )


def ensure() -> Content:
    """The content that belongs to the present sources; made when it is not there."""
    mirror = aptmirror.ensure()
    target = cache_dir() / "internet" / source_key()
    if not (target / "complete.json").is_file():
        with lock(cache_dir() / "locks" / "content.lock", "making the stand-in internet", wait=True):
            if not (target / "complete.json").is_file():
                _make(target, mirror)
    record = json.loads((target / "complete.json").read_text(encoding="utf-8"))
    os.utime(target)
    return Content(
        folder=target,
        file_hosts=tuple(record["file_hosts"]),
        gzip_encoded=tuple(record["gzip_encoded"]),
        apt_sources=f"Types: deb\nURIs: https://{layout.APT_HOST}/debian\nSuites: {aptmirror.SUITE}\nComponents: main\n"
        f"Architectures: {aptmirror.ARCHITECTURE}\nSigned-By: /etc/apt/keyrings/{layout.APT_HOST}.gpg\n",
        apt_key=(mirror / "key.gpg").read_bytes(),
    )


def _builder() -> Callable[[Path, Path, list[str]], None] | None:
    module = importlib.import_module("sandbox.standin")
    build = getattr(module, "build", None)
    if build is not None and not callable(build):
        build = getattr(build, "build", None)
    return build  # type: ignore[no-any-return]


def _make(target: Path, mirror: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    output = cache_dir() / "standin"
    build = _builder()
    if build is None:
        say("the stand-in images are not in this checkout: the stand-in registries stay empty")
    else:
        with step("making the stand-in images and chart", 60):
            build(output, cache_dir(), releases())
    with step("laying out the stand-in internet", 5):
        for registry in layout.REGISTRIES:
            (work / "registry" / registry).mkdir(parents=True)
        if (output / "oci" / "index.json").is_file():
            seed_registries(output / "oci", work / "registry")
        files = work / "files"
        files.mkdir()
        if (output / "files").is_dir():
            shutil.copytree(output / "files", files, copy_function=link, dirs_exist_ok=True)
        for path, source in release_files().items():
            (files / path).parent.mkdir(parents=True, exist_ok=True)
            link(source, files / path)
        shutil.copytree(mirror / "debian", files / layout.APT_HOST / "debian", copy_function=link)
        encoded = files / GZIP_ENCODED
        lines = encoded.read_text(encoding="utf-8").split() if encoded.is_file() else []
        encoded.unlink(missing_ok=True)
        hosts = sorted({*layout.FILE_HOSTS, *(path.name for path in files.iterdir())})
        write_atomic(work / "complete.json", json.dumps({"file_hosts": hosts, "gzip_encoded": lines}) + "\n")
    work.rename(target)
    forget_old(target.parent, keep=target)


def forget_old(parent: Path, *, keep: Path, number: int = 3) -> None:
    """Hard links make old content cheap, but not free: keep the latest few."""
    found = sorted((path for path in parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[number:]:
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def link(source: str | Path, target: str | Path) -> None:
    """A hard link where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


# --- registries ---------------------------------------------------------------------------------------------------------


def split_reference(reference: str) -> tuple[str, str, str]:
    """Registry host, repository and tag of a full reference."""
    host, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    if not repository or "/" in tag:
        raise SandboxError(f"reference {reference!r} is not host/repository:tag")
    return host, repository, tag


def seed_registries(oci: Path, root: Path) -> int:
    """Write the storage of the distribution registry from an OCI layout: links instead of uploads."""
    index = json.loads((oci / "index.json").read_text(encoding="utf-8"))
    count = 0
    for entry in index["manifests"]:
        reference = entry["annotations"]["org.opencontainers.image.ref.name"]
        host, repository, tag = split_reference(reference)
        if host not in layout.REGISTRIES:
            raise SandboxError(f"image {reference}: registry {host} is not one of the stand-in internet's: {', '.join(layout.REGISTRIES)}")
        storage = root / host / "docker" / "registry" / "v2"
        place = storage / "repositories" / repository
        _seed_manifest(oci, storage, place, entry["digest"])
        _link_file(place / "_manifests" / "tags" / tag / "current" / "link", entry["digest"])
        _link_file(place / "_manifests" / "tags" / tag / "index" / "sha256" / entry["digest"].split(":")[1] / "link", entry["digest"])
        count += 1
    return count


def _seed_manifest(oci: Path, storage: Path, place: Path, digest: str) -> None:
    manifest: dict[str, Any] = json.loads(_seed_blob(oci, storage, digest).read_text(encoding="utf-8"))
    _link_file(place / "_manifests" / "revisions" / "sha256" / digest.split(":")[1] / "link", digest)
    for child in manifest.get("manifests", []):
        _seed_manifest(oci, storage, place, child["digest"])
    for blob in [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]:
        _seed_blob(oci, storage, blob["digest"])
        _link_file(place / "_layers" / "sha256" / blob["digest"].split(":")[1] / "link", blob["digest"])


def _seed_blob(oci: Path, storage: Path, digest: str) -> Path:
    hexdigest = digest.split(":")[1]
    source = oci / "blobs" / "sha256" / hexdigest
    target = storage / "blobs" / "sha256" / hexdigest[:2] / hexdigest / "data"
    if not target.exists():
        target.parent.mkdir(parents=True)
        link(source, target)
    return target


def _link_file(path: Path, digest: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest, encoding="ascii")


# --- release files ------------------------------------------------------------------------------------------------------


def release_files() -> dict[str, Path]:
    """Path below the host's name -> file. Names and folders are upstream's; what is in them was built or downloaded here."""
    found: dict[str, Path] = {}
    sums: dict[str, dict[str, str]] = {}

    def add(path: str, source: Path, sum_path: str | None = None) -> None:
        found[path] = source
        if sum_path:
            sums.setdefault(sum_path, {})[path.rsplit("/", 1)[1]] = sha256_file(source)

    for item in artifacts.wanted(["up", "content"]):
        version = item.version
        folder = item.folder()
        if item.name == "nomad":
            base = f"releases.hashicorp.com/nomad/{version}"
            add(f"{base}/nomad_{version}_linux_amd64.zip", _packed(item, "zip", {"nomad": "nomad"}), f"{base}/nomad_{version}_SHA256SUMS")
        elif item.name == "helm":
            name = f"helm-v{version}-linux-amd64.tar.gz"
            add(f"get.helm.sh/{name}", _packed(item, "tar.gz", {"linux-amd64/helm": "helm"}), f"get.helm.sh/{name}.sha256sum")
        elif item.name == "kubernetes":
            for base in ("dl.k8s.io", "dl.k8s.io/release"):
                for name in item.files:
                    add(f"{base}/v{version}/bin/linux/amd64/{name}", folder / name)
        elif item.name == "versitygw":
            top = f"versitygw_v{version}_Linux_x86_64"
            base = f"github.com/versity/versitygw/releases/download/v{version}"
            add(f"{base}/{top}.tar.gz", _packed(item, "tar.gz", {f"{top}/versitygw": "versitygw"}), f"{base}/checksums.txt")
        elif item.name == "minio":
            # Stands in for the last release that was published as a file; the source that is built here is a little younger.
            path = "dl.min.io/server/minio/release/linux-amd64/archive/minio.RELEASE.2025-09-07T16-13-09Z"
            add(path, folder / "minio", f"{path}.sha256sum")
        elif item.name == "metallb":
            add(f"raw.githubusercontent.com/metallb/metallb/v{version}/config/manifests/metallb-native.yaml", folder / "metallb-native.yaml")
        elif item.name == "local-path-provisioner":
            add(f"raw.githubusercontent.com/rancher/local-path-provisioner/v{version}/deploy/local-path-storage.yaml", folder / "local-path-storage.yaml")
    for path, entries in sums.items():
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(entries.items()))
        target = cache_dir() / "releases" / "sums" / short_hash([path, text])
        write_atomic(target, text)
        found[path] = target
    return found


def _packed(item: Artifact, form: str, members: dict[str, str]) -> Path:
    """A program in the archive that upstream ships it in; the same program gives the same archive."""
    target = cache_dir() / "releases" / item.folder().name / f"archive-{short_hash(members)}.{form}"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}")
    if form == "zip":
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, file in members.items():
                info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
                info.external_attr = 0o100755 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, (item.folder() / file).read_bytes())
    else:
        with partial.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=EPOCH, compresslevel=1) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            for name, file in members.items():
                data = (item.folder() / file).read_bytes()
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = len(data), 0o755, EPOCH
                tar.addfile(member, io.BytesIO(data))
    partial.rename(target)
    return target


# --- hosts --------------------------------------------------------------------------------------------------------------


def pause_image(reference: str) -> bytes:
    """An image archive that keeps a pod's namespaces open: the node's own, as every cluster has one before a site exists."""
    script = b"#!/bin/busybox sh\ntrap 'exit 0' TERM INT\nwhile :; do /bin/busybox sleep 3600 & wait; done\n"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, data in (("bin/busybox", aptmirror.unpack("busybox-static", "bin/busybox")), ("pause", script)):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o755, EPOCH
            archive.addfile(info, io.BytesIO(data))
    diff = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "Labels": {"org.opencontainers.image.title": "pause (stand-in of the sandbox)"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(diff).hexdigest()]},
        }
    ).encode()
    files: dict[str, bytes] = {"config.json": config, "layer.tar": diff}
    files["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), EPOCH
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def _registry_units() -> dict[str, int]:
    return {registry: 5001 + number for number, registry in enumerate(layout.REGISTRIES)}


def vendor_units(content: Content) -> list[str]:
    del content
    return [f"onprem-registry-{port}" for port in _registry_units().values()]


def vendor_files(content: Content, keys: Path) -> dict[str, tuple[bytes, int]]:
    """The stand-in internet's front: TLS by name, one registry per host name so that nothing is found under a wrong one."""
    files: dict[str, tuple[bytes, int]] = {}

    def put(path: str, text: str | bytes, mode: int = 0o644) -> None:
        files[path] = (text if isinstance(text, bytes) else text.encode(), mode)

    chain = (keys / "internet" / "server.crt").read_bytes() + (keys / "internet" / "ca.crt").read_bytes()
    put("/etc/internet/server.crt", chain)
    put("/etc/internet/server.key", (keys / "internet" / "server.key").read_bytes(), 0o600)
    put("/etc/internet/htpasswd", f"{layout.VENDOR_USERNAME}:{layout.VENDOR_HTPASSWD}\n", 0o600)
    servers = []
    for registry, port in _registry_units().items():
        login = f"auth:\n  htpasswd:\n    realm: {registry}\n    path: /etc/internet/htpasswd\n" if registry == layout.VENDOR_REGISTRY else ""
        put(
            f"/etc/internet/registry-{port}.yml",
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n"
            f"    rootdirectory: /srv/internet/registry/{registry}\n  maintenance:\n    readonly:\n      enabled: true\n"
            f"http:\n  addr: 127.0.0.1:{port}\n{login}",
        )
        put(
            f"/etc/systemd/system/onprem-registry-{port}.service",
            f"[Unit]\nDescription=Stand-in of {registry}\n\n[Service]\nExecStart=/usr/bin/docker-registry serve /etc/internet/registry-{port}.yml\n"
            "Environment=OTEL_TRACES_EXPORTER=none\nRestart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n",
        )
        servers.append(
            f"  server {{\n    listen 443 ssl;\n    server_name {' '.join(layout.REGISTRIES[registry])};\n"
            f"    location / {{\n      proxy_pass http://127.0.0.1:{port};\n      proxy_set_header Host $http_host;\n      proxy_set_header X-Forwarded-Proto https;\n"
            "      proxy_buffering off;\n      proxy_read_timeout 600s;\n    }\n  }\n"
        )
    servers.append(
        f"  server {{\n    listen 443 ssl default_server;\n    server_name {' '.join(content.file_hosts)};\n    root /srv/internet/files/$host;\n    autoindex on;\n    add_header Content-Encoding $stored_encoding;\n  }}\n"
    )
    put(
        "/etc/nginx/nginx.conf",
        "user www-data;\nworker_processes 2;\nevents { worker_connections 1024; }\nhttp {\n  include /etc/nginx/mime.types;\n"
        "  default_type application/octet-stream;\n  server_names_hash_bucket_size 128;\n  map_hash_bucket_size 512;\n  client_max_body_size 0;\n  sendfile on;\n  tcp_nopush on;\n"
        "  access_log /var/log/nginx/access.log;\n  error_log /var/log/nginx/error.log;\n"
        "  map $host$uri $stored_encoding {\n    default '';\n"
        + "".join(f"    '{path}' gzip;\n" for path in content.gzip_encoded)
        + "  }\n  ssl_certificate /etc/internet/server.crt;\n  ssl_certificate_key /etc/internet/server.key;\n" + "".join(servers) + "}\n",
    )
    files["/etc/systemd/system/docker-registry.service"] = (b"/dev/null", -1)
    return files
