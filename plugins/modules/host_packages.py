#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_packages
short_description: Install operating system packages that travelled with the bundle
version_added: 0.1.0
description:
  - Reads the package index from the private registry, finds what is missing on this host, pulls those packages and installs them with apt.
  - apt knows no other source while it does so. Packages that are installed already stay as they are, whatever their version.
  - When nothing is missing, the registry is not asked at all.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.private_registry
options:
  names:
    description: Packages that must be installed.
    type: list
    elements: str
    required: true
  target:
    description: Distribution that the packages are for, like V(debian-12-amd64).
    type: str
    required: true
  version:
    description: Tag of the package artifact C(onprem/packages/<target>).
    type: str
    default: "1"
  registry_may_be_missing:
    description: In check mode only, the registry or the artifact may be missing because the run itself would bring it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Lists what would be installed.
  diff_mode:
    support: full
    description: Shows names and versions.
"""

EXAMPLES = r"""
- name: Install Docker
  onprem.circleci_server.host_packages:
    names: [docker.io]
    target: debian-12-amd64
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
"""

RETURN = r"""
installed:
  description: Packages that were or would be installed, with their versions.
  returned: always
  type: list
  elements: str
  sample: ["docker.io=20.10.24+dfsg1-1"]
"""

import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host import packages
from ..module_utils.host.units import HostError
from ..module_utils.mirror.artifact import list_files, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access


def bring(module: AnsibleModule, missing: list[str], installed: set[str]) -> list[str]:
    """Work out the closure and, outside of check mode, install it."""
    options = module.params
    client = registry_access(options, quick=module.check_mode).client(options["registry"])
    with tempfile.TemporaryDirectory(prefix="onprem-packages-") as work:
        folder = Path(work)
        files = {file.filename: file for file in list_files(client, f"onprem/packages/{options['target']}", options["version"])}
        if "Packages" not in files:
            raise HostError(f"onprem/packages/{options['target']}:{options['version']} holds no index called Packages.")
        pull_file(client, files["Packages"], folder / "Packages")
        index = packages.parse_index((folder / "Packages").read_text(encoding="utf-8"))
        chosen = packages.closure(missing, index, installed)
        if not module.check_mode:
            for candidate in chosen:
                pull_file(client, files[candidate.filename], folder / candidate.filename)
            packages.install([folder / candidate.filename for candidate in chosen])
    client.close()
    return [f"{candidate.name}={candidate.version}" for candidate in chosen]


def main() -> None:
    spec: dict[str, Any] = {
        "names": {"type": "list", "elements": "str", "required": True},
        "target": {"type": "str", "required": True},
        "version": {"type": "str", "default": "1"},
        "registry_may_be_missing": {"type": "bool", "default": False},
        **REGISTRY_SPEC,
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    options = module.params
    try:
        installed = packages.installed_packages()
        missing = [name for name in options["names"] if name not in installed]
        brought = bring(module, missing, installed) if missing else []
    except HostError as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        absent = isinstance(error, NetworkError) or (isinstance(error, RegistryError) and error.status == 404)
        if not (module.check_mode and options["registry_may_be_missing"] and absent):
            module.fail_json(msg=explained(error, options["registry"]))
        brought = missing
    module.exit_json(
        changed=bool(brought),
        installed=brought,
        diff={"before": "", "after": "".join(f"{line}\n" for line in brought), "before_header": "packages", "after_header": "packages"},
    )


if __name__ == "__main__":
    main()
