#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_fetch
short_description: Fetch what a lock names into a bundle
version_added: 0.1.0
description:
  - Fetches images, chart, files and packages into tar-shaped parts, over all registries at once. A broken, stopped or killed fetch goes on where it was.
    Nothing stands under its final name before it is whole and checked.
  - With O(progress_file) the run shows how far it is.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  lock:
    description: Lock file, as M(onprem.circleci_server.bundle_plan) writes it.
    type: path
    required: true
  output:
    description: Folder of the bundle. It is made when it is not there; its parent must exist.
    type: path
    required: true
  part_size:
    description: Largest size of a part in bytes, V(1048576) or more. V(0) makes one part.
    type: int
    default: 0
  base:
    description: A C(bundle.json) or a receipt of the far side. What it names is left out, which makes a delta.
    type: path
  signing_key:
    description: Secret key that signs the bundle, of minisign (without a password) or OpenSSH. Empty leaves it unsigned.
    type: path
    default: ""
  credentials:
    description: Logins by registry host, each with C(username) and C(password).
    type: dict
    default: {}
  ca_certificate:
    description: PEM of a further authority to trust.
    type: str
    default: ""
  limit_rate:
    description: Bytes per second for all connections together, like V(20M). Empty does not limit.
    type: str
    default: ""
  planned:
    description:
      - The lock as a mapping, as M(onprem.circleci_server.bundle_plan) returns it. In check mode it is looked at when O(lock) was not written yet.
    type: dict
    default: {}
  progress_file:
    description: JSON file on the host that tells how far the module is.
    type: path
attributes:
  check_mode:
    support: full
    description: Asks the registries for manifests and tells what would be fetched.
  diff_mode:
    support: full
    description: Names with their digests and bytes.
seealso:
  - module: onprem.circleci_server.bundle_plan
  - module: onprem.circleci_server.bundle_load
"""

EXAMPLES = r"""
- name: Fetch the bundle
  onprem.circleci_server.bundle_fetch:
    lock: /var/lib/onprem-circleci/bundle/bundle.lock
    output: /srv/bundle
    part_size: 4294967295
    progress_file: /var/lib/onprem-circleci/bundle/fetch.json
"""

RETURN = r"""
bundle_id:
  description: Identity of the bundle; empty in check mode when it is not known yet.
  returned: always
  type: str
parts:
  description: File names of the parts.
  returned: always
  type: list
  elements: str
bytes_total:
  description: Size of everything in the bundle.
  returned: always
  type: int
bytes_moved:
  description: Bytes that came over the network in this run.
  returned: always
  type: int
signed:
  description: Whether the bundle carries a signature now.
  returned: always
  type: bool
"""

import base64
import contextlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bundle_plan import names
from ..module_utils.mirror.access import Access
from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.delta import Base
from ..module_utils.mirror.errors import MirrorError, UsageError
from ..module_utils.mirror.fetch import FetchOptions, fetch
from ..module_utils.mirror.limits import parse_bytes
from ..module_utils.mirror.lock import Lock
from ..module_utils.mirror.progress import Progress
from ..module_utils.mirror.sign import sign_bundle
from ..module_utils.mirror_module import change_lines, forget_payload, logins, named_difference, vendor_explained

SMALLEST_PART = 1 << 20


def signed(output: Path) -> bool:
    try:
        with Bundle.open([output]) as bundle:
            return bool(bundle.signature_files())
    except MirrorError:
        return False


def kind_of_key(path: Path) -> str:
    """minisign or ssh, by what the file holds; a key that would ask for a password is refused before it can."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"circleci_bundle_signing_key: {path}: {error.strerror or error}") from error
    if "PRIVATE KEY-----" in text:
        return "ssh"
    lines = text.splitlines()
    if len(lines) > 1 and "minisign" in lines[0] and "secret key" in lines[0]:
        # The third and fourth byte name how the key is encrypted; zero is not at all.
        with contextlib.suppress(ValueError):
            if base64.b64decode(lines[1])[2:4] != b"\0\0":
                raise UsageError(
                    f"circleci_bundle_signing_key: {path} is protected by a password, which nobody can type here; use one made with minisign -G -W."
                )
        return "minisign"
    raise UsageError(f"circleci_bundle_signing_key: {path} is neither a secret key of minisign nor a private key of OpenSSH.")


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    lock_path, output = Path(given["lock"]), Path(given["output"])
    if given["part_size"] and given["part_size"] < SMALLEST_PART:
        raise UsageError(f"circleci_bundle_part_size is {given['part_size']}; allowed are 0 for one part, or {SMALLEST_PART} bytes and more.")
    if module.check_mode and given["planned"] and (not lock_path.is_file() or Lock.from_data(given["planned"], lock_path.parent) != Lock.load(lock_path)):
        # The plan of this very run is not written in check mode: everything that it names is to come.
        difference = named_difference({}, names(given["planned"]), given["output"])
        return {"changed": True, "diff": difference, "bundle_id": "", "parts": [], "bytes_total": 0, "bytes_moved": 0, "signed": False}
    if not output.parent.is_dir():
        raise UsageError(f"circleci_bundle_dir is {output}, but {output.parent} is no folder of this host.")
    if given["signing_key"]:
        kind_of_key(Path(given["signing_key"]))
    access = Access(
        credentials=logins(given["credentials"]),
        ca_data=given["ca_certificate"] or None,
        limit_rate=parse_bytes(given["limit_rate"]) if given["limit_rate"] else None,
    )
    if given["progress_file"] and not module.check_mode:
        Path(given["progress_file"]).parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(Path(given["progress_file"])) if given["progress_file"] and not module.check_mode else None
    result = fetch(
        FetchOptions(
            lock=Lock.load(lock_path),
            output=output,
            access=access,
            part_size=given["part_size"] or None,
            base=Base.load(Path(given["base"])) if given["base"] else None,
            dry_run=module.check_mode,
        ),
        progress,
    )
    changed = result.changed
    has_signature = not changed and signed(output)
    if given["signing_key"] and not has_signature:
        changed = True
        if not module.check_mode:
            sign_bundle(output, kind_of_key(Path(given["signing_key"])), given["signing_key"])
            has_signature = True
    for warning in result.warnings:
        module.warn(warning)
    return {
        "changed": changed,
        "diff": {**change_lines(result.changes), "before_header": given["output"], "after_header": given["output"]},
        "bundle_id": result.bundle_id,
        "parts": result.parts,
        "bytes_total": result.bytes_total,
        "bytes_moved": result.bytes_moved,
        "requests": result.requests,
        "signed": has_signature,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "output": {"type": "path", "required": True},
            "part_size": {"type": "int", "default": 0},
            "base": {"type": "path"},
            "signing_key": {"type": "path", "default": "", "no_log": False},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "ca_certificate": {"type": "str", "default": ""},
            "limit_rate": {"type": "str", "default": ""},
            "planned": {"type": "dict", "default": {}},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    forget_payload(module)
    try:
        result = run(module)
    except MirrorError as error:
        module.fail_json(msg=vendor_explained(error), exit_code=error.exit_code)
    except OSError as error:
        module.fail_json(msg=f"circleci_bundle_dir: {error.filename or module.params['output']}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
