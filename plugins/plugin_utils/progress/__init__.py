# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module in the background of its host and shows how far it is, in the output of ansible-playbook and AWX.

A module cannot speak before it ends, and the callback of a collection is not enabled by itself; an action plugin can.
"""

from __future__ import annotations

import json
import shlex
import time
import typing as t

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from .lines import Reporter

LIMIT = 14 * 24 * 3600
"""Seconds after which ansible's wrapper kills the module. A bundle on a thin line takes days; the module itself ends when nothing moves."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 2.0
PATIENCE = 40
"""Polls in a row that may fail with a broken connection before the run gives up; the module goes on meanwhile."""
_MARK = "--progress--"
_GONE = "the module is gone"
_WRAPPER = "async_wrapper.py"
_BOOKKEEPING = ("ansible_job_id", "started", "finished", "results_file", "_ansible_parsed", "erased")


class ProgressAction(ActionBase):
    """Base of action plugins whose module has an option ``progress_file``."""

    _task: t.Any
    nouns: t.ClassVar[dict[str, str]] = {}
    """What the module counts in each phase."""

    _supports_check_mode = True
    _supports_diff = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        progress_file = self._task.args.get("progress_file")
        if self._task.async_val:
            return t.cast("dict[str, t.Any]", self._execute_module(task_vars=task_vars, wrap_async=True))
        if self._task.check_mode or not progress_file or self._connection.has_native_async or self._connection.always_pipeline_modules:
            return t.cast("dict[str, t.Any]", self._execute_module(task_vars=task_vars))
        return self._in_background(str(progress_file), task_vars or {})

    # --- the job --------------------------------------------------------------------------------------------------------

    def _in_background(self, progress_file: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        # The executor looks at its own task, so a copy keeps it from waiting for the job a second time.
        self._task = self._task.copy()
        self._task.async_val = LIMIT
        self._forget(progress_file)
        started = self._execute_module(task_vars=task_vars, wrap_async=True)
        self._task.async_val = 0
        if started.get("failed") or "ansible_job_id" not in started:
            return t.cast("dict[str, t.Any]", started)
        job, results_file = str(started["ansible_job_id"]), str(started["results_file"])
        try:
            gone = self._watch(results_file, progress_file, task_vars)
            if gone:
                return self._no_answer(task_vars)
            result = self._status(job, "status", task_vars)
        finally:
            self._status(job, "cleanup", task_vars)
        if result.get("failed") and _WRAPPER in str(result.get("msg")) and not str(result.get("data") or "").strip():
            # The wrapper outlived the module and complains that there is no JSON.
            return self._no_answer(task_vars, str(result.get("stderr") or ""))
        return {key: value for key, value in result.items() if key not in _BOOKKEEPING}

    def _no_answer(self, task_vars: dict[str, t.Any], said: str = "") -> dict[str, t.Any]:
        last = said.strip().splitlines()[-1:]
        return {
            "failed": True,
            "msg": f"The module ended without an answer on {self._host(task_vars)}: it was killed or the host was restarted"
            f"{f' (its last words: {last[0][:300]})' if last else ''}. Run the same command again; it goes on where it stopped.",
        }

    def _status(self, job: str, mode: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        folder = self.get_shell_option("async_dir", default="~/.ansible_async")
        arguments = {"jid": job, "mode": mode, "_async_dir": folder}
        return t.cast("dict[str, t.Any]", self._execute_module(module_name="ansible.legacy.async_status", module_args=arguments, task_vars=task_vars))

    def _watch(self, results_file: str, progress_file: str, task_vars: dict[str, t.Any]) -> bool:
        """Wait for the end; True when the module is gone without having left a result."""
        reporter = Reporter(self._shower(task_vars), nouns=self.nouns)
        wait, failures, missing = FIRST_WAIT, 0, 0
        while True:
            time.sleep(wait)
            wait = min(LONGEST_WAIT, wait * 1.5)
            try:
                finished, document = self._look(results_file, progress_file)
                failures = 0
            except AnsibleConnectionFailure:
                failures += 1
                if failures >= PATIENCE:
                    raise
                continue
            if finished:
                return False
            # The process may end between its last word and its result: look twice before giving up on it.
            missing = missing + 1 if document.get("_gone") else 0
            if missing >= 3:
                return True
            reporter.update({key: value for key, value in document.items() if key != "_gone"})

    def _look(self, results_file: str, progress_file: str) -> tuple[bool, dict[str, t.Any]]:
        """One command for both files, and whether the process that wrote the second one is still there."""
        results, progress = shlex.quote(results_file), shlex.quote(progress_file)
        script = (
            f"cat {results}; echo; echo {_MARK}; cat {progress} 2>/dev/null; echo; "
            f"""pid=$(sed -n 's/.*"pid": *\\([0-9][0-9]*\\).*/\\1/p' {progress} 2>/dev/null | head -n 1); """
            f"""if [ -n "$pid" ] && ! [ -d "/proc/$pid" ] && [ -d /proc/self ]; then echo '{_GONE}'; fi"""
        )
        output = str(self._low_level_execute_command(script).get("stdout", ""))
        job, _mark, rest = output.partition(_MARK)
        gone = rest.rstrip().endswith(_GONE)
        state = _json(job)
        document = _json(rest.rstrip()[: -len(_GONE)] if gone else rest)
        finished = bool(state) and not (state.get("started") and not state.get("finished"))
        return finished, {**document, "_gone": True} if gone else document

    def _forget(self, progress_file: str) -> None:
        """Take what an earlier run left, or its last line would be shown first."""
        self._low_level_execute_command(f"rm -f -- {shlex.quote(progress_file)}")

    # --- showing --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _host(task_vars: dict[str, t.Any]) -> str:
        return str(task_vars.get("inventory_hostname", "the host"))

    def _shower(self, task_vars: dict[str, t.Any]) -> t.Callable[[str], None]:
        host = self._host(task_vars)
        # A callback that writes one JSON document owns the standard output.
        to_stderr = "json" in str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK"))
        display = Display()

        def show(text: str) -> None:
            display.display(f"  {host}: {text}", stderr=to_stderr)

        return show


def _json(text: str) -> dict[str, t.Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
