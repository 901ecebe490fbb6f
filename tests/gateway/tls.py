# SPDX-License-Identifier: GPL-3.0-or-later
"""Run on the bastion: the same gateway once more, with TLS, in a namespace of its own, by the engine of the role; then with a new certificate; then no more.

Options come by standard input, since keys are among them. What was seen is printed as JSON.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubernetesClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.kubernetes_api.addon import Installer, Login, Wish
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.plugins.modules.cluster_addon import secret_of
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.object_storage import workload

NAMESPACE, NAME, ADDON = "gateway-with-tls", "onprem-circleci-object-storage", "gateway-with-tls"


def main() -> int:
    given: dict[str, Any] = json.loads(sys.stdin.read())
    api = KubernetesClient("/etc/onprem-circleci/kubeconfig")
    installer = Installer(api, timeout=300.0)
    login = Login(given["registry"], given["username"], given["password"])
    authorities = [pki.new_authority(f"authority {number}", bits=2048) for number in range(2)]
    pairs = [pki.issue(authority, pki.Subject(given["name"], (given["name"],)), bits=2048) for authority in authorities]

    def bring(number: int) -> bool:
        pair = pairs[number]
        options = {**given["options"], "namespace": NAMESPACE, "tls": True, "certificate": pair.certificate, "private_key": pair.key}
        made = workload(given["kind"], options)
        secrets = [secret_of(item) for item in made["secrets"]]
        digests = {options["image"]: given["digest"]}
        wish = Wish(ADDON, "", [options["image"]], login, objects=made["objects"], secrets=secrets, digests=digests)
        return bool(installer.ensure(wish).changed)

    def read(number: int) -> str:
        service = api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}")
        port = int(service["spec"]["ports"][0]["nodePort"])
        keys = Credentials(given["options"]["access_key"], given["options"]["secret_key"], "us-east-1")
        client = S3Client(f"https://{given['name']}", keys, ca_data=authorities[number].certificate, address=given["node"], port=port)
        said = ""
        try:
            # The Service leads to new pods a moment after they are ready.
            for _try in range(30):
                try:
                    return base64.b64encode(client.get("circleci-agents", ".onprem-circleci-site").body).decode()
                except S3Error as error:
                    said = str(error)
                    if "cannot be reached" not in said:
                        break
                    time.sleep(1)
            return said
        finally:
            client.close()

    seen = {"first": [bring(0), bring(0)], "read": read(0), "second": [bring(1), bring(1)], "reread": read(1), "old": read(0)}
    seen["gone"] = installer.remove(ADDON)
    sys.stdout.write(json.dumps(seen) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
