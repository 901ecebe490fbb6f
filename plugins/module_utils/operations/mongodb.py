# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dump, bring back and ask the MongoDB of the chart, with the programs of its own pod.

The shell is spoken to by its standard input, and so is the password prompt of mongodump and mongorestore: no argument holds a
secret, in the pod either.
"""

from __future__ import annotations

import io
import json
import re
from typing import IO, Callable, Optional

from .kubectl import OperationError, Place, Pods

MARK = "onprem-circleci:"
# The old shell is gone from 6.0 on, the new one is there from 5.0 on.
_SHELL = "if command -v mongosh >/dev/null; then exec mongosh --quiet --norc; else exec mongo --quiet --norc; fi"
_ANSWER = re.compile(rf"{MARK}(.*)")


class Mongo:
    """One server, reached through its pod. *password* is that of *user* in the database admin."""

    def __init__(self, pods: Pods, place: Place, user: str, password: str) -> None:
        self._pods = pods
        self._place = place
        self._user = user
        self._password = password

    def evaluate(self, expression: str) -> str:
        """The value of an expression, as JSON."""
        script = (
            f"db = db.getSiblingDB('admin'); db.auth({json.dumps(self._user)}, {json.dumps(self._password)});\n"
            f"print('{MARK}' + JSON.stringify({expression}));\n"
        )
        said = self._pods.run(self._place, _SHELL, source=io.BytesIO(script.encode()))
        # A shell that shows what it was given would show the expression too.
        answers = [found for found in _ANSWER.findall(said) if not found.startswith("'")]
        if not answers:
            text = said.replace(self._password, "********").strip()[-300:]
            raise OperationError("mongodb", f"pod {self._place.pod}: MongoDB gave no answer to {expression}: {text}")
        return str(answers[-1]).strip()

    def feature_version(self) -> str:
        """featureCompatibilityVersion: what the files are, whatever program opens them."""
        answer = self.evaluate("db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1})")
        match = re.search(r'"version"\s*:\s*"([\d.]+)"', answer)
        if match is None:
            raise OperationError("mongodb", f"pod {self._place.pod}: MongoDB does not tell its featureCompatibilityVersion: {answer}")
        return match[1]

    def set_feature_version(self, version: str) -> None:
        # 7.0 asks whether one means it.
        confirm = ", confirm: true" if int(version.split(".")[0]) >= 7 else ""
        answer = self.evaluate(f"db.adminCommand({{setFeatureCompatibilityVersion: '{version}'{confirm}}})")
        if not re.search(r'"ok"\s*:\s*1\b', answer):
            raise OperationError("mongodb", f"pod {self._place.pod}: featureCompatibilityVersion {version} is refused: {answer}")

    def dump(self, sink: Callable[[bytes], object]) -> None:
        self._tool("mongodump --quiet --archive --gzip", None, sink)

    def restore(self, source: IO[bytes]) -> None:
        self._tool("mongorestore --quiet --drop --archive --gzip", source, None)

    def _tool(self, command: str, source: Optional[IO[bytes]], sink: Optional[Callable[[bytes], object]]) -> None:
        script = f'exec {command} --username "$1" --authenticationDatabase admin'
        self._pods.run(self._place, script, (self._user,), secret=self._password, source=source, sink=sink)
