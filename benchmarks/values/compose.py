# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to compose the values of one site, beside what is there to compare it with.

    make tree; python3 benchmarks/values/compose.py --runs 20 --output build/benchmark-values.json

Needs neither sandbox nor cluster. It is compared with reading the catalog as people edit it (YAML), and with what Helm takes to render the stand-in
chart with the result, when Helm is in the cache or on PATH. Each first run has a process of its own, as in a worker of Ansible.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import artifacts  # noqa: E402 - the path is set above
from sandbox.standin import chart  # noqa: E402 - as above

RELEASES = ("4.7.15", "4.8.12", "4.9.5", "4.10.0")
# In a process of its own: the imports are those that Ansible has done already, the catalog is not read yet.
_ONE = """
import json, sys, time
from plugins.plugin_utils.catalog import Catalog
from plugins.plugin_utils.chart_check.request import sample_facts
from plugins.plugin_utils.values import compose
took = []
for _ in range(int(sys.argv[2])):
    begin = time.process_time()
    result = compose(sample_facts(sys.argv[1]), Catalog.load())
    took.append(time.process_time() - begin)
assert result.errors == [], result.errors
print(json.dumps({"first": took[0], "next": min(took[1:]), "settings": len(result.settings), "values": result.values}))
"""
_YAML = """
import sys, time
from pathlib import Path
import yaml
begin = time.process_time()
for path in Path("plugins/plugin_utils/catalog/data/values_keys").glob("*.yml"):
    yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
print(time.process_time() - begin)
"""


def run(code: str, *words: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)


def rendered(helm: str, release: str, values: dict[str, Any]) -> float:
    """CPU seconds of helm template, user and system."""
    with tempfile.TemporaryDirectory() as work:
        folder = chart.unpack(release, Path(work))
        given = Path(work) / "given.json"
        given.write_text(json.dumps(values), encoding="utf-8")
        code = (
            "import json, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(json.dumps(used.ru_utime + used.ru_stime))"
        )
        return float(run(code, helm, "template", "x", str(folder), "--values", str(given)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    made = artifacts.find("helm").folder() / "helm"
    helm = str(made) if made.is_file() else shutil.which("helm")
    yaml_seconds = statistics.median(run(_YAML) for _ in range(options.runs))
    results: dict[str, Any] = {"yaml_of_the_catalog": yaml_seconds, "releases": {}}
    print(f"{'release':<9}{'values':>7}{'first':>10}{'next':>10}{'first / YAML':>14}{'first / helm':>14}   CPU seconds, median of {options.runs}")
    for release in RELEASES:
        found = [run(_ONE, release, "3") for _ in range(options.runs)]
        first = statistics.median(item["first"] for item in found)
        following = statistics.median(item["next"] for item in found)
        render = rendered(helm, release, found[0]["values"]) if helm else None
        results["releases"][release] = {"first": first, "next": following, "helm_template": render, "settings": found[0]["settings"]}
        share = f"{first / render:14.2f}" if render else f"{'no helm':>14}"
        print(f"{release:<9}{found[0]['settings']:>7}{first:>10.3f}{following:>10.3f}{first / yaml_seconds:>14.2f}{share}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
