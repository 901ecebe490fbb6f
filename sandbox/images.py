# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the hosts: bare Debian 12 by mmdebstrap, kept as tar files in the cache by what goes in."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import docker
from .common import SandboxError, cache_dir, lock, run, say, short_hash, step

SUITE = "bookworm"
HERE = Path(__file__).parent

_HOST = (
    "apt", "ca-certificates", "conntrack", "cron", "curl", "dbus", "debian-archive-keyring", "ethtool", "gpgv", "iproute2", "iptables",
    "iputils-ping", "kmod", "less", "netcat-openbsd", "nftables", "openssh-client", "openssh-server", "openssl", "procps", "python3",
    "socat", "systemd", "systemd-sysv", "tar", "xz-utils", "gzip", "sudo", "logrotate",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """What an image is made of."""

    name: str
    packages: tuple[str, ...]
    seconds: int
    python: bool = False

    @property
    def key(self) -> str:
        extra = [path.read_text(encoding="utf-8") for path in (REQUIREMENTS, CUSTOMIZE)] if self.python else []
        return short_hash({"suite": SUITE, "packages": sorted(self.packages), "extra": extra, "hook": _HOOK, "format": 2})

    @property
    def reference(self) -> str:
        return f"onprem-circleci-sandbox/{self.name}:{self.key}"

    @property
    def tar(self) -> Path:
        return cache_dir() / "images" / f"{self.name}-{self.key}.tar"


REQUIREMENTS = HERE / "workstation-requirements.txt"
CUSTOMIZE = HERE / "guest" / "workstation.sh"
# A customer's host: no mirror configured, no daemon besides sshd, no machine identity, no SSH keys of the image's own.
_HOOK = (
    'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap; '
    ': > "$1"/etc/machine-id; '
    'for unit in getty.target console-getty.service systemd-logind.service systemd-udevd.service systemd-resolved.service '
    "systemd-timesyncd.service e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do "
    'ln -sf /dev/null "$1"/etc/systemd/system/$unit; done; '
    'ln -sf /lib/systemd/system/multi-user.target "$1"/etc/systemd/system/default.target'
)

IMAGES: dict[str, Image] = {
    item.name: item
    for item in (
        Image("host", _HOST, 60),
        Image("node", (*_HOST, "containerd", "runc", "containernetworking-plugins", "etcd-server", "etcd-client", "iptables", "socat"), 80),
        Image("vendor", (*_HOST, "nginx-light", "docker-registry"), 80),
        Image("workstation", (*_HOST, "python3-venv", "python3-apt", "rsync", "git", "openssh-client", "gnupg"), 150, python=True),
    )
}


def ensure(name: str) -> str:
    """The docker reference of an image; builds and imports it when it is not there."""
    image = IMAGES[name]
    if docker.image_exists(image.reference):
        return image.reference
    with lock(cache_dir() / "locks" / f"image-{name}.lock", f"building image {name}", wait=True):
        if not image.tar.is_file():
            _build(image)
        with step(f"importing image {name}", 8):
            changes = ["--change", 'CMD ["/lib/systemd/systemd"]', "--change", "ENV container=docker"]
            docker.call(["import", *changes, str(image.tar), image.reference])
    return image.reference


def apt_sources() -> list[str]:
    """The machine's own Debian entries, so that its mirror is used; none on other systems, where mmdebstrap has its default."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources")), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    return [str(path) for path in files if path.is_file() and SUITE in (text := path.read_text(encoding="utf-8")) and "debian-archive-keyring" in text + _legacy(text)]


def _legacy(text: str) -> str:
    # one-line entries without signed-by are checked against the keyring of the distribution
    lines = [line for line in text.splitlines() if line.startswith("deb ") and f" {SUITE}" in line and "signed-by" not in line]
    return "debian-archive-keyring" if lines else ""


def apt_options() -> list[str]:
    """Settings of the machine that decide whether its mirror is accepted."""
    options = []
    for key in ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy"):
        value = run(["apt-config", "shell", "VALUE", key], check=False).stdout.strip()
        if value.startswith("VALUE='") and len(value) > 8:
            options.append(f'{key} "{value[7:-1]}";')
    return options


def _build(image: Image) -> None:
    image.tar.parent.mkdir(parents=True, exist_ok=True)
    temporary = image.tar.with_suffix(".partial.tar")
    temporary.unlink(missing_ok=True)
    with step(f"building image {image.name} from {len(image.packages)} Debian packages and what they need", image.seconds):
        argv = ["nice", "-n", "5", "mmdebstrap", "--variant=minbase", f"--include={','.join(image.packages)}", f"--customize-hook={_HOOK}"]
        for option in apt_options():
            argv.append(f"--aptopt={option}")
        with tempfile.TemporaryDirectory(prefix="onprem-circleci-image-") as work:
            if image.python:
                wheels = workstation_wheels()
                argv.insert(4, f"--customize-hook=copy-in {wheels} {CUSTOMIZE} {REQUIREMENTS} /tmp")
                argv.insert(5, '--customize-hook=chroot "$1" sh /tmp/workstation.sh')
            argv += [SUITE, str(temporary), *apt_sources()]
            run(argv, cwd=Path(work))
    temporary.rename(image.tar)


def workstation_wheels() -> Path:
    """Wheels for the Python of Debian 12, fetched by the machine's own pip and kept in the cache."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    target = cache_dir() / "wheels" / short_hash({"requirements": text}) / "wheels"
    if target.is_dir():
        return target
    requirements = [line for raw in text.splitlines() if (line := raw.split("#", 1)[0].strip())]
    bundle = next(line for line in requirements if line.startswith("ansible=="))
    plain = [line for line in requirements if line != bundle]
    temporary = target.with_name("partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(temporary), "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64", "--platform=any"]
    if run([sys.executable, "-m", "pip", "--version"], check=False).returncode != 0:
        raise SandboxError(f"{sys.executable} has no pip: use `make sandbox`, which brings a Python with pip, or install python3-pip, then run the same command again")
    with step("downloading the Python packages of bastion and workstation", 30):
        run([*pip, *plain])
        run([*pip, "--no-deps", bundle])
    say(f"{sum(path.stat().st_size for path in temporary.iterdir()) >> 20} MiB of wheels in the cache")
    temporary.rename(target)
    return target
