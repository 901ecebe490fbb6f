#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_preflight
short_description: Check all that a site must bring, collect, then fail once
version_added: 0.1.0
description:
  - Runs on the control host. Checks cluster, registry, object store, databases of others, bundle, upgrade step and support period, and joins what
    other modules found on hosts, in variables and in Secrets.
  - Nothing is changed. All findings are shown as one table, grouped by severity; a problem that is waived by name is shown and does not fail.
  - What cannot be asked is a finding as well. A cluster that does not answer is one, and not a failure of the module.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes (Python library) on the control host; without it the cluster is not asked, which is a finding
options:
  kubeconfig:
    description: Kubeconfig file on the control host. Empty does not ask the cluster and says so.
    type: path
    default: ""
  namespace:
    description: Namespace of the release.
    type: str
    required: true
  release:
    description:
      - Facts of the release from the catalog.
      - Keys C(version), C(kubernetes_min), C(kubernetes_max), C(cluster_users), C(cluster_nodes), C(cluster_cpus), C(cluster_memory_gb),
        C(upgrade_from), C(support_end).
      - With C(platform), from the filter P(onprem.circleci_server.platform_facts#filter), and C(load_balancer) the platform is looked at as well.
    type: dict
    required: true
  brings_storage_class:
    description: Whether this run brings the default StorageClass.
    type: bool
    default: false
  secrets:
    description: Secrets that must exist, as a mapping of name to keys. Empty does not look.
    type: dict
    default: {}
  registry_host:
    description: Private registry, host or host:port.
    type: str
    required: true
  registry_username:
    description: User of the private registry. Empty does not ask the registry and says so.
    type: str
    default: ""
  registry_password:
    description: Password of O(registry_username).
    type: str
    default: ""
  registry_is_ours:
    description: Whether this run sets the registry up, so that it may be absent.
    type: bool
    default: false
  ca_certificate:
    description: PEM of the authority that signed the certificates of registry and object store. Empty uses those of the system.
    type: str
    default: ""
  object_storage_endpoint:
    description: URL of an object store that somebody else runs. Empty does not look.
    type: str
    default: ""
  docker_networks:
    description: Networks that Docker takes on Nomad clients, by host. They are held against those of pods and Services.
    type: dict
    default: {}
  databases:
    description:
      - Databases outside the cluster, as the filter P(onprem.circleci_server.external_databases#filter) gives them. Empty does not look.
      - Each is asked by its own protocol what it is. Only PostgreSQL wants a login for that.
    type: list
    elements: dict
    default: []
  postgresql_password:
    description: Password for the PostgreSQL among O(databases). Empty takes the one of its Secret, where there is one already.
    type: str
    default: ""
  vcs:
    description:
      - GitHub Enterprise, with C(hostname), C(ca_certificate), C(fingerprint), C(proxied), and C(domain) and C(addresses) for the way back of
        webhooks. Empty does not look.
    type: dict
    default: {}
  vcs_token:
    description: Personal access token without scopes that is tried there. Empty does not try one.
    type: str
    default: ""
  bundle_dir:
    description: Folder of the bundle. Empty does not look.
    type: path
    default: ""
  findings:
    description:
      - Findings of M(onprem.circleci_server.host_preflight), M(onprem.circleci_server.check_arguments) and M(onprem.circleci_server.site_secrets).
    type: list
    elements: dict
    default: []
  waivers:
    description: Requirements that the site knowingly does not meet, each with C(name) and C(reason).
    type: list
    elements: dict
    default: []
  fail:
    description: Whether problems fail the task. V(false) only returns them.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Check the site
  onprem.circleci_server.site_preflight:
    kubeconfig: /etc/onprem-circleci/kubeconfig
    namespace: circleci-server
    release:
      version: "4.10.0"
      kubernetes_min: "1.33"
      kubernetes_max: "1.35"
      cluster_users: "<500"
      cluster_nodes: 4
      cluster_cpus: 24
      cluster_memory_gb: 90
      upgrade_from: ["4.9.5"]
      support_end: "2027-05-13"
    registry_host: registry.example.com:5000
    registry_username: site
    registry_password: "{{ vault_registry_password }}"
"""

RETURN = r"""
findings:
  description: One mapping for each check with C(check), C(level), C(subject), C(found), C(expected), C(source), C(remedy) and C(reason).
  returned: always
  type: list
  elements: dict
summary:
  description: All problems by name, empty when there are none.
  returned: always
  type: str
"""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient, core, get_or_none
from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror_module import contents
from ..module_utils.preflight import site
from ..module_utils.preflight.databases import check_databases
from ..module_utils.preflight.docker_networks import check_against_cluster
from ..module_utils.preflight.findings import Finding, apply_waivers, brief, summary
from ..module_utils.preflight.vcs import check_vcs
from ..module_utils.secrets.store import decode


def ask_cluster(kubeconfig: str, namespace: str, *, secrets: bool, whole_cluster: bool) -> site.ClusterFacts:
    """What the cluster says, or why it says nothing."""
    if not kubeconfig:
        return site.ClusterFacts(error="not set")
    try:
        api = KubernetesClient(kubeconfig, timeout=15)
    except KubeError as error:
        return site.ClusterFacts(error=error.message)
    return site.read_cluster(api, namespace, secrets=secrets, whole_cluster=whole_cluster)


def read_bundle(folder: str, release: str) -> Finding:
    """Open the bundle: manifest, sizes and order of its parts, and what release it is of; the digests are checked while it is loaded."""
    if not Path(folder).is_dir():
        return site.check_bundle(folder, present=False, error="")
    try:
        charts = contents(Bundle.open([Path(folder)]))["charts"]
    except MirrorError as error:
        return site.check_bundle(folder, present=True, error=str(error))
    return site.check_bundle_release(folder, sorted(charts.values()), release)


def passwords(options: dict[str, Any], *, reachable: bool) -> dict[str, str]:
    """Passwords by the variable of their database: the given one, else that of the Secret that the verb secrets has made."""
    found = {"circleci_postgresql": options["postgresql_password"]}
    for database in options["databases"]:
        if found.get(database["variable"]) or not database["secret"] or not reachable:
            continue
        try:
            secret = get_or_none(KubernetesClient(options["kubeconfig"], timeout=15), core(options["namespace"], "secrets", database["secret"])) or {}
        except KubeError:
            continue
        kept = [str((secret.get("data") or {}).get(key) or "") for key in database["secret_keys"]]
        try:
            found[database["variable"]] = decode(next(filter(None, kept), ""), "plain")
        except ValueError:
            continue  # the verification of Secrets tells it
    return found


def collect(options: dict[str, Any]) -> list[Finding]:
    """Run every check of the site."""
    whole_cluster = bool(site.why_whole_cluster(options["release"], brings_storage_class=options["brings_storage_class"]))
    facts = ask_cluster(options["kubeconfig"], options["namespace"], secrets=bool(options["secrets"]), whole_cluster=whole_cluster)
    findings = site.check_cluster(
        facts, options["release"], brings_storage_class=options["brings_storage_class"], kubeconfig=options["kubeconfig"], namespace=options["namespace"]
    )
    findings += check_against_cluster(options["docker_networks"], facts.networks)
    if options["secrets"]:
        findings += site.check_secrets(facts, options["secrets"], options["namespace"])
    known = options["registry_username"] and options["registry_password"]
    login = options["registry_host"], options["registry_username"], options["registry_password"], options["ca_certificate"]
    answer = site.ask_registry(*login) if known else None
    findings.append(site.check_registry(answer, options["registry_host"], ours_to_make=options["registry_is_ours"]))
    if options["object_storage_endpoint"]:
        store = site.ask_object_storage(options["object_storage_endpoint"], options["ca_certificate"])
        findings.append(site.check_object_storage(store, options["object_storage_endpoint"]))
    findings += check_databases(options["databases"], passwords(options, reachable=not facts.error), options["ca_certificate"])
    if options["vcs"]:
        findings += check_vcs({**options["vcs"], "token": options["vcs_token"]})
    if not facts.error:
        findings.append(site.check_step(facts, options["release"]))
    findings.append(site.check_support(options["release"], datetime.now(timezone.utc).date()))
    if options["bundle_dir"]:
        findings.append(read_bundle(options["bundle_dir"], str(options["release"]["version"])))
    findings += [Finding(**finding) for finding in options["findings"]]
    return apply_waivers(findings, options["waivers"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "default": ""},
            "namespace": {"type": "str", "required": True},
            "release": {"type": "dict", "required": True},
            "brings_storage_class": {"type": "bool", "default": False},
            "secrets": {"type": "dict", "default": {}, "no_log": False},
            "registry_host": {"type": "str", "required": True},
            "registry_username": {"type": "str", "default": ""},
            "registry_password": {"type": "str", "default": "", "no_log": True},
            "registry_is_ours": {"type": "bool", "default": False},
            "ca_certificate": {"type": "str", "default": ""},
            "object_storage_endpoint": {"type": "str", "default": ""},
            "docker_networks": {"type": "dict", "default": {}},
            "databases": {"type": "list", "elements": "dict", "default": []},
            "postgresql_password": {"type": "str", "default": "", "no_log": True},
            "vcs": {"type": "dict", "default": {}},
            "vcs_token": {"type": "str", "default": "", "no_log": True},
            "bundle_dir": {"type": "path", "default": ""},
            "findings": {"type": "list", "elements": "dict", "default": []},
            "waivers": {"type": "list", "elements": "dict", "default": []},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    findings = collect(module.params)
    result = {"changed": False, "findings": [finding.as_dict() for finding in findings], "summary": brief(findings)}
    if module.params["fail"] and result["summary"]:
        module.fail_json(msg=summary(findings), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
