#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: object_storage_agents
short_description: Bring the vendor's agents from the private registry into their bucket
version_added: 0.1.0
description:
  - Jobs load their agent from the object store with a plain GET. This module puts agents, checksums and the files that name the current version there.
  - The digest of each object is kept in its metadata, so a run that changes nothing moves no content.
  - Everything a version needs is uploaded before C(release.txt) switches to it; a kill in between leaves the old version working.
    Older versions stay.
  - Programs that contradict the vendor's C(checksums.txt) or are still gzip-encoded are refused.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
  - onprem.circleci_server.private_registry
options:
  bucket:
    description: Bucket of the agents.
    type: str
    required: true
  objects:
    description: Objects that come from file artifacts of the private registry.
    type: list
    elements: dict
    default: []
    suboptions:
      key: {description: Name of the object., type: str, required: true}
      name: {description: Name of the file artifact., type: str, required: true}
      version: {description: Version of the file artifact., type: str, required: true}
  texts:
    description: Objects with one line of text, name to line. They are uploaded last.
    type: dict
    default: {}
  peer_may_be_missing:
    description: In check mode only, the registry, its artifacts or the store may be missing because the run itself would bring them.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Compares and uploads nothing.
  diff_mode:
    support: full
    description: Shows digests, not contents.
"""

EXAMPLES = r"""
- name: Bring the agents
  onprem.circleci_server.object_storage_agents:
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    bucket: circleci-agents
    objects:
      - {key: 1.0.1/linux/amd64/circleci-agent, name: build-agent, version: 1.0.1}
      - {key: 1.0.1/checksums.txt, name: build-agent-checksums, version: 1.0.1}
    texts:
      release.txt: 1.0.1
"""

RETURN = r"""
uploaded:
  description: Objects that were or would be uploaded, in that order.
  returned: always
  type: list
  elements: str
bytes:
  description: Bytes that were uploaded.
  returned: always
  type: int
"""

import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.artifact import describe_file, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror.registry import RegistryClient
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.s3 import objects
from ..module_utils.s3.client import S3Error
from ..module_utils.s3.objects import Change, Source
from ..module_utils.s3.options import STORE_SPEC, client_from


def artifact_source(client: RegistryClient, item: dict[str, str]) -> Source:
    remote = describe_file(client, f"onprem/files/{item['name']}", item["version"].replace("+", "_"))
    return Source(item["key"], remote.layer_digest.split(":", 1)[-1], remote.size, lambda path: _pull(client, remote, path))


def _pull(client: RegistryClient, remote: Any, path: Path) -> None:
    pull_file(client, remote, path)


def check_sums(client: RegistryClient, options: dict[str, Any], sources: list[Source], work: Path) -> list[str]:
    """The vendor's own sums against what is about to be uploaded."""
    texts = {}
    for source in sources:
        if source.key.endswith("/checksums.txt"):
            path = work / "checksums"
            source.bring(path)
            texts[source.key] = path.read_text(encoding="utf-8", errors="replace")
    return objects.checksum_problems(texts, {source.key: source.sha256 for source in sources})


def run(module: AnsibleModule, work: Path) -> tuple[list[Change], int]:
    options = module.params
    lenient = module.check_mode and options["peer_may_be_missing"]
    switches = [objects.text_source(key, f"{line}\n") for key, line in sorted(options["texts"].items())]
    registry = registry_access(options, quick=lenient).client(options["registry"])
    unknown = []
    sources = []
    for item in options["objects"]:
        try:
            sources.append(artifact_source(registry, item))
        except (NetworkError, RegistryError) as error:
            if not (lenient and (isinstance(error, NetworkError) or error.status == 404)):
                raise
            unknown.append(Change(Source(item["key"], "?", 0, lambda path: None), ""))
    sources += switches
    store = client_from(options)
    try:
        changes = objects.compare(store, options["bucket"], sources)
    except S3Error as error:
        if not (lenient and error.status in (0, 404)):
            raise
        changes = [Change(source, "") for source in sorted(sources, key=lambda item: objects.upload_order(item.key))]
    if not changes and not unknown:
        return [], 0
    moved = 0
    if not module.check_mode:
        problems = check_sums(registry, options, sources, work)
        if problems:
            raise S3Error("; ".join(problems) + ". Nothing was uploaded. Make the bundle again from the vendor's files.")
        moved = objects.apply(store, options["bucket"], changes, work)
    return [*unknown, *changes], moved


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            **REGISTRY_SPEC,
            "bucket": {"type": "str", "required": True},
            "objects": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True, "no_log": False} for name in ("key", "name", "version")},
            },
            "texts": {"type": "dict", "default": {}},
            "peer_may_be_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        with tempfile.TemporaryDirectory(prefix="onprem-agents-", dir=module.tmpdir) as work:
            changes, moved = run(module, Path(work))
    except S3Error as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        module.fail_json(msg=explained(error, options["registry"]))
    where = f"{options['endpoint']}/{options['bucket']}"
    module.exit_json(
        changed=bool(changes),
        uploaded=[change.source.key for change in changes],
        bytes=moved,
        diff={
            "before_header": where,
            "after_header": where,
            "before": "".join(f"{change.source.key} {change.before}\n" for change in changes if change.before),
            "after": "".join(f"{change.source.key} {change.after}\n" for change in changes),
        },
    )


if __name__ == "__main__":
    main()
