# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/reference/scenarios.md: how far each platform and each kind of store was tried, out of what the last runs have left as evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "docs/reference/evidence"
PLATFORMS = ("eks", "gke", "azure", "digitalocean", "rancher", "openshift")
CELLS = (
    ("bucket", "buckets"),
    ("conformance", "conformance probe"),
    ("release", "release ready"),
    ("artifact", "probe artifact read back"),
    ("second_run", "second run"),
    ("check_mode", "check mode"),
)
# What is told below the table.
DETAILS = (*CELLS, ("outside", "looks from outside"), ("bad_input", "bad input"))
# Where the scenario did not run, the emulator of the store alone says something about buckets and probe.
STORE_OF = {
    "eks": ("aws_s3_keys", "moto"),
    "gke": ("gcs_key", "fake-gcs-server"),
    "azure": ("versitygw_azure-azurite", "versitygw before Azurite"),
    "digitalocean": ("minio_server", "MinIO in place of Spaces"),
    "rancher": ("versitygw_posix", "versitygw on a folder"),
}
# Kinds whose binaries have to be at hand where the tests run.
GATED = {"minio_gateway_azure-azurite": "MINIO_GATEWAY_AZURE", "minio_gateway_s3-minio": "MINIO_GATEWAY_S3", "minio_nas": "MINIO_GATEWAY_NAS"}
QUESTIONS = (
    ("presigned_get", "presigned GET"),
    ("presigned_put", "presigned PUT"),
    ("presigned_signature_checked", "signatures checked"),
    ("multipart", "multipart"),
    ("range", "range"),
    ("copy", "copy"),
    ("list", "list"),
    ("checksum_header", "checksum headers"),
    ("trailer_checksum", "checksum trailers"),
    ("versioning", "versions"),
    ("anonymous_refused", "data closed"),
    ("anonymous_agents_scope", "agents readable only"),
)
NEVER = "never run"


def _read(folder: str) -> dict[str, Mapping[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((EVIDENCE / folder).glob("*.json"))}


def _verdict(platform: Mapping[str, Any]) -> str:
    last = platform["verdicts"][-1]
    words = str(last["status"]).replace("_", " ")
    return f"{words}: {last['note']}" if last["note"] else words


def _cell(platform: str, name: str, scenario: Mapping[str, Any] | None, stores: Mapping[str, Mapping[str, Any]]) -> str:
    found = (scenario or {}).get("cells", {}).get(name)
    if found:
        return f"{found['result']} ({found['level']})"
    setup, words = STORE_OF.get(platform, ("", ""))
    store = stores.get(setup)
    level = "another real store" if " in place of " in words else (store or {}).get("level")
    if scenario is None and store and name in ("bucket", "conformance"):
        no = [question for question, works in store["answers"].items() if works is False]
        result = "yes" if store["bucket"] else "no"
        if name == "conformance":
            result = f"{sum(works is True for works in store['answers'].values())} yes, {len(no)} no"
        return f"{result} ({level}: {words}; the store alone)"
    return NEVER


def page() -> str:
    """The page."""
    platforms = {item["id"]: item for item in yaml.safe_load((ROOT / "plugins/plugin_utils/catalog/data/platforms.yml").read_text(encoding="utf-8"))["platforms"]}
    scenarios, stores = _read("scenarios"), _read("stores")
    lines = [
        "<!-- Written by make generate from docs/reference/evidence; make scenario-table takes over what the last runs saw. -->",
        "# Scenarios: how far each platform was tried",
        "",
        "No cell is about the cloud itself: none of them was ever reached, neither here nor by `cloud_prepare`, which was tried against",
        "[an emulator and stand-ins](../how-to/cloud-prepare.md#how-far-it-was-tried). Kubernetes is that of the [sandbox](../../sandbox/README.md), and CircleCI's own",
        "programs are stand-ins. `make test-molecule SCENARIO=azure` runs a scenario with the example of [inventories](../../inventories), `make test-store` the",
        "stores; each leaves its evidence, and a cell that no run has filled says so.",
        "",
        "| platform | the vendor's verdict on 4.10 | " + " | ".join(title for _name, title in CELLS) + " |",
        "|---|---|" + "---|" * len(CELLS),
    ]
    for platform in PLATFORMS:
        cells = [_cell(platform, name, scenarios.get(platform), stores) for name, _title in CELLS]
        lines.append(f"| {platforms[platform]['name']} | {_verdict(platforms[platform])} | {' | '.join(cells)} |")
    lines += [
        "",
        "Levels of evidence: real component; stand-in product on real components (Kubernetes, Nomad and store are real, CircleCI's programs are not); another",
        "real store in place of the cloud's; emulator (it can be wrong about what stands below as its blind spots); never run.",
        "",
    ]
    lines += ["## What stood in, and what was seen", ""]
    for platform in PLATFORMS:
        scenario = scenarios.get(platform)
        lines += [f"### {platforms[platform]['name']}", ""]
        if scenario is None:
            lines += ["The scenario was never run as a whole.", ""]
            continue
        lines.append(f"Last run on {scenario['date']}.")
        if scenario["store"]:
            lines.append(f"Behind the buckets: {scenario['store']}." + (f" It cannot show: {scenario['blind_spots']}." if scenario["blind_spots"] else ""))
        if scenario["stand_ins"]:
            lines.append(f"In place of the platform's own: {'; '.join(scenario['stand_ins'])}.")
        lines.append("")
        lines += [f"* {title}: {scenario['cells'][name]['detail']}" for name, title in DETAILS if scenario["cells"].get(name, {}).get("detail")]
        lines.append("")
    lines += [
        "## Kinds of object storage against the conformance probe",
        "",
        "| setup | level | " + " | ".join(title for _name, title in QUESTIONS) + " |",
        "|---|---|" + "---|" * len(QUESTIONS),
    ]
    words = {True: "yes", False: "**no**", None: "–"}
    for name, store in stores.items():
        answers = [words[store["answers"].get(question)] for question, _title in QUESTIONS]
        lines.append(f"| {store['kind']} → {store['behind']}{' (https)' if name.endswith('-tls') else ''} | {store['level']} | {' | '.join(answers)} |")
    for name, variable in GATED.items():
        if name not in stores:
            lines.append(f"| {name.replace('-', ' → ', 1)} | {NEVER}: `{variable}` named no binary | " + " | ".join("" for _ in QUESTIONS) + " |")
    lines += ["", "– is a question that did not arise. An object has 5 GB at most with presigned URLs, which is what S3 says of one PUT; nothing of that size was written.", ""]
    blind = {store["behind"]: store["blind_spots"] for store in stores.values() if store["blind_spots"]}
    lines += ["Blind spots:", "", *(f"* {behind}: {spots}" for behind, spots in sorted(blind.items()))]
    return "\n".join(lines) + "\n"
