# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job of the infrastructure probe: on each client one container that makes an artifact and uploads it with a link that writes one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .client import Node

PREFIX = "onprem-circleci-probe-"
TASK = "probe"
LINES = 4096
"""About 300 kB: more than one packet, so that a network that loses large packets shows."""

EXIT_NO_CURL, EXIT_NO_ROOM, EXIT_CURL, EXIT_REFUSED = 64, 65, 66, 67

# Nomad reads this as a template: a dollar sign or a percent sign before a brace would be taken for its own.
# The link stands in the environment and reaches curl on its standard input, so that no list of processes shows it.
SCRIPT = f"""
set -u
command -v curl >/dev/null 2>&1 || exit {EXIT_NO_CURL}
work=$(mktemp -d) || exit {EXIT_NO_ROOM}
line=0
while [ "$line" -lt "$PROBE_LINES" ]; do
  echo "$PROBE_NONCE $PROBE_NODE $line"
  line=$((line + 1))
done > "$work/artifact" || exit {EXIT_NO_ROOM}
set --
if [ -n "$PROBE_CA" ]; then
  cat /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt > "$work/ca" 2>/dev/null
  printf '%s\\n' "$PROBE_CA" >> "$work/ca"
  set -- --cacert "$work/ca"
fi
printf 'url = "%s"\\n' "$PROBE_URL" | curl --config - --silent --show-error "$@" --connect-timeout 15 --max-time "$PROBE_SECONDS" \\
  --upload-file "$work/artifact" --output "$work/answer" --dump-header "$work/headers" || exit {EXIT_CURL}
status=$(sed -n 's/^HTTP[^ ]* \\([0-9]*\\).*/\\1/p' "$work/headers" | tail -n 1)
[ "$status" = 200 ] && exit 0
echo "status $status" >&2
head -c 2000 "$work/answer" >&2
exit {EXIT_REFUSED}
"""


def content(nonce: str, node: str) -> bytes:
    """What the job on a node must have written."""
    return "".join(f"{nonce} {node} {line}\n" for line in range(LINES)).encode()


@dataclass(frozen=True)
class Placement:
    """What one client has to do. The link is a secret."""

    group: str
    node: Node
    nonce: str
    url: str


def probe_job(
    name: str, placements: Sequence[Placement], *, image: str, ca: str = "", seconds: int = 120, driver: str = "docker", network_mode: str = ""
) -> dict[str, Any]:
    """One batch job with one group for each client, bound to it by its id; nothing in it is tried twice."""
    script = ["-c", SCRIPT]
    config: dict[str, Any] = {"command": "/bin/sh", "args": script}
    if driver == "docker":
        # Without force_pull an image that the client already has would prove nothing about its registry.
        config = {"image": image, "force_pull": True, "entrypoint": ["/bin/sh"], "args": script}
        if network_mode:
            config["network_mode"] = network_mode
    job: dict[str, Any] = {
        "ID": name,
        "Name": name,
        "Type": "batch",
        "Datacenters": sorted({item.node.datacenter for item in placements}),
        "TaskGroups": [
            {
                "Name": item.group,
                "Count": 1,
                "Constraints": [{"LTarget": "${node.unique.id}", "Operand": "=", "RTarget": item.node.id}],
                "RestartPolicy": {"Attempts": 0, "Mode": "fail", "Interval": 60_000_000_000, "Delay": 1_000_000_000},
                "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
                "EphemeralDisk": {"SizeMB": 20},
                "Tasks": [
                    {
                        "Name": TASK,
                        "Driver": driver,
                        "Config": config,
                        "Env": {
                            "PROBE_URL": item.url,
                            "PROBE_NONCE": item.nonce,
                            "PROBE_NODE": "${node.unique.name}",
                            "PROBE_LINES": str(LINES),
                            "PROBE_SECONDS": str(seconds),
                            "PROBE_CA": ca.strip(),
                        },
                        "Resources": {"CPU": 50, "MemoryMB": 64},
                        "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
                        "KillTimeout": 1_000_000_000,
                    }
                ],
            }
            for item in placements
        ],
    }
    if any(item.node.pool not in ("", "default") for item in placements):
        job["NodePool"] = "all"
    return job
