#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: orb_registry
short_description: Publish the orbs of the bundle on a CircleCI server
version_added: 0.1.0
description:
  - Reads the sources of orbs that travelled with the bundle from the private registry, and publishes in the server's own orb registry what is
    missing there, in an order in which each orb finds what it imports. Nobody outside is asked.
  - It does what the second half of C(circleci admin import-orb) does, with the same mutations of the GraphQL API. A namespace that is missing is made
    without an organization that owns it.
  - A version that is published is never published again. One that has another source on the server than in the bundle stays as it is, and the result
    says so.
  - Without O(token) nothing is asked of the server and the result says what is missing.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.private_registry
options:
  version:
    description: Tag of the artifact C(onprem/orbs) in the private registry.
    type: str
    required: true
  server:
    description: URL of the server, C(https://) and its domain.
    type: str
    required: true
  server_ca_certificate:
    description: PEM of the authority that signed the certificate of O(server). Empty trusts what the host trusts.
    type: str
    default: ""
  token:
    description: Personal API token of an administrator of the server.
    type: str
    default: ""
  peers_may_be_missing:
    description: In check mode only, registry and server may be missing because the run itself would bring them.
    type: bool
    default: false
  fail:
    description: Whether to fail when something is wrong, instead of only returning it in RV(findings).
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Compares the registries and publishes nothing.
  diff_mode:
    support: full
    description: Versions of orbs.
"""

EXAMPLES = r"""
- name: Publish the orbs of the bundle
  onprem.circleci_server.orb_registry:
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    version: 4.10.0
    server: https://ci.example.com
    token: "{{ circleci_personal_token }}"
"""

RETURN = r"""
state:
  description: V(published) when the server has all orbs of the bundle, V(not run) without O(token), V(failed) else.
  returned: always
  type: str
published:
  description: Versions that were or would be published, in that order.
  returned: always
  type: list
  elements: str
  sample: [circleci/aws-cli@5.1.0, circleci/aws-ecr@9.5.0]
findings:
  description: What is wrong or missing, as M(onprem.circleci_server.site_verdict) takes it.
  returned: always
  type: list
  elements: dict
"""

import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.artifact import list_files, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.orbs import (
    INDEX,
    REPOSITORY,
    Api,
    OrbError,
    OrbVersion,
    Unauthorized,
    Unreachable,
    look,
    publish,
    read_index,
)

SUBJECT = "orbs"


def finding(urgency: int, found: str, expected: str, remedy: str) -> dict[str, Any]:
    return {"urgency": urgency, "subject": SUBJECT, "found": found, "expected": expected, "remedy": remedy, "source": ""}


def from_registry(module: AnsibleModule) -> tuple[list[OrbVersion], dict[str, str]]:
    """The orbs that the bundle brought, and their sources, which are compared with the index."""
    options = module.params
    client = registry_access(options, quick=module.check_mode).client(options["registry"])
    try:
        files = {file.filename: file for file in list_files(client, REPOSITORY, options["version"])}
        with tempfile.TemporaryDirectory(prefix="onprem-orbs-") as work:
            folder = Path(work)

            def text(name: str, sha256: str = "") -> str:
                where = f"{options['registry']}/{REPOSITORY}:{options['version']}"
                if name not in files:
                    raise OrbError(f"{where} holds no {name}; load the bundle again")
                if sha256 and files[name].layer_digest != f"sha256:{sha256}":
                    raise OrbError(f"{where}: {name} has the digest {files[name].layer_digest}, its index says sha256:{sha256}; nothing was published")
                pull_file(client, files[name], folder / "content")
                return (folder / "content").read_text(encoding="utf-8")

            orbs = read_index(text(INDEX), INDEX)
            return orbs, {orb.ref: text(orb.filename, orb.sha256) for orb in orbs}
    finally:
        client.close()


def wrong(error: OrbError) -> dict[str, Any]:
    """A finding with the site variable that decides about the error."""
    if isinstance(error, Unauthorized):
        remedy = "Check circleci_personal_token: it must be the token of an administrator, made after that person became one. Then run install again."
        return finding(1, str(error), "a token that may publish", remedy)
    if isinstance(error, Unreachable):
        remedy = "Check circleci_domain, its name service and circleci_ca_certificate on the control host. Then run install again."
        return finding(1, str(error), "the server's API", remedy)
    return finding(1, str(error), "the orbs of the bundle in the server's registry", "Mend what the sentence names, then run install again.")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REGISTRY_SPEC,
            "version": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "server_ca_certificate": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "peers_may_be_missing": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    if not options["token"]:
        missing = finding(
            4, "not run, circleci_personal_token is missing", "the orbs of the bundle in the server's registry",
            "Set circleci_personal_token to the personal token of an administrator and run install again.",
        )  # fmt: skip
        module.exit_json(changed=False, state="not run", published=[], findings=[missing], diff={"before": "", "after": ""})
    may_be_missing = module.check_mode and options["peers_may_be_missing"]
    there: list[str] = []
    done: list[str] = []
    findings: list[dict[str, Any]] = []
    changed = False
    api: Optional[Api] = None
    try:
        orbs, sources = from_registry(module)
        api = Api(options["server"], options["token"], options["server_ca_certificate"], tries=1 if may_be_missing else 3, inside=True)
        step = look(api, orbs, sources)
        there = [orb.ref for orb in (*step.there, *step.other)]
        remedy = "To use the one of the bundle, publish it by hand as another version, or take it out of circleci_orbs."
        findings += [finding(2, problem, "the source of the bundle, or none", remedy) for problem in step.problems]
        if module.check_mode:
            done = [orb.ref for orb in step.missing]
            changed = bool(done)
        else:
            publish(api, step, sources, done)
    except OrbError as error:
        if may_be_missing and isinstance(error, Unreachable):
            changed = True
        else:
            findings.append(wrong(error))
    except MirrorError as error:
        absent = isinstance(error, NetworkError) or (isinstance(error, RegistryError) and error.status == 404)
        if may_be_missing and absent:
            changed = True
        else:
            findings.append(finding(1, explained(error, options["registry"]), "the orbs of the bundle in the private registry", "Run install again."))
    result: dict[str, Any] = {
        # A namespace that was made before a refusal is a change too.
        "changed": changed or (api is not None and api.changes > 0),
        "state": "failed" if findings else "published",
        "published": done,
        "findings": findings,
        "diff": {
            "before": "".join(f"{ref}\n" for ref in sorted(there)),
            "after": "".join(f"{ref}\n" for ref in sorted([*there, *done])),
            "before_header": f"orbs of {options['server']}",
            "after_header": f"orbs of {options['server']}",
        },
    }
    if findings and options["fail"]:
        module.fail_json(msg=" ".join(f"{item['found']}. {item['remedy']}" for item in findings), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
