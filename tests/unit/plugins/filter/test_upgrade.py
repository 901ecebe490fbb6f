# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the verbs upgrade and restart."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter.upgrade import (
    relocated_steps,
    restart_workloads,
    upgrade_failure,
    upgrade_plan,
)

INSTALLED = {"version": "4.9.5", "status": "deployed", "kubernetes": "v1.33.0", "mongodb": "4.4.15-debian-10-r8", "vault": False, "machine_service": False}


def test_the_plan_is_plain_data() -> None:
    plan = upgrade_plan(INSTALLED, "4.10.0", "generic", ["mongodb-7.0", "helm-upgrade"])
    assert (plan["path"], plan["needed"], plan["problems"], plan["consent"], plan["gate"]) == (["4.9.5", "4.10.0"], True, [], "", "")
    assert plan["irreversible"] == ["mongodb-7.0", "helm-upgrade"]
    images = relocated_steps(plan["mongodb"], "registry.example.com:5000")
    assert images[0] == {"version": "5.0", "image": "registry.example.com:5000/server-mongodb:5.0.24-debian-11-r20"}


def test_services_are_found_by_every_name_they_have() -> None:
    assert restart_workloads(["frontend"], "4.10.0") == ["frontend"]
    assert restart_workloads(["circleci-postgres", "postgresql"], "4.10.0") == ["postgresql"]
    assert restart_workloads([], "4.10.0") == []


def test_unknown_services_come_all_at_once_with_close_names() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        restart_workloads(["frontent", "moon"], "4.10.0")
    assert "frontent is no service of 4.10.0. Did you mean frontend" in str(caught.value) and "moon is no service" in str(caught.value)
    with pytest.raises(AnsibleFilterError, match="verb install"):
        restart_workloads(["frontend"], "")


POINT = {"id": "p1", "release": "4.9.5"}


@pytest.mark.parametrize(
    ("way", "started", "expected"),
    [
        ({"gone": True, "lines": ["Nothing is lost."], "point": POINT}, {}, "4.9.5 runs again"),
        ({"gone": False, "lines": ["Lost is everything."], "point": POINT}, {}, "circleci_restore_point: p1"),
        ({"msg": "the Kubernetes API cannot be reached."}, {}, "The way back was not gone: the Kubernetes API cannot be reached."),
        ({"skipped": True}, {"code": "kubernetes", "msg": "cannot be reached."}, "was not started again: cannot be reached."),
        ({"skipped": True}, {"scaled": []}, "the application layer is up"),
        ({}, {}, "The verb rollback goes back"),
    ],
)
def test_a_failure_says_where_the_site_stands(way: dict[str, object], started: dict[str, object], expected: str) -> None:
    text = upgrade_failure("frontend is not ready.", way, started)
    assert text.startswith("The upgrade has failed.\nfrontend is not ready.\n") and expected in text
