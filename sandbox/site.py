# SPDX-License-Identifier: GPL-3.0-or-later
"""Making, checking and removing the two networks and their hosts."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import artifacts, content, docker, images, kube, layout
from .common import SandboxError, cache_dir, run, say, short_hash, step, write_atomic

GUEST = Path(__file__).with_name("guest")
# What a container needs to boot systemd without being privileged; SYS_RESOURCE is dropped because not every machine has it to give.
FLAGS = (
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--device=/dev/kmsg",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--stop-signal=SIGRTMIN+3",
    "--sysctl=net.ipv6.conf.all.disable_ipv6=1",
)
# Units that set up a machine's kernel: in a container they only cost time.
MASKED = (
    "dev-hugepages.mount", "dev-mqueue.mount", "modprobe@.service", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-remount-fs.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-update-utmp.service", "kmod-static-nodes.service", "systemd-modules-load.service",
)  # fmt: skip
# What must run for a host to be a host of the sandbox; anything else that failed is the business of whoever put it there.
OWN_UNITS = ("onprem-", "ssh.service", "nginx.service", "containerd.service", "nftables.service", "coredns.service", "etcd.service", "kube")
KUBECONFIG = "/etc/onprem-circleci/kubeconfig"
BUNDLE_DIR = "/srv/bundle"


def state_dir() -> Path:
    return cache_dir() / "state"


def host_dir(name: str) -> Path:
    return state_dir() / "hosts" / name


def keys_dir() -> Path:
    return state_dir() / "keys"


def volume_dir(host: layout.Host, volume: str) -> Path:
    return host_dir(host.name) / "volumes" / volume.strip("/").replace("/", "-")


# --- keys ---------------------------------------------------------------------------------------------------------------


def ensure_keys(internet_names: Iterable[str]) -> None:
    """All keys of this sandbox in one go; they live as long as the sandbox does."""
    keys = keys_dir()
    names = sorted(internet_names)
    if (keys / "complete").is_file():
        return
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir(parents=True, mode=0o700)
    with step("making keys and certificates", 3):
        docker.call(
            [
                "run", "--rm", "--network=none", f"--label={layout.LABEL}=keys", f"--volume={keys}:/out", f"--volume={GUEST}:/guest:ro",
                f"--env=INTERNET_NAMES={','.join(f'DNS:{name}' for name in names)}", f"--env=APISERVER_NAMES={kube.apiserver_names()}",
                images.IMAGES["host"].reference, "sh", "/guest/keys.sh", *(item.name for item in layout.HOSTS),
            ]
        )  # fmt: skip


# --- networks -----------------------------------------------------------------------------------------------------------


def ensure_networks() -> None:
    """Two docker networks without a way out; the machine itself is closed to their hosts as well."""
    known = docker.inspect("network", [net.name for net in layout.NETWORKS.values()])
    for side, net in layout.NETWORKS.items():
        found = known.get(net.name)
        if found is None:
            clear_bridge(net)
            with step(f"making the {side} network {net.subnet}"):
                docker.call(
                    [
                        "network", "create", "--internal", f"--subnet={net.subnet}", f"--gateway={net.host_address}", f"--label={layout.LABEL}={side}",
                        f"--opt=com.docker.network.bridge.name={net.bridge}", net.name,
                    ]
                )  # fmt: skip
        elif not found.get("Internal") or found.get("Labels", {}).get(layout.LABEL) != side:
            raise SandboxError(f"docker network {net.name} exists and is not the sandbox's; remove or rename it")
        for rule in firewall_rules(net):
            if rule[0] == "DOCKER-USER" and run(["iptables", "-w", "-n", "-L", "DOCKER-USER"], check=False).returncode != 0:
                rule[0] = "FORWARD"
            if run(["iptables", "-w", "-C", *rule], check=False).returncode != 0:
                run(["iptables", "-w", "-I", *rule])


def clear_bridge(net: layout.Network) -> None:
    """Take away a bridge that a killed docker daemon left behind.

    Its network namespaces stay mounted without any process, and their kernel side goes on to answer for the addresses of our hosts.
    """
    bridge = Path("/sys/class/net") / net.bridge
    if not bridge.exists():
        return
    user = process_in(net)
    if user:
        raise SandboxError(
            f"{user} uses addresses of {net.subnet}: another sandbox is up on this machine, with a cache of its own; take it down with the "
            "ONPREM_CIRCLECI_CACHE that it was started with"
        )
    for port in sorted(path.name for path in (bridge / "brif").iterdir()):
        run(["ip", "link", "delete", port], check=False)
    run(["ip", "link", "delete", net.bridge])


def process_in(net: layout.Network, proc: Path = Path("/proc")) -> str:
    """A process in another network namespace that has an address of this network, as "process 1234 (name)", or nothing."""
    subnet = ipaddress.ip_network(net.subnet)
    seen = {os.stat(proc / "self" / "ns" / "net").st_ino}
    for place in sorted(proc.glob("[0-9]*")):
        try:
            namespace = os.stat(place / "ns" / "net").st_ino
            if namespace in seen:
                continue
            seen.add(namespace)
            routes = (place / "net" / "fib_trie").read_text(encoding="ascii")
            name = (place / "comm").read_text(encoding="utf-8").strip()
        except OSError:  # it ended meanwhile
            continue
        local = re.findall(r"(\S+)\n\s+/32 host LOCAL", routes)
        if any(ipaddress.ip_address(address) in subnet for address in local):
            return f"process {place.name} ({name})"
    return ""


def firewall_rules(net: layout.Network) -> list[list[str]]:
    """What docker's `--internal` leaves open or takes away."""
    comment = ["-m", "comment", "--comment", layout.LABEL]
    return [
        # it does not keep hosts from the machine's own services; answers to the operator's browser are allowed
        ["INPUT", "-i", net.bridge, "-m", "conntrack", "!", "--ctstate", "ESTABLISHED,RELATED", *comment, "-j", "DROP"],
        # it drops packets to outside addresses even on their way to a neighbour, and then the tripwire could not count them;
        # a packet that enters and leaves by the same bridge stays inside
        ["DOCKER-USER", "-i", net.bridge, "-o", net.bridge, "-m", "physdev", "--physdev-is-bridged", *comment, "-j", "ACCEPT"],
    ]


def remove_networks() -> None:
    for net in layout.NETWORKS.values():
        for rule in firewall_rules(net):
            for chain in {rule[0], "FORWARD"}:
                while run(["iptables", "-w", "-D", chain, *rule[1:]], check=False).returncode == 0:
                    pass
        found = docker.inspect("network", [net.name]).get(net.name)
        if found and layout.LABEL in (found.get("Labels") or {}):
            remove_network(net.name)


def remove_network(name: str) -> None:
    """Docker takes a moment to forget the endpoints of containers that were just removed."""
    for attempt in range(20):
        if attempt:
            time.sleep(0.5)
        done = docker.call(["network", "rm", name], check=False)
        if done.returncode == 0:
            return
    others = [item["Name"] for item in (docker.inspect("network", [name])[name].get("Containers") or {}).values()]
    raise SandboxError(
        f"the network {name} cannot be removed: "
        + (f"{', '.join(others)} use it and are not the sandbox's; take them off it" if others else done.stderr.strip())
    )


# --- hosts --------------------------------------------------------------------------------------------------------------


def host_files(item: layout.Host, vendor: content.Content) -> dict[str, tuple[bytes, int]]:
    """Everything that a host gets before its first boot: path -> content, mode."""
    keys = keys_dir()
    net = layout.NETWORKS[item.network]
    files: dict[str, tuple[bytes, int]] = {}

    def put(path: str, data: str | bytes, mode: int = 0o644) -> None:
        files[path] = (data if isinstance(data, bytes) else data.encode(), mode)

    domain = layout.DOMAIN if item.network == "site" else "internet.example"
    gateway = layout.host("gateway").address if item.network == "site" else ""
    put("/etc/onprem-sandbox/network.env", f"ADDRESS={item.address}\nGATEWAY={gateway}\n")
    put("/etc/onprem-sandbox/resolv.conf", f"search {domain}\nnameserver {net.dns}\noptions timeout:2 attempts:2\n")
    put("/etc/onprem-sandbox/hosts", f"127.0.0.1 localhost\n{item.address} {item.fqdn} {item.name}\n")
    put("/etc/onprem-sandbox/hostname", f"{item.name}\n")
    put("/etc/onprem-sandbox/boot.sh", (GUEST / "boot.sh").read_bytes(), 0o755)
    put(
        "/etc/systemd/system/onprem-sandbox-boot.service",
        "[Unit]\nDescription=Network of the sandbox\nDefaultDependencies=no\nBefore=network-pre.target sysinit.target\nWants=network-pre.target\n\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/etc/onprem-sandbox/boot.sh\n\n[Install]\nWantedBy=sysinit.target\n",
    )
    _enable(files, "onprem-sandbox-boot", "sysinit.target")
    for unit in MASKED:
        files[f"/etc/systemd/system/{unit}"] = (b"/dev/null", -1)
    # a host that is stopped for a snapshot does not wait for a minute and a half for a process that does not listen
    put("/etc/systemd/system.conf.d/sandbox.conf", "[Manager]\nDefaultTimeoutStopSec=8s\n")
    for path in sorted((keys / "ssh" / item.name).iterdir()):
        put(f"/etc/ssh/{path.name}", path.read_bytes(), 0o644 if path.suffix == ".pub" else 0o600)
    if item.network == "site":
        put("/root/.ssh/authorized_keys", (keys / "bastion.pub").read_bytes(), 0o600)
    if item.name == "bastion":
        put("/root/.ssh/id_ed25519", (keys / "bastion").read_bytes(), 0o600)
        put("/root/.ssh/id_ed25519.pub", (keys / "bastion.pub").read_bytes())
        put("/root/.ssh/known_hosts", known_hosts(keys))
        put(KUBECONFIG, kube.kubeconfig(keys, "admin", f"https://{kube.NODE}.{layout.DOMAIN}:{kube.API_PORT}"), 0o600)
    if item.name == "workstation":
        put("/usr/local/share/ca-certificates/sandbox-internet.crt", (keys / "internet" / "ca.crt").read_bytes())
        put("/etc/apt/sources.list.d/internet.sources", vendor.apt_sources)
        put("/etc/apt/keyrings/apt.internet.example.gpg", vendor.apt_key)
    if item.name == kube.NODE:
        files.update(kube.files(keys))
        put("/etc/onprem-sandbox/pause.tar", content.pause_image(kube.PAUSE))
        for name in kube.ENABLED:
            _enable(files, name)
    if item.name in ("gateway", "vendor"):
        names = layout.site_names() if item.name == "gateway" else layout.internet_names(vendor.file_hosts)
        domains = [layout.DOMAIN] if item.name == "gateway" else ["internet.example"]
        put("/etc/onprem-sandbox/names.json", json.dumps({"listen": item.address, "names": names, "domains": domains}, indent=1))
        put("/etc/onprem-sandbox/names.py", (GUEST / "names.py").read_bytes())
        put(
            "/etc/systemd/system/onprem-names.service",
            "[Unit]\nDescription=DNS of this network (counts questions about other names)\n\n[Service]\n"
            "ExecStart=/usr/bin/python3 /etc/onprem-sandbox/names.py /etc/onprem-sandbox/names.json\nExecReload=/bin/kill -HUP $MAINPID\n"
            "Restart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n",
        )
        _enable(files, "onprem-names")
    if item.name == "gateway":
        put("/etc/nftables.conf", "#!/usr/sbin/nft -f\nflush ruleset\n" + (GUEST / "tripwire.nft").read_text(encoding="utf-8"))
        put("/etc/sysctl.d/90-gateway.conf", "net.ipv4.ip_forward=1\n")
        files["/etc/systemd/system/multi-user.target.wants/nftables.service"] = (b"/lib/systemd/system/nftables.service", -1)
    if item.name == "vendor":
        files.update(content.vendor_files(vendor, keys))
        for name in content.vendor_units(vendor):
            _enable(files, name)
    return files


def _enable(files: dict[str, tuple[bytes, int]], unit: str, target: str = "multi-user.target") -> None:
    # mode -1 marks a symbolic link
    files[f"/etc/systemd/system/{target}.wants/{unit}.service"] = (f"/etc/systemd/system/{unit}.service".encode(), -1)


def known_hosts(keys: Path) -> str:
    lines = []
    for item in layout.HOSTS:
        if item.network == "site":
            for kind in ("ed25519", "ecdsa"):
                public = (keys / "ssh" / item.name / f"ssh_host_{kind}_key.pub").read_text(encoding="utf-8").split()
                lines.append(f"{item.name},{item.fqdn},{item.address} {public[0]} {public[1]}")
    return "\n".join(lines) + "\n"


def tar_of(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Files as a tar for `docker cp`; mode -1 is a symbolic link to the content."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for path, (data, mode) in sorted(files.items()):
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mtime = int(time.time())
            if mode == -1:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, data.decode(), 0o777
                archive.addfile(info)
            else:
                info.size, info.mode = len(data), mode
                archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def mounts(item: layout.Host, vendor: content.Content) -> list[str]:
    """Volumes of a host, and programs that lie in the cache once for all."""
    found = [f"{volume_dir(item, volume)}:{volume}" for volume in item.volumes]

    def program(name: str, artifact: str, version: str | None = None) -> None:
        found.append(f"{artifacts.find(artifact, version).folder() / name}:/usr/local/bin/{name}:ro")

    if item.name == kube.NODE:
        for name in artifacts.find("kubernetes").files:
            program(name, "kubernetes")
        program("coredns", "coredns")
    if item.image == "workstation":
        program("kubectl", "kubernetes")
        program("helm", "helm")
    if item.name == "vendor":
        found.append(f"{vendor.folder}:/srv/internet:ro")
    return found


def create_args(item: layout.Host, vendor: content.Content) -> list[str]:
    net = layout.NETWORKS[item.network]
    args = ["create", f"--name={item.container}", f"--hostname={item.name}", f"--network={net.name}", f"--ip={item.address}", f"--dns={net.dns}", *FLAGS]
    args += [f"--volume={mount}" for mount in mounts(item, vendor)]
    return [*args, f"--label={layout.LABEL}={item.name}"]


def recipe(item: layout.Host, vendor: content.Content, files: Mapping[str, tuple[bytes, int]]) -> str:
    """Changes when a host would be made differently now. Keys do not count: they differ by sandbox."""
    own = {path: data.decode("latin-1") for path, (data, _) in files.items() if path.endswith((".sh", ".py", ".nft", ".conf", ".service", "config.toml", "kubelet.yaml"))}
    return short_hash({"image": images.IMAGES[item.image].key, "args": create_args(item, vendor), "files": own})


def containers() -> dict[str, dict[str, Any]]:
    """All containers of the sandbox, by name."""
    names = docker.call(["ps", "--all", "--filter", f"label={layout.LABEL}", "--format", "{{.Names}}"]).stdout.split()
    return docker.inspect("container", names)


def _parallel(function: Callable[[layout.Host], None], hosts: Iterable[layout.Host]) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        for future in [pool.submit(function, item) for item in hosts]:
            future.result()


def ensure_hosts(vendor: content.Content, *, start_them: bool = True) -> bool:
    """Make missing hosts, start stopped ones. True when anything was done."""
    known = containers()
    make: list[layout.Host] = []
    start: list[layout.Host] = []
    outdated: list[str] = []
    prepared: dict[str, tuple[dict[str, tuple[bytes, int]], str]] = {}
    for item in layout.HOSTS:
        files = host_files(item, vendor)
        prepared[item.name] = (files, recipe(item, vendor, files))
        found = known.get(item.container)
        marker = host_dir(item.name) / "made"
        if found is None or not marker.is_file() or marker.read_text(encoding="utf-8").split()[0] != found["Id"]:
            make.append(item)
        elif marker.read_text(encoding="utf-8").split()[1] != prepared[item.name][1]:
            if item.keeps_state:
                outdated.append(item.name)
                if not found["State"]["Running"]:
                    start.append(item)
            else:
                make.append(item)
        elif not found["State"]["Running"]:
            start.append(item)
    if outdated:
        say(f"made by another version of the sandbox, and left as they are: {', '.join(outdated)}. `python3 -m sandbox down` and `up` makes them anew")

    def create(item: layout.Host) -> None:
        shutil.rmtree(host_dir(item.name), ignore_errors=True)
        docker.call(["rm", "--force", "--volumes", item.container], check=False)
        for volume in item.volumes:
            volume_dir(item, volume).mkdir(parents=True, mode=0o755)
        host_dir(item.name).mkdir(parents=True, exist_ok=True)
        files, digest = prepared[item.name]
        ident = docker.call([*create_args(item, vendor), images.IMAGES[item.image].reference]).stdout.strip()
        docker.call(["cp", "-", f"{item.container}:/"], stdin=tar_of(files))
        write_atomic(host_dir(item.name) / "made", f"{ident} {digest}\n")

    if make:
        with step(f"making hosts: {', '.join(item.name for item in make)}", 5):
            _parallel(create, make)
    if start_them and (make or start):
        with step(f"starting hosts: {', '.join(item.name for item in [*make, *start])}", 8):
            _parallel(lambda item: start_host(item), [*make, *start])
    return bool(make or start)


def start_host(item: layout.Host) -> None:
    docker.call(["start", item.container])


def wait_ready(hosts: Iterable[layout.Host] = layout.HOSTS, *, timeout: float = 180) -> None:
    """systemd has come up on every host, and Kubernetes is Ready as of now."""
    deadline = time.monotonic() + timeout
    hosts = tuple(hosts)

    def booted(item: layout.Host) -> None:
        state = ""
        while time.monotonic() < deadline:
            state = docker.execute(item.container, ["systemctl", "is-system-running"], check=False).stdout.strip()
            if state == "running":
                return
            if state == "degraded":
                failed = failed_units(item)
                ours = [unit for unit in failed if unit.startswith(OWN_UNITS)]
                if ours:
                    names = " ".join(ours)
                    raise SandboxError(f"{item.name}: failed units: {names}; see `python3 -m sandbox exec {item.name} -- systemctl status {names}`")
                say(f"{item.name}: failed units that are not the sandbox's: {', '.join(failed)}")
                return
            time.sleep(0.3)
        raise SandboxError(f"{item.name}: systemd is {state or 'silent'} after {timeout:.0f} s; see `python3 -m sandbox exec {item.name} -- journalctl -b`")

    with step("waiting for the hosts to boot", 10):
        _parallel(booted, hosts)
    with step("waiting for Kubernetes", 15):
        while not kubernetes_ready():
            if time.monotonic() > deadline:
                raise SandboxError(f"Kubernetes is not Ready after {timeout:.0f} s; see `python3 -m sandbox exec node1 -- journalctl -u kubelet -u kube-apiserver`")
            time.sleep(0.5)


def failed_units(item: layout.Host) -> list[str]:
    done = docker.execute(item.container, ["systemctl", "list-units", "--failed", "--plain", "--no-legend"], check=False)
    return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]


def kubectl(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Asked from the bastion, over the network, as the operator does."""
    return docker.execute(layout.host("bastion").container, ["kubectl", "--kubeconfig", KUBECONFIG, "--request-timeout=5s", *arguments], check=False)


def wait_pods(*, timeout: float = 120) -> None:
    """After a restart: wait for the pods that were there. A pod that does not come back is said, and is not our error."""
    started = docker.inspect("container", [layout.host(kube.NODE).container])[layout.host(kube.NODE).container]["State"]["StartedAt"][:19]
    deadline = time.monotonic() + timeout
    waiting: list[str] = ["the node"]
    with step("waiting for the pods", 20):
        while waiting and time.monotonic() < deadline:
            lease = kubectl(["get", "lease", "-n", "kube-node-lease", kube.NODE, "-o", "jsonpath={.spec.renewTime}"])
            pods = kubectl(["get", "pods", "-A", "-o", "json"])
            if lease.returncode == 0 and pods.returncode == 0 and lease.stdout[:19] > started:
                waiting = unready_pods(json.loads(pods.stdout), started)
            if waiting:
                time.sleep(1)
    if waiting:
        say(f"not Ready after {timeout:.0f} s: {', '.join(waiting[:8])}{' and more' if len(waiting) > 8 else ''}")


def unready_pods(pods: Mapping[str, Any], since: str) -> list[str]:
    """Pods that have not become Ready since a moment (UTC, to the second); finished ones do not count."""
    found = []
    for pod in pods["items"]:
        if pod["status"].get("phase") in ("Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp"):
            continue
        states = pod["status"].get("containerStatuses", [])
        begun = [state.get("state", {}).get("running", {}).get("startedAt", "")[:19] for state in states]
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))
        if not ready or not states or any(moment < since for moment in begun):
            found.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    return found


def kubernetes_ready() -> bool:
    """The node reports Ready."""
    ask = kubectl(["get", "nodes", "-o", 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'])
    return ask.returncode == 0 and ask.stdout.strip() == "True"


def finish_hosts() -> None:
    """What can only be done in running hosts."""
    workstation = layout.host("workstation").container
    docker.execute(workstation, ["update-ca-certificates"])


def answer_names(more: Mapping[str, str]) -> None:
    """Let the DNS of the site answer further names until the sandbox goes down: a private zone."""
    gateway, path = layout.host("gateway").container, "/etc/onprem-sandbox/names.json"
    config = json.loads(docker.execute(gateway, ["cat", path]).stdout)
    config["names"].update(more)
    docker.execute(gateway, ["sh", "-c", f"cat > {path} && systemctl restart onprem-names"], stdin=json.dumps(config, indent=1).encode())
    deadline = time.monotonic() + 30
    for name in more:
        while docker.execute(layout.host("bastion").container, ["getent", "ahostsv4", name], check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise SandboxError(f"the DNS of the site does not answer {name}; see `python3 -m sandbox exec gateway -- journalctl -u onprem-names`")
            time.sleep(0.2)


def same_keys(other: Path) -> bool:
    """Whether the sandbox's present keys are those."""
    mine = keys_dir() / "bastion.pub"
    return mine.is_file() and mine.read_bytes() == (other / "bastion.pub").read_bytes()


def empty(path: Path) -> None:
    """Remove what is in a folder and leave the folder."""
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def up(*, start: bool = True) -> None:
    """Everything from the machine to a Ready cluster; each step does nothing when its result is there."""
    fresh = not host_dir(kube.NODE).is_dir()
    for item in artifacts.wanted(["up", "content"]):
        # checksums are compared whenever hosts are made; a running site has its programs open already
        artifacts.ensure(item, check=fresh)
    for name in images.IMAGES:
        images.ensure(name)
    vendor = content.ensure()
    ensure_keys(layout.internet_names(vendor.file_hosts))
    ensure_networks()
    if not start:
        ensure_hosts(vendor, start_them=False)
        return
    restarted = not fresh
    if ensure_hosts(vendor) or not (state_dir() / "ready").is_file():
        (state_dir() / "ready").unlink(missing_ok=True)
        wait_ready()
        finish_hosts()
        if restarted:
            wait_pods()
        write_atomic(state_dir() / "ready", time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
    elif not kubernetes_ready():
        wait_ready()


def down() -> None:
    """Take away what is ours, and nothing else. The cache stays."""
    names = docker.call(["ps", "--all", "--quiet", "--filter", f"label={layout.LABEL}"]).stdout.split()
    if names:
        with step(f"removing {len(names)} hosts", 5):
            docker.call(["rm", "--force", "--volumes", *names])
    remove_networks()
    if state_dir().exists():
        with step("removing their state", 3):
            remove_state(state_dir())


def remove_state(path: Path) -> None:
    """Remove a folder of ours; mounts that a killed host left in it go first."""
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        inside = [line.split()[1] for line in stream if line.split()[1].startswith(f"{path}/")]
    for mount in sorted(inside, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        run(["rm", "-rf", "--one-file-system", os.fspath(path)])
