#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_secrets
short_description: Make the Kubernetes Secrets of a CircleCI Server once, and check them ever after
version_added: 0.1.0
description:
  - Carries out the plan of filter P(onprem.circleci_server.secret_plan#filter) in one namespace. What is missing is made offline
    and once; what is there is the truth, it is checked and never made again.
  - The operator's own inputs (licence, logins, certificates) are the exception. Their Secrets follow the input.
  - Keysets are written in our own form after the vendor's tool. They and the Tink keyset cannot be replaced later. Keep an
    escrow copy of them.
  - All problems are reported at once. No value is ever shown, neither in the result nor in the diff.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes (Python library)
  - cryptography (Python library)
options:
  state:
    description:
      - V(present) makes what is missing and brings the operator's inputs up to date.
      - V(verified) makes nothing. It fails with a list of what is missing or wrong.
      - V(absent) deletes the Secrets of the plan.
    type: str
    choices: [present, verified, absent]
    default: present
  kubeconfig:
    description: Path of the kubeconfig file on this host.
    type: path
    required: true
  context:
    description: Context of the kubeconfig file. The current one when empty.
    type: str
    default: ''
  namespace:
    description: Namespace of CircleCI Server. It is made when it is missing and O(state=present).
    type: str
    required: true
  release_name:
    description: Name of the Helm release that will adopt some of the Secrets.
    type: str
    required: true
  domain:
    description: Domain of the site. A namespace that belongs to another site is refused.
    type: str
    required: true
  plan:
    description: What filter P(onprem.circleci_server.secret_plan#filter) returned. It holds no secret.
    type: dict
    required: true
  fail:
    description:
      - With O(state=verified), whether what is missing or wrong fails the task. V(false) only returns it, and a cluster that does not
        answer is nothing to tell here.
    type: bool
    default: true
  renew:
    description: Names of certificates that we issued and that are to be issued again.
    type: list
    elements: str
    default: []
  regenerate_lost:
    description: Names of lost Secrets that are to be made anew although data that needs the old ones is still there.
    type: list
    elements: str
    default: []
  license:
    description: Licence as CircleCI hands it out.
    type: str
    default: ''
  registry_username:
    description: User of the private registry.
    type: str
    default: ''
  registry_password:
    description: Password of the user of the private registry.
    type: str
    default: ''
  github_client_id:
    description: Client id of the OAuth application.
    type: str
    default: ''
  github_client_secret:
    description: Client secret of the OAuth application.
    type: str
    default: ''
  github_default_token:
    description: Personal token without scopes, needed with GitHub Enterprise.
    type: str
    default: ''
  object_storage_access_key:
    description: Access key of the object store.
    type: str
    default: ''
  object_storage_secret_key:
    description: Secret key of the object store.
    type: str
    default: ''
  object_storage_gcs_service_account:
    description: Service account of Google Cloud Storage, as JSON.
    type: str
    default: ''
  postgres_password:
    description: Password of an external PostgreSQL.
    type: str
    default: ''
  mongodb_root_password:
    description: Root password of an external MongoDB.
    type: str
    default: ''
  mongodb_password:
    description: User password of an external MongoDB.
    type: str
    default: ''
  rabbitmq_password:
    description: Password of an external RabbitMQ.
    type: str
    default: ''
  rabbitmq_erlang_cookie:
    description: Erlang cookie of an external RabbitMQ.
    type: str
    default: ''
  vault_token:
    description: Token of an external Vault.
    type: str
    default: ''
  keyset_signing:
    description: Signing keyset of an existing installation or of the vendor's tool. Made when empty.
    type: str
    default: ''
  keyset_encryption:
    description: Encryption keyset, as O(keyset_signing).
    type: str
    default: ''
  tink_keyset:
    description: Tink keyset of an existing installation. Made when empty.
    type: str
    default: ''
  json_web_keys:
    description: JSON Web Key Set for OIDC tokens. Made when empty.
    type: str
    default: ''
  tls_certificate:
    description: Certificate chain for the domain and its C(app.) name, as PEM. Issued by the site's authority when empty.
    type: str
    default: ''
  tls_private_key:
    description: Key of O(tls_certificate), as PEM.
    type: str
    default: ''
  registry_tls_certificate:
    description: Certificate chain of the private registry, as PEM. Issued by the site's authority when empty.
    type: str
    default: ''
  registry_tls_private_key:
    description: Key of O(registry_tls_certificate), as PEM.
    type: str
    default: ''
  object_storage_tls_certificate:
    description: Certificate chain of the object store, as PEM. Issued by the site's authority when empty.
    type: str
    default: ''
  object_storage_tls_private_key:
    description: Key of O(object_storage_tls_certificate), as PEM.
    type: str
    default: ''
  site_ca_certificate:
    description: Authority that issues the site's certificates, as PEM. Made when empty.
    type: str
    default: ''
  site_ca_private_key:
    description: Key of O(site_ca_certificate), as PEM.
    type: str
    default: ''
  nomad_ca_certificate:
    description: Authority that issues Nomad's certificates, as PEM. Made when empty.
    type: str
    default: ''
  nomad_ca_private_key:
    description: Key of O(nomad_ca_certificate), as PEM.
    type: str
    default: ''
attributes:
  check_mode:
    support: full
    description: Tells which Secrets would be made or changed, on an empty cluster too.
  diff_mode:
    support: full
    description: Shows names, keys and states, never values.
"""

EXAMPLES = r"""
- name: Make the Secrets of the site
  onprem.circleci_server.site_secrets:
    kubeconfig: /etc/kubernetes/admin.conf
    namespace: circleci-server
    release_name: circleci-server
    domain: ci.example.com
    plan: "{{ site_facts | onprem.circleci_server.secret_plan }}"
    license: "{{ circleci_license }}"
    registry_username: mirror
    registry_password: "{{ circleci_registry_password }}"

- name: Refuse to go on when a Secret is missing
  onprem.circleci_server.site_secrets:
    state: verified
    kubeconfig: /etc/kubernetes/admin.conf
    namespace: circleci-server
    release_name: circleci-server
    domain: ci.example.com
    plan: "{{ site_facts | onprem.circleci_server.secret_plan }}"
"""

RETURN = r"""
secrets:
  description: One entry per Secret of the plan.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the Secret.
      type: str
      returned: always
    state:
      description: One of C(present), C(created), C(updated), C(missing), C(wrong) and C(deleted).
      type: str
      returned: always
    keys:
      description: Names of its keys.
      type: list
      elements: str
      returned: always
    detail:
      description: What it is for, or what is wrong with it.
      type: str
      returned: always
  sample: [{name: session-cookie, state: created, keys: [session-cookie-key], detail: encrypts session cookies}]
problems:
  description: Everything that was found wrong.
  returned: when something is wrong
  type: list
  elements: str
findings:
  description: The same problems as M(onprem.circleci_server.site_preflight) takes them.
  returned: when O(fail=false)
  type: list
  elements: dict
verified:
  description: Whether all Secrets were seen to be there and right.
  returned: when O(fail=false)
  type: bool
notices:
  description: What deserves attention soon, such as certificates that expire.
  returned: always
  type: list
  elements: str
namespace_created:
  description: Whether the namespace was made.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.preflight.findings import OK, PROBLEM, Finding
from ..module_utils.secrets.pki import HAS_CRYPTOGRAPHY, PkiError
from ..module_utils.secrets.store import Keeper, SecretsError, SecretStore, Site

SECRET_INPUTS = (
    "license",
    "registry_password",
    "github_client_secret",
    "github_default_token",
    "object_storage_secret_key",
    "object_storage_gcs_service_account",
    "postgres_password",
    "mongodb_root_password",
    "mongodb_password",
    "rabbitmq_password",
    "rabbitmq_erlang_cookie",
    "vault_token",
    "keyset_signing",
    "keyset_encryption",
    "tink_keyset",
    "json_web_keys",
    "tls_private_key",
    "registry_tls_private_key",
    "object_storage_tls_private_key",
    "site_ca_private_key",
    "nomad_ca_private_key",
)
PLAIN_INPUTS = (
    "registry_username",
    "github_client_id",
    "object_storage_access_key",
    "tls_certificate",
    "registry_tls_certificate",
    "object_storage_tls_certificate",
    "site_ca_certificate",
    "nomad_ca_certificate",
)


def main() -> None:
    spec: dict[str, dict[str, object]] = {
        "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
        "kubeconfig": {"type": "path", "required": True},
        "context": {"type": "str", "default": ""},
        "namespace": {"type": "str", "required": True},
        "release_name": {"type": "str", "required": True},
        "domain": {"type": "str", "required": True},
        "plan": {"type": "dict", "required": True},
        "fail": {"type": "bool", "default": True},
        "renew": {"type": "list", "elements": "str", "default": []},
        "regenerate_lost": {"type": "list", "elements": "str", "default": [], "no_log": False},
    }
    spec.update({name: {"type": "str", "default": "", "no_log": True} for name in SECRET_INPUTS})
    spec.update({name: {"type": "str", "default": "", "no_log": False} for name in PLAIN_INPUTS})
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    if not HAS_CRYPTOGRAPHY:
        text = "The Python library cryptography is missing on this host: install it."
        tell_only(module, [text])
        module.fail_json(msg=text)
    inputs = {name: params[name] for name in (*SECRET_INPUTS, *PLAIN_INPUTS)}
    try:
        api = KubernetesClient(params["kubeconfig"], params["context"])
        store = SecretStore(api, Site(params["namespace"], params["release_name"], params["domain"]))
        keeper = Keeper(
            store,
            params["plan"],
            inputs,
            write=not module.check_mode,
            renew=params["renew"],
            regenerate_lost=params["regenerate_lost"],
        )
        verbs = {"present": keeper.present, "verified": keeper.verified, "absent": keeper.absent}
        report = verbs[params["state"]]()
    except KubeError as error:
        tell_only(module, [error.sentence] if error.status else [])
        module.fail_json(msg=f"Secrets of namespace {params['namespace']}: {error.sentence}", problems=[error.sentence])
    except SecretsError as error:
        tell_only(module, error.problems)
        module.fail_json(msg=str(error), problems=error.problems)
    except PkiError as error:
        tell_only(module, [f"A certificate or key {error}."])
        module.fail_json(msg=f"A certificate or key {error}.", problems=[str(error)])
    before = {entry["name"]: _before(entry) for entry in report.secrets}
    after = {entry["name"]: _after(entry) for entry in report.secrets}
    result = {
        "changed": report.changed,
        "secrets": report.secrets,
        "notices": report.warnings,
        "namespace_created": report.namespace_created,
        "diff": {"before": _lines(before), "after": _lines(after)},
    }
    for text in report.warnings:
        module.warn(text)
    tell_only(module, report.errors, verified=not report.errors, **result)
    if report.errors:
        count = len(report.errors)
        head = f"{count} problem{'s' if count > 1 else ''} with the Secrets of the site:"
        module.fail_json(msg="\n- ".join([head, *report.errors]), problems=report.errors, **result)
    module.exit_json(**result)


def tell_only(module: AnsibleModule, problems: list[str], *, verified: bool = False, **result: object) -> None:
    """End here without a failure when only a look was asked for."""
    if module.params["state"] != "verified" or module.params["fail"]:
        return
    subject = f"namespace {module.params['namespace']}, verb secrets"
    findings = [
        Finding("secrets", PROBLEM, subject, text, "all Secrets of the release in the form it wants", "plan of the filter secret_plan") for text in problems
    ]
    if verified:
        findings.append(Finding("secrets", OK, subject, "all Secrets of the release", "as found", "plan of the filter secret_plan"))
    module.exit_json(
        **{"changed": False, **result}, problems=problems, findings=[finding.as_dict() for finding in findings], verified=verified
    )


def _before(entry: dict[str, object]) -> str:
    states = {"created": "absent", "updated": "as it was", "missing": "absent"}
    return states.get(str(entry["state"]), "present")


def _after(entry: dict[str, object]) -> str:
    keys = ", ".join(entry["keys"])  # type: ignore[arg-type]
    states = {
        "created": f"present with {keys}",
        "updated": f"{keys}: {entry['detail']}",
        "deleted": "absent",
        "missing": "absent",
    }
    return states.get(str(entry["state"]), "present")


def _lines(states: dict[str, str]) -> str:
    return "".join(f"{name}: {state}\n" for name, state in sorted(states.items()))


if __name__ == "__main__":
    main()
