# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput through a gateway against the store behind it alone, in the same run.

Starts the real programs on loopback with the arguments and the environment that the role object_storage writes, and moves the same objects through each:
artifacts of some size with one PUT and one GET each, as presigned URLs do it, and many small ones. Prints seconds and the ratio to the store alone, and
writes them as JSON:

    make tree && cd <tree> && python -m benchmarks.object_storage.gateways --size 64 --small 300 --runs 3 --output build/benchmark-object-storage.json

Ratios are what is worth comparing; seconds are those of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client
from ansible_collections.onprem.circleci_server.tests.integration_store.stores import Store, azurite

BUCKET = "circleci-data"
SETUPS = {
    "MinIO alone": ("minio_server", ""),
    "versitygw before MinIO": ("versitygw_s3", "minio_server"),
    "versitygw on a folder": ("versitygw_posix", ""),
    "versitygw before versitygw": ("versitygw_s3", "versitygw_posix"),
    "versitygw before Azurite": ("versitygw_azure", "azurite"),
    "MinIO gateway before MinIO": ("minio_gateway_s3", "minio_server"),
    "MinIO gateway before Azurite": ("minio_gateway_azure", "azurite"),
}
ALONE = {
    "versitygw before MinIO": "MinIO alone",
    "versitygw before versitygw": "versitygw on a folder",
    "MinIO gateway before MinIO": "MinIO alone",
    "MinIO gateway before Azurite": "versitygw before Azurite",
}
"""What each is compared with. Azurite speaks no S3, so that a second gateway is the only rival there."""
GATED = {"minio_gateway_s3": "MINIO_GATEWAY_S3", "minio_gateway_azure": "MINIO_GATEWAY_AZURE"}


@contextlib.contextmanager
def running(kind: str, behind: str, folder: Path) -> Iterator[S3Client]:
    """A client of a store of *kind*, with what lies behind it started too."""
    with contextlib.ExitStack() as stack:
        (folder / "store").mkdir(parents=True)
        store = Store(kind, folder / "store")
        if behind == "azurite":
            (folder / "azurite").mkdir()
            hidden = stack.enter_context(azurite(folder / "azurite"))
            store.behind = {name: hidden[name] for name in ("endpoint", "account", "key")}
        elif behind:
            (folder / "behind").mkdir()
            inner = Store(behind, folder / "behind", access_key="behind", secret_key="secret of the store behind")
            stack.callback(inner.stop)
            inner.start()
            store.behind = {"endpoint": f"http://127.0.0.1:{inner.port}", "account": inner.access_key, "key": inner.secret_key}
        stack.callback(store.stop)
        store.start()
        client = store.client()
        stack.callback(client.close)
        client.create_bucket(BUCKET)
        yield client


def seconds(work: Callable[[], None]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def measure(client: S3Client, size: int, small: int) -> dict[str, float]:
    """One run: seconds for one large object up and down, and for many small ones."""
    data = os.urandom(size << 20)
    digest = hashlib.sha256(data).hexdigest()
    body = os.urandom(4096)
    found: dict[str, Any] = {}

    def down() -> None:
        found["body"] = client.open_url("GET", client.presign("GET", BUCKET, "large", 600)).body

    def many() -> None:
        for number in range(small):
            assert client.open_url("PUT", client.presign("PUT", BUCKET, f"small/{number}", 600), body=body).status == 200

    def read_many() -> None:
        for number in range(small):
            assert client.open_url("GET", client.presign("GET", BUCKET, f"small/{number}", 600)).body == body

    times = {
        "large_put": seconds(lambda: client.expect("writing", client.open_url("PUT", client.presign("PUT", BUCKET, "large", 600), body=data), 200) and None),
        "large_get": seconds(down),
        "small_put": seconds(many),
        "small_get": seconds(read_many),
    }
    assert hashlib.sha256(found["body"]).hexdigest() == digest, "what came back is not what went in"
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="MiB of the large object")
    parser.add_argument("--small", type=int, default=300, help="number of objects of 4 KiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name, (kind, behind) in SETUPS.items():
        if kind in GATED and not os.environ.get(GATED[kind]):
            sys.stdout.write(f"{name}: skipped, {GATED[kind]} names no binary\n")
            continue
        with tempfile.TemporaryDirectory() as folder, running(kind, behind, Path(folder)) as client:
            runs = [measure(client, options.size, options.small) for _ in range(options.runs)]
        results[name] = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        rival = results.get(ALONE.get(name, ""))
        ratios = {what: results[name][what] / rival[what] for what in runs[0]} if rival else {}
        shown = ", ".join(f"{what} {value:.2f} s{f' (x{ratios[what]:.2f})' if ratios else ''}" for what, value in results[name].items())
        sys.stdout.write(f"{name}: {shown}\n")
        sys.stdout.flush()
    if options.output:
        ratios = {
            name: {what: round(value / results[ALONE[name]][what], 3) for what, value in times.items()}
            for name, times in results.items()
            if ALONE.get(name) in results
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        found = {"size_mib": options.size, "small": options.small, "runs": options.runs, "seconds": results, "ratios": ratios, "against": ALONE}
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
