# SPDX-License-Identifier: GPL-3.0-or-later
"""4.9.5 to 4.10.0 on the sandbox, failures on the way, and both ways back. The order of the tests is the story."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sandbox import tripwire, verbs

from .conftest import NAMESPACE, NEW, OLD, POINTS, STATE, Site, changes, extra, probed, said, shown

YES: dict[str, Any] = {"circleci_upgrade_irreversible": ["mongodb-7.0", "helm-upgrade"]}

told: dict[str, Any] = {}


def new_points(site: Site) -> list[str]:
    """Restore points that these tests have brought about."""
    return [point for point in site.points() if point not in told["points"]]


# --- before -----------------------------------------------------------------------------------------------------------


def test_older_release_is_installed_and_has_something_to_lose(site: Site, carried: None) -> None:
    made = site.run("secrets", given=extra(OLD))
    assert made.code == 0, said(made)
    result = site.run("install", given=extra(OLD), name="install-old")
    probed(site, result)
    assert site.release() == (OLD, "deployed")
    told["points"] = site.points()
    site.sql("INSERT INTO standin_records (document, written_by) VALUES ('before', 'test')")
    site.mongo("db.getSiblingDB('circle_ghe').standin.replaceOne({_id:'before'},{value:'kept'},{upsert:true})")
    site.artifact("artifact of a job before the upgrade")
    assert OLD in site.page()


def test_the_vendors_program_makes_keysets_where_the_registry_has_it(site: Site) -> None:
    # A namespace of its own has another authority than the one that signed the certificate of the registry.
    authority = json.loads(site.kubectl("-n", NAMESPACE, "get", "secret", "onprem-circleci-site-ca", "-o", "json"))["data"]["ca.crt"]
    pem = base64.b64decode(authority).decode()
    given = extra(OLD, circleci_namespace="keysets", circleci_secrets_keysets="vendor", circleci_ca_certificate=pem)
    try:
        check = site.run("secrets", given=given, arguments=["--check", "--diff"], name="secrets-vendor-check")
        assert check.code == 0 and check.changed, said(check)
        result = site.run("secrets", given=given, name="secrets-vendor")
        assert result.code == 0, said(result)
        secret = json.loads(site.kubectl("-n", "keysets", "get", "secret", "signing-keys", "-o", "json"))
        assert secret["metadata"]["annotations"]["onprem.circleci-server/keysets"] == "vendor"
        texts = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        assert "SIGN_AND_VERIFY" in texts["signing-key"] and "DECRYPT_AND_ENCRYPT" in texts["encryption-key"]
        assert site.kubectl("-n", "keysets", "get", "pods", "-o", "name") == ""
        events = site.kubectl("-n", "keysets", "get", "events", "-o", "json")
        assert "registry.site.example:5000/circleci/server-keysets@sha256:" in events
        again = site.run("secrets", given=given, name="secrets-vendor-again")
        assert (again.code, again.changed) == (0, {}), said(again)
    finally:
        site.kubectl("delete", "namespace", "keysets", "--ignore-not-found")
    own = json.loads(site.kubectl("-n", NAMESPACE, "get", "secret", "signing-keys", "-o", "json"))
    assert own["metadata"]["annotations"]["onprem.circleci-server/keysets"] == "own", "the registry was empty when they were made"
    report = json.loads(verbs.read("bastion", f"{STATE}/reports/report.json"))
    assert report["keysets"] == "own" and "tls.privateKey" in {row["key"] for row in report["secrets_in_values"]}


def test_install_does_not_change_the_release(site: Site) -> None:
    result = site.run("install", given=extra(NEW), name="install-new")
    assert result.code == 2
    assert "verb upgrade" in said(result) and f"{OLD} is installed" in said(result), said(result)
    assert site.release() == (OLD, "deployed")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (extra(NEW), ["mongodb-7.0", "helm-upgrade", "circleci_upgrade_irreversible"]),
        (extra("4.8.12", **YES), ["cannot go back", "rollback"]),
        (extra(NEW, circleci_release="4.7.7", **YES), ["4.7.7"]),
    ],
    ids=["no-yes", "down", "known-bad"],
)
def test_upgrades_that_must_not_be_are_refused_before_anything_changes(site: Site, given: dict[str, Any], expected: list[str]) -> None:
    before = site.history()
    result = site.run("upgrade", given=given, name="upgrade-refused")
    assert result.code == 2 and result.changed == {}
    assert [word for word in expected if word not in said(result)] == [], said(result)
    assert site.history() == before and new_points(site) == []


def test_an_image_that_is_missing_and_another_chart_than_the_one_compared_are_found_while_circleci_runs(site: Site) -> None:
    before, pods = site.history(), site.running()
    compared = {"name": "circleci-server", "version": NEW, "digest": "sha256:" + "0" * 64, "stand_in": True}
    overlay = json.dumps({"format": "onprem.circleci_server/catalog-overlay/1", "release": NEW, "chart": compared, "sections": {}})
    assert site.on("bastion", "sh", "-c", "cat > /root/other-chart.overlay.json", stdin=overlay.encode()).returncode == 0
    given = extra(NEW, {"kong.image.tag": "9.9.9-nowhere"}, circleci_catalog_overlay="/root/other-chart.overlay.json", **YES)
    result = site.run("upgrade", given=given, name="upgrade-image-missing")
    assert result.code == 2
    assert "9.9.9-nowhere" in said(result), said(result)
    assert f"the catalog was compared with has {compared['digest']}" in said(result) and "verb chart_check" in said(result), said(result)
    assert site.history() == before and new_points(site) == [] and site.running() == pods


def test_the_plan_is_printed_and_check_mode_changes_nothing(site: Site) -> None:
    before, pods = site.history(), site.running()
    result = site.run("upgrade", given=extra(NEW), arguments=["--check", "--diff"], name="upgrade-check")
    assert result.code == 0, said(result)
    for expected in (f"{OLD} → {NEW}", "mongodb-7.0", "cannot be undone", "MongoDB goes by 5.0, 6.0, 7.0", "reality-check"):
        assert expected in shown(result), expected
    assert site.history() == before and new_points(site) == [] and site.running() == pods


# --- strangers --------------------------------------------------------------------------------------------------------


def test_foreign_release_of_the_same_name_is_refused(site: Site) -> None:
    script = """
set -eu
rm -rf /root/foreign && mkdir -p /root/foreign/templates
printf 'apiVersion: v2\\nname: somebody-elses\\nversion: 1.0.0\\n' > /root/foreign/Chart.yaml
printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: theirs}\\n' > /root/foreign/templates/one.yaml
helm --kubeconfig /etc/onprem-circleci/kubeconfig -n foreign install circleci-server /root/foreign --create-namespace
"""
    done = site.on("bastion", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    try:
        for verb, given in (("restart", {}), ("restore_point", {}), ("rollback", {"circleci_rollback_confirmed": True})):
            result = site.run(verb, given={"circleci_namespace": "foreign", **given}, name=f"foreign-{verb}")
            assert result.code == 2
            assert "somebody-elses" in said(result) and "circleci_release_name" in said(result), said(result)
        assert "theirs" in site.kubectl("-n", "foreign", "get", "configmaps", "-o", "name")
    finally:
        site.kubectl("delete", "namespace", "foreign")


def test_a_release_of_another_site_is_refused(site: Site) -> None:
    result = site.run("scale", given={"circleci_domain": "other.example", "circleci_application_layer": "stopped"}, name="another-site")
    assert result.code == 2
    assert "ci.site.example" in said(result) and "other.example" in said(result), said(result)
    assert all(site.running().values())


def test_rights_in_the_namespace_alone_are_enough_to_restart(site: Site) -> None:
    site.kubectl("-n", NAMESPACE, "create", "serviceaccount", "only-here")
    site.kubectl("-n", NAMESPACE, "create", "rolebinding", "only-here", "--clusterrole=admin", f"--serviceaccount={NAMESPACE}:only-here")
    token = site.kubectl("-n", NAMESPACE, "create", "token", "only-here").strip()
    script = """
set -eu
umask 077
sed -e 's/client-certificate-data:.*//; s/client-key-data:.*//; s/client-certificate:.*//; s/client-key:.*//' /etc/onprem-circleci/kubeconfig > /root/only-here
kubectl --kubeconfig /root/only-here config set-credentials only-here --token="$(cat)" >/dev/null
kubectl --kubeconfig /root/only-here config set-context --current --user=only-here >/dev/null
"""
    done = site.on("bastion", "sh", "-c", script, stdin=token.encode())
    assert done.returncode == 0, done.stderr
    try:
        before = site.uids("web-ui")
        given = {"circleci_kubeconfig": "/root/only-here", "circleci_restart_services": ["web-ui"]}
        result = site.run("restart", given=given, name="restart-only-here")
        assert result.code == 0, said(result)
        assert before and not before & site.uids("web-ui")
        refused = site.run("upgrade", given=extra(NEW, circleci_kubeconfig="/root/only-here", **YES), name="upgrade-only-here")
        assert refused.code == 2
        assert "lacks a right" in said(refused), said(refused)
        assert new_points(site) == []
    finally:
        site.kubectl("-n", NAMESPACE, "delete", "rolebinding/only-here", "serviceaccount/only-here")
        site.on("bastion", "rm", "-f", "/root/only-here")


# --- restarts and scaling -----------------------------------------------------------------------------------------------


def test_unknown_services_are_refused_with_close_names(site: Site) -> None:
    result = site.run("restart", given={"circleci_restart_services": ["frontent", "moon"]}, name="restart-unknown")
    assert result.code == 2
    assert "frontent is no service of 4.9.5" in said(result) and "Did you mean frontend" in said(result) and "moon" in said(result), said(result)


def test_the_application_layer_goes_down_and_comes_up(site: Site) -> None:
    before = site.running()
    down = {"circleci_application_layer": "stopped"}
    check = site.run("scale", given=down, arguments=["--check", "--diff"], name="scale-check")
    assert check.code == 0 and check.changed and site.running() == before
    result = site.run("scale", given=down, name="scale-down")
    assert result.code == 0 and changes(result) == changes(check), said(result)
    assert site.running() == {}
    assert site.sql("SELECT 1") == ["1"], "the databases go on"
    assert site.run("scale", given=down, name="scale-down-again").changed == {}
    reported = site.run("report", given=extra(site.release()[0]), name="report-stopped")
    assert reported.code == 0, said(reported)
    report = json.loads(verbs.read("bastion", f"{STATE}/reports/report.json"))
    (api,) = [item for item in report["services"] if item["name"] == "api-service"]
    assert (api["state"], api["detail"]) == ("down", "scaled to 0") and api["impact"] == "Large parts of the UI, contexts among them, stop working."
    assert api["impact"] in verbs.read("bastion", f"{STATE}/reports/report.html").decode()
    assert any(warning["text"].startswith("api-service is down (scaled to 0). Large parts") for warning in report["warnings"]), report["warnings"]
    up = site.run("scale", given={"circleci_application_layer": "started"}, name="scale-up")
    assert up.code == 0 and up.changed, said(up)
    assert site.running() == before
    again = site.run("scale", given={"circleci_application_layer": "started"}, name="scale-up-again")
    assert (again.code, again.changed) == (0, {})


# --- an image that cannot be pulled, before anything is migrated --------------------------------------------------------


def test_an_image_that_cannot_be_pulled_before_the_migration_ends_where_it_began(site: Site) -> None:
    # Everything was proved; then the node loses the way to the registry, and has no image of the newer release yet.
    pods = site.running()
    with site.cut_off_at_the_restore_point("node1", "10.93.0.11", 5000):
        result = site.run("upgrade", given=extra(NEW, **YES), name="upgrade-no-pull")
    message = said(result)
    assert result.code == 2
    for expected in ("MongoDB 5.0 did not start", "ImagePull", "nothing is lost", f"{OLD} runs again"):
        assert expected in message, message
    assert site.release() == (OLD, "deployed") and site.running() == pods and OLD in site.page()
    assert '"4.4"' in site.mongo("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})")
    assert site.sql("SELECT document FROM standin_records WHERE written_by = 'test'") == ["before"]
    assert len(new_points(site)) == 1


# --- a failure after the migration, and the restore ---------------------------------------------------------------------


def test_a_failure_after_the_migration_stops_and_tells_what_a_restore_would_lose(site: Site) -> None:
    # One service asks for more than the node has; the others start and migrate their databases.
    given = extra(NEW, {"frontend.resources.requests.cpu": "64", "frontend.resources.limits.cpu": "64"}, circleci_release_schedule_grace=150, **YES)
    result = site.run("upgrade", given=given, name="upgrade-fails-late")
    assert result.code == 2
    message = said(result)
    told["point"] = new_points(site)[-1]
    for expected in ("frontend", "cannot be scheduled", told["point"], "Lost is everything that happened in CircleCI since", "circleci_rollback_confirmed"):
        assert expected in message, message
    assert site.release()[0] == NEW and site.running() == {}
    assert site.sql("SELECT record FROM standin_records WHERE written_by = 'test'") == ["before"], "the column has its new name"
    assert '"7.0"' in site.mongo("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})")


def test_a_restore_point_is_private_and_whole(site: Site) -> None:
    folder = f"{POINTS}/{told['point']}"
    record = json.loads(verbs.read("bastion", f"{folder}/restore-point.json"))
    assert (record["release"], record["target"]) == (OLD, NEW) and "postgresql/domain.dump" in record["files"]
    modes = site.on("bastion", "find", folder, "-printf", "%m %p\\n").stdout.split("\n")
    assert [line for line in modes if line and line.split()[0] not in ("600", "700")] == []
    sums = "".join(f"{entry['sha256']}  {folder}/{name}\n" for name, entry in record["files"].items())
    assert site.on("bastion", "sha256sum", "--check", "--quiet", stdin=sums.encode()).returncode == 0
    assert verbs.read("bastion", f"{folder}/postgresql/domain.dump").startswith(b"PGDMP")


def test_going_back_asks_first(site: Site) -> None:
    site.sql("INSERT INTO standin_records (record, written_by) VALUES ('after', 'test')")
    site.mongo("db.getSiblingDB('circle_ghe').standin.replaceOne({_id:'after'},{value:'lost'},{upsert:true})")
    asked = site.run("rollback", name="rollback-asked")
    assert asked.code == 2
    assert "Lost is everything" in said(asked) and "circleci_rollback_confirmed: true" in said(asked), said(asked)
    check = site.run("rollback", arguments=["--check", "--diff"], name="rollback-check")
    assert check.code == 0 and check.changed and "Only a restore leads back" in shown(check), said(check)
    assert site.release()[0] == NEW


def test_a_damaged_restore_point_is_refused(site: Site) -> None:
    folder = f"{POINTS}/{told['point']}"
    site.on("bastion", "sh", "-c", f"cp -p {folder}/mongodb.archive.gz /root/kept && echo x >> {folder}/mongodb.archive.gz")
    result = site.run("rollback", given={"circleci_rollback_confirmed": True}, name="rollback-damaged")
    site.on("bastion", "mv", "/root/kept", f"{folder}/mongodb.archive.gz")
    assert result.code == 2 and "mongodb.archive.gz has changed" in said(result), said(result)
    assert site.release()[0] == NEW


def test_the_restore_brings_back_what_was_there_and_not_what_came_after(site: Site) -> None:
    result = site.run("rollback", given={"circleci_rollback_confirmed": True}, name="rollback")
    assert result.code == 0, said(result)
    assert site.release() == (OLD, "deployed")
    assert site.sql("SELECT document FROM standin_records WHERE written_by = 'test'") == ["before"]
    assert "kept" in site.mongo("db.getSiblingDB('circle_ghe').standin.findOne({_id:'before'})")
    assert site.mongo("db.getSiblingDB('circle_ghe').standin.findOne({_id:'after'})") == "null"
    assert '"4.4"' in site.mongo("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})")
    assert OLD in site.page() and site.artifact() == "artifact of a job before the upgrade"
    again = site.run("rollback", given={"circleci_rollback_confirmed": True}, name="rollback-again")
    assert (again.code, again.changed) == (0, {}), said(again)


def test_install_finds_the_older_release_in_order(site: Site) -> None:
    result = site.run("install", given=extra(OLD), name="install-old-again")
    probed(site, result)
    again = site.run("install", given=extra(OLD), name="install-old-once-more")
    assert (again.code, again.changed) == (0, {}), again.changes()


# --- a failure before a migration: Helm goes back by itself -----------------------------------------------------------


def test_a_failure_before_the_migration_ends_where_it_began(site: Site) -> None:
    given = extra(NEW, {"global.nodeSelector": {"nowhere": "true"}}, circleci_release_schedule_grace=20, **YES)
    result = site.run("upgrade", given=given, name="upgrade-fails-early")
    assert result.code == 2
    assert "cannot be scheduled" in said(result) and "nothing is lost" in said(result) and f"{OLD} runs again" in said(result), said(result)
    assert site.release() == (OLD, "deployed")
    assert site.sql("SELECT document FROM standin_records WHERE written_by = 'test'") == ["before"]
    assert all(site.running().values()) and OLD in site.page()
    assert '"7.0"' in site.mongo("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})"), "the newer MongoDB stays"


# --- the upgrade, with the cluster out of reach in the middle ---------------------------------------------------------


def test_a_cluster_that_goes_away_in_the_middle_is_said(site: Site) -> None:
    check = site.run("upgrade", given=extra(NEW, **YES), arguments=["--check", "--diff"], name="upgrade-check-again")
    assert check.code == 0, said(check)
    told["predicted"] = changes(check)
    with site.cut_off_at_the_restore_point("bastion", "10.93.0.21", 6443):
        result = site.run("upgrade", given=extra(NEW, **YES), name="upgrade-cut-off")
    told["made"] = changes(result)
    assert result.code == 2
    assert "cannot be reached" in said(result) or "refused" in said(result), said(result)
    assert "Traceback" not in said(result)


def test_the_same_command_goes_on_and_ends_with_the_new_release(site: Site) -> None:
    result = site.run("upgrade", given=extra(NEW, **YES))
    probed(site, result)
    told["made"] |= changes(result)
    assert site.release() == (NEW, "deployed") and all(site.running().values()) and NEW in site.page()
    assert site.sql("SELECT record FROM standin_records WHERE written_by = 'test'") == ["before"]
    assert "kept" in site.mongo("db.getSiblingDB('circle_ghe').standin.findOne({_id:'before'})")
    assert site.artifact() == "artifact of a job before the upgrade"


def test_check_mode_had_predicted_what_the_runs_did(site: Site) -> None:
    assert told["made"] - told["predicted"] == set(), "changed without having been predicted"
    assert told["predicted"] - told["made"] == set(), "predicted, and never changed"


def test_a_second_upgrade_and_a_check_change_nothing(site: Site) -> None:
    again = site.run("upgrade", given=extra(NEW), name="upgrade-again")
    assert (again.code, again.changed) == (0, {}), (said(again), again.changes())
    check = site.run("upgrade", given=extra(NEW), arguments=["--check", "--diff"], name="upgrade-check-finished")
    assert (check.code, check.changed) == (0, {}), (said(check), check.changes())
    assert "nothing to upgrade" in shown(check)


# --- PostgreSQL of another major version, with the release that runs --------------------------------------------------

TO_14: dict[str, Any] = {"circleci_postgresql_version": "14"}
YES_14: dict[str, Any] = {**TO_14, "circleci_upgrade_irreversible": ["postgres-14"]}


def test_install_does_not_start_another_postgresql_on_the_data(site: Site) -> None:
    before = site.history()
    result = site.run("install", given=extra(NEW, **TO_14), name="install-postgres-14")
    assert result.code == 2 and "version 12 runs, and its data do not open with version 14" in said(result), said(result)
    assert "run the verb upgrade" in said(result) and site.history() == before and site.postgresql() == ("12", "12")


def test_a_broken_off_move_of_postgresql_starts_nothing_on_half_of_the_data(site: Site) -> None:
    asked = site.run("upgrade", given=extra(NEW, **TO_14), name="upgrade-postgres-unasked")
    assert asked.code == 2 and "Set circleci_upgrade_irreversible to [postgres-14]" in said(asked), said(asked)
    check = site.run("upgrade", given=extra(NEW, **YES_14), arguments=["--check", "--diff"], name="upgrade-postgres-check")
    assert check.code == 0 and site.postgresql() == ("12", "12"), said(check)
    assert f"PostgreSQL of CircleCI Server {NEW}" in shown(check) and "PostgreSQL goes to 14." in shown(check)
    told["predicted"] = changes(check)
    known = site.points()
    with site.cut_off_while_postgresql_moves("bastion", "10.93.0.21", 6443):
        result = site.run("upgrade", given=extra(NEW, **YES_14), name="upgrade-postgres-cut-off")
    told["made"] = changes(result)
    (told["postgres point"],) = set(site.points()) - set(known)
    assert result.code == 2 and site.unfinished() == told["postgres point"], said(result)
    assert ("cannot be reached" in said(result) or "refused" in said(result)) and site.running() == {}, said(result)
    up = site.run("scale", given={"circleci_application_layer": "started"}, name="scale-up-half")
    assert up.code == 2 and "PostgreSQL is on its way into another version" in said(up) and site.running() == {}
    install = site.run("install", given=extra(NEW, **TO_14), name="install-half")
    assert install.code == 2 and "half of them may be missing" in said(install) and site.running() == {}, said(install)


def test_the_same_command_finishes_it_with_every_row(site: Site) -> None:
    result = site.run("upgrade", given=extra(NEW, **YES_14), name="upgrade-postgres")
    probed(site, result)
    told["made"] |= changes(result)
    assert site.release() == (NEW, "deployed") and site.postgresql() == ("14", "14") and site.unfinished() == ""
    assert site.points()[-1] == told["postgres point"], "taken once"
    assert site.sql("SELECT record FROM standin_records WHERE written_by = 'test'") == ["before"]
    assert site.sql("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'standin_records'") == ["t"]
    assert told["made"] - told["predicted"] == set() and told["predicted"] - told["made"] == set()
    again = site.run("upgrade", given=extra(NEW, **TO_14), name="upgrade-postgres-again")
    assert (again.code, again.changed) == (0, {}), (said(again), again.changes())


def test_rollback_leads_back_to_the_older_postgresql(site: Site) -> None:
    site.sql("INSERT INTO standin_records (record, written_by) VALUES ('after', 'test')")
    asked = site.run("rollback", given={}, name="rollback-postgres-unasked")
    assert asked.code == 2 and "the data of PostgreSQL, into another version" in said(asked) and site.postgresql() == ("14", "14"), said(asked)
    result = site.run("rollback", given={"circleci_rollback_confirmed": True}, name="rollback-postgres")
    assert result.code == 0 and site.postgresql() == ("12", "12"), said(result)
    assert site.sql("SELECT record FROM standin_records WHERE written_by = 'test'") == ["before"]
    again = site.run("install", given=extra(NEW), name="install-after-postgres")
    probed(site, again)


def test_secrets_are_in_no_output_and_nothing_reached_outside(site: Site) -> None:
    canaries = [value for value in verbs.made_secrets().values() if value.startswith("canary")]
    record = json.loads(verbs.read("bastion", f"{POINTS}/{told['point']}/secrets.json"))
    kept = {f"{item['metadata']['name']}/{key}": base64.b64decode(value).decode("utf-8", "replace") for item in record for key, value in item["data"].items()}
    del kept["github-secret/clientId"]  # everybody who logs in sees it
    secrets = {text for text in [*canaries, *kept.values()] if len(text) >= 16 and "\n" not in text.strip()}
    assert len(secrets) > 20
    for log in sorted(site.logs.glob("*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        assert not any(secret in text for secret in secrets), log.name
    assert int(tripwire.read()["total"]) == 0
