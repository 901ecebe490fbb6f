# SPDX-License-Identifier: GPL-3.0-or-later
"""A store of each kind, with what lies behind it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.integration_mirror.wire import Wire
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, digest_of, serve

from .stores import Store, azurite

RELEASE = "4.10.0"
SETUPS = {
    "versitygw_posix": ("versitygw_posix", "", False),
    "versitygw_posix-tls": ("versitygw_posix", "", True),
    "versitygw_s3-versitygw": ("versitygw_s3", "versitygw_posix", False),
    "versitygw_s3-minio": ("versitygw_s3", "minio_server", False),
    "versitygw_azure-azurite": ("versitygw_azure", "azurite", False),
    "minio_server": ("minio_server", "", False),
    "minio_server-tls": ("minio_server", "", True),
    "minio_nas": ("minio_nas", "", False),
    "minio_gateway_azure-azurite": ("minio_gateway_azure", "azurite", False),
    "minio_gateway_s3-minio": ("minio_gateway_s3", "minio_server", False),
}
"""Name of the setup: kind, what lies behind it, whether it speaks TLS."""


class Site:
    """A store, the private registry, and the modules of the role run against both."""

    def __init__(self, store: Store, registry: Stub, capsys: pytest.CaptureFixture[str], behind: Any = None) -> None:
        self.store, self.registry, self.capsys, self.behind = store, registry, capsys, behind
        self.capabilities = object_storage.capabilities(Catalog.load(), store.kind)

    @property
    def listed(self) -> bool:
        return bool(self.capabilities["agents"] == "listed")

    def module(self, module: Any, *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module(module, self.capsys, check=check, **self.store.options(**options))

    def agents(self, files: dict[str, str]) -> dict[str, Any]:
        """Options of the module that brings the agents."""
        found = object_storage.agent_objects(Catalog.load(), RELEASE, files)
        login = {"registry": self.registry.host, "username": "site", "password": "secret-password", "plain_http": True}
        return self.store.options(**login, bucket="circleci-agents", objects=found["objects"], texts=found["texts"])


def agent_trees() -> list[dict[str, Any]]:
    """Where jobs of the release look for agents."""
    return object_storage.agent_trees(Catalog.load(), RELEASE)


def bring_release(registry: Stub, version: str, size: int = 3 << 20) -> dict[str, str]:
    """File artifacts of a release as a bundle brings them; the version is in what the programs say."""
    programs = {"build-agent": "circleci-agent", "docker-agent": "agent"}
    files = {"build-agent-canary": "4.10.0"}
    registry.artifact("onprem/files/build-agent-canary", "4.10.0", {"canary.txt": b"1\n"})
    for name, path in programs.items():
        content = (f"{name} {version}\n".encode() * (size // 10))[:size]
        sums = f"{digest_of(content).split(':')[1]}  linux/amd64/{path}\n".encode()
        registry.artifact(f"onprem/files/{name}", version, {path: content})
        registry.artifact(f"onprem/files/{name}-checksums", version, {"checksums.txt": sums})
        files |= {name: version, f"{name}-checksums": version}
    return files


def keep(name: str, *, kind: str, behind: str, level: str, blind: str, results: list[dict[str, Any]], changes: list[str]) -> None:
    """Leave what a store was seen to do for the table of docs/reference/scenarios.md."""
    folder = os.environ.get("ONPREM_CIRCLECI_EVIDENCE")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    answers = {item["name"]: item["works"] for item in results}
    found = {"kind": kind, "behind": behind, "level": level, "blind_spots": blind, "answers": answers, "bucket": bool(changes)}
    (Path(folder) / f"{name}.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


@pytest.fixture
def registry() -> Iterator[Stub]:
    yield from serve("site:secret-password")


@pytest.fixture
def start(tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Site]]:
    """Start one of the setups."""
    with contextlib.ExitStack() as stack:

        def run(name: str, **options: Any) -> Site:
            kind, behind, tls = SETUPS[name]
            folder = tmp_path / "store"
            folder.mkdir()
            store = Store(kind, folder, tls=tls, **options)
            hidden: Any = None
            if behind == "azurite":
                (tmp_path / "azurite").mkdir()
                hidden = stack.enter_context(azurite(tmp_path / "azurite"))
                store.behind = {name: hidden[name] for name in ("endpoint", "account", "key")}
            elif behind:
                (tmp_path / "behind").mkdir()
                hidden = Store(behind, tmp_path / "behind", access_key="behind", secret_key="secret of the store behind", versioning=True)
                stack.callback(hidden.stop)
                hidden.start()
                store.behind = {"endpoint": f"http://127.0.0.1:{hidden.port}", "account": hidden.access_key, "key": hidden.secret_key}
            stack.callback(store.stop)
            store.start()
            return Site(store, registry, capsys, hidden)

        yield run


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    """A proxy between client and store, at which a test can stop the world."""
    with contextlib.ExitStack() as stack:

        def between(upstream: tuple[str, int]) -> Wire:
            proxy = Wire(upstream)
            stack.callback(proxy.close)
            return proxy

        yield between
