#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: oci_file
short_description: Bring a file from the private registry to a host
version_added: 0.1.0
description:
  - After a bundle was loaded, programs and manifests lie in the private registry as OCI artifacts C(onprem/files/<name>:<version>).
    This module pulls one of them onto the host it runs on.
  - It compares digests, so a run that changes nothing costs one request. The file appears under its name only when it is whole and checked.
  - In check mode it downloads nothing.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.private_registry
options:
  name:
    description: Name of the file artifact, as the bundle lists it.
    type: str
    required: true
  version:
    description: Version of the file artifact. A C(+) in it is read as C(_), which is what tags allow.
    type: str
    required: true
  member:
    description:
      - File to take out of the artifact when that is a zip or tar archive, by its whole name, a pattern, or its last part.
      - Empty takes the artifact itself.
    type: str
    default: ""
  dest:
    description: Full path of the file on the host. Its folder must exist.
    type: path
    required: true
  mode:
    description: Permissions of the file.
    type: str
    default: "0644"
  owner:
    description: User that owns the file.
    type: str
    default: root
  group:
    description: Group that owns the file.
    type: str
    default: root
  state:
    description: V(absent) takes the file away, and what is remembered about it.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description: Folder on the host that remembers which archive a O(member) came from.
    type: path
    default: /var/lib/onprem-circleci
  registry_may_be_missing:
    description:
      - In check mode only, the registry or the artifact may be missing because the run itself would bring it.
        The file is then compared with nothing and reported as changed.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Asks the registry and changes nothing.
  diff_mode:
    support: full
    description: Shows artifact and digest, not the content.
"""

EXAMPLES = r"""
- name: Bring the Nomad client
  onprem.circleci_server.oci_file:
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    ca_certificate: "{{ circleci_ca_certificate }}"
    name: nomad
    version: "1.7.7"
    member: nomad
    dest: /usr/local/bin/nomad
    mode: "0755"
"""

RETURN = r"""
digest:
  description: Digest of the artifact's content in the registry; empty when the registry was not there in check mode.
  returned: when O(state=present)
  type: str
sha256:
  description: Digest of the file on the host; empty in check mode when it is not known yet.
  returned: when O(state=present)
  type: str
downloaded_bytes:
  description: Bytes that were pulled.
  returned: when O(state=present)
  type: int
note:
  description: What could not be compared in check mode.
  returned: when something could not be compared
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.artifact import describe_file, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.oci_file import FileError, Workplace, extract_member, record_path, replace_file, sha256_of
from ..module_utils.records import RecordError, read_record, write_record


def absent(module: AnsibleModule, dest: Path, record: Path) -> None:
    there = [path for path in (dest, record) if path.exists()]
    if not module.check_mode:
        for path in there:
            path.unlink()
    module.exit_json(changed=bool(there), diff={"before": "".join(f"{path}\n" for path in there), "after": ""})


def present(module: AnsibleModule, dest: Path, record: Path) -> None:
    options = module.params
    quick = module.check_mode and options["registry_may_be_missing"]
    client = registry_access(options, quick=quick).client(options["registry"])
    artifact = f"onprem/files/{options['name']}:{options['version']}"
    result: dict[str, Any] = {"digest": "", "sha256": "", "downloaded_bytes": 0}
    here = sha256_of(dest)
    try:
        remote = describe_file(client, f"onprem/files/{options['name']}", options["version"].replace("+", "_"))
    except (NetworkError, RegistryError) as error:
        missing = isinstance(error, NetworkError) or error.status == 404
        if not (quick and missing):
            raise
        result["note"] = f"{artifact} is not in {options['registry']} yet; the run would bring it there first"
        finish(module, dest, True, here, f"{artifact} (not there yet)", result)
        return
    wanted = remote.layer_digest.split(":", 1)[-1]
    result["digest"] = remote.layer_digest
    member = options["member"]
    if member:
        known = read_record(record)
        same_archive = known.get("digest") == remote.layer_digest and known.get("member") == member
        unchanged = here is not None and same_archive and known.get("sha256") == here
    else:
        unchanged = here == wanted
    if unchanged or module.check_mode:
        result["sha256"] = here or "" if unchanged else ("" if member else wanted)
        finish(module, dest, not unchanged, here, f"{artifact} {remote.layer_digest}", result)
        return
    with Workplace(dest, remote.size * (4 if member else 1)) as folder:
        new = folder / "content"
        pull_file(client, remote, str(new))
        result["sha256"], result["downloaded_bytes"] = wanted, remote.size
        if member:
            archive, new = new, folder / "member"
            result["sha256"] = extract_member(archive, member, artifact, new)
        changed = result["sha256"] != here
        if changed:
            replace_file(new, dest, int(options["mode"], 8))
    if member:
        write_record(record, {"dest": str(dest), "artifact": artifact, "digest": remote.layer_digest, "member": member, "sha256": result["sha256"]})
    finish(module, dest, changed, here, f"{artifact} {remote.layer_digest}", result)


def finish(module: AnsibleModule, dest: Path, changed: bool, here: str | None, after: str, result: dict[str, Any]) -> None:
    before = f"{dest} sha256:{here}\n" if here else ""
    diff = {"before_header": str(dest), "after_header": str(dest), "before": before, "after": f"{dest} from {after}\n" if changed else before}
    if dest.exists():
        arguments = module.load_file_common_arguments({**module.params, "path": str(dest)})
        changed = module.set_fs_attributes_if_different(arguments, changed)
    module.exit_json(changed=changed, diff=diff, dest=str(dest), **result)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REGISTRY_SPEC,
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "member": {"type": "str", "default": ""},
            "dest": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "state_dir": {"type": "path", "default": "/var/lib/onprem-circleci"},
            "registry_may_be_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    dest = Path(module.params["dest"])
    record = record_path(Path(module.params["state_dir"]), dest)
    try:
        if module.params["state"] == "absent":
            absent(module, dest, record)
        else:
            present(module, dest, record)
    except MirrorError as error:
        module.fail_json(msg=explained(error, module.params["registry"]))
    except (FileError, RecordError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"dest: {dest} cannot be written: {error.strerror or error}")


if __name__ == "__main__":
    main()
