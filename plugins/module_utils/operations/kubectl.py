# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands in pods. kubectl does that, since it streams both ways and closes them properly; the rest asks the API itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Callable, Optional, Protocol

from ..helm.objects import Masker

BLOCK = 1 << 20
TRIES, PAUSE = 12, 5.0
"""For a command that did not begin: a kubelet that has just been started does not know its pods for some seconds."""
_NOT_BEGUN = "unable to upgrade connection"


class OperationError(Exception):
    """What was to be done cannot be done. C(code) tells tests and reports which case it is."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Place:
    """A container of a pod."""

    pod: str
    container: str


class Pods(Protocol):
    """What the engines of databases need."""

    def run(
        self,
        place: Place,
        script: str,
        arguments: Sequence[str] = (),
        *,
        secret: str = "",
        source: Optional[IO[bytes]] = None,
        sink: Optional[Callable[[bytes], object]] = None,
    ) -> str:
        """The standard output of a shell script as text, empty when a *sink* takes it. OperationError when it fails."""


class Kubectl:
    """kubectl exec. A secret goes in as the first line of the standard input, never as an argument."""

    def __init__(self, binary: str, kubeconfig: str, namespace: str, *, context: str = "", masker: Optional[Masker] = None) -> None:
        found = shutil.which(binary)
        if found is None:
            raise OperationError("kubectl", f"there is no program {binary} on this host: install kubectl, within one minor of the cluster")
        self._base = [found, "--kubeconfig", kubeconfig, "--namespace", namespace]
        if context:
            self._base += ["--context", context]
        self._masker = masker or Masker()

    def run(
        self,
        place: Place,
        script: str,
        arguments: Sequence[str] = (),
        *,
        secret: str = "",
        source: Optional[IO[bytes]] = None,
        sink: Optional[Callable[[bytes], object]] = None,
    ) -> str:
        command = [*self._base, "exec", "--stdin", place.pod, "--container", place.container, "--", "sh", "-c", script, "sh", *arguments]
        # What cannot be read a second time is sent once.
        start = source.tell() if source is not None and source.seekable() else 0
        left = TRIES if source is None or source.seekable() else 1
        while True:
            left -= 1
            try:
                return run(command, f"pod {place.pod}", secret, source, sink, self._masker)
            except OperationError as error:
                if error.code != "not begun" or not left:
                    raise
            time.sleep(PAUSE)
            if source is not None:
                source.seek(start)


def run(
    command: Sequence[str],
    where: str,
    secret: str,
    source: Optional[IO[bytes]],
    sink: Optional[Callable[[bytes], object]],
    masker: Masker,
) -> str:
    """Run *command*, feed it from one thread and take its output in another."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBE")}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment)
        if process.stdin is None or process.stdout is None:  # pragma: no cover - both were asked for
            raise OperationError("kubectl", f"{where}: no pipe")
        feeder = threading.Thread(target=_feed, args=(process.stdin, secret, source), daemon=True)
        feeder.start()
        taken = bytearray()
        take = sink or taken.extend
        try:
            for block in iter(lambda: process.stdout.read(BLOCK), b""):  # type: ignore[union-attr]
                take(block)
        except BaseException:
            process.kill()
            process.wait()
            raise
        code = process.wait()
        feeder.join()
        if code:
            errors.seek(0)
            said = errors.read()[-4000:].decode("utf-8", "replace").strip()
            text = masker.text(said.replace(secret, "********") if secret else said)
            raise OperationError("not begun" if _NOT_BEGUN in said else "command", f"{where}: {text or f'exit code {code}'}")
    return taken.decode("utf-8", "replace")


def _feed(stream: IO[bytes], secret: str, source: Optional[IO[bytes]]) -> None:
    try:
        if secret:
            stream.write(secret.encode() + b"\n")
        for block in _blocks(source):
            stream.write(block)
        stream.close()
    except OSError:
        # The command has ended before it read everything; its exit code tells why.
        pass


def _blocks(source: Optional[IO[bytes]]) -> Iterable[bytes]:
    return iter(lambda: source.read(BLOCK), b"") if source is not None else ()
