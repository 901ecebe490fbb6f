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
  - A store beside the cluster holds an escrow copy. What the cluster lacks comes back from there, what the cluster has is the truth
    and follows into the store, which is read back and compared.
  - Keysets are written in our own form after the vendor's tool. They and the Tink keyset cannot be replaced later.
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
      - V(prepared) makes them in the store alone, before there is a cluster. V(present) takes them from there later.
      - V(absent) deletes the Secrets of the plan.
    type: str
    choices: [present, prepared, verified, absent]
    default: present
  kubeconfig:
    description: Path of the kubeconfig file on this host. Needed except with O(state=prepared).
    type: path
    default: ''
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
  keysets:
    description:
      - Who makes the keysets of artifacts and job history when they are missing.
      - V(vendor) runs the vendor's image C(server-keysets) from the private registry as a pod for a moment, which needs the rights to make pods and to
        run programs in them, and fails when the registry lacks it.
      - V(own) makes them here, in the form that the vendor's program prints, which was not tried against a running server.
      - V(auto) takes the vendor's program where the registry has it, and says which of both it was.
    type: str
    choices: [auto, vendor, own]
    default: auto
  registry_ca:
    description: Authority of the private registry, as PEM. That of the site when empty.
    type: str
    default: ''
  renew:
    description: Names of certificates that we issued and that are to be issued again.
    type: list
    elements: str
    default: []
  regenerate_lost:
    description:
      - Names of lost Secrets that are to be made anew although data that needs the old ones is still there, or although the store has
        them.
    type: list
    elements: str
    default: []
  replace_kept:
    description:
      - Names of Secrets that data depends on and that the store holds in another form than the cluster. Those of the cluster take
        their place; without their name the task fails, since the kept one may be the only copy that fits.
    type: list
    elements: str
    default: []
  given:
    description:
      - Texts by Secret and key, for an existing site whose secrets are to be taken over, or for secrets that credentials of AWX bring.
        They fill gaps. A Secret that is there is the truth.
    type: dict
    default: {}
  store:
    description: Where an escrow copy is kept.
    type: dict
    default: {}
    suboptions:
      kind:
        description:
          - V(ansible_vault) is a file that Ansible's own library encrypts on the controller.
          - V(hashicorp_vault) is a KV engine of version 2, of HashiCorp Vault or OpenBao, asked from this host.
          - V(variables) says that O(given) holds a copy; it is compared and cannot be written.
        type: str
        choices: [none, ansible_vault, hashicorp_vault, variables]
        default: none
      path:
        description: Full path of the file, or the path below O(store.mount).
        type: str
        default: ''
      location:
        description: Where the file is.
        type: str
        choices: [control_host, controller]
        default: control_host
      password:
        description: Password of the file.
        type: str
        default: ''
      vault_id:
        description: Label of a secret that ansible-playbook was given with C(--vault-id), instead of O(store.password).
        type: str
        default: ''
      url:
        description: URL of HashiCorp Vault, http or https.
        type: str
        default: ''
      mount:
        description: Where the KV engine is mounted.
        type: str
        default: secret
      token:
        description: Token with the rights read, list, create and update below the path.
        type: str
        default: ''
      ca_certificate:
        description: Authority of the URL, as PEM. Those of this host when empty.
        type: str
        default: ''
      namespace:
        description: Namespace of HashiCorp Vault or OpenBao.
        type: str
        default: ''
  kept:
    description: Set by the action plugin. What the file of ansible-vault holds, decrypted, as JSON; a sentence in O(kept_problem) when it cannot be read.
    type: str
    default: ''
  kept_problem:
    description: Set by the action plugin.
    type: str
    default: ''
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

- name: Make them before there is a cluster, in a file that is taken to the site
  onprem.circleci_server.site_secrets:
    state: prepared
    namespace: circleci-server
    release_name: circleci-server
    domain: ci.example.com
    plan: "{{ site_facts | onprem.circleci_server.secret_plan }}"
    license: "{{ circleci_license }}"
    store:
      kind: ansible_vault
      location: controller
      path: /srv/escrow/ci.example.com.yml
      password: "{{ escrow_password }}"

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
keysets:
  description: Who made the keysets that are there, V(vendor), V(own), V(given), or empty where it was not written down.
  returned: success
  type: str
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
      description: One of C(present), C(created), C(restored), C(updated), C(missing), C(wrong) and C(deleted).
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
kept:
  description: What the escrow copy was or would be brought up to date with. Empty when it is the same.
  returned: with a store and a state that makes Secrets
  type: dict
  contains:
    where:
      description: Where the copy is.
      type: str
      returned: always
    added:
      description: Secrets that were not in it.
      type: list
      elements: str
      returned: always
    replaced:
      description: Secrets that were in it in another form.
      type: list
      elements: str
      returned: always
namespace_created:
  description: Whether the namespace was made.
  returned: always
  type: bool
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeApi, KubeError, KubernetesClient
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror.registry import RegistryClient
from ..module_utils.mirror.transport import Patience
from ..module_utils.preflight.findings import OK, PROBLEM, WARNING, Finding
from ..module_utils.secrets.database_roles import PodExec
from ..module_utils.secrets.pki import HAS_CRYPTOGRAPHY, PkiError
from ..module_utils.secrets.store import Keeper, PreparedSecrets, Report, SecretsError, SecretStore, Site, ToolError
from ..module_utils.secrets.stores import (
    GivenVariables,
    HashicorpVault,
    Kept,
    Manifests,
    Store,
    compare,
    keep,
    manifests_of,
)
from ..module_utils.secrets.vendor_tool import VendorTool

SITE_CA = "onprem-circleci-site-ca"
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


STORE_OPTIONS = {
    "kind": {"type": "str", "choices": ["none", "ansible_vault", "hashicorp_vault", "variables"], "default": "none"},
    "path": {"type": "str", "default": ""},
    "location": {"type": "str", "choices": ["control_host", "controller"], "default": "control_host"},
    "password": {"type": "str", "default": "", "no_log": True},
    "vault_id": {"type": "str", "default": ""},
    "url": {"type": "str", "default": ""},
    "mount": {"type": "str", "default": "secret"},
    "token": {"type": "str", "default": "", "no_log": True},
    "ca_certificate": {"type": "str", "default": ""},
    "namespace": {"type": "str", "default": ""},
}


def main() -> None:
    spec: dict[str, dict[str, object]] = {
        "state": {"type": "str", "choices": ["present", "prepared", "verified", "absent"], "default": "present"},
        "kubeconfig": {"type": "path", "default": ""},
        "context": {"type": "str", "default": ""},
        "namespace": {"type": "str", "required": True},
        "release_name": {"type": "str", "required": True},
        "domain": {"type": "str", "required": True},
        "plan": {"type": "dict", "required": True},
        "fail": {"type": "bool", "default": True},
        "renew": {"type": "list", "elements": "str", "default": []},
        "regenerate_lost": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "replace_kept": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "given": {"type": "dict", "default": {}, "no_log": True},
        "store": {"type": "dict", "default": {}, "options": STORE_OPTIONS, "apply_defaults": True, "no_log": False},
        "keysets": {"type": "str", "choices": ["auto", "vendor", "own"], "default": "auto", "no_log": False},
        "registry_ca": {"type": "str", "default": ""},
        "kept": {"type": "str", "default": "", "no_log": True},
        "kept_problem": {"type": "str", "default": ""},
    }
    spec.update({name: {"type": "str", "default": "", "no_log": True} for name in SECRET_INPUTS})
    spec.update({name: {"type": "str", "default": "", "no_log": False} for name in PLAIN_INPUTS})
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    if not HAS_CRYPTOGRAPHY:
        text = "The Python library cryptography is missing on this host: install it."
        tell_only(module, [text])
        module.fail_json(msg=text)
    try:
        result, errors, escrow = carry_out(module)
    except KubeError as error:
        tell_only(module, [error.sentence] if error.status else [])
        module.fail_json(msg=f"Secrets of namespace {params['namespace']}: {error.sentence}", problems=[error.sentence])
    except SecretsError as error:
        tell_only(module, error.problems)
        module.fail_json(msg=str(error), problems=error.problems)
    except ToolError as error:
        text = (
            f"Secret signing-keys cannot be made by the vendor's program: {error}. Mend that, or let this collection make the keysets: "
            "circleci_secrets_keysets: own."
        )
        module.fail_json(msg=text, problems=[text])
    except PkiError as error:
        tell_only(module, [f"A certificate or key {error}."])
        module.fail_json(msg=f"A certificate or key {error}.", problems=[str(error)])
    for text in result["notices"]:
        module.warn(text)
    tell_only(module, errors, verified=not errors, escrow=escrow, **result)
    if errors:
        count = len(errors)
        head = f"{count} problem{'s' if count > 1 else ''} with the Secrets of the site:"
        result.pop("contents", None)
        module.fail_json(msg="\n- ".join([head, *errors]), problems=errors, **result)
    module.exit_json(**result)


def carry_out(module: AnsibleModule) -> tuple[dict[str, Any], list[str], list[Finding]]:
    """The cluster, then the store that follows it. The result, what is wrong, and the state of the escrow copy."""
    params = module.params
    state, kind = params["state"], params["store"]["kind"]
    if state == "prepared" and kind == "none":
        raise SecretsError(["circleci_secrets_store is none: without a cluster a store must keep what is made; allowed is ansible_vault or hashicorp_vault."])
    outside = open_store(params["store"])
    kept, problem = read_kept(outside, params)
    if problem and state != "verified":
        raise SecretsError([problem])
    site = Site(params["namespace"], params["release_name"], params["domain"])
    tool = None
    if state == "prepared":
        store: SecretStore = PreparedSecrets(site, kept or {})
    else:
        api = KubernetesClient(params["kubeconfig"], params["context"])
        store = SecretStore(api, site)
        tool = vendor_tool(params, api, store)
    keeper = Keeper(
        store,
        params["plan"],
        {name: params[name] for name in (*SECRET_INPUTS, *PLAIN_INPUTS)},
        # What is prepared stays in memory: it can be made in check mode too.
        write=state == "prepared" or not module.check_mode,
        renew=params["renew"],
        regenerate_lost=params["regenerate_lost"],
        kept=kept,
        given=params["given"],
        keysets=params["keysets"],
        tool=tool,
    )
    verbs = {"present": keeper.present, "prepared": keeper.present, "verified": keeper.verified, "absent": keeper.absent}
    report = verbs[state]()
    result: dict[str, Any] = {
        "changed": report.changed,
        "secrets": report.secrets,
        "notices": report.warnings,
        "namespace_created": report.namespace_created,
        "keysets": keeper.keysets_origin(),
    }
    escrow: list[Finding] = []
    if state != "absent" and not (report.errors and state != "verified"):
        escrow = follow(module, keeper, report, outside, kept, problem, result)
    before = {entry["name"]: _before(entry) for entry in report.secrets}
    after = {entry["name"]: _after(entry) for entry in report.secrets}
    if result.get("kept"):
        before["escrow copy"] = "as it was"
        after["escrow copy"] = f"in {result['kept']['where']}: {', '.join([*result['kept']['added'], *result['kept']['replaced']])}"
    result["diff"] = {"before": _lines(before), "after": _lines(after)}
    return result, report.errors, escrow


def vendor_tool(params: Mapping[str, Any], api: KubeApi, store: SecretStore) -> Callable[[Mapping[str, Any]], VendorTool]:
    """The vendor's program for keysets, where the private registry has it."""

    def find(item: Mapping[str, Any]) -> Optional[str]:
        authority = "\n".join(filter(None, (params["registry_ca"], store.text(SITE_CA, "ca.crt"))))
        client = RegistryClient(
            str(item["registry"]), params["registry_username"] or None, params["registry_password"] or None, ca_data=authority or None,
            patience=Patience(tries=1),
        )  # fmt: skip
        try:
            return client.head_manifest(str(item["repository"]), str(item["tag"]))
        except MirrorError as error:
            raise ToolError(f"the private registry does not say whether it has it ({error})") from error
        finally:
            client.close()

    return lambda item: VendorTool(api, lambda: PodExec(params["kubeconfig"], params["context"]), params["namespace"], item, find)


def open_store(store: Mapping[str, Any]) -> Optional[Store]:
    """The store that this host can ask itself."""
    if store["kind"] != "hashicorp_vault":
        return None
    lacking = [f"circleci_secrets_store_{name}" for name in ("url", "path", "token") if not store[name]]
    if lacking:
        raise SecretsError([f"{', '.join(lacking)} is empty: circleci_secrets_store hashicorp_vault needs it."])
    if not store["url"].startswith(("http://", "https://")):
        raise SecretsError([f"circleci_secrets_store_url is {store['url']!r}: allowed is a URL with http:// or https://."])
    return HashicorpVault(
        store["url"], store["mount"], store["path"], store["token"], ca=store["ca_certificate"], namespace=store["namespace"]
    )


def read_kept(outside: Optional[Store], params: Mapping[str, Any]) -> tuple[Optional[Manifests], str]:
    """What the store holds, or why it cannot be read."""
    if outside is None:
        return (json.loads(params["kept"]) if params["kept"] else None), params["kept_problem"]
    try:
        return outside.read(), ""
    except SecretsError as error:
        return None, str(error)


def follow(
    module: AnsibleModule, keeper: Keeper, report: Report, outside: Optional[Store], kept: Optional[Manifests], problem: str, result: dict[str, Any]
) -> list[Finding]:
    """Compare the store with the cluster and bring it up to date."""
    params = module.params
    kind, looks = params["store"]["kind"], params["state"] == "verified"
    wanted = manifests_of(keeper.store.objects)
    replace = [*params["replace_kept"], *params["regenerate_lost"]]
    if kind == "none" or problem:
        if kind == "none" and params["state"] == "present":
            report.warnings.append("No escrow copy is kept: name one with circleci_secrets_store (docs/how-to/secrets.md).")
        return [escrow_finding(params, problem or "no escrow copy of keysets and passwords of databases")]
    if kind == "variables":
        wanted = {name: manifest for name, manifest in wanted.items() if name in keeper.once}
        outside = GivenVariables(keeper.given_data(), wanted)
        kept = outside.read()
    found = compare(kept, wanted, keeper.once, replace)
    if module.check_mode and params["state"] == "present":
        foresee(found, report, kept or {})
    if looks or kind == "variables":
        lacking = sorted([*found.changed, *(name for name in keeper.once if any(f"Secret {name} " in text for text in found.problems))])
        if lacking:
            if params["state"] == "prepared":
                GivenVariables({}, {}).write({}, lacking)
            if not looks:
                report.warnings.append(f"{where_kept(params['store'])} does not hold {', '.join(lacking)} as the cluster has it.")
        return [escrow_finding(params, f"a copy without {', '.join(lacking)} as the cluster has it" if lacking else "")]
    if found.problems:
        report.errors += found.problems
        return []
    if outside is not None:
        keep(outside, kept, wanted, once=keeper.once, replace=replace, write=not module.check_mode)
    elif found.changed and not module.check_mode:
        result["contents"] = json.dumps({**(kept or {}), **wanted}, sort_keys=True)
        result["contents_digest"] = hashlib.sha256(result["contents"].encode()).hexdigest()
    result["kept"] = kept_result(params["store"], found)
    result["changed"] = bool(found.changed) if params["state"] == "prepared" else result["changed"] or bool(found.changed)
    return []


def foresee(found: Kept, report: Report, kept: Manifests) -> None:
    """What the run would write that the cluster does not have yet."""
    found.added += [entry["name"] for entry in report.secrets if entry["state"] == "created" and entry["name"] not in kept]
    again = [entry["name"] for entry in report.secrets if entry["state"] in ("created", "updated") and entry["name"] in kept]
    found.replaced += [name for name in again if name not in found.replaced]
    found.added.sort()


def kept_result(store: Mapping[str, Any], found: Kept) -> dict[str, Any]:
    return {"where": where_kept(store), "added": found.added, "replaced": found.replaced} if found.changed else {}


def where_kept(store: Mapping[str, Any]) -> str:
    if store["kind"] == "variables":
        return "circleci_secrets_given"
    if store["kind"] == "hashicorp_vault":
        return f"{store['url']}, {store['mount']}/{store['path']}"
    return f"{store['path']} on the {store['location'].replace('_', ' ')}"


def escrow_finding(params: Mapping[str, Any], found: str) -> Finding:
    """The state of the escrow copy, for those who only look."""
    subject = "circleci_secrets_store" if params["store"]["kind"] == "none" else where_kept(params["store"])
    return Finding(
        "escrow",
        WARNING if found else OK,
        subject,
        found.rstrip(".") or "all Secrets as the cluster has them",
        "a copy of all Secrets that outlives the cluster" if found else "as found",
        "docs/how-to/secrets.md",
        "Choose a store (circleci_secrets_store), then run the verb secrets." if found else "",
    )


def tell_only(module: AnsibleModule, problems: list[str], *, verified: bool = False, escrow: Sequence[Finding] = (), **result: object) -> None:
    """End here without a failure when only a look was asked for."""
    if module.params["state"] != "verified" or module.params["fail"]:
        return
    subject = f"namespace {module.params['namespace']}, verb secrets"
    findings = [
        Finding("secrets", PROBLEM, subject, text, "all Secrets of the release in the form it wants", "plan of the filter secret_plan") for text in problems
    ]
    if verified:
        findings.append(Finding("secrets", OK, subject, "all Secrets of the release", "as found", "plan of the filter secret_plan"))
    findings += escrow
    module.exit_json(
        **{"changed": False, **result}, problems=problems, findings=[finding.as_dict() for finding in findings], verified=verified
    )


def _before(entry: dict[str, object]) -> str:
    states = {"created": "absent", "restored": "absent", "updated": "as it was", "missing": "absent"}
    return states.get(str(entry["state"]), "present")


def _after(entry: dict[str, object]) -> str:
    keys = ", ".join(entry["keys"])  # type: ignore[arg-type]
    states = {
        "created": f"present with {keys}",
        "restored": f"present with {keys}, {entry['detail']}",
        "updated": f"{keys}: {entry['detail']}",
        "deleted": "absent",
        "missing": "absent",
    }
    return states.get(str(entry["state"]), "present")


def _lines(states: dict[str, str]) -> str:
    return "".join(f"{name}: {state}\n" for name, state in sorted(states.items()))


if __name__ == "__main__":
    main()
