# SPDX-License-Identifier: GPL-3.0-or-later
"""The path of releases, hop by hop, up to the one that test_upgrade.py begins with. Each hop does what its printed plan has said."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox import verbs
from sandbox.standin.service import schema

from .conftest import NAMESPACE, PATH, POINTS, Site, carry, changes, extra, probed, said, shown

FIRST = PATH[0]
# What a bundle brings is there before CircleCI goes down, and the databases come last before the switch.
ORDER = ("bundle_load", "object_storage_agents", "nomad_client", "restore_point", "mongodb_upgrade", "helm_release")


@dataclass(frozen=True)
class Hop:
    """One run of the verb: where the site stood, what was said, what was done."""

    site: Site
    start: str
    target: str
    printed: list[str]
    points: list[str]
    result: verbs.Result

    def done(self) -> list[str]:
        """Modules that changed something, or the role of a Nomad client that was run, in the order of their first time."""
        found: list[str] = []
        for event in self.result.events:
            if event.get("_event") != "v2_runner_on_ok":
                continue
            for told in event.get("hosts", {}).values():
                action = str(told.get("action", "")).rpartition(".")[2]
                client = "nomad_client : Configure and run" in event["task"]["name"]
                found += ["nomad_client"] if client else [action] if told.get("changed") and action in ORDER else []
        return list(dict.fromkeys(found))

    def mongodb(self) -> list[str]:
        """The versions of the printed plan."""
        found = re.search(r"MongoDB goes by ([\d., ]+)\.", "\n".join(self.printed))
        return found[1].split(", ") if found else []

    # -- what can be seen of a step -----------------------------------------------------------------------------------------

    def from_last_patch(self) -> bool:
        return [version for _revision, _status, version in self.site.history()][-2:] == [self.start, self.target]

    def restore_point(self) -> bool:
        (new,) = [name for name in self.site.points() if name not in self.points]
        record = json.loads(verbs.read("bastion", f"{POINTS}/{new}/restore-point.json"))
        return (record["release"], record["target"]) == (self.start, self.target)

    def bundle(self) -> bool:
        return {"bundle_load", "object_storage_agents"} <= set(self.done())

    def clients(self) -> bool:
        return self.done().index("nomad_client") < self.done().index("helm_release")

    def stores(self) -> bool:
        (made,) = [told["steps"] for _host, told in self.result.results("mongodb_upgrade")]
        version = self.site.mongo("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})")
        return bool(made) and made == self.mongodb() and f'"{made[-1]}"' in version

    def nomad_replaced(self) -> bool:
        return {("nomad1", "Bring Nomad from the private registry"), ("nomad2", "Bring Nomad from the private registry")} <= {
            (host, task.rpartition(" : ")[2]) for host, task in self.result.changes()
        }

    def values(self) -> Any:
        done = self.site.on("bastion", "helm", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "-n", NAMESPACE, "get", "values", "circleci-server", "-o", "json")
        return json.loads(done.stdout)

    def without_config_path(self) -> bool:
        return "config_path" not in json.dumps(self.values())

    def pause_image(self) -> bool:
        return str(self.values()["docker_provisioner"]["reaperContainerRepository"]).startswith("registry.site.example:5000")

    def switched(self) -> bool:
        return self.site.release() == (self.target, "deployed") and self.target in self.site.page()


SEEN: dict[str, Callable[[Hop], bool]] = {
    "last-patch": Hop.from_last_patch,
    "backup": Hop.restore_point,
    "bundle": Hop.bundle,
    "nomad-clients-first": Hop.clients,
    "custom-config": Hop.without_config_path,
    "nomad-upstream": Hop.nomad_replaced,
    "pause-image": Hop.pause_image,
    "mongodb-4.4": Hop.stores,
    "helm-upgrade": Hop.switched,
}


def plan_of(result: verbs.Result) -> list[str]:
    """The lines of the printed plan."""
    (lines,) = [told["msg"] for _host, told in result.results("debug") if "Upgrade of CircleCI Server" in str(told.get("msg", ""))]
    return list(lines)


def test_the_first_release_of_the_path_is_installed(site: Site, carried: None) -> None:
    for release in PATH:
        carry(site, release)
    made = site.run("secrets", given=extra(FIRST), name="secrets-first")
    assert made.code == 0, said(made)
    probed(site, site.run("install", given=extra(FIRST), name="install-first"))
    assert site.release() == (FIRST, "deployed") and FIRST in site.page()
    site.sql(f"INSERT INTO standin_records ({schema.column(FIRST)}, written_by) VALUES ('carried', 'path')")
    site.mongo("db.getSiblingDB('circle_ghe').standin.replaceOne({_id:'path'},{value:'carried'},{upsert:true})")


def test_a_release_further_away_is_refused_with_the_way_to_it(site: Site) -> None:
    before = site.history()
    result = site.run("upgrade", given=extra(PATH[-1], circleci_upgrade_irreversible=["mongodb-7.0", "helm-upgrade"]), name="upgrade-skip")
    assert result.code == 2 and result.changed == {}
    assert f"the way is {' → '.join(PATH)}" in said(result) and f"Set circleci_release to {PATH[1]}" in said(result), said(result)
    assert site.history() == before and site.points() == []


@pytest.mark.parametrize(("start", "target"), list(itertools.pairwise(PATH[:-1])))
def test_a_hop_does_what_its_plan_has_said(site: Site, start: str, target: str) -> None:
    before = site.points()
    brought = site.run("secrets", given=extra(target), name=f"secrets-{target}")
    assert brought.code == 0, said(brought)
    check = site.run("upgrade", given=extra(target), arguments=["--check", "--diff"], name=f"upgrade-{target}-check")
    assert check.code == 0, said(check)
    assert site.release() == (start, "deployed") and site.points() == before
    printed = plan_of(check)
    assert printed[0].endswith(f"{start} → {target}"), shown(check)
    assert bool(brought.changed) == any(line.startswith("New Secrets: ") for line in printed), brought.changes()
    # Steps that a person does, or that nobody can decide from the site alone, are printed with a mark.
    steps = {line[2:].partition(":")[0]: line for line in printed if line.startswith("- ")}
    ours = [name for name, line in steps.items() if "by you" not in line and "only if" not in line]
    assert sorted(set(ours) - set(SEEN)) == [], "a step that this test has no eye for"
    yes = [name for name in ours if "cannot be undone" in steps[name]]
    result = site.run("upgrade", given=extra(target, circleci_upgrade_irreversible=yes), name=f"upgrade-{target}")
    probed(site, result)
    assert plan_of(result) == printed
    hop = Hop(site, start, target, printed, before, result)
    assert [name for name in ours if not SEEN[name](hop)] == []
    assert bool(hop.mongodb()) == ("mongodb_upgrade" in hop.done())
    assert hop.done() == [name for name in ORDER if name in hop.done()], "not in the order of the documentation"
    made, predicted = changes(result), changes(check)
    assert made - predicted == set(), "changed without having been predicted"
    assert predicted - made == set(), "predicted, and never changed"
    assert all(site.running().values())
    assert site.sql(f"SELECT {schema.column(target)} FROM standin_records WHERE written_by = 'path'") == ["carried"]
    assert "carried" in site.mongo("db.getSiblingDB('circle_ghe').standin.findOne({_id:'path'})")
    again = site.run("upgrade", given=extra(target), name=f"upgrade-{target}-again")
    assert (again.code, again.changed) == (0, {}), (said(again), again.changes())
