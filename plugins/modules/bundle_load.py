#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_load
short_description: Load a bundle into the private registry
version_added: 0.1.0
description:
  - Checks the signature, then asks the registry one question for each name. What is missing goes up straight from the parts, each blob once.
    A tag appears only when all its content is there. A broken, stopped or killed load goes on where it was.
  - With O(progress_file) the run shows how far it is.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.bundle_source
  - onprem.circleci_server.private_registry
options:
  state_dir:
    description: Folder for what an interrupted load needs to go on.
    type: path
    required: true
  receipt:
    description: File that tells what is proven to be in the registry. It is the base of the next delta.
    type: path
    required: true
  mapping:
    description: Other places in the registry, the start of a name or path to what replaces it. Without it path and tag stay.
    type: dict
    default: {}
  limit_rate:
    description: Bytes per second for all connections together, like V(20M). Empty does not limit.
    type: str
    default: ""
  registry_may_be_missing:
    description: In check mode only, the registry may be missing because the run itself would bring it. Everything is then reported as new.
    type: bool
    default: false
  progress_file:
    description: JSON file on the host that tells how far the module is.
    type: path
attributes:
  check_mode:
    support: full
    description: Asks the registry and sends nothing.
  diff_mode:
    support: full
    description: Names with their digests and bytes.
seealso:
  - module: onprem.circleci_server.bundle_verify
  - module: onprem.circleci_server.oci_file
"""

EXAMPLES = r"""
- name: Load the bundle
  onprem.circleci_server.bundle_load:
    directories: [/srv/bundle]
    public_key: RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    state_dir: /var/lib/onprem-circleci/mirror
    receipt: /var/lib/onprem-circleci/receipts/registry.json
    progress_file: /var/lib/onprem-circleci/mirror/progress.json
"""

RETURN = r"""
bundle_id:
  description: Identity of the bundle.
  returned: success
  type: str
contents:
  description: What the registry has now, as C(images), C(charts), C(files) and C(packages), each name to tag.
  returned: success
  type: dict
bytes_moved:
  description: Bytes that went to the registry in this run.
  returned: success
  type: int
blobs_uploaded:
  description: Blobs that were sent.
  returned: success
  type: int
blobs_mounted:
  description: Blobs that the registry took from another of its repositories.
  returned: success
  type: int
requests:
  description: Requests to the registry. A run that changes nothing makes one for each name.
  returned: success
  type: int
note:
  description: What could not be compared in check mode.
  returned: when the registry was missing in check mode
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.errors import EXIT_AGAIN, EXIT_REGISTRY, MirrorError, NetworkError
from ..module_utils.mirror.limits import parse_bytes
from ..module_utils.mirror.load import LoadOptions, load
from ..module_utils.mirror.progress import Progress
from ..module_utils.mirror.sign import check_trust
from ..module_utils.mirror.together import Change
from ..module_utils.mirror_module import (
    BUNDLE_SPEC,
    REGISTRY_SPEC,
    change_lines,
    contents,
    explained,
    forget_payload,
    plainer,
    reach,
    registry_access,
    trust_explained,
    trust_of,
)


def everything_new(options: LoadOptions) -> dict[str, Any]:
    """What a load into a registry that is not there yet would bring."""
    with Bundle.open(options.directories) as bundle:
        check_trust(bundle.raw, bundle.signature_files(), options.trust)
        changes = [Change(f"{options.registry}/{ref.target}", None, ref.digest, 0) for ref in bundle.refs]
        note = f"{options.registry} cannot be reached yet; the run would set it up first, so everything is new"
        return {"changed": True, "diff": change_lines(changes), "bundle_id": bundle.id, "bytes_moved": 0, "contents": contents(bundle), "note": note}


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    may_be_missing = module.check_mode and given["registry_may_be_missing"]
    more: dict[str, Any] = {"limit_rate": parse_bytes(given["limit_rate"])} if given["limit_rate"] else {}
    options = LoadOptions(
        directories=[Path(directory) for directory in given["directories"]],
        registry=given["registry"],
        access=registry_access(given, **more),
        trust=trust_of(given),
        state=Path(given["state_dir"]),
        receipt=Path(given["receipt"]),
        mapping={str(key): str(value) for key, value in given["mapping"].items()},
        dry_run=module.check_mode,
    )
    progress = None
    if given["progress_file"] and not module.check_mode:
        Path(given["progress_file"]).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        progress = Progress(Path(given["progress_file"]))
    try:
        reach(given)
    except NetworkError:
        if not may_be_missing:
            raise
        return everything_new(options)
    result = load(options, progress)
    for warning in result.warnings:
        module.warn(warning)
    with Bundle.open(options.directories) as bundle:
        brought = contents(bundle)
    return {
        "changed": result.changed,
        "diff": {**change_lines(result.changes), "before_header": given["registry"], "after_header": given["registry"]},
        "bundle_id": result.bundle_id,
        "contents": brought,
        "bytes_moved": result.bytes_moved,
        "blobs_uploaded": result.blobs_uploaded,
        "blobs_mounted": result.blobs_mounted,
        "requests": result.requests,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **BUNDLE_SPEC,
            **REGISTRY_SPEC,
            "state_dir": {"type": "path", "required": True},
            "receipt": {"type": "path", "required": True},
            "mapping": {"type": "dict", "default": {}},
            "limit_rate": {"type": "str", "default": ""},
            "registry_may_be_missing": {"type": "bool", "default": False},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    forget_payload(module)
    try:
        result = run(module)
    except MirrorError as error:
        clear = plainer(error, module.params)
        about_registry = clear.exit_code in (EXIT_REGISTRY, EXIT_AGAIN) and module.params["registry"] in str(clear)
        module.fail_json(msg=explained(clear, module.params["registry"]) if about_registry else trust_explained(clear), exit_code=clear.exit_code)
    except OSError as error:
        module.fail_json(msg=f"circleci_state_dir: {error.filename or module.params['state_dir']}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
