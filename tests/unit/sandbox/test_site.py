# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import ipaddress
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import cli, content, kube, layout, site, snapshots, tripwire
from sandbox.common import SandboxError, cache_dir


def test_addresses_lie_in_their_network_and_are_taken_once() -> None:
    for item in layout.HOSTS:
        assert ipaddress.ip_address(item.address) in ipaddress.ip_network(layout.NETWORKS[item.network].subnet)
    addresses = [item.address for item in layout.HOSTS]
    assert len(set(addresses)) == len(addresses)
    assert not set(addresses) & set(layout.LOAD_BALANCER_POOL)


def test_no_name_is_known_on_both_sides() -> None:
    assert not set(layout.site_names()) & set(layout.internet_names())


def test_unknown_host_lists_the_known_ones() -> None:
    with pytest.raises(SandboxError, match=r"no host 'node9'.*bastion"):
        layout.host("node9")


# --- files of hosts -----------------------------------------------------------------------------------------------------


def test_tar_of_keeps_modes_and_links() -> None:
    data = site.tar_of({"/etc/a": (b"x", 0o600), "/etc/b": (b"/dev/null", -1)})
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("etc/a").mode == 0o600
        assert archive.getmember("etc/b").linkname == "/dev/null"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    place = tmp_path / "keys" / "kubernetes"
    place.mkdir(parents=True)
    for name in ("ca", "admin", "controller-manager", "scheduler", "proxy", "node", "coredns"):
        (place / f"{name}.crt").write_text(name)
        (place / f"{name}.key").write_text(f"secret {name}")
    return tmp_path / "keys"


def test_node_files(keys: Path) -> None:
    files = kube.files(keys)
    assert all(mode == 0o600 for path, (_, mode) in files.items() if path.endswith((".key", ".kubeconfig")))
    admin = yaml.safe_load(files["/etc/kubernetes/admin.kubeconfig"][0])
    assert admin["clusters"][0]["cluster"]["server"] == "https://node1.site.example:6443"
    assert yaml.safe_load(files["/etc/kubernetes/kubelet.yaml"][0])["clusterDNS"] == [layout.CLUSTER_DNS]
    for unit in kube.ENABLED:
        assert f"/etc/systemd/system/{unit}.service" in files
    json.loads(files["/etc/cni/net.d/10-bridge.conflist"][0])
    kinds = [document["kind"] for document in yaml.safe_load_all(files["/etc/kubernetes/cluster-dns.yaml"][0])]
    # a site brings its own storage class and load balancer
    assert kinds == ["Service", "EndpointSlice", "ClusterRole", "ClusterRoleBinding"]


def pod(name: str, *, ready: bool = True, started: str = "2026-01-01T00:00:10Z", phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "n", "name": name},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"state": {"running": {"startedAt": started}}}],
        },
    }


def test_pods_count_as_ready_only_since_the_restart() -> None:
    pods = {"items": [pod("new"), pod("stale", started="2025-12-31T23:00:00Z"), pod("failing", ready=False), pod("job", phase="Succeeded", ready=False)]}
    assert site.unready_pods(pods, "2026-01-01T00:00:00") == ["n/stale", "n/failing"]


# --- content ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["cciserver.azurecr.io/frontend", "frontend:1", "cciserver.azurecr.io:443/x"])
def test_reference_must_be_full(reference: str) -> None:
    with pytest.raises(SandboxError, match="is not host/repository:tag"):
        content.split_reference(reference)


def layout_of(root: Path, reference: str) -> str:
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, Any]:
        import hashlib

        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    manifest = {"schemaVersion": 2, "config": blob(b"{}"), "layers": [blob(b"layer")]}
    entry = blob(json.dumps(manifest).encode())
    (root / "index.json").write_text(json.dumps({"manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": reference}}]}))
    return str(entry["digest"]).split(":")[1]


def test_registry_storage_is_written_from_a_layout(tmp_path: Path) -> None:
    digest = layout_of(tmp_path / "oci", "docker.io/library/kong:3.4.2")
    assert content.seed_registries(tmp_path / "oci", tmp_path / "registry") == 1
    storage = tmp_path / "registry" / "docker.io" / "docker" / "registry" / "v2"
    assert (storage / "repositories/library/kong/_manifests/tags/3.4.2/current/link").read_text() == f"sha256:{digest}"
    assert (storage / "repositories/library/kong/_manifests/revisions/sha256" / digest / "link").is_file()
    assert (storage / "blobs/sha256" / digest[:2] / digest / "data").is_file()
    assert len(list((storage / "repositories/library/kong/_layers/sha256").iterdir())) == 2


def test_image_of_an_unknown_registry_is_refused(tmp_path: Path) -> None:
    layout_of(tmp_path / "oci", "gcr.io/x:1")
    with pytest.raises(SandboxError, match=r"registry gcr\.io is not one of the stand-in internet's"):
        content.seed_registries(tmp_path / "oci", tmp_path / "registry")


def test_vendor_login_is_asked_for_by_the_vendors_registry_only(tmp_path: Path) -> None:
    keys = tmp_path / "internet"
    keys.mkdir()
    for name in ("server.crt", "server.key", "ca.crt"):
        (keys / name).write_text(name)
    thing = content.Content(tmp_path, ("files.example",), ("files.example/a",), "", b"")
    files = content.vendor_files(thing, tmp_path)
    asking = [path for path, (data, _) in files.items() if path.endswith(".yml") and b"htpasswd" in data]
    assert asking == ["/etc/internet/registry-5001.yml"]
    nginx = files["/etc/nginx/nginx.conf"][0].decode()
    assert "server_name docker.io registry-1.docker.io index.docker.io;" in nginx
    assert "'files.example/a' gzip;" in nginx


# --- tripwire, snapshots ------------------------------------------------------------------------------------------------


def test_tripwire_report_by_host() -> None:
    names = {"outside": {"10.93.0.21": {"github.com": 2}}}
    element = {"elem": {"val": {"concat": ["10.93.0.10", "1.1.1.1", "tcp", 443]}, "counter": {"packets": 3, "bytes": 180}}}
    ruleset = {"nftables": [{"metainfo": {}}, {"set": {"name": "outside", "elem": [element]}}, {"set": {"name": "outside_other"}}, {"rule": {}}]}
    assert tripwire.combine(names, ruleset) == {
        "total": 5,
        "sources": {
            "bastion": {"queries": 0, "packets": 3, "names": {}, "destinations": {"1.1.1.1 tcp/443": 3}},
            "node1": {"queries": 2, "packets": 0, "names": {"github.com": 2}, "destinations": {}},
        },
    }


def test_tripwire_of_a_quiet_site() -> None:
    assert tripwire.combine({"outside": {}}, {"nftables": []}) == {"total": 0, "sources": {}}


@pytest.mark.parametrize("name", ["../x", "", "A", ".hidden", "a/b"])
def test_snapshot_names(name: str) -> None:
    with pytest.raises(SandboxError, match="snapshot name"):
        snapshots.save(name)


def test_unknown_snapshot_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_CIRCLECI_CACHE", str(tmp_path))
    (tmp_path / "snapshots" / "converged").mkdir(parents=True)
    (tmp_path / "snapshots" / "converged" / "snapshot.json").write_text("{}")
    with pytest.raises(SandboxError, match="no snapshot 'other'; snapshots: converged"):
        snapshots.restore("other")


# --- commands -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["nonsense"], [], ["carry", "/one"], ["exec"]])
def test_wrong_use_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


def test_install_collection_wants_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever uses the sandbox of this machine at the moment is not asked.
    monkeypatch.setenv(cli.HELD, str(cache_dir() / "locks" / "sandbox.lock"))
    assert cli.main(["install-collection", "/absent.tar.gz"]) == 1
    assert "/absent.tar.gz is no file" in capsys.readouterr().err
