# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores behind the reverse proxy that docs/how-to/object-storage.md shows: that very text in a real nginx."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.plugins.modules import object_storage_buckets, object_storage_probe
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

from .stores import NAME, ROOT, Store, free_port, wait_for_port

HEAD = "user root;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}\n"
PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
BUCKETS: dict[str, Any] = {"site": "ci.site.example", "bucket": "circleci-data", "agent_bucket": "circleci-agents"}


def from_the_page(**instead: str) -> str:
    """The text of the page with the addresses of a test; what is replaced must be there."""
    page = (ROOT / "docs/how-to/object-storage.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    for words, other in instead.items():
        assert text.count(words) == 1, words
        text = text.replace(words, other)
    return str(text)


class Proxy:
    """nginx with a certificate of an authority of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.port = folder, capsys, free_port()
        self.authority = pki.new_authority("authority of the test", bits=2048)
        pair = pki.issue(self.authority, pki.Subject("localhost", ("localhost",)), bits=2048)
        (folder / "store.crt").write_text(pair.certificate)
        (folder / "store.key").write_text(pair.key)

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"

    @contextlib.contextmanager
    def before(self, *ports: int, connections: int = 512) -> Iterator[None]:
        instead = {
            "server 127.0.0.1:9000;": "".join(f"server 127.0.0.1:{port};" for port in ports),
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/etc/nginx/store.crt": str(self.folder / "store.crt"),
            "/etc/nginx/store.key": str(self.folder / "store.key"),
            "limit_conn store 512;": f"limit_conn store {connections};",
        }
        paths = "\n".join(f"{name}_temp_path {self.folder}/{name};" for name in PATHS)
        (self.folder / "nginx.conf").write_text(HEAD.format(folder=self.folder, paths=paths) + from_the_page(**instead) + "}\n")
        log = self.folder / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(["nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)], stdout=output, stderr=output)
        try:
            wait_for_port(self.port, process, log)
            yield
        finally:
            process.terminate()
            process.wait()

    def options(self, store: Store) -> dict[str, Any]:
        return {"endpoint": self.endpoint, "access_key": store.access_key, "secret_key": store.secret_key, "store_ca_certificate": self.authority.certificate}

    def module(self, module: Any, store: Store, **options: Any) -> dict[str, Any]:
        return run_module(module, self.capsys, **self.options(store), **options)

    def client(self, store: Store) -> S3Client:
        return S3Client(self.endpoint, Credentials(store.access_key, store.secret_key, "us-east-1"), ca_data=self.authority.certificate)

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=ssl.create_default_context(cadata=self.authority.certificate))


@pytest.fixture
def proxy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Proxy:
    if shutil.which("nginx") is None:
        pytest.skip("there is no nginx: make test-store installs it")
    (tmp_path / "proxy").mkdir()
    return Proxy(tmp_path / "proxy", capsys)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    with contextlib.ExitStack() as stack:

        def start(name: str, kind: str, **options: Any) -> Store:
            (tmp_path / name).mkdir()
            store = Store(kind, tmp_path / name, **options)
            stack.callback(store.stop)
            store.start()
            return store

        yield start


def test_minio_behind_the_proxy_does_all_and_administers_nothing(run: Callable[..., Store], proxy: Proxy) -> None:
    store = run("minio", "minio_server")
    with proxy.before(store.port):
        made = proxy.module(object_storage_buckets, store, **BUCKETS)
        assert made["changed"], made
        probed = proxy.module(object_storage_probe, store, bucket="circleci-data", agent_bucket="circleci-agents")
        assert not probed.get("failed"), probed["msg"]
        direct = run_module(object_storage_probe, proxy.capsys, **store.options(bucket="circleci-data", agent_bucket="circleci-agents"))
        assert {row["name"]: row["works"] for row in probed["results"]} == {row["name"]: row["works"] for row in direct["results"]}
        proxy.client(store).put("circleci-data", "large", b"x" * (20 << 20))
        answers = {}
        for method, path in (("GET", "/minio/admin/v3/info"), ("GET", "//minio/admin/v3/info"), ("GET", "/minio%2Fadmin/v3/info"), ("POST", "/")):
            with contextlib.closing(proxy.connection()) as connection:
                connection.putrequest(method, path)
                connection.endheaders()
                answers[method, path] = connection.getresponse().status
        assert answers == dict.fromkeys(answers, 403)
        # The store itself would have answered, so that it is the proxy that refuses.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", store.port)) as connection:
            connection.request("POST", "/", "Action=AssumeRole&Version=2011-06-15", {"content-type": "application/x-www-form-urlencoded"})
            assert b"nginx" not in connection.getresponse().read()


def test_client_with_too_many_requests_is_kept_out_of_more(run: Callable[..., Store], proxy: Proxy) -> None:
    store = run("minio", "minio_server")
    with proxy.before(store.port, connections=2), contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(contextlib.closing(proxy.connection()))
            connection.putrequest("PUT", "/circleci-data/slow")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"the first bytes only")
        statuses = set()
        for _ in range(200):
            with contextlib.closing(proxy.connection()) as connection:
                connection.request("GET", "/circleci-data/x")
                statuses.add(connection.getresponse().status)
            if 503 in statuses:
                break
        assert 503 in statuses


def test_one_of_two_gateways_under_one_name_may_go_away(run: Callable[..., Store], proxy: Proxy) -> None:
    behind = run("behind", "minio_server", access_key="behind", secret_key="secret of the store behind")
    given = {"behind": {"endpoint": f"http://127.0.0.1:{behind.port}", "account": behind.access_key, "key": behind.secret_key}}
    first, second = run("first", "versitygw_s3", **given), run("second", "versitygw_s3", **given)
    with proxy.before(first.port, second.port):
        assert proxy.module(object_storage_buckets, first, **BUCKETS)["changed"]
        assert not proxy.module(object_storage_buckets, first, **BUCKETS)["changed"]
        first.client().put("circleci-agents", "release.txt", b"1.0.1\n")
        # What one of them was told, the other knows: objects, rights, signatures.
        assert second.client().anonymous("GET", "circleci-agents", "release.txt").body == b"1.0.1\n"
        assert second.client().anonymous("GET", "circleci-agents").status == 403
        url = proxy.client(first).presign("GET", "circleci-agents", "release.txt", 60)
        assert {proxy.client(first).open_url("GET", url).body for _ in range(4)} == {b"1.0.1\n"}
        probed = proxy.module(object_storage_probe, first, bucket="circleci-data", agent_bucket="circleci-agents")
        assert not probed.get("failed"), probed["msg"]
        second.stop()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", second.port), timeout=1):
            pytest.fail("the second gateway still listens")
        probed = proxy.module(object_storage_probe, first, bucket="circleci-data", agent_bucket="circleci-agents")
        assert not probed.get("failed"), probed["msg"]


def test_name_with_two_addresses_leads_to_the_gateway_that_is_left(
    run: Callable[..., Store], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts of circleci_object_storage with DNS alone, no proxy: two addresses under the name of the endpoint. Only the DNS is not real here."""
    behind = run("behind", "minio_server", access_key="behind", secret_key="secret of the store behind")
    given = {"behind": {"endpoint": f"http://127.0.0.1:{behind.port}", "account": behind.access_key, "key": behind.secret_key}}
    first = run("first", "versitygw_s3", **given)
    second = run("second", "versitygw_s3", address="127.0.0.2", port=first.port, **given)
    real = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **options: Any) -> Any:
        return [row for address in ("127.0.0.1", "127.0.0.2") for row in real(address if host == NAME else host, *more, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    named: dict[str, Any] = {"endpoint": first.endpoint, "access_key": first.access_key, "secret_key": first.secret_key}
    assert run_module(object_storage_buckets, capsys, **named, **BUCKETS)["changed"]
    client = S3Client(first.endpoint, Credentials(first.access_key, first.secret_key, "us-east-1"))
    upload = client.start_upload("circleci-data", "artifacts/large")
    parts = [b"a" * (5 << 20), b"b" * (5 << 20)]
    etags = [client.upload_part("circleci-data", "artifacts/large", upload, 1, parts[0])]
    first.stop()
    etags.append(client.upload_part("circleci-data", "artifacts/large", upload, 2, parts[1]))
    client.finish_upload("circleci-data", "artifacts/large", upload, etags)
    assert client.get("circleci-data", "artifacts/large").body == b"".join(parts)
    probed = run_module(object_storage_probe, capsys, **named, bucket="circleci-data", agent_bucket="circleci-agents")
    assert not probed.get("failed"), probed["msg"]
    second.stop()
    with pytest.raises(S3Error, match="cannot be reached"):
        client.get("circleci-data", "artifacts/large")
