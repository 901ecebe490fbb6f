# SPDX-License-Identifier: GPL-3.0-or-later
"""Real distribution registries on loopback, small sets of images, and the proxy before them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "benchmarks" / "mirror"), str(Path(__file__).resolve().parent)]

import images
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.access import Access
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.fetch import (
    FetchOptions,
    FetchResult,
    fetch,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.load import LoadOptions, LoadResult, load
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.lock import Lock
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.sign import Trust
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.transport import Patience
from registries import BINARY, Registry
from wire import Wire

QUICK = Patience(tries=5, first_wait=0.02, longest_wait=0.2)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one, for registries are slow on disks."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        yield tmp_path_factory.mktemp("mirror")
        return
    folder = memory / f"mirror-test-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def work(scratch: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    # Registries read the path from YAML, so it holds nothing that means something there.
    folder = scratch / f"{re.sub('[^a-z0-9]', '-', request.node.name[:40])}-{time.monotonic_ns()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials and no state of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SOURCE_DATE_EPOCH", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def source(scratch: Path) -> Iterator[tuple[Registry, list[str]]]:
    """A registry with set S at a sixtieth of its size: the same shape, 43 references and 309 blobs."""
    if BINARY is None:
        pytest.skip("no distribution registry (docker-registry) on PATH")
    made = images.make_set_s(scratch / "source", 1 / 60)
    registry = Registry(scratch / "source", scratch / "config")
    yield registry, made["refs"]
    registry.stop()


@pytest.fixture
def wire(source: tuple[Registry, list[str]]) -> Iterator[Wire]:
    """The counting proxy before the source."""
    proxy = Wire(("127.0.0.1", source[0].port))
    yield proxy
    proxy.close()


@pytest.fixture
def make_registry(work: Path) -> Iterator[Callable[..., Registry]]:
    if BINARY is None:
        pytest.skip("no distribution registry (docker-registry) on PATH")
    started: list[Registry] = []

    def make(name: str = "target", **options: Any) -> Registry:
        registry = Registry(work / name, work / "config", **options)
        started.append(registry)
        return registry

    yield make
    for registry in started:
        registry.stop()


@pytest.fixture
def target(make_registry: Callable[..., Registry]) -> Iterator[Wire]:
    """An empty registry behind a counting proxy."""
    registry = make_registry("target")
    proxy = Wire(("127.0.0.1", registry.port))
    yield proxy
    proxy.close()


def access(**options: Any) -> Access:
    return Access(plain_http=True, use_docker_config=False, patience=options.pop("patience", QUICK), stall_timeout=options.pop("stall_timeout", 5.0), **options)


def lock_for(host: str, refs: list[str], platforms: tuple[str, ...] = ()) -> Lock:
    return Lock.from_refs([f"{host}/{ref}" for ref in refs], platforms)


def do_fetch(lock: Lock, output: Path, **options: Any) -> FetchResult:
    used = options.pop("access", None) or access()
    try:
        return fetch(FetchOptions(lock, output, used, **options))
    finally:
        used.close()


def do_load(folders: Path | list[Path], host: str, **options: Any) -> LoadResult:
    used = options.pop("access", None) or access()
    options.setdefault("trust", Trust(allow_unsigned=True))
    try:
        return load(LoadOptions(folders if isinstance(folders, list) else [folders], host, used, **options))
    finally:
        used.close()


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine as one file, built as make does."""
    path = tmp_path_factory.mktemp("pyz") / "circleci-mirror.pyz"
    subprocess.run([sys.executable, str(ROOT / "tools" / "build_mirror_pyz.py"), "--output", str(path)], check=True)
    return path
