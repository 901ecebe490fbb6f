# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering the chart with the helm program, and reading what lies beside its templates."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DiscoveryError

RELEASE_NAME = "circleci-server"
_SOURCE = re.compile(r"^# Source: (?P<file>\S+)\s*$", re.MULTILINE)
_SEPARATOR = re.compile(r"^---\s*$", re.MULTILINE)


def yaml_module() -> Any:
    """PyYAML, which the connected host must have."""
    try:
        import yaml
    except ImportError as error:
        raise DiscoveryError("the Python library PyYAML is missing on the connected host: install python3-yaml or PyYAML") from error
    return yaml


def load_yaml(text: str, where: str) -> Any:
    """One YAML document."""
    yaml = yaml_module()
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise DiscoveryError(f"{where} is no valid YAML: {' '.join(str(error).split())[:300]}") from error


def find_helm(helm: str) -> str:
    """Full path of the helm program."""
    found = shutil.which(helm)
    if found is None:
        raise DiscoveryError(f"helm is not on the connected host ({helm!r} was looked for): install Helm 3.16 or later, or name its path")
    return found


class Chart:
    """An unpacked chart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / "Chart.yaml").is_file():
            raise DiscoveryError(f"{directory} holds no unpacked chart: Chart.yaml is not there")
        self.metadata = self._mapping("Chart.yaml")
        self.name = str(self.metadata.get("name", directory.name))
        self.version = str(self.metadata.get("version", ""))

    def _mapping(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        if not path.is_file():
            return {}
        content = load_yaml(path.read_text(encoding="utf-8"), str(path))
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise DiscoveryError(f"{path} must hold a map, not {type(content).__name__}")
        return content

    def values(self) -> dict[str, Any]:
        """The chart's own defaults; those of unpacked sub-charts lie below the sub-chart's name."""
        result = self._mapping("values.yaml")
        for chart in sorted(self.directory.glob("charts/*/Chart.yaml")):
            below = Chart(chart.parent)
            own = result.get(below.directory.name)
            defaults = below.values()
            result[below.directory.name] = {**defaults, **own} if isinstance(own, dict) else defaults
        return result

    def image_tags(self) -> dict[str, str]:
        """``images.yaml``: images and agents that no template names, with their tags."""
        return {str(name): str(tag) for name, tag in self._mapping("images.yaml").items() if isinstance(tag, (str, int, float))}


def render(helm: str, chart: Chart, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """``(file, object)`` of every object that helm renders with these values."""
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-render-") as work:
        # Values may hold passwords: they travel in a file that only we can read, never as arguments.
        overlay = Path(work) / "values.json"
        descriptor = os.open(overlay, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(values, stream)
        environment = {
            **os.environ,
            "HELM_CONFIG_HOME": f"{work}/config",
            "HELM_CACHE_HOME": f"{work}/cache",
            "HELM_DATA_HOME": f"{work}/data",
            # Templates look up the cluster when helm has one; discovery must give the same everywhere.
            "KUBECONFIG": f"{work}/no-cluster",
        }
        argv = [helm, "template", RELEASE_NAME, str(chart.directory), "--values", str(overlay), "--include-crds", "--skip-schema-validation"]
        result = _run(argv, environment)
        if result.returncode and "unknown flag: --skip-schema-validation" in result.stderr:
            result = _run(argv[:-1], environment)
    if result.returncode:
        raise DiscoveryError(f"helm cannot render {chart.name} {chart.version}: {_reason(result.stderr)}")
    for part in _SEPARATOR.split(result.stdout):
        source = _SOURCE.search(part)
        document = load_yaml(part, source.group("file") if source else "rendered chart")
        if document is not None:
            yield (source.group("file") if source else chart.name), document


def _run(argv: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=dict(environment), stdin=subprocess.DEVNULL)


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith(("WARNING", "coalesce.go", "walk.go", "Use --debug"))]
    return (lines[-1] if lines else "no reason given")[:600]
