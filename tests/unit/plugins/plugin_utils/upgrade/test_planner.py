# SPDX-License-Identifier: GPL-3.0-or-later
"""The way between releases, from the catalog's own data."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.upgrade import Situation, UpgradePlan, plan_upgrade

YES = ("mongodb-4.4", "mongodb-7.0", "helm-upgrade")


def plan(installed: str, target: str, **more: Any) -> UpgradePlan:
    return plan_upgrade(Situation(target=target, installed=installed, accepted=YES, **{"kubernetes": "v1.33.1", **more}))


@pytest.mark.parametrize(
    ("installed", "target", "path"),
    [
        ("4.6.6", "4.10.0", ("4.6.6", "4.7.15", "4.8.12", "4.9.5", "4.10.0")),
        ("4.3.9", "4.10.0", ("4.3.9", "4.7.15", "4.8.12", "4.9.5", "4.10.0")),
        ("4.3.2", "4.8.12", ("4.3.2", "4.3.9", "4.7.15", "4.8.12")),
        ("4.9.3", "4.10.0", ("4.9.3", "4.9.5", "4.10.0")),
    ],
)
def test_skips_are_refused_with_the_whole_way(installed: str, target: str, path: tuple[str, ...]) -> None:
    found = plan(installed, target)
    assert found.path == path
    (problem,) = [text for text in found.problems if "in one step" in text]
    assert " → ".join(path) in problem and f"Set circleci_release to {path[1]}" in problem


@pytest.mark.parametrize(
    ("installed", "target"), [("4.3.9", "4.7.15"), ("4.6.6", "4.7.15"), ("4.7.15", "4.8.12"), ("4.8.12", "4.9.5"), ("4.9.5", "4.10.0"), ("4.9.3", "4.9.5")]
)
def test_single_steps_are_allowed(installed: str, target: str) -> None:
    found = plan(installed, target, mongodb="3.6.22-debian-9-r38" if target < "4.9" else "4.4.15-debian-10-r8")
    assert (found.problems, found.gate, found.consent, found.needed) == ((), "", "", True)


def test_mongodb_goes_by_every_version_between() -> None:
    assert [step.version for step in plan("4.9.5", "4.10.0", mongodb="4.4.15-debian-10-r8").mongodb] == ["5.0", "6.0", "7.0"]
    assert [step.tag for step in plan("4.9.5", "4.10.0", mongodb="6.0.13-x").mongodb] == ["7.0.15-debian-12-r2"], "a stopped run goes on"
    assert [step.version for step in plan("4.8.12", "4.9.5", mongodb="3.6.22-debian-9-r38").mongodb] == ["4.0", "4.2", "4.4"]
    assert plan("4.9.5", "4.10.0", mongodb="").mongodb == (), "an external MongoDB is its owner's"
    assert plan("4.7.15", "4.8.12", mongodb="3.6.22-debian-9-r38").mongodb == ()


@pytest.mark.parametrize(
    ("installed", "target", "names"),
    [
        ("4.8.12", "4.9.5", ("lock-job-provider-internalapi",)),
        ("4.3.9", "4.7.15", ("approval-job-provider-service", "authentication-service")),
        ("4.9.5", "4.10.0", ()),
    ],
)
def test_secrets_that_are_new_are_named_with_the_verb_that_makes_them(installed: str, target: str, names: tuple[str, ...]) -> None:
    found = plan(installed, target)
    assert found.new_secrets == names
    assert (f"New Secrets: {', '.join(names)}. Run the verb secrets" in "\n".join(found.lines())) == bool(names)


def test_irreversible_steps_want_a_yes_by_name() -> None:
    situation = Situation(target="4.10.0", installed="4.9.5", kubernetes="1.33.0", mongodb="4.4.15", accepted=("helm-upgrade",))
    problem = plan_upgrade(situation).consent
    assert "mongodb-7.0 (MongoDB 4.4 to 7.0)" in problem and "[mongodb-7.0, helm-upgrade]" in problem
    assert "helm-upgrade (" not in problem, "what was said yes to is not asked again"
    assert "cannot be undone" in "\n".join(plan_upgrade(situation).lines())


def test_known_bad_releases_are_refused() -> None:
    assert "4.7.7" in plan("4.6.6", "4.7.7").problems[0]
    assert plan("4.7.7", "4.7.15").problems == (), "away from it is allowed"
    on_gke = plan("4.4.7", "4.5.5", platform="gke", kubernetes="1.30")
    assert any("not to be taken to 4.5.5" in text for text in on_gke.problems)


def test_the_cluster_is_upgraded_between_two_releases() -> None:
    assert "from v1.31.4 to 1.33, which 4.7.15 and 4.8.12 both allow" in plan("4.7.15", "4.8.12", kubernetes="v1.31.4").gate
    assert plan("4.7.15", "4.8.12", kubernetes="v1.33.4+k3s1").gate == ""
    assert "No Kubernetes version" in plan("4.3.9", "4.7.15", kubernetes="v1.29.1").gate
    assert plan("4.3.9", "4.7.15", kubernetes="v1.31.1").gate == "", "what the target allows may go on"


def test_down_is_no_upgrade() -> None:
    (problem,) = plan("4.10.0", "4.9.5").problems
    assert "rollback" in problem


def test_nothing_installed_and_unknown_releases() -> None:
    assert "verb install" in plan("", "4.10.0").problems[0]
    assert "4.99.0" in plan("4.9.5", "4.99.0").problems[0]
    assert plan("5.0.0", "4.10.0").problems


def test_vault_must_go_before_4_9() -> None:
    assert any("vault-to-tink" in text for text in plan("4.8.12", "4.9.5", vault=True, mongodb="4.4.1").problems)
    assert plan("4.7.15", "4.8.12", vault=True).problems == ()


def test_a_release_that_failed_is_mended_first() -> None:
    assert any("is failed" in text for text in plan("4.9.5", "4.10.0", status="failed").problems)


def test_clients_come_first_from_4_7_on() -> None:
    assert plan("4.9.5", "4.10.0").clients_first
    assert not plan("4.2.7", "4.3.9", kubernetes="1.28").clients_first


def test_the_finished_upgrade_plans_nothing() -> None:
    found = plan("4.10.0", "4.10.0")
    assert (found.needed, found.steps, found.problems) == (False, (), ())
    assert "nothing to upgrade" in found.lines()[0]


PG12, PG14 = "12.16.37-7629bfd", "14.22.4094-4922444"


def test_postgresql_goes_with_the_next_release_when_the_site_wants_it() -> None:
    found = plan("4.9.5", "4.10.0", postgresql=PG12, postgresql_version="14")
    assert [(step.version, step.repository, step.tag) for step in found.postgresql] == [("14", "cciserver.azurecr.io/server-postgres", PG14)]
    assert "postgres-14" in {step.id for step in found.irreversible} and "postgres-14 (PostgreSQL 12 to 14)" in found.consent
    assert "PostgreSQL goes to 14." in found.lines()
    for left in ({}, {"postgresql": PG12}, {"postgresql": PG12, "postgresql_version": "12"}, {"postgresql": PG14, "postgresql_version": "14"}):
        assert plan("4.9.5", "4.10.0", **left).postgresql == ()
    asked = {step.id: step.applies for step in plan("4.9.5", "4.10.0", postgresql=PG12).steps}
    done = {step.id: step.applies for step in plan("4.9.5", "4.10.0", postgresql=PG14, postgresql_version="14").steps}
    assert (asked["postgres-14"], done["postgres-14"]) == ("ask", "no")


@pytest.mark.parametrize(("release", "step"), [("4.9.5", "postgres-14-option"), ("4.10.0", "postgres-14")])
def test_postgresql_goes_without_another_release_too(release: str, step: str) -> None:
    found = plan(release, release, postgresql=PG12, postgresql_version="14")
    assert (found.needed, found.path, [planned.id for planned in found.irreversible]) == (True, (release,), [step])
    assert found.lines()[0] == f"PostgreSQL of CircleCI Server {release}" and step in found.consent and "helm-upgrade" not in found.consent
    assert not plan(release, release, postgresql=PG14, postgresql_version="14").needed
    assert plan(release, release, postgresql=PG14, postgresql_version="14", postgresql_unfinished="20260102T030405Z-4.9.5").needed, "half of it is not done"


@pytest.mark.parametrize(
    ("installed", "target", "more", "expected"),
    [
        ("4.8.12", "4.9.5", {"postgresql": PG12, "postgresql_version": "14"}, "4.8.12 works with 12 only. Leave it empty for this step; when 4.9.5 runs"),
        ("4.9.5", "4.10.0", {"postgresql": PG14, "postgresql_version": "12"}, 'do not open with 12. Set it to "14"'),
        ("4.10.0", "4.10.0", {"postgresql": PG12, "postgresql_version": "new"}, "is 'new': allowed is a major version such as \"14\", or nothing"),
        ("4.10.0", "4.10.0", {"postgresql": PG12, "postgresql_version": "16"}, "knows no image of it for 4.10.0. Leave it empty"),
    ],
)
def test_versions_of_postgresql_that_cannot_be(installed: str, target: str, more: dict[str, Any], expected: str) -> None:
    (problem,) = [text for text in plan(installed, target, **more).problems if text.startswith("circleci_postgresql_version")]
    assert expected in problem
