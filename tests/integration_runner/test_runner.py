# SPDX-License-Identifier: GPL-3.0-or-later
"""The role runner on a host with a real systemd. The program and its server are stand-ins, which say so in their names; the vendor's were never run.

The tests build on each other, in the order of this file.
"""

from __future__ import annotations

import json
import sys

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki

from .lab import DOMAIN, ROOT, Lab, until

OLD, NEW = "0ld" + "c0ffee" * 12, "new" + "deadbeef" * 9
CONFIG = "/etc/circleci-runner/circleci-runner-config.yaml"
PERSONAL = "personal-token-of-the-lab"
UNIT = "circleci-runner.service"


def claims(lab: Lab, nickname: str) -> int:
    return sum(1 for event in lab.seen() if event.get("claim") == "runner1" and event["token"] == nickname)


def shown(lab: Lab, name: str) -> str:
    return lab.run("systemctl", "show", "--value", f"--property={name}", UNIT).stdout.strip()


def test_check_mode_on_an_empty_host_tells_everything_and_leaves_nothing(lab: Lab) -> None:
    lab.tokens(old=OLD)
    played = lab.play("runner.yml", "--check", "--diff", token=OLD)
    assert played.code == 0, played.output
    assert [name.rsplit(".", 1)[-1] for name in played.changed] == ["host_units", "oci_file", "host_units"]
    assert lab.run("ls", "/etc/circleci-runner").returncode != 0 and lab.run("id", "circleci").returncode != 0
    assert OLD not in played.output and "registry-password" not in played.output


def test_the_runner_takes_jobs_of_its_server(lab: Lab) -> None:
    played = lab.play("runner.yml", "--diff", token=OLD)
    assert played.code == 0, played.failure or played.output
    assert claims(lab, "old") > 0
    lab.job("first")
    (done,) = until(lambda: [event for event in lab.seen() if event.get("done") == "first"], "the job")
    assert (done["status"], done["result"]) == (0, "/var/lib/circleci-runner")
    assert lab.run("stat", "--format=%a %U %G", CONFIG).stdout.split() == ["600", "circleci", "circleci"]


def test_the_token_is_where_it_belongs_and_nowhere_else(lab: Lab) -> None:
    played = lab.play("runner.yml", "--diff", "-vvv", token=OLD)
    assert OLD not in played.output
    # What the test itself hands over is not part of the host.
    for command in ("ps axeww", f"systemctl cat {UNIT}", f"systemctl show {UNIT}", "journalctl --no-pager"):
        found = lab.run(*command.split()).stdout
        assert OLD not in found, [line[:300] for line in found.splitlines() if OLD in line][:3]
    files = lab.run("grep", "--recursive", "--files-with-matches", OLD, "/etc", "/run", "/var/lib/circleci-runner", "/var/lib/onprem-circleci", "/tmp").stdout.split()
    assert files == [CONFIG]


@pytest.mark.parametrize("mode", [(), ("--check",)])
def test_a_second_run_changes_nothing(lab: Lab, mode: tuple[str, ...]) -> None:
    before = shown(lab, "MainPID")
    played = lab.play("runner.yml", *mode, token=OLD)
    assert (played.code, played.changed, shown(lab, "MainPID")) == (0, [], before)


def test_another_token_takes_no_job_away(lab: Lab) -> None:
    lab.tokens(old=OLD, new=NEW)
    lab.job("long", until="/etc/end-of-long")
    until(lambda: [event for event in lab.seen() if event.get("job") == "long"], "the job")
    played = lab.play("runner.yml", token=NEW)
    assert played.code == 0, played.failure
    assert played.results("runner_status")[-1]["state"] == "draining", "the job was stopped"
    again = lab.play("runner.yml", token=NEW)
    assert (again.code, again.changed, shown(lab, "ActiveState")) == (0, [], "deactivating")
    looked = lab.play("look.yml", token=NEW, personal=PERSONAL)
    assert looked.results("debug")[0]["msg"] == []
    lab.run("touch", "/etc/end-of-long", check=True)
    (done,) = until(lambda: [event for event in lab.seen() if event.get("done") == "long"], "the end of the job")
    assert (done["status"], done["token"]) == (0, "old")
    until(lambda: claims(lab, "new"), "a claim with the new token")
    lab.tokens(new=NEW)
    assert lab.play("runner.yml", token=NEW).changed == []


def test_another_program_restarts_it(lab: Lab) -> None:
    before = shown(lab, "MainPID")
    played = lab.play("runner.yml", token=NEW, version="3.1.12")
    assert played.code == 0 and len(played.changed) == 2, played.output
    until(lambda: shown(lab, "ActiveState") == "active" and shown(lab, "MainPID") != before, "the new program")
    assert lab.play("runner.yml", token=NEW, version="3.1.12").changed == []


def test_verify_tells_a_runner_that_is_well_from_one_that_is_not(lab: Lab) -> None:
    assert lab.play("look.yml", token=NEW, personal=PERSONAL).results("debug")[0]["msg"] == []
    (unasked,) = lab.play("look.yml", token=NEW).results("debug")[0]["msg"]
    assert unasked["urgency"] == 4 and "Missing: circleci_personal_token" in unasked["found"]
    (refused,) = lab.play("look.yml", token=NEW, personal="of-nobody").results("debug")[0]["msg"]
    assert "refuses the token" in refused["found"] and "of-nobody" not in str(refused)
    lab.run("systemctl", "stop", UNIT, check=True)
    (stopped,) = lab.play("look.yml", token=NEW, personal=PERSONAL).results("debug")[0]["msg"]
    assert stopped["urgency"] == 1 and stopped["subject"] == "runner runner1 of acme/linux"
    assert "it does not run: somebody stopped it" in stopped["found"] and "wait without an error, for ever" in stopped["found"]
    assert lab.play("runner.yml", token=NEW, version="3.1.12").changed == ["onprem.circleci_server.host_units"]


def test_a_token_that_the_server_does_not_know_fails_the_run_and_is_not_told(lab: Lab) -> None:
    wrong = "wr0ng" * 16
    played = lab.play("runner.yml", token=wrong, version="3.1.12")
    assert played.code == 2 and "does not stay up" in played.failure and "refuses the token" in played.failure
    assert wrong not in played.output
    assert lab.play("runner.yml", token=NEW, version="3.1.12").code == 0


def test_options_that_no_runner_runs_with_come_together(lab: Lab) -> None:
    played = lab.play("runner.yml", token="not a token", version="")
    assert played.code == 2 and "circleci_runner_version" in played.failure and "circleci_runner_token" in played.failure
    assert "not a token" not in played.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("chmod 0640 CONFIG", "has mode 0640"),
        ("chown root CONFIG", "and uid 0"),
        ("sed -i 's/mode:/modus:/' CONFIG", "unknown key runner.modus"),
        ("sed -i 's/https:/http:/' CONFIG", "api.url has no https://"),
        ("sed -i 's/cache_task_agent: false/cache_task_agent: \"no\"/' CONFIG", "runner.cache_task_agent must be flag"),
        ("rm /usr/local/share/ca-certificates/onprem-circleci-site.crt && update-ca-certificates --fresh", "is not trusted"),
    ],
)
def test_the_stand_in_is_strict_and_the_next_run_mends_it(lab: Lab, change: str, told: str) -> None:
    lab.run("systemctl", "stop", UNIT, check=True)
    lab.run("sh", "-ec", change.replace("CONFIG", CONFIG), check=True)
    tried = lab.run("setpriv", "--reuid=circleci", "--regid=circleci", "--clear-groups", "timeout", "2", "/usr/local/bin/circleci-runner", "machine", "--config", CONFIG)
    assert tried.returncode == 1 and told in tried.stderr, tried
    assert lab.play("runner.yml", token=NEW, version="3.1.12").code == 0
    assert shown(lab, "ActiveState") == "active"
    assert lab.play("runner.yml", token=NEW, version="3.1.12").changed == []


def test_a_runner_without_a_token_is_left_alone_and_told(lab: Lab) -> None:
    assert lab.play("runner.yml", version="3.1.12").changed == []
    (found,) = lab.play("look.yml", personal=PERSONAL).results("debug")[0]["msg"]
    assert found["urgency"] == 2 and "it has no token yet" in found["found"]


def test_jobs_get_the_proxy_the_server_is_reached_without_it_and_single_tasks_start_anew(lab: Lab) -> None:
    proxy = "http://me:canary@proxy.example.com:3128"
    options = {"circleci_runner_https_proxy": proxy, "circleci_runner_mode": "single-task"}
    played = lab.play("runner.yml", "--diff", token=NEW, version="3.1.12", **options)
    assert played.code == 0 and "canary" not in played.output, played.failure
    before = shown(lab, "MainPID")
    lab.job("proxied")
    (done,) = until(lambda: [event for event in lab.seen() if event.get("done") == "proxied"], "the job")
    assert (done["status"], done["result"]) == (0, f"{proxy} /var/lib/circleci-runner")
    until(lambda: shown(lab, "MainPID") not in ("0", before), "the next runner")
    assert lab.play("runner.yml", token=NEW, version="3.1.12", **options).changed == []
    assert lab.play("runner.yml", token=NEW, version="3.1.12").changed == ["onprem.circleci_server.host_units"]
    assert lab.run("test", "-e", "/etc/circleci-runner/environment").returncode != 0


def test_jobs_cannot_change_the_host(lab: Lab) -> None:
    unit = lab.run("systemctl", "show", "--property=NoNewPrivileges,ProtectSystem,ProtectHome,KillMode,TimeoutStopUSec,User", UNIT).stdout.split()
    assert unit and set(unit) >= {"NoNewPrivileges=yes", "ProtectSystem=full", "ProtectHome=yes", "KillMode=mixed", "User=circleci"}
    assert "TimeoutStopUSec=5h" in " ".join(unit)
    main = shown(lab, "MainPID")
    for path in ("/etc", "/usr", "/boot"):
        mounts = lab.run("grep", f" {path} ", f"/proc/{main}/mounts").stdout.split()
        assert "ro" in mounts[3].split(","), path


def test_programs_that_look_into_the_index_only_trust_both_authorities(lab: Lab) -> None:
    lab.tokens(new=NEW)
    other = pki.new_authority("authority of others", bits=2048).certificate
    both = {"token": NEW, "version": "3.1.12", "circleci_ca_certificate": f"{other}{lab.authority.certificate}"}
    assert lab.play("runner.yml", **both).code == 0
    for name, certificate in (("other", other), ("own", lab.authority.certificate)):
        (lab.folder / f"{name}.pem").write_text(certificate)
    look = ("openssl", "verify", "-CApath", "/etc/ssl/certs", "-no-CAfile")
    assert lab.run(*look, "/lab/other.pem", "/lab/own.pem").returncode == 0
    assert lab.play("runner.yml", **both).changed == []
    assert lab.play("runner.yml", token=NEW, version="3.1.12").code == 0
    assert lab.run(*look, "/lab/other.pem").returncode != 0 and lab.run(*look, "/lab/own.pem").returncode == 0
    assert lab.play("runner.yml", token=NEW, version="3.1.12").changed == []


def test_uninstall_leaves_nothing_but_data_that_was_not_asked_for(lab: Lab) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    last = lab.authority.certificate.strip().splitlines()[-2]
    assert last in lab.run("cat", bundle).stdout
    predicted = lab.play("absent.yml", "--check", lab_purge=False)
    assert lab.run("test", "-e", CONFIG).returncode == 0 and predicted.changed
    # As a run leaves it that is killed before the trust store is written anew.
    lab.run("sh", "-c", "rm -r /usr/local/share/ca-certificates/onprem-circleci-site*", check=True)
    assert last in lab.run("cat", bundle).stdout
    assert lab.play("absent.yml", lab_purge=False).code == 0
    assert last not in lab.run("cat", bundle).stdout
    gone = ("/usr/local/bin/circleci-runner", "/etc/circleci-runner", f"/etc/systemd/system/{UNIT}", "/usr/local/share/ca-certificates/onprem-circleci-site.crt", "/usr/local/share/ca-certificates/onprem-circleci-site")
    assert [path for path in gone if lab.run("test", "-e", path).returncode == 0] == []
    assert lab.run("test", "-d", "/var/lib/circleci-runner").returncode == 0
    assert lab.play("absent.yml", lab_purge=False).changed == []
    (missing,) = lab.play("look.yml", token=NEW).results("debug")[0]["msg"][:1]
    assert "it is not installed" in missing["found"]
    assert lab.play("absent.yml", lab_purge=True).code == 0
    assert lab.run("test", "-d", "/var/lib/circleci-runner").returncode != 0 and lab.run("id", "circleci").returncode != 0
    assert lab.play("absent.yml", lab_purge=True).changed == []
    assert DOMAIN in lab.run("cat", "/etc/hosts").stdout


LOOK = """
import json, sys
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client_state import read_state
sys.stdout.write(json.dumps(read_state()))
"""


def test_a_unit_of_a_nomad_client_that_does_not_stay_up_is_told_from_one_that_does(lab: Lab) -> None:
    """No runner has it; what is tried here is what a real systemd tells of docker-gc."""

    def told(program: str) -> str:
        words = ["--unit=docker-gc.service", "--property=Restart=always", "--property=RestartSec=100ms", "--property=StartLimitIntervalSec=0"]
        lab.run("systemd-run", "--quiet", *words, *program.split(), check=True)
        if "false" in program:
            until(lambda: int(lab.run("systemctl", "show", "--value", "--property=NRestarts", "docker-gc").stdout) >= 3, "three starts")
        return seen()

    def seen() -> str:
        return str(json.loads(lab.run(sys.executable, "-c", LOOK, check=True, PYTHONPATH=str(ROOT.parents[2])).stdout)["docker_gc"])

    assert seen() == "missing"
    assert told("/bin/false") == "restarting"
    lab.run("systemctl", "stop", "docker-gc", check=True)
    assert told("/bin/sleep infinity") == "running"
    lab.run("systemctl", "stop", "docker-gc", check=True)
