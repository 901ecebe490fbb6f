# SPDX-License-Identifier: GPL-3.0-or-later
"""What a refusal of a registry says to whoever runs a playbook."""

from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import RegistryError
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror_module import explained

ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com/circleci-server"


@pytest.mark.parametrize(("registry", "status", "hint"), [
    (ECR, 404, "set circleci_cloud_registry_create_on_push and run cloud_prepare"),
    (ECR, 403, "Check circleci_registry_username and circleci_registry_password"),
    ("registry.example.com:5000", 404, ""),
])  # fmt: skip
def test_the_site_variables_that_decide_are_named(registry: str, status: int, hint: str) -> None:
    found = explained(RegistryError("the registry answers.", status), registry)
    assert found.startswith("the registry answers.") and hint in found and ("create_on_push" in found) == ("create_on_push" in hint)
