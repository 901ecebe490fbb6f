# SPDX-License-Identifier: GPL-3.0-or-later
"""bootstrap.sh on a bare Debian without Python, in a network namespace that has not even a route: real packages, wheels, Helm and kubectl.

Making the bundle reaches a Debian mirror and a Python package index. The template is rendered as the role does it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan.plan import (
    Plan,
    PlanOptions,
    _files,
    _packages,
    _wheels,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.artifact import file_sha256
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.fetch import FetchOptions, fetch
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.lock import FORMAT, Lock
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.sign import sign_bundle

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("ONPREM_CIRCLECI_CACHE", Path.home() / ".cache" / "onprem-circleci-server"))
PART_SIZE = 50_000_000  # smaller than the wheel of ansible: blobs span parts
PROGRAMS = ("/opt/onprem/bin/ansible", "/usr/local/bin/helm", "/usr/local/bin/kubectl")


def artifact(name: str) -> Path:
    """A program that the sandbox builds."""
    return next(path for path in sorted(CACHE.glob(f"artifacts/*/**/{name}")) if path.is_file())


@dataclasses.dataclass
class Host:
    """A root file system and what it was handed."""

    root: Path
    bundle: Path
    key: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        # A new network namespace: loopback is down, nothing else is there.
        return subprocess.run(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"', str(self.root), *command],
            capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        )  # fmt: skip

    def bootstrap(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", "/srv/bundle/bootstrap.sh", *options)

    def installed(self) -> list[str]:
        return [name for name in (*PROGRAMS, "/usr/bin/python3") if os.path.lexists(f"{self.root}{name}")]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of several parts, signed by OpenPGP, and the public key."""
    place = tmp_path_factory.mktemp("made")
    helm = place / "helm-v3.19.0-linux-amd64.tar.gz"
    with tarfile.open(helm, "w:gz") as archive:
        archive.add(artifact("helm"), "linux-amd64/helm")
    # A stand-in for the plugin that makes support bundles, packed as its publisher packs it.
    plugin = place / "support-bundle_linux_amd64.tar.gz"
    (place / "support-bundle").write_text("#!/bin/sh\necho stand-in for support-bundle\n")
    (place / "support-bundle").chmod(0o755)
    with tarfile.open(plugin, "w:gz") as archive:
        archive.add(place / "support-bundle", "support-bundle")
    local = [
        {"name": "support-bundle", "version": "0.134.1", "path": str(plugin)},
        {"name": "helm", "version": "3.19.0", "path": str(helm)},
        {"name": "kubectl", "version": "1.33.0", "path": str(artifact("kubectl")), "mode": "0755"},
        {"name": "collection", "version": "0.1.0", "path": os.environ["ONPREM_CIRCLECI_TARBALL"], "filename": "collection.tar.gz"},
    ]
    wanted = ["ansible>=12,<13", *(line for line in (ROOT / "requirements" / "site.txt").read_text().splitlines() if not line.startswith("#"))]
    options = PlanOptions(
        lock=place / "bundle.lock", work_dir=place, chart="", local_files=local, python=["3.11"], python_requirements=wanted,
        packages=[{"target": "debian-12-amd64", "names": ["python3-venv"]}],
    )  # fmt: skip
    problems: list[str] = []
    plan = Plan({}, {})
    lock = {
        "format": FORMAT, "refs": [], "files": _files(options, {}, plan, problems),
        "artifacts": [*_packages(options, plan, problems), *_wheels(options, plan, problems)],
    }  # fmt: skip
    assert problems == []
    for name, text in plan.side_files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    bundle = place / "bundle"
    fetch(FetchOptions(lock=Lock.from_data(lock, place, "bundle.lock"), output=bundle, part_size=PART_SIZE))
    home = place / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "bundle@example.com", "rsa3072", "sign"], check=True)
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True, text=True).stdout
    sign_bundle(bundle, "gpg", "bundle@example.com", {"GNUPGHOME": str(home)})
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)
    template = (ROOT / "roles" / "bundle" / "templates" / "bootstrap.sh.j2").read_text()
    engine = str(file_sha256(bundle / "circleci-mirror.pyz")).partition(":")[2]
    # As Ansible's template module does: one newline after a block goes.
    text = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True).from_string(template).render(__circleci_bundle_engine_sha256=engine)
    (bundle / "bootstrap.sh").write_text(text)
    return bundle, key


OTHERS = {"ssh": ("sig", "openssh-client", "ssh-keygen"), "minisign": ("minisig", "minisign", "minisign")}
"""Kinds of signatures beside OpenPGP: suffix, Debian package and program that check one without Python."""


def other_key(kind: str, folder: Path) -> tuple[Path, str]:
    """A secret key of that kind, and the text of its public key."""
    folder.mkdir()
    secret, public = folder / "bundle.key", folder / "bundle.key.pub"
    if kind == "ssh":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bundle", "-f", str(secret)], check=True)
    else:
        subprocess.run(["minisign", "-G", "-W", "-f", "-s", str(secret), "-p", str(public)], check=True, capture_output=True)
    return secret, public.read_text()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("bare") / "bookworm.tar"
    given = os.environ.get("BOOTSTRAP_ROOT_TAR")
    if given:
        return Path(given)
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(archive)], check=True)
    return archive


@pytest.fixture
def host(material: tuple[Path, str], bare: Path, tmp_path: Path) -> Iterator[Host]:
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", str(bare), "-C", str(root), "--exclude=./dev/*"], check=True)
    for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
        os.mknod(root / "dev" / name, 0o20666, os.makedev(1, minor))
        (root / "dev" / name).chmod(0o666)
    shutil.copytree(material[0], root / "srv" / "bundle")
    (root / "srv" / "key.asc").write_text(material[1])
    host = Host(root, root / "srv" / "bundle", "/srv/key.asc")
    assert host.run("sh", "-c", "command -v python3").returncode != 0
    yield host
    shutil.rmtree(root)


def parts(host: Host) -> list[Path]:
    return sorted(host.bundle.glob("*.tar"))


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def test_script_is_clean(material: tuple[Path, str]) -> None:
    subprocess.run(["shellcheck", "--shell=sh", str(material[0] / "bootstrap.sh")], check=True)
    subprocess.run(["dash", "-n", str(material[0] / "bootstrap.sh")], check=True)


def test_bare_host_is_set_up_and_second_run_has_nothing_to_do(host: Host) -> None:
    assert len(parts(host)) > 1
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.run("/opt/onprem/bin/ansible-doc", "onprem.circleci_server.bundle_load").returncode == 0
    assert host.run("/opt/onprem/bin/python", "-c", "import kubernetes, cryptography, yaml").returncode == 0
    assert "v3.19" in host.run("/usr/local/bin/helm", "version").stdout
    assert host.run("/usr/local/bin/kubectl", "version", "--client").returncode == 0
    plugin = host.run("env", "PATH=/usr/local/bin:/usr/bin:/bin", "kubectl", "support-bundle")
    assert plugin.stdout == "stand-in for support-bundle\n", plugin.stderr
    again = host.bootstrap("--public-key", host.key)
    assert (again.returncode, again.stdout) == (0, "Nothing to do: this host was set up from this bundle.\n")


def test_without_a_key_nothing_is_done(host: Host) -> None:
    done = host.bootstrap()
    assert done.returncode == 3 and "no key was given" in done.stderr
    assert host.installed() == []


def test_other_key_is_refused(host: Host, tmp_path: Path) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "other@example.com", "rsa3072", "sign"], check=True)
    (host.root / "srv" / "key.asc").write_text(subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True, text=True).stdout)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3 and "the signature does not fit" in done.stderr
    assert host.installed() == []


def test_unsigned_bundle_is_refused(host: Host) -> None:
    (host.bundle / "bundle.json.asc").unlink()
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3 and "the bundle is not signed" in done.stderr
    assert host.installed() == []


def test_changed_manifest_is_refused(host: Host) -> None:
    flip(host.bundle / "bundle.json", 100)
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3 and "the signature does not fit" in done.stderr
    assert host.installed() == []


def test_changed_engine_is_not_run(host: Host) -> None:
    flip(host.bundle / "circleci-mirror.pyz", 5000)
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3 and "is not the engine that belongs to this bootstrap.sh" in done.stderr
    assert host.installed() == []


def test_changed_byte_in_a_part_is_refused(host: Host) -> None:
    # In the middle of the wheel of ansible, which spans parts: Python comes out of the bundle first, then the rest is read and refused.
    flip(parts(host)[1], 20_000_000)
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3, done.stdout + done.stderr
    assert not set(PROGRAMS) & set(host.installed())


# --- the other kinds of signatures -------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(OTHERS))
def other(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> tuple[Host, str]:
    """The host with a bundle that only an SSH or a minisign key has signed."""
    kind = request.param
    (host.bundle / "bundle.json.asc").unlink()
    secret, public = other_key(kind, tmp_path / "key")
    sign_bundle(host.bundle, kind, str(secret))
    assert (host.bundle / f"bundle.json.{OTHERS[kind][0]}").is_file()
    (host.root / "srv" / "key").write_text(public)
    host.key = "/srv/key"
    return host, kind


def bring_program(host: Host, kind: str) -> None:
    """The program that checks the signature, which the minimal system lacks."""
    archives = host.root / "var/cache/apt/archives"
    options = ["-o", f"Dir={host.root}", "-o", f"Dir::State::status={host.root}/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root", "-qq"]
    shutil.copytree("/etc/apt/sources.list.d", host.root / "etc/apt/sources.list.d", dirs_exist_ok=True)
    subprocess.run(["apt-get", *options, "update"], check=True, capture_output=True)
    subprocess.run(["apt-get", *options, "install", "-y", "--no-install-recommends", "--download-only", OTHERS[kind][1]], check=True, capture_output=True)
    done = host.run("sh", "-c", "dpkg -i /var/cache/apt/archives/*.deb && rm -f /var/cache/apt/archives/*.deb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert archives.is_dir() and host.run("sh", "-c", f"command -v {OTHERS[kind][2]}").returncode == 0


def test_signature_of_another_kind_wants_a_program_or_python(other: tuple[Host, str]) -> None:
    host, kind = other
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 1 and f"this host has neither Python nor {OTHERS[kind][2]} to check the signature" in done.stderr, done.stderr
    assert host.installed() == []


def test_signature_of_another_kind_is_checked_before_anything(other: tuple[Host, str], tmp_path: Path) -> None:
    host, kind = other
    bring_program(host, kind)
    _secret, stranger = other_key(kind, tmp_path / "stranger")
    for key, said in ((stranger.strip().splitlines()[-1], "the signature does not fit"), ("/srv/key.asc", f"is signed by another kind of key (bundle.json.{OTHERS[kind][0]})")):
        done = host.bootstrap("--public-key", key)
        assert done.returncode == 3 and said in done.stderr, done.stderr
    manifest = (host.bundle / "bundle.json").read_bytes()
    flip(host.bundle / "bundle.json", 100)
    done = host.bootstrap("--public-key", host.key)
    assert done.returncode == 3 and "the signature does not fit" in done.stderr
    assert host.installed() == []
    (host.bundle / "bundle.json").write_bytes(manifest)
    # The key as text, as the inventory has it; from Python on the engine checks the signature once more.
    key = (host.root / "srv" / "key").read_text().strip().splitlines()[-1]
    done = host.bootstrap("--public-key", key)
    assert done.returncode == 0, done.stdout + done.stderr
    again = host.bootstrap("--public-key", key)
    assert (again.returncode, again.stdout) == (0, "Nothing to do: this host was set up from this bundle.\n")
