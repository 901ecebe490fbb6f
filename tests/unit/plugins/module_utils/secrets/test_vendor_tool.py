# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import generate
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import (
    KEYSETS_ANNOTATION,
    Report,
    ToolError,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.vendor_tool import NAME, VendorTool
from ansible_collections.onprem.circleci_server.plugins.modules import site_secrets
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.secrets.test_store import (
    INPUTS,
    NS,
    data,
    keeper,
    plan,
    small_keys,
)

__all__ = ["small_keys"]
POD = f"/api/v1/namespaces/{NS}/pods/{NAME}"
SECRET = f"/api/v1/namespaces/{NS}/secrets/signing-keys"
DIGEST = "sha256:" + "a" * 64


class Program:
    """Runs server-keysets as the pod would, and keeps what it was asked."""

    def __init__(self, code: int = 0, words: str = "") -> None:
        self.code, self.words = code, words
        self.asked: list[tuple[str, str, str, list[str], str]] = []

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: str) -> tuple[int, str, str]:
        self.asked.append((namespace, pod, container, list(command), stdin))
        made = {"signing": generate.signing_keyset, "encryption": generate.encryption_keyset}[command[2]]()
        return self.code, (self.words or made) + "\n", "broken" if self.code else ""


def cluster(status: Mapping[str, Any] | None = None) -> FakeKube:
    api = FakeKube(NS)
    running = {"containerStatuses": [{"state": status or {"running": {}}}]}

    def answer(method: str, path: str) -> Any:
        if (method, path) == ("GET", POD) and POD in api.objects:
            return {**api.objects[POD], "status": running}
        return None

    api.hooks.append(answer)
    return api


def made(api: FakeKube, program: Program, digest: str | None = DIGEST, **options: Any) -> tuple[Report, list[Mapping[str, Any]]]:
    wanted: list[Mapping[str, Any]] = []

    def find(item: Mapping[str, Any]) -> str | None:
        wanted.append(item)
        return digest

    def tool(item: Mapping[str, Any]) -> VendorTool:
        return VendorTool(api, lambda: program, NS, item, find, sleep=lambda _seconds: None)

    return keeper(api, tool=tool, **options).present(), wanted


def detail(report: Report) -> str:
    return str(next(entry["detail"] for entry in report.secrets if entry["name"] == "signing-keys"))


def origin(api: FakeKube) -> str:
    return str(api.objects[SECRET]["metadata"]["annotations"][KEYSETS_ANNOTATION])


def test_the_program_of_the_vendor_makes_them_where_the_registry_has_it() -> None:
    api, program = cluster(), Program()
    seen: list[dict[str, Any]] = []

    def look(method: str, path: str) -> None:
        if (method, path) == ("GET", POD):
            seen.append(api.objects[POD])

    api.hooks.insert(0, look)
    report, wanted = made(api, program)
    assert not report.errors and "vendor's program" in detail(report) and origin(api) == "vendor"
    assert wanted == [{"registry": "registry.site.example:5000", "repository": "circleci/server-keysets", "tag": "latest", "pull_secret": "regcred"}]
    assert [asked[3] for asked in program.asked] == [["server-keysets", "generate", kind, "-a", "stdout"] for kind in ("signing", "encryption")]
    assert "SIGN_AND_VERIFY" in data(api, "signing-keys", "signing-key") and "DECRYPT_AND_ENCRYPT" in data(api, "signing-keys", "encryption-key")
    # Gone again, whatever it printed is in no log of a container, and it was asked for by digest.
    assert POD not in api.objects
    spec = seen[0]["spec"]
    assert spec["containers"][0]["command"][0] == "sleep"
    assert spec["containers"][0]["image"] == f"registry.site.example:5000/circleci/server-keysets@{DIGEST}"
    assert spec["imagePullSecrets"] == [{"name": "regcred"}] and "nodeName" not in spec


def test_our_own_form_is_said_with_the_reason() -> None:
    api = cluster()
    report, _wanted = made(api, Program(), digest=None)
    assert "made by this collection, since the private registry has no circleci/server-keysets:latest" in detail(report) and origin(api) == "own"
    asked = cluster()
    report, wanted = made(asked, Program(), keysets="own")
    assert "as asked" in detail(report) and not wanted and origin(asked) == "own"
    given = cluster()
    keysets = {"keyset_signing": generate.signing_keyset(), "keyset_encryption": generate.encryption_keyset()}
    report, wanted = made(given, Program(), inputs={**INPUTS, **keysets})
    assert not wanted and origin(given) == "given" and data(given, "signing-keys", "signing-key") == keysets["keyset_signing"]


def test_what_is_there_is_not_made_again() -> None:
    api, program = cluster(), Program()
    made(api, program)
    before = data(api, "signing-keys", "signing-key")
    report, wanted = made(api, program)
    assert not report.changed and not wanted and len(program.asked) == 2
    assert data(api, "signing-keys", "signing-key") == before


def test_check_mode_says_which_and_starts_no_pod() -> None:
    api, program = cluster(), Program()
    report, wanted = made(api, program, write=False)
    assert len(wanted) == 1 and "vendor's program" in detail(report)
    assert not program.asked and not api.writes()


@pytest.mark.parametrize(
    ("status", "program", "words"),
    [
        ({"waiting": {"reason": "ImagePullBackOff", "message": "x509: unknown authority"}}, Program(), "does not trust"),
        ({"terminated": {"exitCode": 127}}, Program(), "not the image of the vendor"),
        ({"running": {}}, Program(code=1), "generate signing ended with 1: broken"),
        ({"running": {}}, Program(words="no keyset"), "signing-key is no keyset"),
        ({"waiting": {"reason": "ContainerCreating"}}, Program(), "within 180 seconds"),
    ],
)
def test_a_program_that_fails_stops_the_run_and_leaves_no_pod(status: dict[str, Any], program: Program, words: str) -> None:
    api = cluster(status)
    clock = iter(range(0, 100000, 60))

    def tool(item: Mapping[str, Any]) -> VendorTool:
        return VendorTool(api, lambda: program, NS, item, lambda _item: DIGEST, sleep=lambda _seconds: None, clock=lambda: float(next(clock)))

    with pytest.raises(ToolError, match=words):
        keeper(api, tool=tool).present()
    assert POD not in api.objects and SECRET not in api.objects


def test_the_vendor_asked_for_and_not_there_is_refused() -> None:
    with pytest.raises(ToolError, match="has no circleci/server-keysets"):
        made(cluster(), Program(), digest=None, keysets="vendor")


def test_the_registry_is_asked_with_login_and_an_unreachable_one_is_a_reason() -> None:
    item = next(one for one in plan()["secrets"] if one["name"] == "signing-keys")["tool"]
    store = keeper(FakeKube(NS)).store
    params = {"registry_ca": "", "registry_username": "mirror", "registry_password": "secret", "kubeconfig": "", "context": "", "namespace": NS}
    closed = site_secrets.vendor_tool(params, FakeKube(NS), store)({**item, "registry": "127.0.0.1:9"})
    assert closed.missing().startswith("the private registry does not say whether it has it (")

