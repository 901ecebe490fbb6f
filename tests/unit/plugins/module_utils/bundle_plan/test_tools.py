# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import io
import ssl
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan.tools import (
    NotThere,
    PlanError,
    Web,
    checksum_of,
    unpack_chart,
)
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, serve

SUM = "a" * 64
URL = "https://example.org/agents/1.0/linux/amd64/agent"


@pytest.mark.parametrize(
    "text",
    [
        f"{SUM}  agent\n",
        f"{SUM} *linux/amd64/agent\n{'b' * 64} *linux/arm64/agent\n",
        f"{'b' * 64}  ./linux/arm64/agent\n{SUM}  ./linux/amd64/agent\n",
        f"{SUM.upper()}\n",
        f"{SUM}  -\n",
        f'{{"releases": {{"1.0": {{"linux": {{"amd64": {{"url": "{URL}", "sha256": "{SUM}"}}, "arm64": {{"url": "{URL}64", "sha256": "{"b" * 64}"}}}}}}}}}}',
    ],
)
def test_checksums_in_every_form_that_publishers_use(text: str) -> None:
    assert checksum_of(text, URL) == SUM


@pytest.mark.parametrize("text", ["", "{", f'{{"a": {{"url": "{URL}/other", "sha256": "{SUM}"}}}}', f'{{"a": {{"url": "{URL}", "sha256": "x"}}}}', "agent\n", f"{SUM}  other\n", f"{SUM}\n{'b' * 64}\n", f"{SUM[:-1]}  agent\n", f"{SUM}  gent\n"])
def test_no_checksum_is_guessed(text: str) -> None:
    assert checksum_of(text, URL) is None


def archive(tmp_path: Path, *members: tuple[str, bytes | str]) -> Path:
    path = tmp_path / "chart.tgz"
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                bundle.addfile(info)
            else:
                info.size = len(content)
                bundle.addfile(info, io.BytesIO(content))
    return path


CHART = ("circleci-server/Chart.yaml", b"name: x\n")


def test_a_chart_is_unpacked(tmp_path: Path) -> None:
    folder = unpack_chart(archive(tmp_path, CHART, ("circleci-server/templates/a.yaml", b"a")), tmp_path / "out")
    assert folder.name == "circleci-server" and (folder / "templates/a.yaml").read_bytes() == b"a"


@pytest.mark.parametrize("member", [("../evil", b"x"), ("/etc/evil", b"x"), ("circleci-server/../../evil", b"x"), ("circleci-server/link", "/etc/passwd")])
def test_a_malicious_chart_is_refused(tmp_path: Path, member: tuple[str, bytes | str]) -> None:
    with pytest.raises(PlanError, match="which is refused"):
        unpack_chart(archive(tmp_path, CHART, member), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_what_is_no_chart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no single folder with Chart\.yaml"):
        unpack_chart(archive(tmp_path, ("a/b", b"")), tmp_path / "out")
    (tmp_path / "no.tgz").write_bytes(b"nonsense")
    with pytest.raises(PlanError, match="cannot be read"):
        unpack_chart(tmp_path / "no.tgz", tmp_path / "out2")


@pytest.fixture
def web() -> Iterator[Stub]:
    yield from serve()


def test_files_that_are_stored_compressed_are_measured_unpacked(web: Stub) -> None:
    web.files["/agent"] = (gzip.compress(b"agent"), {"Content-Encoding": "gzip"})
    web.files["/plain"] = (b"plain", {})
    client = Web(tries=1)
    assert client.small(f"http://{web.host}/agent") == b"agent"
    assert client.measure(f"http://{web.host}/agent")[1] == 5
    assert client.size(f"http://{web.host}/agent") is None, "the length on the wire is not that of the file"
    assert client.size(f"http://{web.host}/plain") == 5


def test_cut_and_missing_files(web: Stub) -> None:
    web.files["/cut"] = (gzip.compress(b"agent" * 1000)[:-12], {"Content-Encoding": "gzip"})
    with pytest.raises(PlanError, match="ends too early"):
        Web(tries=1).small(f"http://{web.host}/cut")
    with pytest.raises(NotThere, match="there is no such file"):
        Web(tries=1).small(f"http://{web.host}/none")
    with pytest.raises(PlanError, match=r"cannot be downloaded: .*refused"):
        Web(tries=1).small("http://127.0.0.1:1/x")


def test_a_server_behind_a_proxy_that_opens_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=proxy"]
    subprocess.run([*argv, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with contextmanager(serve)(context=context) as web:
        web.files["/agent"] = (b"agent", {})
        with pytest.raises(PlanError, match="certificate verify failed"):
            Web(tries=1).small(f"https://{web.host}/agent")
        assert Web(tries=1, ca_certificate=certificate.read_text()).small(f"https://{web.host}/agent") == b"agent"
    with pytest.raises(ValueError, match="not given as PEM"):
        Web(ca_certificate="no PEM")


def test_a_small_file_that_is_not_small(web: Stub) -> None:
    web.files["/big"] = (bytes(9 << 20), {})
    with pytest.raises(PlanError, match="is larger than"):
        Web(tries=1).small(f"http://{web.host}/big")
