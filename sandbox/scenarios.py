# SPDX-License-Identifier: GPL-3.0-or-later
"""One platform at a time on the sandbox: its example inventory, the most real store that can stand behind it, and evidence of what was seen.

Kubernetes is always that of the sandbox. What the inventory says of addresses is replaced by those of the sandbox; everything else is as an operator
would have it.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import artifacts, docker, layout, site, stores, tripwire, verbs
from .common import SandboxError, cache_dir, say, write_atomic

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "build" / "scenarios"
# Levels of evidence beside "real component" and "emulator".
OTHER_STORE = "another real store"
STAND_IN_PRODUCT = "stand-in product on real components"
CELLS = ("bucket", "conformance", "release", "artifact", "second_run", "check_mode")
# Addresses, logins and sizes are those of the sandbox, whatever the example says.
SANDBOX_SAYS = {
    "circleci_domain", "circleci_kubeconfig", "circleci_bundle_dir", "circleci_bundle_public_key", "circleci_github_hostname", "circleci_registry_host",
    "circleci_registry_username", "circleci_load_balancer_address", "circleci_object_storage_endpoint", "circleci_object_storage_access_key",
    "circleci_ports", "circleci_values", "circleci_waivers", "circleci_storage_class", "circleci_load_balancer",
}  # fmt: skip
ORIGINS = {"circleci_object_storage_origins": [f"https://app.{layout.CI_DOMAIN}"]}


def minio_stands_in(region: str) -> Callable[[], None]:
    """A MinIO server where a service of a cloud would be."""

    def start() -> None:
        origins = {"MINIO_API_CORS_ALLOW_ORIGIN": ",".join(ORIGINS["circleci_object_storage_origins"])}
        stores.minio("circleci", verbs.made_secrets()["circleci_object_storage_secret_key"], {"MINIO_SITE_REGION": region, **origins})

    return start


GOOGLE_KINDS = ("gcs_key", "gcs_workload_identity")
GOOGLE_ACCOUNT = "circleci@example-project.iam.gserviceaccount.com"
GOOGLE_NAMES = ("storage.googleapis.com", "oauth2.googleapis.com")
GOOGLE = "/opt/stand-in/google"


def google_key() -> str:
    """The key of a service account that Google would give; made once for each sandbox, on the host of the stand-in."""
    path = cache_dir() / "sandbox" / "google-account.pem"
    if not path.exists():
        made = docker.execute(stores.host(), ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).stdout
        write_atomic(path, made, mode=0o600)
    return path.read_text(encoding="utf-8")


def google_account() -> dict[str, str]:
    """What an operator on Google brings besides. Tokens are asked for without TLS: no authority of the sandbox signs for Google's own."""
    words = {"client_email": GOOGLE_ACCOUNT, "private_key": google_key(), "project_id": "example-project", "token_uri": f"http://{GOOGLE_NAMES[1]}/token"}
    return {"circleci_object_storage_service_account": json.dumps({"type": "service_account", **words})}


def google() -> None:
    """fake-gcs-server on the loopback of the store's host. What is missing in front of it follows when the site has an authority."""
    stores.put(artifacts.ensure(artifacts.find("fake-gcs-server")) / "fake-gcs-server", f"{GOOGLE}/fake-gcs-server")
    words = ["-scheme", "http", "-host", "127.0.0.1", "-port", "10000", "-backend", "memory", "-public-host", "storage.invalid"]
    stores.start("stand-in-google", [f"{GOOGLE}/fake-gcs-server", *words], {"HOME": "/root"})


def google_by_private_dns() -> None:
    """Names of Google lead to the stand-in, as a private zone leads to addresses of Private Google Access; the authority of the site signs for it."""
    nodes_trust_anyway()
    issue = rf"""
set -eu
umask 077
cd "$(mktemp -d)"
kubectl --kubeconfig {site.KUBECONFIG} get secret -n circleci-server onprem-circleci-site-ca -o 'jsonpath={{.data.ca\.crt}}' | base64 -d > ca.crt
kubectl --kubeconfig {site.KUBECONFIG} get secret -n circleci-server onprem-circleci-site-ca -o 'jsonpath={{.data.ca\.key}}' | base64 -d > ca.key
openssl req -newkey rsa:2048 -nodes -keyout key -out request -subj /CN={GOOGLE_NAMES[0]} 2>/dev/null
echo subjectAltName={",".join(f"DNS:{name}" for name in GOOGLE_NAMES)} > more
openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile more -out certificate 2>/dev/null
cat certificate key
rm -r "$PWD"
"""
    pair = docker.execute(layout.host("bastion").container, ["sh", "-c", issue]).stdout
    modulus = docker.execute(stores.host(), ["openssl", "rsa", "-noout", "-modulus"], stdin=google_key().encode()).stdout.strip().removeprefix("Modulus=")
    pem, config = f"{GOOGLE}/tls.pem", f"{GOOGLE}/config.json"
    told = {"backend": 10000, "modulus": modulus, "email": GOOGLE_ACCOUNT, "audience": f"http://{GOOGLE_NAMES[1]}/token", "certificate": pem, "key": pem}
    for path, text in ((pem, pair), (config, json.dumps(told)), (f"{GOOGLE}/google.py", (ROOT / "sandbox/standin/google.py").read_text(encoding="utf-8"))):
        docker.execute(stores.host(), ["sh", "-c", f"umask 077; cat > {path}"], stdin=text.encode())
    stores.start("stand-in-google-front", ["/usr/bin/python3", f"{GOOGLE}/google.py", config], {})
    site.answer_names(dict.fromkeys(GOOGLE_NAMES, layout.host("store").address))


# What K3s does with registries.yaml when it starts, and `k3s kubectl`: enough for the restart of one node, and no more.
K3S = """#!/usr/bin/python3
# Stand-in of the sandbox for K3s: no Kubernetes of its own. It reads registries.yaml when it starts, as the real one does.
import os, re, sys
if sys.argv[1:2] == ["kubectl"]:
    words = sys.argv[2:]
    while "--kubeconfig" in words:
        place = words.index("--kubeconfig"); del words[place:place + 2]
    os.execv("/opt/stand-in/kubectl", ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", *words])
if sys.argv[1:] != ["server"]:
    sys.exit("k3s (stand-in of the sandbox): only `server` and `kubectl` are here")
path = "/etc/rancher/k3s/registries.yaml"
host = ""
for line in open(path).read().splitlines() if os.path.exists(path) else []:
    found = re.fullmatch(r"  (\\S+):", line)
    host = found.group(1) if found else host
    authority = re.fullmatch(r"\\s+ca_file: (\\S+)", line)
    if authority:
        folder = f"/etc/containerd/certs.d/{host}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/hosts.toml", "w") as stream:
            stream.write(f'server = "https://{host}"\\n\\n[host."https://{host}"]\\n  capabilities = ["pull", "resolve"]\\n  ca = "{authority.group(1)}"\\n')
os.execvp("sleep", ["sleep", "infinity"])
"""


def k3s_stands_in() -> None:
    """The node's own Kubernetes goes on to run; what looks at K3s finds the stand-in."""
    node = layout.host("node1").container
    docker.execute(node, ["mkdir", "-p", "/opt/stand-in"])
    docker.call(["cp", str(artifacts.ensure(artifacts.find("kubernetes")) / "kubectl"), f"{node}:/opt/stand-in/kubectl"])
    docker.execute(node, ["sh", "-c", "cat > /usr/local/bin/k3s && chmod 755 /usr/local/bin/k3s && mkdir -p /etc/rancher/k3s"], stdin=K3S.encode())
    kubeconfig = docker.execute(layout.host("bastion").container, ["cat", site.KUBECONFIG]).stdout.encode()
    docker.execute(node, ["sh", "-c", "umask 077; mkdir -p /etc/kubernetes; test -s /etc/kubernetes/admin.conf || cat > /etc/kubernetes/admin.conf"], stdin=kubeconfig)
    unit = "[Unit]\nDescription=K3s (stand-in of the sandbox)\n[Service]\nExecStart=/usr/local/bin/k3s server\n[Install]\nWantedBy=multi-user.target\n"
    docker.execute(node, ["sh", "-c", "cat > /etc/systemd/system/k3s.service && systemctl daemon-reload && systemctl enable --now k3s"], stdin=unit.encode())


def nodes_trust_anyway() -> None:
    """Managed nodes trust their registry by what the cloud does; here the authority is put there by hand, before the product comes."""
    asked = site.kubectl(["get", "secret", "-n", "circleci-server", "onprem-circleci-site-ca", "-o", r"jsonpath={.data.ca\.crt}"])
    if asked.returncode != 0:
        raise SandboxError(f"the authority of the site cannot be read: {asked.stderr.strip()}")
    folder = "/etc/containerd/certs.d/registry.site.example:5000"
    text = f'server = "https://registry.site.example:5000"\n[host."https://registry.site.example:5000"]\n  capabilities = ["pull", "resolve"]\n  ca = "{folder}/ca.crt"\n'
    node = layout.host("node1").container
    docker.execute(node, ["sh", "-c", f"mkdir -p {folder} && cat > {folder}/ca.crt"], stdin=base64.b64decode(asked.stdout))
    docker.execute(node, ["sh", "-c", f"cat > {folder}/hosts.toml"], stdin=text.encode())


@dataclass(frozen=True)
class Scenario:
    """What differs from platform to platform."""

    platform: str
    behind: str
    level: str
    blind: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    start: Callable[[], None] | None = None
    before_install: Callable[[], None] | None = None
    secrets: Callable[[], Mapping[str, str]] = dict
    stand_ins: tuple[str, ...] = ()
    # Bad input: nodes trust the registry only after an install that must say so.
    trusted_late: bool = False
    refused: bool = False

    def extra(self) -> dict[str, Any]:
        """The variables of the example inventory, with the addresses of the sandbox."""
        given = yaml.safe_load((ROOT / "inventories" / self.platform / "group_vars" / "all.yml").read_text(encoding="utf-8"))
        own = {name: value for name, value in given.items() if name not in SANDBOX_SAYS}
        origins = ORIGINS if "circleci_object_storage_origins" in given else {}
        # The cloud's own load balancer and disks are not here: those of the bundle take their place.
        brought: dict[str, Any] = {"circleci_load_balancer": "metallb", "circleci_storage_class": "local_path", "circleci_load_balancer_idle_minutes": 0}
        # Nor are its security groups: the packet filters of the hosts do what they would, or connections that must be closed would be found open.
        brought |= {"circleci_firewall": "managed"} if given.get("circleci_firewall") == "reported" else {}
        return {**own, **origins, **brought, **self.ports(), **self.variables, "circleci_gates_passed": verbs.ANSWERED_GATES}

    def ports(self) -> dict[str, Any]:
        """What the inventory cannot say of hosts that are not in it."""
        empty = self.empty_groups()
        kubernetes = [layout.NETWORKS["site"].subnet, layout.POD_CIDR] if "circleci_cluster_nodes" in empty else []
        store = [f"{layout.host('store').address}/32"] if "circleci_object_storage" in empty else []
        given = {name: value for name, value in (("kubernetes", kubernetes), ("object_storage", store)) if value}
        return {"circleci_ports": given} if given else {}

    def hosts(self, text: str) -> dict[str, Any]:
        """The sandbox's inventory with the groups empty that are empty in the example."""
        return {**yaml.safe_load(text), **{group: {"hosts": {}} for group in self.empty_groups()}}

    def empty_groups(self) -> list[str]:
        """Groups of the example that have no host; the registry is always the sandbox's own."""
        given = yaml.safe_load((ROOT / "inventories" / self.platform / "hosts.yml").read_text(encoding="utf-8"))
        return [name for name, group in given.items() if not group.get("hosts") and name != "circleci_registry"]


# MinIO has rules for browsers for the whole server only, so that none can be asked of it by bucket.
SERVICE = {"circleci_object_storage_endpoint": "http://store.site.example:9000", "circleci_object_storage_origins": []}
FILTERS = "packet filters of the hosts for those of the cloud"
SCENARIOS = {
    "eks": Scenario(
        "eks", "MinIO in place of AWS S3", OTHER_STORE, "IAM roles, rules for browsers, limits of AWS",
        {**SERVICE, "circleci_object_storage_kind": "aws_s3_keys", "circleci_object_storage_irsa_role": ""},
        minio_stands_in("us-west-2"), nodes_trust_anyway, stand_ins=("MetalLB and local-path for those of AWS", FILTERS, "keys for the role of pods", "trust of ECR put there by hand"),
    ),
    "gke": Scenario(
        "gke", "fake-gcs-server 1.56.1 with the sandbox's own tokens, rights and signed URLs in front of it", "emulator",
        "IAM, public access prevention, that pods act as the service account, the token service's certificate",
        {"circleci_object_storage_endpoint": f"https://{GOOGLE_NAMES[0]}"}, google, google_by_private_dns, google_account,
        ("MetalLB and local-path for those of Google", FILTERS, "names of Google lead to the store's host", "trust of Artifact Registry put there by hand"),
    ),
    "azure": Scenario(
        "azure", "Azurite 3.35.0 behind versitygw", "emulator", "managed identities, copies of large objects, limits of Azure",
        {
            "circleci_object_storage_backend_endpoint": f"http://{stores.LOOPBACK}:10000/{stores.AZURITE_ACCOUNT}",
            "circleci_object_storage_backend_account": stores.AZURITE_ACCOUNT,
            "circleci_object_storage_backend_key": stores.AZURITE_KEY,
        },
        stores.azurite, nodes_trust_anyway, stand_ins=("MetalLB and local-path for those of Azure", "custom CA trust put there by hand"), trusted_late=True,
    ),
    "digitalocean": Scenario(
        "digitalocean", "MinIO in place of Spaces", OTHER_STORE, "rules for browsers, request limits",
        {**SERVICE}, minio_stands_in("us-east-1"), nodes_trust_anyway,
        stand_ins=("MetalLB and local-path for those of DigitalOcean", FILTERS, "trust of a public authority put there by hand"),
    ),
    "rancher": Scenario(
        "rancher", "versitygw on the disk of a host, which serves the agents by itself", "real component", "",
        {"circleci_object_storage_agent_port": 7071}, None, k3s_stands_in,
        stand_ins=("K3s: a stand-in that reads registries.yaml at its start, above the Kubernetes of the sandbox",),
    ),
    "openshift": Scenario("openshift", "", "real component", "", refused=True),
}  # fmt: skip


def find(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise SandboxError(f"there is no scenario {name!r}; known: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


# --- evidence -----------------------------------------------------------------------------------------------------------


def path_of(name: str) -> Path:
    return EVIDENCE / f"{name}.json"


def evidence(name: str) -> dict[str, Any]:
    path = path_of(name)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def note(name: str, **cells: Any) -> None:
    """Keep what was seen; a cell is written again by each run that looks at it."""
    scenario = find(name)
    known = evidence(name)
    found = {
        "platform": scenario.platform,
        "store": scenario.behind,
        "level": scenario.level,
        "blind_spots": scenario.blind,
        "stand_ins": list(scenario.stand_ins),
        "cells": {**known.get("cells", {}), **cells},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path_of(name).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path_of(name), json.dumps(found, indent=2, sort_keys=True) + "\n")


def cell(result: str, detail: str = "", level: str = "") -> dict[str, str]:
    return {"result": result, "detail": detail, "level": level}


# --- steps --------------------------------------------------------------------------------------------------------------


def inventory(scenario: Scenario) -> None:
    """Put the inventory on the bastion."""
    bastion = layout.host("bastion").container
    path = f"{verbs.INVENTORY}/hosts.yml"
    data = scenario.hosts(docker.execute(bastion, ["cat", path]).stdout)
    docker.execute(bastion, ["sh", "-c", f"cat > {path}"], stdin=yaml.safe_dump(data).encode())


def _verb(name: str, verb: str, label: str, arguments: tuple[str, ...] = ()) -> verbs.Result:
    scenario = find(name)
    verbs.prepare(verbs.host_of(verb), scenario.secrets())
    if verbs.host_of(verb) == "bastion":
        inventory(scenario)
    begin = time.monotonic()
    log = EVIDENCE / f"{name}-{label}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    result = verbs.run(verb, extra=scenario.extra(), arguments=arguments, log=log)
    say(f"{name}: {label} ended with {result.code} after {time.monotonic() - begin:.0f} s, changed {result.changed or 'nothing'}")
    return result


def _demand(result: verbs.Result, name: str, what: str) -> None:
    if result.code != 0:
        raise SandboxError(f"scenario {name}: {what} ended with {result.code}: {' | '.join(result.failures()) or result.errors[-1500:]}")


def prepare(name: str) -> None:
    """Bundle, gap, what stands behind, secrets."""
    scenario = find(name)
    path_of(name).unlink(missing_ok=True)
    if scenario.refused:
        return
    if scenario.start:
        scenario.start()
    bundle = _verb(name, "bundle", "bundle")
    _demand(bundle, name, "bundle")
    carried = subprocess.run([sys.executable, "-m", "sandbox", "carry", "/srv/bundle", "/srv/bundle"], cwd=ROOT, check=False)
    if carried.returncode != 0:
        raise SandboxError(f"scenario {name}: carrying the bundle ended with {carried.returncode}")
    _demand(_verb(name, "secrets", "secrets"), name, "secrets")
    if scenario.before_install and not scenario.trusted_late:
        scenario.before_install()
    tripwire.reset()


def install(name: str) -> dict[str, int]:
    """Run install and keep what it saw. Says which hosts were changed."""
    scenario = find(name)
    if scenario.refused:
        return refused(name)
    first = "release" not in evidence(name).get("cells", {})
    if first:
        checked = _verb(name, "install", "check-empty", ("--check", "--diff"))
        _demand(checked, name, "install --check on the empty site")
        if scenario.before_install and scenario.trusted_late:
            cannot_pull(name)
            scenario.before_install()
    result = _verb(name, "install", "install" if first else "second-run")
    _demand(result, name, "install")
    if not first:
        note(name, second_run=cell(f"changed={sum(result.changed.values())}", "all hosts", STAND_IN_PRODUCT))
        return result.changed
    made = next((row for _host, row in result.results("object_storage_buckets")), {})
    probed = [row for _host, row in result.results("object_storage_probe") if row.get("results")]
    answers = probed[-1]["results"] if probed else []
    no = [row["title"] for row in answers if row["works"] is False]
    proof = next((row for _host, row in result.results("image_pull_proof")), {})
    verdict = next((row for _host, row in result.results("infrastructure_probe")), {})
    read_back = [row["name"] for row in verdict.get("clients", []) if row.get("read_back")]
    note(
        name,
        bucket=cell("yes" if made.get("changes") else "no", "; ".join(made.get("changes", [])), scenario.level),
        conformance=cell("yes" if answers else "no", f"{sum(row['works'] is True for row in answers)} yes, {len(no)} no{': ' + ', '.join(no) if no else ''}", scenario.level),
        release=cell("yes", f"stand-in product on Kubernetes {layout.KUBERNETES_VERSION}, {len(proof.get('nodes', []))} node(s) pulled", STAND_IN_PRODUCT),
        artifact=cell("yes" if verdict.get("passed") and read_back else "no", f"read back from {', '.join(read_back) or 'no Nomad client'}", scenario.level),
    )
    return result.changed


def cannot_pull(name: str) -> None:
    """Nodes that do not trust the registry are named, before anything of the release is there."""
    result = _verb(name, "install", "node-cannot-pull")
    said = " | ".join(result.failures())
    if result.code != 2 or "node1" not in said or "unknown authority" not in said:
        raise SandboxError(f"scenario {name}: install with a node that cannot pull ended with {result.code}: {said or result.errors[-1500:]}")


def refused(name: str) -> dict[str, int]:
    """What must not be installed: plan, preflight and install say no, with the vendor's word, and change nothing."""
    scenario = find(name)
    installed = verbs.INSTALLED
    words = []
    for verb in ("plan", "preflight", "install"):
        command = [f"{verbs.VENV}/ansible-playbook", "-i", f"{installed}/inventories/{scenario.platform}", f"{verbs.NAMESPACE}.{verb}"]
        command += ["--extra-vars", f"@{verbs.SECRETS}", "--vault-password-file", verbs.VAULT_PASSWORD]
        verbs.prepare("bastion")
        done = docker.execute(layout.host("bastion").container, ["env", *(f"{key}={value}" for key, value in verbs.QUIET.items()), *command], check=False)
        said = re.sub(r"\s+", " ", done.stdout)
        if done.returncode != 2 or "known not to work" not in said or "There is no override" not in said:
            raise SandboxError(f"scenario {name}: {verb} ended with {done.returncode} instead of the refusal: {said[-800:]}")
        if re.search(r"changed=[1-9]", said):
            raise SandboxError(f"scenario {name}: {verb} changed something")
        words.append(verb)
    note(name, release=cell("refused", f"{', '.join(words)} end with code 2 and the vendor's verdict; nothing is changed", "real component"))
    return {}


def verify(name: str) -> None:
    """Look from outside, run check mode on the finished site, and see that nothing went out."""
    scenario = find(name)
    if scenario.refused:
        return
    checked = _verb(name, "install", "check-finished", ("--check", "--diff"))
    _demand(checked, name, "install --check on the finished site")
    note(name, check_mode=cell(f"changed={sum(checked.changed.values())}", "empty and finished site", STAND_IN_PRODUCT))
    _demand(_verb(name, "verify", "verify"), name, "verify")
    refusals = ["a node that cannot pull is named before the release is brought"] if scenario.trusted_late else []
    if scenario.extra()["circleci_object_storage_kind"] not in GOOGLE_KINDS:
        rotated(name)
        refusals.append("a key of the store that the release does not have")
    page = docker.execute(layout.host("bastion").container, ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://app.{layout.CI_DOMAIN}/"], check=False)
    if page.stdout.strip() != "200":
        raise SandboxError(f"scenario {name}: the web page answers {page.stdout.strip() or page.stderr.strip()}")
    outside = tripwire.read()["total"]
    if outside:
        raise SandboxError(f"scenario {name}: {outside} attempts to reach outside")
    if refusals:
        note(name, bad_input=cell("refused", "; ".join(refusals)))
    cells = evidence(name)["cells"]
    missing = [one for one in CELLS if one not in cells]
    changed = [one for one in ("second_run", "check_mode") if cells.get(one, {}).get("result") not in ("changed=0", None)]
    if missing or changed:
        raise SandboxError(f"scenario {name}: never seen: {', '.join(missing) or 'nothing'}; changed what it should not: {', '.join(changed) or 'nothing'}")
    say(f"{name}: evidence lies in {path_of(name)}")


def rotated(name: str) -> None:
    """Bad input: a key that was rotated at the store and given to us, but not brought into the release."""
    result = _verb(name, "preflight", "rotated-key", ("--extra-vars", json.dumps({"circleci_object_storage_secret_key": "rotated-at-the-store"})))
    rows = [row for _host, found in result.results("site_preflight") for row in found["findings"] if row["level"] == "problem"]
    if result.code != 2 or ["object-storage-secret" in json.dumps(row) and "verb secrets" in json.dumps(row) for row in rows] != [True]:
        raise SandboxError(f"scenario {name}: preflight with a key that the release lacks ended with {result.code}: {rows or result.failures()}")


STEPS: dict[str, Callable[[str], Any]] = {"prepare": prepare, "install": install, "verify": verify}
