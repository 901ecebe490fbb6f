#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_extract
short_description: Take files out of a bundle, for hosts that cannot ask the registry
version_added: 0.1.0
description:
  - The host that is to become the private registry needs its packages before there is a registry. This module takes them out of the bundle.
  - Checks the signature first, and every file before it gets its name.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.bundle_source
options:
  artifact:
    description: Artifact to take from, by its name in the registry and without a tag, like V(onprem/packages/debian-12-amd64) or V(onprem/files/helm).
    type: str
    required: true
  files:
    description:
      - File names or patterns. Empty takes all files of the artifact.
      - With O(packages) these are names of packages instead, and what they depend on is taken as well.
    type: list
    elements: str
    default: []
  packages:
    description: Read O(files) as names of Debian packages and follow what they depend on, as far as the artifact has it.
    type: bool
    default: false
  archive:
    description: Pack the files into one tar archive, so that they can be brought to another host in one piece.
    type: bool
    default: false
  dest:
    description: Folder for the files, or with O(archive=true) the archive itself. Folders are made when they are not there.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Reads the bundle and writes nothing.
  diff_mode:
    support: full
    description: File names.
"""

EXAMPLES = r"""
- name: Take the registry's packages out of the bundle
  onprem.circleci_server.bundle_extract:
    directories: [/srv/bundle]
    public_key: RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
    artifact: onprem/packages/debian-12-amd64
    packages: true
    files: [docker-registry]
    dest: /var/lib/onprem-circleci/packages
"""

RETURN = r"""
files:
  description: Each file with C(name), C(path), C(sha256), C(size) and, for packages, C(package) and C(version).
  returned: success
  type: list
  elements: dict
archive:
  description: The archive, empty without O(archive=true).
  returned: success
  type: str
bundle_id:
  description: Identity of the bundle.
  returned: success
  type: str
bytes_total:
  description: Size of everything in the bundle.
  returned: success
  type: int
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bundle_extract import ExtractError, choose, extract, find_artifact, pack
from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror.sign import check_trust
from ..module_utils.mirror_module import BUNDLE_SPEC, trust_explained, trust_of


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    dest = Path(given["dest"])
    with Bundle.open([Path(directory) for directory in given["directories"]]) as bundle:
        check_trust(bundle.raw, bundle.signature_files(), trust_of(given))
        layers = find_artifact(bundle, given["artifact"])
        wanted = choose(bundle, layers, given["files"], packages=given["packages"])
        if given["archive"]:
            changed = [layer.name for layer in wanted] if pack(bundle, wanted, dest, write=not module.check_mode) else []
        else:
            changed = extract(bundle, wanted, dest, write=not module.check_mode)
        return {
            "changed": bool(changed),
            "diff": {"before": "", "after": "".join(f"{dest}/{name}\n" for name in changed), "before_header": str(dest), "after_header": str(dest)},
            "files": [{**layer.as_dict(), "path": str(dest if given["archive"] else dest / layer.name)} for layer in wanted],
            "archive": str(dest) if given["archive"] else "",
            "bytes_total": sum(bundle.sizes.values()),
            "bundle_id": bundle.id,
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **BUNDLE_SPEC,
            "artifact": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "bool", "default": False},
            "archive": {"type": "bool", "default": False},
            "dest": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except MirrorError as error:
        module.fail_json(msg=trust_explained(error), exit_code=error.exit_code)
    except ExtractError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"dest: {error.filename or module.params['dest']}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
