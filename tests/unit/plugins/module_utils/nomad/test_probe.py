# SPDX-License-Identifier: GPL-3.0-or-later
"""The infrastructure probe against strict stand-ins: what it proves, what it says, and that nothing stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.job import PREFIX
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.probe import (
    FOLDER,
    InfrastructureProbe,
    Outcome,
    Settings,
    Wanted,
    evidence,
    findings,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import NomadError

from .fakes import BUCKET, IMAGE, PULLED, Clock, Ends, FakeNomad, FakeStore, node, task, well


class Lab:
    def __init__(self, *nodes: dict[str, Any], endpoint: str = "http://store.site.example:7070") -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock, endpoint)
        self.nomad = FakeNomad(self.clock, self.store, *nodes)
        self.told: list[tuple[int, int, str]] = []

    def run(self, *wanted: str | Wanted, **options: Any) -> Outcome:
        settings = Settings(image=IMAGE, registry="registry.site.example:5000", bucket=BUCKET, **options)
        probe = InfrastructureProbe(NomadClient(self.nomad), self.store, settings, clock=self.clock, sleep=self.clock.sleep,  # type: ignore[arg-type]
                                    tell=lambda *state: self.told.append(state))  # fmt: skip
        outcome = probe.run([Wanted(item) if isinstance(item, str) else item for item in wanted])
        assert not [job for job in self.nomad.jobs if job.startswith(PREFIX)]
        return outcome


def test_every_client_of_the_site_is_proved_and_nothing_stays() -> None:
    lab = Lab(node("nomad1"), node("nomad2"))
    outcome = lab.run("nomad1", "nomad2")
    assert outcome.passed and outcome.problems == []
    assert [client.as_dict() for client in outcome.clients] == [
        {"name": name, "node": name, "scheduled": True, "pulled": True, "uploaded": True, "read_back": True, "seconds": 2.0, "problem": ""} for name in ("nomad1", "nomad2")
    ]
    assert lab.store.objects == {}
    (job,) = lab.nomad.history
    config = job["TaskGroups"][0]["Tasks"][0]["Config"]
    assert config["image"] == IMAGE and config["force_pull"] is True, "an image that the client already has proves nothing"
    assert len({group["Tasks"][0]["Env"]["PROBE_NONCE"] for group in job["TaskGroups"]}) == 2
    assert lab.told[-1] == (0, 2, "nomad1: Driver: Downloading image")


def test_links_are_short_lived_and_appear_in_nothing_that_is_told() -> None:
    lab = Lab(node("nomad1"), node("nomad2"))
    log = f"status 403\n<Error><Code>AccessDenied</Code><Message>no: http://store/x?X-Amz-Signature={'f' * 64}</Message></Error>"
    lab.nomad.ends["nomad1"] = Ends("failed", task(*PULLED, exit_code=67), log)
    links: list[str] = []
    lab.nomad.before = lambda _method, _path: links.extend(link for link in lab.store.links if link not in links)
    outcome = lab.run("nomad1", "nomad2", timeout=300)
    assert len(links) == 2 and all("X-Amz-Expires=360" in link for link in links)
    told = json.dumps([outcome.problems, [client.as_dict() for client in outcome.clients], evidence(outcome, IMAGE, "now"), lab.told])
    assert "f" * 64 not in told and "AccessDenied" in told


def test_a_client_is_found_by_name_or_address_and_dead_twins_are_ignored() -> None:
    dead = {**node("nomad1"), "ID": "old", "Status": "down"}
    lab = Lab(dead, node("nomad1"), node("ip-10-0-0-42", "10.0.0.42"))
    outcome = lab.run("nomad1", Wanted("second", ("192.0.2.1", "10.0.0.42")))
    assert outcome.passed and [(client.name, client.node) for client in outcome.clients] == [("nomad1", "nomad1"), ("second", "ip-10-0-0-42")]


def test_without_an_inventory_every_client_of_nomad_is_proved() -> None:
    lab = Lab(node("a"), node("b"), {**node("c"), "Status": "down"})
    assert [client.name for client in lab.run().clients] == ["a", "b"]


def test_clients_beyond_the_inventory_are_told() -> None:
    lab = Lab(node("nomad1"), node("stranger"))
    outcome = lab.run("nomad1")
    assert outcome.passed and outcome.unlisted == ["stranger"]
    (finding,) = findings(outcome)
    assert finding["urgency"] == 3 and "stranger" in finding["found"]


@pytest.mark.parametrize(
    ("changes", "found", "remedy"),
    [
        ({"Name": "other"}, "nomad2: Nomad has no client of that name or address (it knows nomad1, other)", "journalctl -u nomad"),
        ({"Status": "down", "StatusDescription": "heartbeat missed"}, "nomad2: Nomad says that the client is down (heartbeat missed)", "systemctl status nomad"),
        ({"SchedulingEligibility": "ineligible"}, "nomad2: the client is not eligible", "nomad node eligibility -enable nomad2"),
        ({"SchedulingEligibility": "ineligible", "Drain": True}, "nomad2: the client is being drained", "maintenance"),
        ({"Drivers": {}}, "nomad2: its driver docker is not there", "systemctl status docker"),
        ({"Drivers": {"docker": {"Detected": True, "Healthy": False, "HealthDescription": "Failed to connect to docker daemon"}}},
         "nomad2: its driver docker is not healthy (Failed to connect to docker daemon)", "systemctl status docker"),
    ],
)  # fmt: skip
def test_a_client_that_cannot_take_jobs_is_told_and_keeps_no_other_from_being_proved(changes: dict[str, Any], found: str, remedy: str) -> None:
    lab = Lab(node("nomad1"), {**node("nomad2"), **changes})
    outcome = lab.run("nomad1", "nomad2", node_timeout=10)
    (problem,) = outcome.problems
    assert problem.startswith(found) and remedy in problem
    assert [client.passed for client in outcome.clients] == [True, False] and not outcome.passed
    assert any("waiting for nomad2" in text for _done, _total, text in lab.told)


def test_two_clients_of_one_name_are_told() -> None:
    lab = Lab(node("nomad1"), {**node("nomad1"), "ID": "other"})
    assert "2 ready clients called nomad1" in lab.run("nomad1").problems[0]


def test_a_client_that_is_just_starting_is_waited_for() -> None:
    lab = Lab(node("nomad1"), {**node("nomad2"), "Status": "initializing"})

    def ready_later(_method: str, _path: str) -> None:
        if lab.clock.now > 1020:
            lab.nomad.node_list[1]["Status"] = "ready"

    lab.nomad.before = ready_later
    assert lab.run("nomad1", "nomad2").passed


def test_servers_that_know_nobody_may_have_begun_anew_and_the_client_wants_a_new_identity() -> None:
    (problem,) = Lab().run("nomad1").problems
    assert "it knows no client at all" in problem and "registers it again" in problem and "Permission denied" in problem
    assert "rm /opt/nomad" not in Lab(node("nomad2")).run("nomad1").problems[0]


def test_no_client_at_all() -> None:
    lab = Lab()
    outcome = lab.run()
    proof = evidence(outcome, IMAGE, "now")
    assert not outcome.passed and proof["state"] == "not run" and "circleci_nomad_clients" in proof["missing"][0]
    assert evidence(lab.run("nomad1"), IMAGE, "now")["state"] == "failed"


PULL = "Failed to pull `" + IMAGE + "`: Error response from daemon: "


@pytest.mark.parametrize(
    ("said", "found", "remedy"),
    [
        ("manifest for x not found: manifest unknown: manifest unknown", "the registry does not have it", "circleci_probe_image"),
        ('Head "https://registry.site.example:5000/v2/x": no basic auth credentials', "refused the client's login", "/root/.docker/config.json"),
        ("unauthorized: authentication required", "refused the client's login", "circleci_registry_password"),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "does not trust the certificate", "/etc/docker/certs.d"),
        ("http: server gave HTTP response to HTTPS client", "speaks plain http", "insecure-registries"),
        ("dial tcp: lookup registry.site.example: no such host", "does not resolve", "DNS"),
        ("dial tcp 10.0.0.2:5000: connect: connection refused", "cannot be reached", "port open"),
        ("write /var/lib/docker/tmp/x: no space left on device", "its disk is full", "/var/lib/docker"),
        ("something new", "(Error response from daemon: something new)", "docker pull"),
    ],
)
def test_why_an_image_cannot_be_pulled(said: str, found: str, remedy: str) -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.ends["nomad1"] = Ends("failed", task(("Received", ""), ("Driver", "Downloading image"), ("Driver Failure", PULL + said), ("Not Restarting", "Policy allows no restarts")))
    outcome = lab.run("nomad1")
    (problem,) = outcome.problems
    assert problem.startswith(f"nomad1: cannot pull {IMAGE}") and found in problem and remedy in problem
    assert (outcome.clients[0].scheduled, outcome.clients[0].pulled) == (True, False)


@pytest.mark.parametrize(
    ("code", "log", "found", "remedy"),
    [
        (66, "curl: (6) Could not resolve host: store.site.example", "does not resolve in containers", "DNS"),
        (66, "curl: (7) Failed to connect to store.site.example port 7070", "cannot be reached from containers", "packet filter"),
        (66, "curl: (60) SSL certificate problem: unable to get local issuer certificate\nMore details here: https://curl.se", "is not trusted there", "circleci_ca_certificate"),
        (66, "curl: (28) Operation timed out", "did not take the artifact in time", "MTU"),
        (66, "", "the upload failed", "Look at the store"),
        (67, "status 403\n<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>", "answered 403 (SignatureDoesNotMatch m)", "another name"),
        (67, "status 404\n<Error><Code>NoSuchBucket</Code></Error>", "answered 404 (NoSuchBucket)", "Run install"),
        (67, "status 503\nbusy", "answered 503 (no reason)", "log of the object store"),
        (64, "", "has no curl", "circleci_probe_image"),
        (65, "", "no temporary file", "disk"),
        (127, "sh: not found", "exit code 127 (sh: not found)", "POSIX shell"),
    ],
)
def test_why_an_upload_failed(code: int, log: str, found: str, remedy: str) -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.ends["nomad1"] = Ends("failed", task(*PULLED, exit_code=code), log)
    outcome = lab.run("nomad1")
    (problem,) = outcome.problems
    assert problem.startswith("nomad1: ") and found in problem and remedy in problem
    assert (outcome.clients[0].pulled, outcome.clients[0].uploaded) == (True, False)


def test_other_ends_of_a_job() -> None:
    lab = Lab(*(node(f"n{number}") for number in range(5)))
    lab.nomad.ends.update(
        n0=Ends("lost", task(*PULLED, state="running")),
        n1=Ends("complete", task(*PULLED, ("Killed", "Task successfully killed"))),
        n2=Ends("failed", None),
        n3=Ends("failed", task(("Received", ""), ("Driver Failure", "failed to create container: OCI runtime create failed"))),
        n4=Ends("complete", task(("Received", ""), ("Started", ""), exit_code=0), upload=True),
    )
    text = "\n".join(lab.run().problems)
    for part in ("n0: the client lost its servers", "n1: somebody stopped the job", "n2: the job ended before it began", "n3: its container cannot start (failed to create",
                 "n4: the artifact came back, but Nomad tells of no pull"):  # fmt: skip
        assert part in text


def test_an_artifact_that_comes_back_different_or_not_at_all() -> None:
    lab = Lab(node("cut"), node("changed"), node("gone"))
    lab.nomad.ends.update(
        cut=well(body=lambda made: made[:1000]),
        changed=well(body=lambda made: made[:70] + b"X" + made[71:]),
        gone=Ends("complete", task(*PULLED, exit_code=0)),
    )
    outcome = lab.run()
    text = "\n".join(outcome.problems)
    assert "cut: its artifact came back different: 1000 bytes" in text and "first difference at byte 1000" in text
    assert "changed: its artifact came back different" in text and "at byte 70" in text
    assert "gone: its job has uploaded the artifact, but it cannot be read back" in text
    assert not any(client.read_back for client in outcome.clients) and lab.store.objects == {}


@pytest.mark.parametrize(
    ("figures", "found"),
    [
        ({"ConstraintFiltered": {"${node.unique.id} = x": 3, "missing drivers": 1}}, "ruled the client out (missing drivers)"),
        ({"ConstraintFiltered": {"${node.unique.id} = x": 3}}, "did not see it among the clients of data centre default"),
        ({"ClassFiltered": {"gpu": 1}}, "ruled its class out (gpu)"),
        ({"QuotaExhausted": ["memory"]}, "a quota of Nomad is exhausted (memory)"),
    ],
)
def test_a_job_that_cannot_be_placed_is_given_up_soon(figures: dict[str, Any], found: str) -> None:
    lab = Lab(node("nomad1"), node("nomad2"))
    lab.nomad.refused["nomad2"] = figures
    outcome = lab.run("nomad1", "nomad2", placement_grace=20, timeout=600)
    (problem,) = outcome.problems
    assert problem.startswith("nomad2: ") and found in problem
    assert lab.clock.now < 1030


def test_a_full_client_is_waited_for_until_the_time_is_up() -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.refused["nomad1"] = {"NodesExhausted": 1, "DimensionExhausted": {"memory": 1}}
    (problem,) = lab.run("nomad1", timeout=100).problems
    assert problem == (
        "nomad1: not proved after 100 seconds; last known: the client has no room for the job (exhausted: memory). "
        "Look at the client with `journalctl -u nomad`, or give circleci_verify_probe_timeout more seconds."
    )

    def room_later(_method: str, _path: str) -> None:
        if lab.clock.now > 1150:
            lab.nomad.refused.clear()

    lab.nomad.before = room_later
    assert lab.run("nomad1", timeout=100).passed


def test_a_pull_that_does_not_end_is_told_with_its_last_state() -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.ends["nomad1"] = well(after=9999)
    (problem,) = lab.run("nomad1", timeout=60).problems
    assert "not proved after 60 seconds; last known: Driver: Downloading image" in problem


def test_what_a_killed_run_left_is_taken_away_and_jobs_of_others_stay() -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.jobs = {f"{PREFIX}dead-0": {"TaskGroups": []}, "somebody-elses": {"TaskGroups": []}}
    lab.store.objects = {f"{FOLDER}dead/0-nomad1": b"x", "artifacts/of/a/user": b"y"}
    outcome = lab.run("nomad1")
    assert outcome.passed and outcome.removed == [f"job {PREFIX}dead-0", f"object {FOLDER}dead/0-nomad1"]
    assert set(lab.nomad.jobs) == {"somebody-elses"} and set(lab.store.objects) == {"artifacts/of/a/user"}


def test_a_polite_kill_cleans_up() -> None:
    lab = Lab(node("nomad1"))

    def killed(_method: str, path: str) -> None:
        if path.endswith("/allocations") and lab.clock.now > 1005:
            lab.nomad.before = lambda _method, _path: None
            raise SystemExit(1)

    lab.nomad.ends["nomad1"] = well(after=9999)
    lab.nomad.before = killed
    with pytest.raises(SystemExit):
        lab.run("nomad1")
    assert lab.nomad.jobs == {} and lab.store.objects == {}


def test_an_election_in_between_is_borne() -> None:
    lab = Lab(node("nomad1"))

    def shaken(_method: str, path: str) -> None:
        if path.endswith("/allocations") and 1000 < lab.clock.now < 1002:
            raise NomadError("Nomad answered 500: No cluster leader", 500, passing=True)

    lab.nomad.troubles = [NomadError("no endpoints", 503)] * 3
    lab.nomad.before = shaken
    assert lab.run("nomad1").passed


def test_a_nomad_that_stays_away_is_one_sentence() -> None:
    lab = Lab(node("nomad1"))
    lab.nomad.troubles = [NomadError("no Nomad server is ready behind it", 503)] * 100
    outcome = lab.run("nomad1")
    assert outcome.problems == ["no Nomad server is ready behind it."] and outcome.clients == []


def test_a_store_that_is_not_there_is_told_before_any_job_runs() -> None:
    lab = Lab(node("nomad1"))
    lab.store.down = "the object store cannot be reached"
    assert lab.run("nomad1").problems == ["the object store cannot be reached."]
    lab.store.down, lab.store.missing_bucket = "", True
    assert "bucket circleci-data is not on" in lab.run("nomad1").problems[0]
    assert lab.nomad.history == []


def test_what_cannot_be_cleaned_up_is_told() -> None:
    lab = Lab(node("nomad1"))
    lab.store.undeletable = True
    outcome = lab.run("nomad1")
    assert not outcome.passed and outcome.clients[0].passed
    assert "could not be deleted" in outcome.problems[0]


def test_clients_are_proved_in_batches_and_share_sentences() -> None:
    lab = Lab(*(node(f"n{number:02}") for number in range(25)))
    for number in range(12):
        lab.nomad.ends[f"n{number:02}"] = Ends("failed", task(*PULLED, exit_code=64))
    outcome = lab.run(batch=10)
    assert [len(job["TaskGroups"]) for job in lab.nomad.history] == [10, 10, 5]
    (problem,) = outcome.problems
    assert problem.startswith("n00, n01, n02, n03, n04, n05, n06, n07 and 4 more: ")
    assert lab.store.objects == {}


def test_a_client_that_hangs_holds_no_other_up() -> None:
    lab = Lab(*(node(f"n{number:02}") for number in range(30)))
    lab.nomad.ends["n03"] = well(after=9999)
    outcome = lab.run(batch=10, timeout=600)
    assert [client.name for client in outcome.clients if not client.passed] == ["n03"]
    assert max(client.seconds for client in outcome.clients if client.passed) < 10
    assert [len(job["TaskGroups"]) for job in lab.nomad.history] == [10, 9, 9, 2]
    assert max(lab.nomad.registered.values()) < 1020, "the others did not wait for the one that hangs"
    assert 1600 <= lab.clock.now < 1610


def test_one_client_at_a_time() -> None:
    lab = Lab(node("a"), node("b"))
    assert lab.run(batch=1).passed and [len(job["TaskGroups"]) for job in lab.nomad.history] == [1, 1]


@pytest.mark.parametrize("versioned", [True, False, None])
def test_versions_of_the_artifact_do_not_stay(versioned: bool | None) -> None:
    lab = Lab(node("nomad1"))
    lab.store.versioned = versioned
    lab.store.objects[f"{FOLDER}dead/0-nomad1"] = b"x"
    assert lab.run("nomad1").passed
    assert lab.store.objects == {} and lab.store.versions == []


def test_clients_of_several_pools_and_data_centres_get_the_job() -> None:
    lab = Lab({**node("a"), "Datacenter": "dc1"}, {**node("b"), "Datacenter": "dc2", "NodePool": "gpu"})
    assert lab.run().passed
    assert lab.nomad.history[0]["Datacenters"] == ["dc1", "dc2"] and lab.nomad.history[0]["NodePool"] == "all"
    old = Lab({key: value for key, value in node("a").items() if key != "NodePool"})
    assert old.run().passed and "NodePool" not in old.nomad.history[0]


def test_evidence_says_the_same_twice() -> None:
    first, second = (evidence(Lab(node("nomad1")).run("nomad1"), IMAGE, "now") for _ in range(2))
    assert first == second and first["state"] == "passed" and first["level"] == "infrastructure probe"
    assert "nomad1" in first["detail"] and IMAGE in first["detail"]


def test_the_authority_of_the_store_travels_only_with_https() -> None:
    for endpoint, carried in (("http://store:7070", ""), ("https://store", "PEM")):
        lab = Lab(node("nomad1"), endpoint=endpoint)
        assert lab.run("nomad1", ca="PEM\n").passed
        assert lab.nomad.history[0]["TaskGroups"][0]["Tasks"][0]["Env"]["PROBE_CA"] == carried
