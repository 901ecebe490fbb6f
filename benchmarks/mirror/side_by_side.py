# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror engine beside other tools, in one run: fetch set S into files, load it into an empty registry, both once more with nothing new.

Wants docker-registry (distribution) and 10 GB of memory disk. Rivals are taken from PATH or from the environment (CRANE=/opt/crane REGSYNC=… IMGPKG=…);
who is not there is left out and named. All tools run in each cycle, in rotated order, with fresh registries and files; the ratio to the fastest
rival is taken within each cycle, so a machine that becomes slower in the middle does not favour anybody.

    python3 benchmarks/mirror/side_by_side.py --cycles 5 --output build/benchmark-mirror.json
    python3 benchmarks/mirror/side_by_side.py --cycles 3 --tls --only crane regsync
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))

import images  # noqa: E402 - the path is set above
from registries import Certificates, Registry  # noqa: E402 - as above
from rivals import OWN, RIVALS, Job, Tool  # noqa: E402 - as above

# In a small process of its own: what a child used at most is counted from that of its parent at the fork.
_MEASURE = """
import json, os, resource, subprocess, sys, time
begin = time.monotonic()
code = subprocess.call(["sh", "-ec", sys.argv[1]])
wall = time.monotonic() - begin
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("\\n" + json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss // 1024, "code": code}))
"""
MANIFESTS = ", ".join((images.OCI_INDEX, images.OCI_MANIFEST))


def head(registry: Registry, ref: str, ca: Path | None) -> str | None:
    """The digest of a tag, None when it is not there."""
    import ssl

    repository, _colon, tag = ref.rpartition(":")
    url = f"{'https' if ca else 'http'}://{registry.host}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
    context = ssl.create_default_context(cafile=str(ca)) if ca else None
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except OSError:
        return None


class Bench:
    """Registries, files and results of one run."""

    def __init__(self, scratch: Path, scale: float, tls: bool) -> None:
        self.scratch = scratch
        self.certificates = Certificates.make(scratch / "certificates") if tls else None
        self.ca = self.certificates.ca if self.certificates else None
        made = images.make_set_s(scratch / "source", scale)
        self.set = {"references": len(made["refs"]), "blobs": made["blobs"], "bytes": made["bytes"]}
        self.refs: list[str] = made["refs"]
        self.source = self.registry("source")
        self.digests = {ref: str(head(self.source, ref, self.ca)) for ref in self.refs}
        self.pyz = scratch / "circleci-mirror.pyz"
        subprocess.run([sys.executable, str(ROOT / "tools" / "build_mirror_pyz.py"), "--output", str(self.pyz)], check=True)

    def registry(self, name: str) -> Registry:
        return Registry(self.scratch / name, self.scratch / "config", certificates=self.certificates, access_log=True)

    def step(self, script: str, registry: Registry) -> dict[str, Any]:
        """Run a script; what it took here and at the registry."""
        requests, cpu = registry.requests, registry.cpu
        load = os.getloadavg()[0]
        home = self.scratch / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        keep = ("PATH", "LANG")
        environment = {key: os.environ[key] for key in keep if key in os.environ} | {"HOME": str(home), "TMPDIR": str(home)}
        if self.ca:
            environment["SSL_CERT_FILE"] = str(self.ca)
        done = subprocess.run([sys.executable, "-c", _MEASURE, script], check=True, capture_output=True, text=True, env=environment)
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        if result["code"] != 0:
            result["error"] = (done.stderr.strip().splitlines() or [f"exit code {result['code']}"])[-1][:300]
        return {**result, "requests": registry.requests - requests, "registry_cpu": registry.cpu - cpu, "load_before": load}

    def run(self, tool: Tool) -> dict[str, Any]:
        """Fetch, load into an empty registry, and both again; some tools spoil their files by a second fetch, so it is the last."""
        folder = self.scratch / "files"
        folder.mkdir()
        target = self.registry("target")
        job = Job(self.refs, self.digests, self.source.host, target.host, folder, self.ca, self.pyz)
        result: dict[str, Any] = {"tool": tool.name}
        try:
            result["fetch"] = self.step(tool.fetch(tool, job), self.source)
            result["stored"] = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
            result["load"] = self.step(tool.load(tool, job), target)
            result["kept"] = sum(head(target, ref, self.ca) == self.digests[ref] for ref in self.refs)
            result["load_again"] = self.step(tool.load(tool, job), target)
            if tool.again:
                result["fetch_again"] = self.step(tool.fetch(tool, job), self.source)
        finally:
            target.stop()
            shutil.rmtree(target.root)
            shutil.rmtree(folder)
        return result


def middle(results: list[dict[str, Any]], step: str, what: str) -> float | None:
    """The median of a figure over all cycles in which the step went well."""
    values = [result[step][what] for result in results if step in result and result[step]["code"] == 0]
    return statistics.median(values) if values else None


def ratios(cycles: list[list[dict[str, Any]]], rivals: set[str], value: str) -> float | None:
    """Ours to the best of *rivals*, within each cycle; the median of these."""

    def figure(result: dict[str, Any]) -> float | None:
        steps = ["fetch", "load"] if value == "both" else [value.partition(" ")[0]]
        what = value.partition(" ")[2] or "wall"
        if any(result.get(step, {"code": 1})["code"] != 0 for step in steps):
            return None
        return float(sum(result[step][what] for step in steps))

    found = []
    for cycle in cycles:
        own = next((figure(result) for result in cycle if result["tool"] == OWN.name), None)
        others = [number for number in (figure(result) for result in cycle if result["tool"] in rivals) if number is not None]
        if own is not None and others:
            found.append(own / min(others))
    return statistics.median(found) if found else None


def table(cycles: list[list[dict[str, Any]]], tools: list[Tool], references: int) -> list[str]:
    """The results as Markdown."""
    lines = [
        "| tool | fetch s | load s | client CPU s, fetch / load | registry CPU s, load | requests, fetch / load | again: requests, fetch / load | peak RSS MB | stored MB | names kept |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]

    def show(value: float | None, digits: int = 2) -> str:
        return "–" if value is None else f"{value:,.{digits}f}"

    for tool in tools:
        results = [result for cycle in cycles for result in cycle if result["tool"] == tool.name]

        def get(step: str, what: str, digits: int = 2, results: list[dict[str, Any]] = results) -> str:
            return show(middle(results, step, what), digits)

        rss = max((value for value in (middle(results, step, "rss") for step in ("fetch", "load")) if value is not None), default=None)
        stored = statistics.median(result["stored"] for result in results if "stored" in result) / 1e6
        kept = max(result.get("kept", 0) for result in results)
        lines.append(
            f"| {tool.name} | {get('fetch', 'wall')} | {get('load', 'wall')} | {get('fetch', 'cpu')} / {get('load', 'cpu')} | {get('load', 'registry_cpu')} "
            f"| {get('fetch', 'requests', 0)} / {get('load', 'requests', 0)} | {get('fetch_again', 'requests', 0)} / {get('load_again', 'requests', 0)} "
            f"| {show(rss, 0)} | {stored:,.0f} | {kept}/{references} |"
        )
    return lines


def summary(cycles: list[list[dict[str, Any]]], tools: list[Tool]) -> list[str]:
    """Ratios to the fastest rival."""
    plain = {tool.name for tool in tools if tool is not OWN and not tool.end_to_end}
    named = {tool.name for tool in tools if tool is not OWN and tool.keeps_names and not tool.end_to_end}
    packers = {tool.name for tool in tools if tool.end_to_end}
    lines = []
    for text, names, value in (
        ("fetch, to the fastest rival", plain, "fetch"),
        ("load, to the fastest rival that keeps names", named, "load"),
        ("load, to the fastest rival of all", plain, "load"),
        ("client CPU of fetch, to the least of all rivals", plain | packers, "fetch cpu"),
        ("client CPU of load, to the least of all rivals", plain | packers, "load cpu"),
        ("end to end, to the fastest that makes packages", packers, "both"),
    ):
        ratio = ratios(cycles, names, value)
        lines.append(f"{text}: " + ("nobody to compare with" if ratio is None else f"{ratio:.2f}"))
    return lines


def broken_promises(cycles: list[list[dict[str, Any]]], references: int) -> list[str]:
    """Counts of ours that are not what they should be. Times are told and never refused."""
    found = []
    for result in (result for cycle in cycles for result in cycle if result["tool"] == OWN.name):
        for step, what, most in (
            ("fetch", "requests", 309),
            ("load", "requests", 720),
            ("fetch_again", "requests", references),
            ("load_again", "requests", references),
            ("fetch", "rss", 64),
            ("load", "rss", 64),
        ):
            if result[step]["code"] != 0:
                found.append(f"{step}: {result[step]['error']}")
            elif result[step][what] > most:
                found.append(f"{step}: {result[step][what]} {what}, allowed are {most}")
        if result["kept"] != references:
            found.append(f"load: {result['kept']} of {references} names arrived with their digests")
    return sorted(set(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--tls", action="store_true", help="over TLS, else plain HTTP")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the layers (1: 1.26 GB)")
    parser.add_argument("--only", nargs="*", metavar="PROGRAM", help="only these rivals")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="where files and registries lie; a memory disk")
    parser.add_argument("--output", type=Path, help="write every single figure as JSON")
    options = parser.parse_args()
    wanted = [tool for tool in RIVALS if options.only is None or tool.program in options.only]
    tools = [OWN] + [tool for tool in wanted if tool.binary()]
    for tool in wanted:
        if tool not in tools:
            sys.stderr.write(f"{tool.program} is not here and is left out; {tool.program.upper().replace('-', '_')}=PATH names it\n")
    cycles: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory(prefix="mirror-benchmark-", dir=options.scratch) as scratch:
        bench = Bench(Path(scratch), options.scale, options.tls)
        try:
            for number in range(options.cycles):
                turn = number % len(tools)
                cycle = []
                for tool in tools[turn:] + tools[:turn]:
                    result = bench.run(tool)
                    cycle.append(result)
                    walls = " ".join(f"{step} {result[step]['wall']:.2f}" for step in ("fetch", "load") if step in result)
                    errors = " ".join(result[step]["error"] for step in ("fetch", "load") if "error" in result.get(step, {}))
                    sys.stderr.write(f"{number + 1}/{options.cycles} {tool.name}: {walls} {errors}\n")
                cycles.append(cycle)
        finally:
            bench.source.stop()
        cpus = os.cpu_count()
        heading = f"Python {platform.python_version()}, {cpus} CPUs, {'TLS' if options.tls else 'plain HTTP'}, {options.cycles} cycles, {bench.set}"
        lines = [heading, "", *table(cycles, tools, len(bench.refs)), "", *summary(cycles, tools)]
        sys.stdout.write("\n".join(lines) + "\n")
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps({"set": bench.set, "tls": options.tls, "python": platform.python_version(), "cycles": cycles}, indent=1) + "\n")
    problems = broken_promises(cycles, len(bench.refs))
    for problem in problems:
        sys.stderr.write(f"not kept: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
