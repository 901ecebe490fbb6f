# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin with the real ansible-playbook and a module that is slow on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = (0, 50, 100)
MODULE = '''#!/usr/bin/python
import json, os, signal, sys, time
from ansible.module_utils.basic import AnsibleModule

def main():
    module = AnsibleModule(
        argument_spec={"progress_file": {"type": "path"}, "password": {"type": "str", "no_log": True}, "end": {"type": "str", "default": "well"}},
        supports_check_mode=True,
    )
    path = module.params["progress_file"]
    for done in (0, 50, 100):
        if module.check_mode or not path:
            break
        with open(path + ".new", "w") as stream:
            json.dump({"phase": "fetching", "bytes_done": done, "bytes_total": 100, "pid": os.getpid()}, stream)
        os.replace(path + ".new", path)
        # Goes on when the line was seen, however slow the machine is.
        while str(done) not in open(path + ".seen").read().split():
            time.sleep(0.1)
        if module.params["end"] == "out of memory":
            sys.stderr.write("almost done\\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if module.params["end"] == "killed":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
    if module.params["end"] == "badly":
        module.fail_json(msg="registry.example refuses the password", code=4)
    module.exit_json(changed=True, moved=100, ids=["a"], checked=module.check_mode)

if __name__ == "__main__":
    main()
'''
ACTION = """from ansible_collections.onprem.circleci_server.plugins.plugin_utils.progress import ProgressAction


class ActionModule(ProgressAction):
    pass
"""


class Play:
    def __init__(self, run: Callable[..., subprocess.CompletedProcess[str]], home: Path) -> None:
        self.run, self.home = run, home


@pytest.fixture
def play(tmp_path: Path) -> Play:
    program = shutil.which("ansible-playbook") or str(Path(sys.executable).with_name("ansible-playbook"))
    if not Path(program).is_file():
        pytest.skip("ansible-playbook is not beside this Python")
    (tmp_path / "library").mkdir()
    (tmp_path / "library/slow.py").write_text(MODULE)
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/slow.py").write_text(ACTION)
    home = tmp_path / "home"
    home.mkdir()

    def run(arguments: dict[str, object], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        tasks = [{"slow": {"password": "canary-secret", **arguments}, "register": "result"}, {"ansible.builtin.debug": {"msg": "RESULT={{ result | to_json }}"}}]
        (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        command = [program, "-i", "bastion,", "-c", "local", str(tmp_path / "play.yml"), "-e", f"ansible_python_interpreter={sys.executable}", *options]
        home_of_run = {"HOME": str(home), "ANSIBLE_HOME": str(home / ".ansible"), "ANSIBLE_REMOTE_TMP": str(home / "tmp"), "ANSIBLE_ASYNC_DIR": str(home / "async")}
        seen = Path(str(arguments.get("progress_file", tmp_path / "nothing")) + ".seen")
        with (tmp_path / "stdout").open("w") as stdout, (tmp_path / "stderr").open("w") as stderr:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=tmp_path, env={**os.environ, **home_of_run, "NO_COLOR": "1", **environment})
            while process.poll() is None:
                shown = (tmp_path / "stdout").read_text() + (tmp_path / "stderr").read_text()
                seen.write_text("".join(f"{done}\n" for done in STEPS if f"fetching: {done} B" in shown))
                time.sleep(0.1)
        return subprocess.CompletedProcess(command, process.returncode, (tmp_path / "stdout").read_text(), (tmp_path / "stderr").read_text())

    return Play(run, home)


def leftovers(home: Path) -> list[str]:
    return [str(path) for path in home.rglob("*") if (path.is_file() and "async" in path.parts) or "canary-secret" in str(path)]


def test_shows_progress_and_returns_the_result_unchanged(play: Play, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"phase": "of an earlier run"}')
    done = play.run({"progress_file": str(tmp_path / "p.json")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  bastion: fetching: 0 B of 100 B (0 %)" in done.stdout
    assert "  bastion: fetching: 50 B of 100 B (50 %)" in done.stdout
    assert "earlier run" not in done.stdout
    shown = next(line for line in done.stdout.splitlines() if "RESULT=" in line)
    assert '\\"moved\\": 100' in shown and '\\"changed\\": true' in shown
    assert "ansible_job_id" not in shown and "results_file" not in shown and "finished" not in shown
    assert leftovers(play.home) == []


def test_a_failure_is_the_modules_own(play: Play, tmp_path: Path) -> None:
    done = play.run({"progress_file": str(tmp_path / "p.json"), "end": "badly"})
    assert done.returncode == 2
    assert "registry.example refuses the password" in done.stdout
    assert leftovers(play.home) == []


def test_a_killed_module_does_not_hang_the_run(play: Play, tmp_path: Path) -> None:
    done = play.run({"progress_file": str(tmp_path / "p.json"), "end": "killed"})
    assert done.returncode == 2
    assert "ended without an answer on bastion" in done.stdout
    assert "Run the same command again" in done.stdout


def test_a_module_that_is_killed_alone_is_told_without_a_traceback(play: Play, tmp_path: Path) -> None:
    done = play.run({"progress_file": str(tmp_path / "p.json"), "end": "out of memory"})
    assert done.returncode == 2
    assert "ended without an answer on bastion" in done.stdout and "its last words: almost done" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert leftovers(play.home) == []


def test_check_mode_and_no_file_run_plainly(play: Play, tmp_path: Path) -> None:
    done = play.run({"progress_file": str(tmp_path / "p.json")}, "--check")
    assert done.returncode == 0 and '\\"checked\\": true' in done.stdout and "fetching" not in done.stdout
    done = play.run({})
    assert done.returncode == 0 and '\\"moved\\": 100' in done.stdout
    assert not (play.home / "async").exists()


def test_a_json_callback_stays_readable(play: Play, tmp_path: Path) -> None:
    done = play.run({"progress_file": str(tmp_path / "p.json")}, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_DEPRECATION_WARNINGS="false")
    if "ansible.posix.json" in done.stderr:
        pytest.skip("ansible.posix is not here")
    assert json.loads(done.stdout)["plays"]
    assert "fetching" in done.stderr
