# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import base64
import copy
import http.client
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import files, stores
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import SecretsError
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.secrets.kv2_standin import (
    TOKEN,
    Kv2,
    serving,
)


def secret(name: str, **texts: str) -> dict[str, Any]:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return {"metadata": {"name": name, "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}}, "type": "Opaque", "data": data}


SECRETS = stores.manifests_of({"tink": secret("tink", keyset="k"), "pusher": secret("pusher", secret="s")})


@pytest.fixture
def engine() -> Kv2:
    return Kv2()


@pytest.fixture
def url(engine: Kv2) -> Iterator[str]:
    """The real server when the environment names one, the stand-in otherwise; each test has a path of its own."""
    with serving(engine) as address:
        yield address


def vault(url: str, token: str = TOKEN) -> stores.HashicorpVault:
    return stores.HashicorpVault(url, "kv", "circleci/ci.example.com", token)


def test_manifests_hold_nothing_of_one_cluster() -> None:
    objects = {"a": secret("a", k="v"), "r": {**secret("r"), "type": "helm.sh/release.v1"}}
    assert list(stores.manifests_of(objects)) == ["a"]
    assert stores.manifests_of(objects)["a"]["metadata"] == {"name": "a", "labels": {"a": "b"}}
    assert stores.from_document(json.loads(stores.dump(SECRETS, "ci.example.com").partition("\n")[2]), "x") == SECRETS


def test_what_was_kept_is_read_back_and_a_second_run_writes_nothing(engine: Kv2, url: str) -> None:
    assert vault(url).read() is None
    assert stores.keep(vault(url), None, SECRETS).added == ["pusher", "tink"]
    have = vault(url).read()
    assert have == SECRETS
    before = len(engine.writes())
    assert stores.keep(vault(url), have, SECRETS).changed == []
    assert len(engine.writes()) == before


def test_only_what_differs_is_written_and_what_the_cluster_lost_stays(engine: Kv2, url: str) -> None:
    stores.keep(vault(url), None, SECRETS)
    engine.requests.clear()
    store = vault(url)
    have = store.read()
    other = {"pusher": stores.manifest_of(secret("pusher", secret="new"))}
    assert stores.keep(store, have, other).replaced == ["pusher"]
    assert engine.writes() == [("POST", "/v1/kv/data/circleci/ci.example.com/pusher")]
    assert vault(url).read() == {**SECRETS, **other}


def test_check_mode_names_what_it_would_write(engine: Kv2, url: str) -> None:
    assert stores.keep(vault(url), None, SECRETS, write=False).changed == ["pusher", "tink"]
    assert engine.writes() == []


def test_another_keyset_in_the_store_is_not_overwritten_until_it_is_named(engine: Kv2, url: str) -> None:
    stores.keep(vault(url), None, SECRETS)
    store = vault(url)
    have = store.read()
    engine.requests.clear()
    other = {"tink": stores.manifest_of(secret("tink", keyset="another"))}
    found = stores.keep(store, have, other, once=["tink"])
    assert "perhaps" not in found.problems[0] and "only copy" in found.problems[0] and "circleci_secrets_replace_kept" in found.problems[0]
    assert engine.writes() == []
    assert stores.keep(store, have, other, once=["tink"], replace=["tink"]).replaced == ["tink"]


def test_store_that_forgets_is_refused(engine: Kv2, url: str) -> None:
    engine.forgets = True
    with pytest.raises(SecretsError, match=r"did not keep what was written \(pusher, tink\)"):
        stores.keep(vault(url), None, SECRETS)


def test_write_of_somebody_else_is_not_lost(engine: Kv2, url: str) -> None:
    slow, fast = vault(url), vault(url)
    assert slow.read() is None
    stores.keep(fast, fast.read(), SECRETS)
    with pytest.raises(SecretsError, match="check-and-set"):
        stores.keep(slow, None, SECRETS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"sealed": True}, "unseal it"), ({"read_only": True}, "policy with read, list, create and update"), ({"version1": True}, "version 2")],
)
def test_why_a_vault_cannot_be_used(engine: Kv2, url: str, change: dict[str, bool], sentence: str) -> None:
    for name, value in change.items():
        setattr(engine, name, value)
    with pytest.raises(SecretsError, match=sentence):
        store = vault(url)
        stores.keep(store, store.read(), SECRETS)


def test_wrong_token_and_dead_server_are_told_apart_and_no_token_is_shown(url: str) -> None:
    with pytest.raises(SecretsError, match="403") as refused:
        vault(url, "wrong-token").read()
    assert "wrong-token" not in str(refused.value)
    with pytest.raises(SecretsError, match="cannot be reached"):
        vault("http://127.0.0.1:1").read()


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "[]", '{"data": null}', '{"data": {"keys": null}}'])
def test_an_answer_that_is_none_of_a_vault_is_a_sentence(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    store = vault("http://127.0.0.1:1")

    class Answer(io.BytesIO):
        status = 200

    monkeypatch.setattr(store, "_open", lambda *_args, **_more: Answer(body.encode()))
    with pytest.raises(SecretsError, match="something else than a list of entries"):
        store.read()


def test_what_speaks_no_http_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_args: Any, **_more: Any) -> None:
        raise http.client.BadStatusLine("AMQP")

    store = vault("http://127.0.0.1:1")
    monkeypatch.setattr(store, "_open", answer)
    with pytest.raises(SecretsError, match="circleci_secrets_store_url"):
        store.read()


def test_an_authority_that_is_no_pem_is_a_sentence() -> None:
    with pytest.raises(SecretsError, match="circleci_secrets_store_ca_certificate"):
        stores.HashicorpVault("https://vault.example.com", "kv", "circleci", TOKEN, ca="no PEM")


def test_entries_of_somebody_else_are_refused(engine: Kv2, url: str) -> None:
    engine.entries["circleci/ci.example.com/mine"] = [{"password": "x"}]
    with pytest.raises(SecretsError, match="was not written by the verb secrets"):
        vault(url).read()


@pytest.mark.skipif(not os.environ.get("TEST_VAULT_ADDR"), reason="TEST_VAULT_ADDR and TEST_VAULT_TOKEN name no server with a KV engine of version 2 at kv")
def test_a_real_vault_does_the_same() -> None:
    path = f"circleci/{os.getpid()}"
    store = stores.HashicorpVault(os.environ["TEST_VAULT_ADDR"], "kv", path, os.environ["TEST_VAULT_TOKEN"])
    assert store.read() is None
    stores.keep(store, None, SECRETS)
    assert store.read() == SECRETS
    assert stores.keep(store, SECRETS, SECRETS).changed == []


def test_variables_cannot_be_written() -> None:
    given = stores.GivenVariables({"tink": SECRETS["tink"]["data"]}, SECRETS)
    assert given.read() == {"tink": SECRETS["tink"]}
    assert stores.keep(given, given.read(), {"tink": SECRETS["tink"]}).changed == []
    with pytest.raises(SecretsError, match="does not hold pusher"):
        stores.keep(given, given.read(), SECRETS)


def test_a_store_of_another_site_is_refused() -> None:
    stores.check_domain(stores.dump(SECRETS, "ci.example.com"), "ci.example.com", "x")
    with pytest.raises(SecretsError, match=r"belongs to the site ci\.osaka\.example"):
        stores.check_domain(stores.dump(SECRETS, "ci.osaka.example"), "ci.example.com", "x")


def test_files_are_replaced_whole_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "escrow.yml"
    assert files.read_text(str(path)) == ""
    files.write_text(str(path), "one")
    files.write_text(str(path), "two")
    assert files.read_text(str(path)) == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["escrow.yml"]


TABLE = [("/", "overlay"), ("/run", "tmpfs"), ("/srv/data", "ext4"), ("/runner", "ext4")]


@pytest.mark.parametrize(
    ("path", "job", "sentence"),
    [
        ("/run/escrow.yml", False, "in memory (tmpfs at /run)"),
        ("/var/lib/escrow.yml", False, ""),
        ("/var/lib/escrow.yml", True, "container of an AWX job"),
        ("/runner/project/escrow.yml", True, "container of an AWX job"),
        ("/srv/data/escrow.yml", True, ""),
        ("/runner/escrow.yml", False, ""),
    ],
)
def test_places_that_do_not_outlive_the_run(path: str, job: bool, sentence: str) -> None:
    found = files.will_not_last(path, job=job, table=TABLE)
    assert (sentence in found) if sentence else found == ""


def test_job_of_awx_is_seen_in_its_environment(tmp_path: Path) -> None:
    assert files.in_job({"AWX_HOST": "https://awx.example.com"})
    assert files.in_job({"JOB_ID": "7"}, str(tmp_path))
    assert not files.in_job({"JOB_ID": "7"}, str(tmp_path / "none"))
    assert not files.in_job({}, str(tmp_path))


def test_mount_table_is_read() -> None:
    text = "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / /run/a\\040b rw,nosuid shared:2 - tmpfs tmpfs rw\n"
    assert files.mounts(text) == [("/", "ext4"), ("/run/a b", "tmpfs")]


def test_manifests_are_not_shared_with_what_they_came_from() -> None:
    objects = {"a": secret("a", k="v")}
    before = copy.deepcopy(objects)
    stores.manifests_of(objects)["a"]["data"]["k"] = "changed"
    assert objects == before
