#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: infrastructure_probe
short_description: Prove that every Nomad client runs a job that pulls from the registry and writes into the object store
version_added: 0.1.0
description:
  - Registers a batch job with one container for each client, bound to it. The container pulls its image from the private registry, makes an
    artifact of a random number and the name of its node, and uploads it with a presigned link that writes this one object. The artifact is read back here and
    compared byte for byte.
  - This is a Nomad job and no CircleCI job; neither GitHub Enterprise nor the services of CircleCI take part in it.
  - Jobs are purged and objects deleted at the end, also after a failure. What a killed run left is taken away first. So it reports no change.
  - Nomad keeps finished allocations until its garbage collection, and the links within them; a link is dead a minute after O(timeout).
  - All problems are told at once, each with the client, what was found and what to do.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
requirements:
  - kubernetes (Python library), unless O(nomad_address) is given
options:
  kubeconfig:
    description: Kubeconfig file on this host. Nomad's servers in the cluster are reached through the API server.
    type: path
    default: ""
  namespace:
    description: Namespace of the release.
    type: str
    default: ""
  nomad_service:
    description: Nomad's service as the API server's proxy names it.
    type: str
    default: nomad-server:4646
  nomad_address:
    description: URL of Nomad servers outside the cluster, such as C(https://nomad-server.example.com:4646). It is asked instead of the cluster.
    type: str
    default: ""
  nomad_ca_certificate:
    description: PEM of the authority of these servers.
    type: str
    default: ""
  nomad_client_certificate:
    description: PEM of a client certificate that these servers accept.
    type: str
    default: ""
  nomad_client_key:
    description: PEM of the key that belongs to O(nomad_client_certificate).
    type: str
    default: ""
  clients:
    description:
      - Clients that must be proved, each with C(name) and C(addresses). A client is found in Nomad by its name, or else by an address.
      - Empty proves every client that Nomad has.
    type: list
    elements: dict
    default: []
  registry:
    description: Private registry, C(host) or C(host:port).
    type: str
    required: true
  image:
    description: Image with a shell and curl, as the registry names it without its host.
    type: str
    required: true
  bucket:
    description: Bucket of the artifacts.
    type: str
    required: true
  timeout:
    description: Seconds that O(batch) clients have for pulling and uploading.
    type: int
    default: 600
  node_timeout:
    description: Seconds to wait for clients that are not ready yet, as right after their start.
    type: int
    default: 60
  batch:
    description: How many clients pull at the same time.
    type: int
    default: 50
  lock_file:
    description: File on this host that keeps a second run waiting while one is under way.
    type: path
    required: true
  progress_file:
    description: File for the progress. The action plugin shows it while the module runs.
    type: path
    default: ""
  fail:
    description: Fail when a client was not proved. With V(false) a report can be written first.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Does not run in check mode; the evidence is then V(not run).
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Prove all Nomad clients
  onprem.circleci_server.infrastructure_probe:
    kubeconfig: /etc/onprem-circleci/kubeconfig
    namespace: circleci-server
    clients:
      - name: nomad1
        addresses: [10.0.0.41]
    registry: registry.example.com:5000
    image: cimg/base:2025.05-20.04
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    bucket: circleci-data
    lock_file: /var/lib/onprem-circleci/records/probe.lock
"""

RETURN = r"""
passed:
  description: Whether every client was proved. False in check mode.
  returned: always
  type: bool
clients:
  description: Each client with C(name), C(node), C(scheduled), C(pulled), C(uploaded), C(read_back), C(seconds) and C(problem).
  returned: always
  type: list
  elements: dict
problems:
  description: One sentence for each problem.
  returned: always
  type: list
  elements: str
unlisted:
  description: Ready clients of Nomad that O(clients) does not name.
  returned: always
  type: list
  elements: str
removed:
  description: What an earlier run had left behind.
  returned: always
  type: list
  elements: str
findings:
  description: For M(onprem.circleci_server.site_verdict) what is worth a look although no client failed because of it.
  returned: always
  type: list
  elements: dict
evidence:
  description: The outcome as a level of proof, for M(onprem.circleci_server.site_verdict).
  returned: always
  type: dict
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.mirror.progress import replace_json
from ..module_utils.mirror_module import forget_payload
from ..module_utils.nomad.client import NomadClient
from ..module_utils.nomad.probe import InfrastructureProbe, Outcome, Settings, Wanted, evidence, findings
from ..module_utils.nomad.transport import AddressTransport, ClusterTransport, NomadError, Transport
from ..module_utils.s3.client import S3Error
from ..module_utils.s3.options import STORE_SPEC, client_from


class Progress:
    """Says how far the run is, for whoever polls the file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def __call__(self, done: int, total: int, message: str) -> None:
        if self._path is None:
            return
        document = {
            "phase": "infrastructure probe", "items": "clients proved", "items_done": done, "items_total": total, "message": message[:200], "pid": os.getpid(),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_json(self._path, document, mode=0o600)


@contextlib.contextmanager
def alone(path: str, patience: float, progress: Progress) -> Iterator[None]:
    """Wait until no other run is under way. A killed run holds no lock, so that what it left can be told from what is in use."""
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    end = time.monotonic() + patience
    with open(path, "w", encoding="ascii") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise TimeoutError from None
                progress(0, 0, "waiting for another run of the probe")
                time.sleep(1)
        yield


def transport(options: dict[str, Any]) -> Transport:
    """The way to Nomad."""
    if options["nomad_address"]:
        return AddressTransport(options["nomad_address"], options["nomad_ca_certificate"], options["nomad_client_certificate"], options["nomad_client_key"])
    try:
        return ClusterTransport(KubernetesClient(options["kubeconfig"]), options["namespace"], options["nomad_service"])
    except KubeError as error:
        raise NomadError(error.sentence) from error


def prove(options: dict[str, Any]) -> Outcome:
    """One run, whose problems are all in its outcome."""
    settings = Settings(
        image=f"{options['registry']}/{options['image']}",
        registry=options["registry"],
        bucket=options["bucket"],
        ca=options["store_ca_certificate"],
        timeout=float(options["timeout"]),
        node_timeout=float(options["node_timeout"]),
        batch=max(1, options["batch"]),
    )
    wanted = [Wanted(str(item["name"]), tuple(str(address) for address in item.get("addresses") or ())) for item in options["clients"]]
    progress = Progress(options["progress_file"])
    try:
        nomad, store = NomadClient(transport(options)), client_from(options)
        with alone(options["lock_file"], settings.timeout + 60, progress):
            outcome = InfrastructureProbe(nomad, store, settings, tell=progress).run(wanted)
    except (NomadError, S3Error) as error:
        outcome = Outcome(general=[str(error)])
    except TimeoutError:
        outcome = Outcome(general=[f"another run of the probe holds {options['lock_file']} since more than {settings.timeout:.0f} seconds: wait for its end."])
    except OSError as error:
        outcome = Outcome(general=[f"{options['lock_file']} cannot be written ({error})."])
    return outcome


def ended(_number: int, _frame: Any) -> None:
    """Let a polite kill clean up."""
    raise SystemExit(1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            "kubeconfig": {"type": "path", "default": ""},
            "namespace": {"type": "str", "default": ""},
            "nomad_service": {"type": "str", "default": "nomad-server:4646"},
            "nomad_address": {"type": "str", "default": ""},
            "nomad_ca_certificate": {"type": "str", "default": ""},
            "nomad_client_certificate": {"type": "str", "default": ""},
            "nomad_client_key": {"type": "str", "default": "", "no_log": True},
            "clients": {"type": "list", "elements": "dict", "default": []},
            "registry": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "bucket": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 600},
            "node_timeout": {"type": "int", "default": 60},
            "batch": {"type": "int", "default": 50},
            "lock_file": {"type": "path", "required": True},
            "progress_file": {"type": "path", "default": ""},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    forget_payload(module)
    options = module.params
    if not options["nomad_address"] and not (options["kubeconfig"] and options["namespace"]):
        module.fail_json(msg="kubeconfig and namespace are needed to reach Nomad in the cluster, or nomad_address to reach it elsewhere")
    if module.check_mode:
        skipped = {"level": "infrastructure probe", "state": "not run", "detail": "", "missing": ["a run without --check"]}
        module.exit_json(changed=False, passed=False, clients=[], problems=[], unlisted=[], removed=[], findings=[], evidence=skipped)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    outcome = prove(options)
    proof = evidence(outcome, f"{options['registry']}/{options['image']}", datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    result = {
        "passed": outcome.passed,
        "clients": [client.as_dict() for client in outcome.clients],
        "problems": outcome.problems,
        "unlisted": outcome.unlisted,
        "removed": outcome.removed,
        "findings": findings(outcome),
        "evidence": proof,
    }
    if options["fail"] and not outcome.passed:
        listing = "\n".join(f"  - {problem}" for problem in outcome.problems or ["Nomad has no client"])
        module.fail_json(msg=f"The infrastructure probe did not pass:\n{listing}", changed=False, **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
