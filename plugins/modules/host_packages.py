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
  - Reads the package index from the private registry, finds what is missing on this host, pulls those packages and installs them with apt or dnf,
    which knows no other source while it does so.
  - Named packages that are installed already stay as they are, whatever their version.
  - RPM packages must be signed by a key that travelled with them, unless their repository was said to be unsigned when the bundle was made. They are
    checked before anything is installed, and the host does not come to trust that key for anything else.
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
    description: Distribution that the packages are for, like V(debian-12-amd64) or V(rocky-9-x86_64).
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host import packages, rpm_packages
from ..module_utils.host.units import HostError
from ..module_utils.mirror.artifact import list_files, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror.registry import RegistryClient
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.os_packages.rpm import KEYS, PRIMARY, UNSIGNED, read_primary
from ..module_utils.os_packages.target import PackageError, Target


def bring(module: AnsibleModule, target: Target, client: RegistryClient) -> list[str]:
    """Work out what is missing with all it needs and, outside of check mode, install it."""
    artifact, version = f"onprem/packages/{target}", module.params["version"]
    with tempfile.TemporaryDirectory(prefix="onprem-packages-") as work:
        folder = Path(work)
        files = {file.filename: file for file in list_files(client, artifact, version)}

        def pull(name: str) -> Path:
            if name not in files:
                raise HostError(f"{artifact}:{version} holds no {name}, so it was not made for this kind of distribution.")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pull_file(client, files[name], folder / name)
            return folder / name

        if target.family == "rpm":
            return bring_rpm(module, pull, sorted(files), folder)
        return bring_apt(module, pull)


def bring_apt(module: AnsibleModule, pull: Callable[[str], Path]) -> list[str]:
    index = packages.parse_index(pull("Packages").read_text(encoding="utf-8"))
    installed = packages.installed_packages()
    missing = [name for name in module.params["names"] if name not in installed]
    chosen = packages.closure(missing, index, installed)
    if not module.check_mode:
        packages.install([pull(candidate.filename) for candidate in chosen])
    return [f"{candidate.name}={candidate.version}" for candidate in chosen]


def bring_rpm(module: AnsibleModule, pull: Callable[[str], Path], names: list[str], folder: Path) -> list[str]:
    available = read_primary(pull(PRIMARY))
    installed = rpm_packages.Installed()
    missing = [name for name in module.params["names"] if not installed.has_name(name)]
    chosen = rpm_packages.closure(missing, available.values(), installed)
    if not module.check_mode:
        unsigned = pull(UNSIGNED).read_text(encoding="utf-8").split() if UNSIGNED in names else []
        brought = [pull(package.filename) for package in chosen]
        signed = [path for path in brought if path.name not in unsigned]
        rpm_packages.check_signatures(signed, [pull(name) for name in names if name.startswith(KEYS)], folder)
        rpm_packages.install(brought)
    return [f"{package.name}={package.evr}" for package in chosen]


def missing_on_host(target: Target, names: list[str]) -> list[str]:
    """Those of the names that are not installed."""
    if target.family == "rpm":
        rpms = rpm_packages.Installed()
        return [name for name in names if not rpms.has_name(name)]
    installed = packages.installed_packages()
    return [name for name in names if name not in installed]


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
    brought: list[str] = []
    missing: list[str] = []
    try:
        target = Target.parse(options["target"])
        missing = missing_on_host(target, options["names"])
        if missing:
            client = registry_access(options, quick=module.check_mode).client(options["registry"])
            try:
                brought = bring(module, target, client)
            finally:
                client.close()
    except PackageError as error:
        module.fail_json(msg=f"target: {error}")
    except HostError as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        absent = isinstance(error, NetworkError) or (isinstance(error, RegistryError) and error.status == 404)
        if not (module.check_mode and options["registry_may_be_missing"] and absent):
            module.fail_json(msg=explained(error, options["registry"]))
        brought = missing
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'packages of the bundle'}: {error.strerror or error}.")
    module.exit_json(
        changed=bool(brought),
        installed=brought,
        diff={"before": "", "after": "".join(f"{line}\n" for line in brought), "before_header": "packages", "after_header": "packages"},
    )


if __name__ == "__main__":
    main()
