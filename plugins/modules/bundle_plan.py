#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_plan
short_description: Work out what a bundle holds and pin it in a lock file
version_added: 0.1.0
description:
  - Pulls the chart, renders it as configured and with everything enabled, and finds all images that it needs, each with the reason why.
    Adds images and files of the catalog, packages of an operating system with all they depend on, and what you ask for.
  - Every tag is resolved to a digest and every file to a checksum. All problems are told at once and the lock stays as it was.
  - As long as neither these options nor the files behind them change, the lock is kept and no request is made, unless O(refresh=true).
requirements:
  - PyYAML on the connected host
  - Helm 3.16 or later on the connected host, or C(helm) among O(files)
  - apt on the connected host when O(packages) for Debian or Ubuntu are given
  - pip for the Python of the connected host when O(python) is given
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  lock:
    description: Lock file to write. Commit it to keep what a bundle was made of.
    type: path
    required: true
  work_dir:
    description: Folder for what is needed while planning.
    type: path
    required: true
  chart:
    description: Chart as an image reference, C(host/path:version).
    type: str
    required: true
  values:
    description: Helm values of the site. They decide which images are needed and are stored nowhere.
    type: dict
    default: {}
  images:
    description: Images that no chart names, each with C(ref), C(why), C(path) and C(needed). One that is not needed may be missing at its registry.
    type: list
    elements: dict
    default: []
  known_repositories:
    description: Repositories that are known to be images, so that they are found in texts.
    type: list
    elements: str
    default: []
  relocation_keys:
    description: Values keys that only move images to another registry. They are left out of O(values) here.
    type: list
    elements: str
    default: []
  extra_images:
    description: Images of your own.
    type: list
    elements: str
    default: []
  private_registries:
    description: Registries of sites. An image that lies there cannot be fetched on the connected side and is refused.
    type: list
    elements: str
    default: []
  platforms:
    description: Platforms of images.
    type: list
    elements: str
    default: [linux/amd64]
  files:
    description:
      - Files by URL, each with C(name), C(version) or C(version_from) (a name in C(images.yaml) of the chart), C(url), C(filename), C(mode), C(why),
        and C(sha256) or C(checksum_url).
    type: list
    elements: dict
    default: []
  local_files:
    description: Files of the connected host, each with C(name), C(version), C(path) and, if wanted, C(filename), C(mode) and C(why).
    type: list
    elements: dict
    default: []
  packages:
    description:
      - Operating system packages, each with C(target) like V(debian-12-amd64) or V(rocky-9-x86_64), C(names), and C(sources) as the text of an apt source
        file or of a C(.repo) file of dnf.
    type: list
    elements: dict
    default: []
  packages_tag:
    description: Tag of the package artifacts in the private registry.
    type: str
    default: "1"
  python:
    description: Versions of Python, like V(3.11), whose wheels of O(python_requirements) travel with all they depend on, for Linux on amd64.
    type: list
    elements: str
    default: []
  python_requirements:
    description: What a control host needs from the Python package index, as pip takes it.
    type: list
    elements: str
    default: []
  orbs:
    description:
      - Exact versions of orbs, like V(circleci/node@5.2.0). Their sources travel with those of all orbs that they import, so that a server that reaches
        nobody can publish them.
    type: list
    elements: str
    default: []
  orbs_host:
    description: URL of the CircleCI whose registry has the orbs. It is asked without a token, so only public orbs are found.
    type: str
    default: https://circleci.com
  helm:
    description: The helm program.
    type: str
    default: helm
  refresh:
    description: Resolve everything anew instead of keeping what the lock pins.
    type: bool
    default: false
  credentials:
    description: Logins by registry host, each with C(username) and C(password). Registries that are not here are asked without one, or as docker is logged in.
    type: dict
    default: {}
  ca_certificate:
    description: PEM of a further authority to trust, for instance of a proxy that opens TLS.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Works everything out and writes neither lock nor indexes.
  diff_mode:
    support: full
    description: Names with their digests.
"""

EXAMPLES = r"""
- name: Plan the bundle
  onprem.circleci_server.bundle_plan:
    lock: /var/lib/onprem-circleci/bundle/bundle.lock
    work_dir: /var/lib/onprem-circleci/bundle/work
    chart: cciserver.azurecr.io/circleci-server:4.10.0
    credentials:
      cciserver.azurecr.io: {username: me, password: "{{ circleci_vendor_registry_password }}"}
    extra_images: [cimg/go:1.24]
"""

RETURN = r"""
lock:
  description: The lock, as it is written.
  returned: always
  type: dict
images:
  description: Number of references.
  returned: always
  type: int
reused:
  description: Whether the lock was kept because nothing that it follows from has changed.
  returned: always
  type: bool
left_out:
  description: What looked like an image, or is listed and not needed, and is at no registry; each with C(ref), C(reason), C(file), C(path) and C(rule).
  returned: always
  type: list
  elements: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.bundle_plan import CLOUD, PlanError, PlanOptions, Web, make_plan, names, write_plan
from ..module_utils.mirror.access import Access
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror_module import forget_payload, logins, named_difference, vendor_explained
from ..module_utils.orbs import Api, OrbError

LIST_OF_DICT = {"type": "list", "elements": "dict", "default": []}
LIST_OF_TEXT = {"type": "list", "elements": "str", "default": []}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "work_dir": {"type": "path", "required": True},
            "chart": {"type": "str", "required": True},
            # Values may hold secrets of the site: they are shown nowhere.
            "values": {"type": "dict", "default": {}, "no_log": True},
            "images": LIST_OF_DICT,
            "known_repositories": LIST_OF_TEXT,
            "relocation_keys": {**LIST_OF_TEXT, "no_log": False},
            "extra_images": LIST_OF_TEXT,
            "private_registries": LIST_OF_TEXT,
            "platforms": {"type": "list", "elements": "str", "default": ["linux/amd64"]},
            "files": LIST_OF_DICT,
            "local_files": LIST_OF_DICT,
            "packages": LIST_OF_DICT,
            "packages_tag": {"type": "str", "default": "1"},
            "python": LIST_OF_TEXT,
            "python_requirements": LIST_OF_TEXT,
            "orbs": LIST_OF_TEXT,
            "orbs_host": {"type": "str", "default": CLOUD},
            "helm": {"type": "str", "default": "helm"},
            "refresh": {"type": "bool", "default": False},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "ca_certificate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    forget_payload(module)
    given = module.params
    try:
        web = Web(ca_certificate=given["ca_certificate"])
        orb_api = Api(given["orbs_host"], ca_certificate=given["ca_certificate"])
    except (OrbError, ValueError):
        module.fail_json(msg="ca_certificate: holds no certificate in PEM form")
    options = PlanOptions(
        orb_api=orb_api,
        web=web,
        lock=Path(given["lock"]),
        work_dir=Path(given["work_dir"]),
        access=Access(credentials=logins(given["credentials"]), ca_data=given["ca_certificate"] or None),
        **{
            key: given[key]
            for key in (
                "chart", "values", "images", "known_repositories", "relocation_keys", "extra_images", "private_registries", "platforms", "files",
                "local_files", "packages", "packages_tag", "python", "python_requirements", "orbs", "helm", "refresh", "ca_certificate",
            )
        },
    )  # fmt: skip
    try:
        plan = make_plan(options)
        if not module.check_mode:
            write_plan(options, plan)
    except PlanError as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        module.fail_json(msg=vendor_explained(error))
    except OSError as error:
        module.fail_json(msg=f"work_dir: {error.filename or given['work_dir']}: {error.strerror or error}")
    for warning in plan.warnings:
        module.warn(warning)
    module.exit_json(
        changed=plan.changed,
        diff=named_difference(names(plan.before), names(plan.lock), given["lock"]),
        lock=plan.lock,
        images=len(plan.lock["refs"]),
        reused=plan.reused,
        left_out=plan.left_out,
    )


if __name__ == "__main__":
    main()
