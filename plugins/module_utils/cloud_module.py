# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What the modules share that talk to a cloud: their options, and how a part of it is read, compared and set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, Protocol

from ansible.module_utils.basic import AnsibleModule

from .cloud import CloudError

CLOUD_SPEC: dict[str, Any] = {
    "provider": {"type": "str", "required": True, "choices": ["aws", "azure", "digitalocean", "gcp"]},
    "site": {"type": "str", "required": True},
    "region": {"type": "str", "default": ""},
    "network": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": True},
    "endpoint": {"type": "str", "default": ""},
}


class Part(Protocol):
    """What the site asks of its cloud. Both calls raise CloudError."""

    def read(self) -> tuple[list[str], list[str]]:
        """Lines that are true now, and lines that are to be."""

    def apply(self) -> Iterator[str]:
        """Bring it there, and name each thing that is done."""


def run(module: AnsibleModule, part: Callable[[dict[str, Any]], Part]) -> None:
    """Read, compare, apply once."""
    done: list[str] = []
    try:
        cloud = part(module.params)
        before, after = cloud.read()
        if before != after and not module.check_mode:
            for name in cloud.apply():
                done.append(name)
    except CloudError as error:
        half = f" Already done: {', '.join(done)}; the same command goes on." if done else ""
        module.fail_json(msg="; ".join(problem.rstrip(".") for problem in error.problems) + "." + half, changed=bool(done))
    notes = list(getattr(cloud, "notes", ()))
    for note in notes:
        module.warn(note)
    header = module.params["provider"]
    module.exit_json(
        changed=before != after,
        changes=[line for line in after if line not in before] + [f"not any more: {line}" for line in before if line not in after],
        notes=notes,
        diff={
            "before_header": header,
            "after_header": header,
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        },
    )
