# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a client from being proved, as what was found and what to do. The texts hold no link and no id, so that they are the same each time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .client import Allocation, Node, Task
from .job import EXIT_CURL, EXIT_NO_CURL, EXIT_NO_ROOM, EXIT_REFUSED

_SIGNED = re.compile(r"\?[^\s\"'<>]*X-Amz-[^\s\"'<>]*")
_LOG = re.compile(r"status (?P<status>\d+)")
_CURL = re.compile(r"curl: \((?P<code>\d+)\) (?P<text>[^\n]*)")


@dataclass(frozen=True)
class Diagnosis:
    """What was found, without a full stop, and a sentence that says what to do."""

    found: str
    remedy: str


def masked(text: str) -> str:
    """A text without the queries of signed links."""
    return _SIGNED.sub("?…", text)


AGAIN = "Where it says Permission denied, the servers have begun anew and do not know it: the verb that was run last, install or upgrade, registers it again."


def of_node(name: str, node: Optional[Node], nodes: Sequence[Node], driver: str) -> Optional[Diagnosis]:
    """Why a client cannot take the job, None when it can."""
    if node is None:
        known = ", ".join(sorted({item.name for item in nodes if item.status == "ready"})[:8]) or "no client at all"
        # A client of 1.7 shows its secret, and servers of 1.11 deny what they do not know.
        anew = "" if nodes else f" {AGAIN}"
        return Diagnosis(
            f"Nomad has no client of that name or address (it knows {known})",
            f"Look at `journalctl -u nomad` on the client: does it reach the servers on port 4647, and do they trust its certificate?{anew}",
        )
    if node.status != "ready":
        detail = f" ({node.status_detail})" if node.status_detail else ""
        return Diagnosis(f"Nomad says that the client is {node.status}{detail}", "Look at `systemctl status nomad` and `journalctl -u nomad` on the client.")
    if node.draining or not node.eligible:
        state = "being drained" if node.draining else "not eligible"
        return Diagnosis(
            f"the client is {state}, so it takes no jobs", f"When its maintenance is over: `nomad node eligibility -enable {node.id[:8]}`."
        )
    twins = sum(item.name == node.name and item.status == "ready" for item in nodes)
    if twins > 1:
        return Diagnosis(f"Nomad has {twins} ready clients called {node.name}", "Give each client a name of its own and purge the old one's node.")
    found = node.drivers.get(driver)
    if found is None or not found.detected or not found.healthy:
        detail = f" ({found.detail})" if found is not None and found.detail else ""
        return Diagnosis(
            f"its driver {driver} is {'not there' if found is None or not found.detected else 'not healthy'}{detail}",
            f"Is {driver} running on the client? Look at `systemctl status {driver}`.",
        )
    return None


def waits_for_room(figures: Mapping[str, Any]) -> bool:
    """Whether the scheduler found the client, but no room on it."""
    return bool(figures.get("DimensionExhausted") or figures.get("NodesExhausted"))


def of_placement(figures: Mapping[str, Any], node: Node) -> Diagnosis:
    """Why the scheduler did not place the job."""
    if waits_for_room(figures):
        lacks = ", ".join(sorted(figures.get("DimensionExhausted") or {})) or "resources"
        return Diagnosis(f"the client has no room for the job (exhausted: {lacks})", "Wait until its jobs have ended, or add clients.")
    if figures.get("QuotaExhausted"):
        return Diagnosis(f"a quota of Nomad is exhausted ({', '.join(figures['QuotaExhausted'])})", "Raise it, or take it away.")
    filtered = [str(name) for name in figures.get("ConstraintFiltered") or {} if "node.unique.id" not in str(name)]
    if filtered:
        return Diagnosis(
            f"the scheduler ruled the client out ({', '.join(sorted(filtered))})", "Bring what is named there onto the client, and restart Nomad on it."
        )
    if figures.get("ClassFiltered"):
        return Diagnosis(f"the scheduler ruled its class out ({', '.join(figures['ClassFiltered'])})", "Give the client the class linux-64bit.")
    return Diagnosis(
        f"the scheduler did not see it among the clients of data centre {node.datacenter} that take jobs",
        "Is it just being drained or restarted? Then run verify again.",
    )


_PULL = (
    (
        r"x509|certificate signed by unknown authority|certificate is not trusted|tls: failed to verify",
        "it does not trust the certificate of the registry",
        "Run install, which puts the site's authority below /etc/docker/certs.d, or check circleci_ca_certificate.",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain http, which Docker refuses",
        "Give the registry a certificate, or name it among insecure-registries on the clients.",
    ),
    (
        r"manifest unknown|manifest for .* not found|name unknown|NAME_UNKNOWN|MANIFEST_UNKNOWN|no such image|repository .* not found",
        "the registry does not have it",
        "Make a bundle that holds it, load it with install, or set circleci_probe_image to an image that is there.",
    ),
    (
        r"unauthorized|no basic auth|authentication required|access denied|denied:|incorrect username",
        "the registry refused the client's login",
        "Check /root/.docker/config.json on the client and circleci_registry_username and circleci_registry_password, then run install.",
    ),
    (
        r"no such host|server misbehaving|Temporary failure in name resolution",
        "the name of the registry does not resolve there",
        "Check the DNS of the client and circleci_registry_host.",
    ),
    (
        r"connection refused|i/o timeout|Client\.Timeout|deadline exceeded|no route to host|network is unreachable|connection reset",
        "the registry cannot be reached from there",
        "Is it running, and is its port open for Nomad clients? See the section Connections of the report.",
    ),
    (r"no space left on device", "its disk is full", "Free disk space below /var/lib/docker on the client."),
)


def _pull(image: str, text: str) -> Diagnosis:
    said = re.sub("^Failed to pull `[^`]*`: ", "", masked(" ".join(text.split())))[:300]
    for pattern, found, remedy in _PULL:
        if re.search(pattern, said, re.IGNORECASE):
            return Diagnosis(f"cannot pull {image}: {found} ({said})", remedy)
    return Diagnosis(f"cannot pull {image} ({said})", "Try `docker pull` with that name on the client.")


_CURL_SAYS = {
    6: ("the name of the object store does not resolve in containers there", "Check the DNS that Docker gives its containers on the client."),
    7: ("the object store cannot be reached from containers there", "Is the store up, and does a packet filter let containers of the client reach it?"),
    28: ("the object store did not take the artifact in time", "Is a packet filter in between? If only large uploads hang, compare the MTU of the networks."),
    35: ("the object store does not speak TLS as asked", "Check whether circleci_object_storage_endpoint must be http:// or https://."),
    60: ("the certificate of the object store is not trusted there", "Give the PEM of its authority in circleci_ca_certificate."),
}


def _upload(exit_code: int, log: str, endpoint: str) -> Diagnosis:
    if exit_code == EXIT_CURL:
        match = _CURL.search(log)
        said = masked(match["text"]) if match else "curl gave no reason"
        found, remedy = _CURL_SAYS.get(int(match["code"]) if match else 0, ("the upload failed", "Look at the store and at the way to it."))
        return Diagnosis(f"{found}: {endpoint} ({said})", remedy)
    status = match["status"] if (match := _LOG.search(log)) else "an error"
    code = found_code[1] if (found_code := re.search(r"<Code>([^<]{1,60})</Code>", log)) else ""
    message = found_message[1] if (found_message := re.search(r"<Message>([^<]{1,200})</Message>", log)) else ""
    said = masked(" ".join(part for part in (code, message) if part)) or "no reason"
    remedies = {
        "NoSuchBucket": "Run install, which makes the bucket.",
        "SignatureDoesNotMatch": "Does the client reach the store by another name or through a proxy that changes requests? The name is part of the signature.",
        "RequestTimeTooSkewed": "Set the clocks of control host and store by the same time server.",
        "AccessDenied": "Set the clocks of control host and store by the same time server, and check the rights of circleci_object_storage_access_key.",
    }
    return Diagnosis(f"the object store refused the upload: {endpoint} answered {status} ({said})", remedies.get(code, "Look at the log of the object store."))


def of_allocation(allocation: Allocation, task: Optional[Task], log: str, image: str, endpoint: str) -> Diagnosis:
    """Why the job did not end well on a client."""
    if allocation.client_status == "lost":
        return Diagnosis("the client lost its servers while the job ran", "Look at `journalctl -u nomad` on the client.")
    if task is None:
        detail = masked(allocation.client_detail) or "no reason given"
        return Diagnosis(f"the job ended before it began ({detail})", "Look at `journalctl -u nomad` on the client.")
    failure = next((event.message for event in reversed(task.events) if event.type in ("Driver Failure", "Setup Failure", "Failed Validation")), "")
    if failure:
        if re.search(r"pull|image", failure, re.IGNORECASE):
            return _pull(image, failure)
        return Diagnosis(f"its container cannot start ({masked(failure)[:300]})", "Look at `journalctl -u docker` and `journalctl -u nomad` on the client.")
    code = task.exit_code
    if code in (EXIT_CURL, EXIT_REFUSED):
        return _upload(code, log, endpoint)
    if code == EXIT_NO_CURL:
        return Diagnosis(f"{image} has no curl", "Set circleci_probe_image to an image with a shell and curl, such as cimg/base.")
    if code == EXIT_NO_ROOM:
        return Diagnosis("no temporary file can be written in a container there", "Free disk space below /var/lib/docker on the client.")
    if code is None or any(event.type == "Killed" for event in task.events):
        return Diagnosis("somebody stopped the job", "Was the client drained or the job stopped meanwhile? Then run verify again.")
    said = masked(" ".join(log.split()))[:200]
    return Diagnosis(f"the job ended with exit code {code}" + (f" ({said})" if said else ""), f"Has {image} a POSIX shell as /bin/sh?")
