#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: database_roles
short_description: Compare passwords of PostgreSQL's roles with the Secrets of their services, and mend what differs
version_added: 0.1.0
description:
  - Each service has a Secret with the key C(postgres-app-password) and a role in the database. Where they drift apart the service cannot
    log in. This looks at the verifiers that PostgreSQL keeps, in its pod, as its superuser, and can set those that differ.
  - No password of a service is sent to the database, and none stands in an argument list.
  - An external PostgreSQL, or one that does not run, is told and not looked at.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes (Python library)
options:
  state:
    description: V(verified) only looks. V(present) gives roles the passwords of their Secrets, all of them or none.
    type: str
    choices: [verified, present]
    default: verified
  kubeconfig:
    description: Path of the kubeconfig file on this host.
    type: path
    required: true
  context:
    description: Context of the kubeconfig file. The current one when empty.
    type: str
    default: ''
  namespace:
    description: Namespace of CircleCI Server.
    type: str
    required: true
  roles:
    description: Names of roles by Secret, as filter P(onprem.circleci_server.secret_plan#filter) returns them in C(database_roles).
    type: dict
    required: true
  superuser:
    description: C(secret) and C(key) of the superuser's password.
    type: dict
    required: true
  fail:
    description: With O(state=verified), whether a difference fails the task. V(false) only returns it.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Names the roles that would be changed.
  diff_mode:
    support: full
    description: Shows names and states, never a password or a verifier.
"""

EXAMPLES = r"""
- name: Mend roles whose passwords drifted
  onprem.circleci_server.database_roles:
    state: present
    kubeconfig: /etc/kubernetes/admin.conf
    namespace: circleci-server
    roles: {policy-service: policyservice_app_rw}
    superuser: {secret: postgresql, key: postgres-password}
"""

RETURN = r"""
roles:
  description: One entry per role that was looked at.
  returned: always
  type: list
  elements: dict
  sample: [{secret: policy-service, role: policyservice_app_rw, state: differs}]
not_looked_at:
  description: Why the database was not looked at, empty when it was.
  returned: always
  type: str
findings:
  description: What was found, as M(onprem.circleci_server.site_preflight) takes it.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.preflight.findings import OK, PROBLEM, WARNING, Finding
from ..module_utils.secrets.database_roles import (
    DatabaseError,
    PodExec,
    Verdict,
    compare,
    drifted,
    find_database,
    mend,
    read_logins,
)

SOURCE = "verifiers in pg_authid"
SAID = {
    "same": "the password of the Secret",
    "differs": "another password than that of the Secret",
    "no_password": "no password",
    "no_login": "a role that may not log in",
    "no_role": "no such role (a service that does not run yet has none)",
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["verified", "present"], "default": "verified"},
            "kubeconfig": {"type": "path", "required": True},
            "context": {"type": "str", "default": ""},
            "namespace": {"type": "str", "required": True},
            "roles": {"type": "dict", "required": True},
            "superuser": {"type": "dict", "required": True, "no_log": False},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    looks = params["state"] == "verified"
    try:
        api = KubernetesClient(params["kubeconfig"], params["context"])
        superuser = (params["superuser"]["secret"], params["superuser"]["key"])
        database = find_database(api, PodExec(params["kubeconfig"], params["context"]), params["namespace"], superuser)
        logins = read_logins(api, params["namespace"], params["roles"])
        before = compare(database, logins)
        after = before if looks or module.check_mode else mend(database, logins, before)
    except (DatabaseError, KubeError) as error:
        text = error.sentence if isinstance(error, KubeError) else str(error)
        if looks:
            refused = isinstance(error, KubeError) and error.status == 403
            told = Finding("database_roles", WARNING, f"namespace {params['namespace']}", text, "the right to use exec in the pod of PostgreSQL", SOURCE)
            module.exit_json(changed=False, roles=[], not_looked_at=text, findings=[told.as_dict()] if refused else [])
        module.fail_json(msg=f"The roles of the database cannot be mended: {text}.", roles=[], not_looked_at=text, findings=[])
    wrong = drifted(before)
    mended = [Verdict(one.secret, one.role, "same") if one in wrong else one for one in before]
    result = {
        "changed": bool(wrong) and not looks,
        "roles": [{"secret": one.secret, "role": one.role, "state": one.state} for one in after],
        "not_looked_at": "",
        "findings": findings(after),
        "diff": {"before": lines(before), "after": lines(before if looks else mended)},
    }
    if looks and wrong and params["fail"]:
        listing = "\n".join(f"- {one.role}: found {SAID[one.state]} {one.secret}." for one in wrong)
        head = "Roles of the database differ from their Secrets. Set circleci_secrets_mend_database_roles and run the verb secrets:"
        module.fail_json(msg=f"{head}\n{listing}", **result)
    module.exit_json(**result)


def findings(verdicts: list[Verdict]) -> list[dict[str, str]]:
    """One for each role that is wrong, one for all that are right."""
    wrong = drifted(verdicts)
    found = [
        Finding(
            "database_roles", PROBLEM, f"role {one.role}, Secret {one.secret}", SAID[one.state], SAID["same"], SOURCE,
            "Run the verb secrets with circleci_secrets_mend_database_roles, then restart the pods of the service.",
        )
        for one in wrong
    ]  # fmt: skip
    same = [one for one in verdicts if one.state == "same"]
    if same and not wrong:
        found.append(Finding("database_roles", OK, f"{len(same)} roles of PostgreSQL", SAID["same"], "as found", SOURCE))
    return [one.as_dict() for one in found]


def lines(verdicts: list[Verdict]) -> str:
    return "".join(f"{one.role}: {SAID[one.state]}\n" for one in verdicts)


if __name__ == "__main__":
    main()
