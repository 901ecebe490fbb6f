# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The helm command: charts, rendering, applying. Values and logins reach it in files of mode 0600, never as arguments."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from .objects import Masker

SYSTEM_AUTHORITIES = "/etc/ssl/certs:/etc/pki/tls/certs"
"""Where Go looks for authorities on Linux."""


class HelmError(Exception):
    """helm failed. C(kind): chart (it cannot be had) or helm."""

    def __init__(self, message: str, kind: str = "helm") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Source:
    """Where the chart comes from: a folder, an archive, or oci://host/path in the private registry."""

    chart: str
    version: str
    username: str = ""
    password: str = ""
    ca_certificate: str = ""
    plain_http: bool = False

    @property
    def remote(self) -> bool:
        return self.chart.startswith("oci://")

    @property
    def registry(self) -> str:
        return self.chart[len("oci://") :].partition("/")[0] if self.remote else ""


@dataclass(frozen=True)
class Chart:
    """A chart at hand."""

    path: Path
    name: str
    version: str
    digest: str


def tree_digest(path: Path) -> str:
    """A digest of an archive, or of all files of a folder."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()
    for item in sorted(path.rglob("*")):
        if item.is_file():
            digest.update(f"{item.relative_to(path)}\0{item.stat().st_size}\0".encode())
            digest.update(item.read_bytes())
    return digest.hexdigest()


class Helm:
    """helm with a scratch folder of its own; use it as a context manager."""

    def __init__(
        self,
        binary: str,
        kubeconfig: str,
        namespace: str,
        *,
        context: str = "",
        masker: Optional[Masker] = None,
        timeout: float = 900.0,
    ) -> None:
        self.binary = binary
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.context = context
        self.masker = masker or Masker()
        self.timeout = timeout
        self._scratch: Optional[Path] = None

    def __enter__(self) -> Helm:
        found = shutil.which(self.binary)
        if found is None:
            raise HelmError(f"there is no program {self.binary} on this host: install helm or give its path")
        self.binary = found
        self._scratch = Path(tempfile.mkdtemp(prefix="onprem-circleci-helm-"))
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def scratch(self) -> Path:
        if self._scratch is None:
            raise HelmError("helm is used outside its context")
        return self._scratch

    def secret_file(self, name: str, text: str) -> Path:
        """A file that only this user can read."""
        path = self.scratch / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        return path

    def values_file(self, values: Mapping[str, Any]) -> Path:
        return self.secret_file("values.json", json.dumps(values))

    def run(self, arguments: Sequence[str], *, cluster: bool = False, kind: str = "helm", authorities: str = "") -> str:
        """The standard output. Nothing secret may stand among the arguments. C(authorities) is a folder of those to trust beside the system's."""
        command = [self.binary, *arguments]
        if cluster:
            command += ["--kubeconfig", self.kubeconfig, "--namespace", self.namespace]
            if self.context:
                command += ["--kube-context", self.context]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
        if authorities:
            # Option --ca-file would take the place of the system's, and a registry of somebody else has a certificate that these signed.
            environment["SSL_CERT_DIR"] = f"{os.environ.get('SSL_CERT_DIR') or SYSTEM_AUTHORITIES}:{authorities}"
        for name in ("CACHE", "CONFIG", "DATA"):
            environment[f"HELM_{name}_HOME"] = str(self.scratch / name.lower())
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=self.timeout, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise HelmError(f"helm {arguments[0]} did not end within {self.timeout:.0f} s", kind) from error
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING:")]
            raise HelmError(f"helm {arguments[0]}: {self.masker.text(' '.join(lines)[-2000:])}", kind)
        return done.stdout

    def obtain(self, source: Source) -> Chart:
        """The chart as a local path, with its name, version and digest."""
        if not source.remote:
            path = Path(source.chart)
            if not path.exists():
                raise HelmError(f"there is no chart at {source.chart}", "chart")
            return self._described(path, source)
        login, authorities = self._login(source), self._authorities(source)
        target = self.scratch / "chart"
        target.mkdir(exist_ok=True)
        self.run(["pull", source.chart, "--version", source.version, "--destination", str(target), *login], kind="chart", authorities=authorities)
        archives = sorted(target.glob("*.tgz"))
        if len(archives) != 1:
            raise HelmError(f"helm pull {source.chart} brought {len(archives)} archives instead of one", "chart")
        return self._described(archives[0], source)

    def _login(self, source: Source) -> list[str]:
        arguments: list[str] = []
        if source.username:
            auth = base64.b64encode(f"{source.username}:{source.password}".encode()).decode()
            path = self.secret_file("registry.json", json.dumps({"auths": {source.registry: {"auth": auth}}}))
            arguments += ["--registry-config", str(path)]
        if source.plain_http:
            arguments.append("--plain-http")
        return arguments

    def _authorities(self, source: Source) -> str:
        if not source.ca_certificate:
            return ""
        (self.scratch / "authorities").mkdir(exist_ok=True)
        return str(self.secret_file("authorities/registry-ca.pem", source.ca_certificate).parent)

    def _described(self, path: Path, source: Source) -> Chart:
        text = self.run(["show", "chart", str(path)], kind="chart")
        metadata = dict(
            line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith((" ", "-", "#"))
        )
        name = metadata.get("name", "").strip().strip("\"'")
        version = metadata.get("version", "").strip().strip("\"'")
        if source.version and version != source.version:
            raise HelmError(f"the chart at {source.chart} has version {version}, wanted is {source.version}", "chart")
        return Chart(path, name, version, tree_digest(path))

    def template(self, chart: Chart, name: str, values: Path, kube_version: str = "") -> str:
        """The manifest, rendered without a cluster."""
        more = ["--kube-version", kube_version] if kube_version else []
        return self.run(["template", name, str(chart.path), "--namespace", self.namespace, "--values", str(values), *more])

    def dry_run(self, chart: Chart, name: str, values: Path) -> str:
        """The manifest as the next revision would have it: look-ups in the cluster are done, nothing is written."""
        text = self.run(
            ["upgrade", name, str(chart.path), "--install", "--values", str(values), "--dry-run=server", "--output", "json"],
            cluster=True,
        )
        document = json.loads(text[text.index("{") :])
        return str(document.get("manifest") or "")

    def upgrade(self, chart: Chart, name: str, values: Path, description: str, post_renderer: str = "", history: int = 10) -> None:
        """Install or upgrade. It does not wait for workloads: that is done with more patience elsewhere."""
        arguments = ["upgrade", name, str(chart.path), "--install", "--values", str(values), "--description", description]
        arguments += ["--history-max", str(history), "--timeout", f"{self.timeout:.0f}s"]
        if post_renderer:
            arguments += ["--post-renderer", post_renderer]
        self.run(arguments, cluster=True)

    def rollback(self, name: str, revision: int) -> None:
        self.run(["rollback", name, str(revision), "--timeout", f"{self.timeout:.0f}s"], cluster=True)

    def uninstall(self, name: str) -> None:
        self.run(["uninstall", name, "--timeout", f"{self.timeout:.0f}s"], cluster=True)
