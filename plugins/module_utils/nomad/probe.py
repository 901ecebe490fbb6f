# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The infrastructure probe: every client pulls an image and writes an artifact into the object store, which is read back and compared.

Nothing stays: jobs are purged, objects deleted, and what a killed run left is taken away first. What is wrong with one client
keeps no other from being proved; all problems are told together.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, TypeVar

from ..report.model import LEVELS
from ..s3.client import S3Client, S3Error
from .client import Allocation, Evaluation, Node, NomadClient, Task
from .diagnosis import Diagnosis, of_allocation, of_node, of_placement, waits_for_room
from .job import PREFIX, TASK, Placement, content, probe_job
from .transport import NomadError

FOLDER = "onprem-circleci/nomad-probe/"
"""Where the objects of the probe lie in the data bucket."""

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """A client that the site has, by its name in the inventory."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What to run, and how long to wait for what."""

    image: str
    registry: str
    bucket: str
    ca: str = ""
    timeout: float = 600.0
    node_timeout: float = 60.0
    placement_grace: float = 20.0
    batch: int = 50
    poll: float = 1.0
    patience: float = 30.0
    driver: str = "docker"
    network_mode: str = ""


@dataclass
class ClientProof:
    """How far one client got."""

    name: str
    node: str = ""
    scheduled: bool = False
    pulled: bool = False
    uploaded: bool = False
    read_back: bool = False
    seconds: float = 0.0
    problem: Optional[Diagnosis] = None

    @property
    def passed(self) -> bool:
        return self.problem is None and self.scheduled and self.pulled and self.uploaded and self.read_back

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "node": self.node,
            "scheduled": self.scheduled,
            "pulled": self.pulled,
            "uploaded": self.uploaded,
            "read_back": self.read_back,
            "seconds": round(self.seconds, 1),
            "problem": self.problem.found if self.problem else "",
        }


@dataclass
class Outcome:
    """The proofs of all clients, and what else was found."""

    clients: list[ClientProof] = field(default_factory=list)
    general: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    nobody: bool = False

    @property
    def passed(self) -> bool:
        return not self.general and bool(self.clients) and all(client.passed for client in self.clients)

    @property
    def problems(self) -> list[str]:
        """One sentence each; clients with the same trouble share one."""
        shared: dict[tuple[str, str], list[str]] = {}
        for client in self.clients:
            if client.problem is not None:
                shared.setdefault((client.problem.found, client.problem.remedy), []).append(client.name)
        return [*self.general, *(f"{names_of(names)}: {found}. {remedy}" for (found, remedy), names in shared.items())]


def names_of(names: Sequence[str], most: int = 8) -> str:
    """``nomad1, nomad2 and 40 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass
class _Run:
    """One client of a batch while its job runs."""

    proof: ClientProof
    placement: Placement
    key: str
    settled: bool = False
    last: str = "Nomad has not looked at the job yet"


@dataclass
class _Batch:
    """A job and the clients that it is for."""

    job: str
    evaluation: str
    runs: list[_Run]
    started: float
    heard: float

    @property
    def open(self) -> list[_Run]:
        return [run for run in self.runs if not run.settled]


class InfrastructureProbe:
    """One run of the probe. *tell* gets the number of settled clients, of all clients, and what is waited for."""

    def __init__(
        self,
        nomad: NomadClient,
        store: S3Client,
        settings: Settings,
        *,
        tell: Callable[[int, int, str], None] = lambda _done, _total, _text: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._nomad = nomad
        self._store = store
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._id = secrets.token_hex(4)
        self._jobs: list[str] = []
        self._keys: list[str] = []
        self._versions = False

    def run(self, wanted: Sequence[Wanted]) -> Outcome:
        """Prove all wanted clients; without any, every client that Nomad has."""
        outcome = Outcome()
        try:
            outcome.removed = self._sweep()
            if not self._store.bucket_exists(self._settings.bucket):
                outcome.general.append(
                    f"bucket {self._settings.bucket} is not on {self._store.endpoint}: run install, which makes it, or check circleci_object_storage_bucket."
                )
                return outcome
            found = self._find(wanted, outcome)
            self._prove(found)
        except (NomadError, S3Error) as error:
            outcome.general.append(_sentence(str(error)))
        finally:
            outcome.general += self._clean_up()
        return outcome

    # --- before and after -----------------------------------------------------------------------------------------------

    def _sweep(self) -> list[str]:
        """Take away what a killed run left. The caller holds a lock, so whatever is there belongs to nobody."""
        removed = []
        for job in self._asked(lambda: self._nomad.jobs(PREFIX)):
            self._nomad.purge(job)
            removed.append(f"job {job}")
        if not self._store.bucket_exists(self._settings.bucket):
            return removed
        self._versions = self._keeps_versions()
        for entry in list(self._store.list(self._settings.bucket, FOLDER)):
            self._erase(entry.key)
            removed.append(f"object {entry.key}")
        if self._versions:
            self._store.delete_versions(self._settings.bucket, FOLDER)
        return removed

    def _keeps_versions(self) -> bool:
        try:
            return self._store.versioning(self._settings.bucket)
        except S3Error:
            # Whoever may not ask may not delete versions either.
            return False

    def _erase(self, key: str) -> None:
        self._store.delete(self._settings.bucket, key)
        if self._versions:
            self._store.delete_versions(self._settings.bucket, key)

    def _clean_up(self) -> list[str]:
        problems = []
        while self._jobs:
            job = self._jobs.pop()
            try:
                self._asked(lambda job=job: self._nomad.purge(job))  # type: ignore[misc]
            except NomadError as error:
                problems.append(f"job {job} could not be removed ({error}): the next run of the probe does it, or `nomad job stop -purge {job}`.")
        while self._keys:
            key = self._keys.pop()
            try:
                self._erase(key)
            except S3Error as error:
                problems.append(f"object {key} could not be deleted ({error}): the next run of the probe does it.")
        return problems

    def _asked(self, question: Callable[[], T]) -> T:
        """The answer to a question, asked again while Nomad elects a leader or a pod starts."""
        end = self._clock() + self._settings.patience
        while True:
            try:
                return question()
            except NomadError as error:
                if not error.passing or self._clock() >= end:
                    raise
            self._sleep(self._settings.poll)

    # --- nodes ----------------------------------------------------------------------------------------------------------

    def _find(self, wanted: Sequence[Wanted], outcome: Outcome) -> list[tuple[ClientProof, Node]]:
        """The clients that can take a job; those that cannot, after a while of waiting, get their problem."""
        end = self._clock() + self._settings.node_timeout
        while True:
            nodes = self._asked(self._nomad.nodes)
            matched = _match(wanted, nodes)
            states = [(item, node, of_node(item.name, node, nodes, self._settings.driver)) for item, node in matched]
            waiting = [item.name for item, _node, problem in states if problem is not None]
            if (not waiting and states) or self._clock() >= end:
                break
            self._tell(len(states) - len(waiting), len(states), f"waiting for {names_of(waiting, 3) or 'a client'} to be ready")
            self._sleep(self._settings.poll)
        if not states:
            outcome.nobody = True
        ready = []
        for item, node, problem in states:
            proof = ClientProof(item.name, node.name if node else "", problem=problem)
            outcome.clients.append(proof)
            if node is not None and problem is None:
                ready.append((proof, node))
        known = {node.id for _item, node in matched if node is not None}
        outcome.unlisted = sorted(node.name for node in nodes if node.id not in known and node.status == "ready")
        return ready

    # --- jobs -----------------------------------------------------------------------------------------------------------

    def _prove(self, clients: Sequence[tuple[ClientProof, Node]]) -> None:
        """Keep a batch of clients at work until all are settled; one that hangs keeps its place and holds no other up."""
        waiting = list(clients)
        batches: list[_Batch] = []
        while True:
            at_work = sum(len(batch.open) for batch in batches)
            room = self._settings.batch - at_work
            if waiting and (room >= len(waiting) or room * 2 >= self._settings.batch):
                batches.append(self._start(waiting[:room], len(clients) - len(waiting)))
                waiting = waiting[room:]
            for batch in list(batches):
                self._look_at(batch)
                if not batch.open:
                    batches.remove(batch)
                    self._purge(batch)
            unsettled = [run for batch in batches for run in batch.open]
            if not unsettled and not waiting:
                return
            if unsettled:
                done = len(clients) - len(waiting) - len(unsettled)
                self._tell(done, len(clients), f"{unsettled[0].proof.name}: {unsettled[0].last}")
                self._sleep(self._settings.poll)

    def _start(self, clients: Sequence[tuple[ClientProof, Node]], before: int) -> _Batch:
        seconds = int(self._settings.timeout)
        job = f"{PREFIX}{self._id}-{before}"
        runs = []
        for number, (proof, node) in enumerate(clients, before):
            key = f"{FOLDER}{self._id}/{number}-{re.sub('[^A-Za-z0-9.-]', '-', node.name)}"
            url = self._store.presign("PUT", self._settings.bucket, key, seconds + 60)
            runs.append(_Run(proof, Placement(f"client-{number}", node, secrets.token_hex(16), url), key))
        spec = probe_job(
            job,
            [run.placement for run in runs],
            image=self._settings.image,
            ca=self._settings.ca if self._store.endpoint.startswith("https:") else "",
            seconds=min(120, seconds),
            driver=self._settings.driver,
        )
        # What is to be taken away is noted before it is made: a kill in between leaves nothing unnoticed.
        self._jobs.append(job)
        self._keys += [run.key for run in runs]
        started = self._clock()
        return _Batch(job, self._asked(lambda: self._nomad.register(spec)), runs, started, started)

    def _purge(self, batch: _Batch) -> None:
        """As soon as a batch is done; what fails here is tried again at the end."""
        try:
            self._nomad.purge(batch.job)
            self._jobs.remove(batch.job)
            for run in batch.runs:
                self._erase(run.key)
                self._keys.remove(run.key)
        except (NomadError, S3Error):
            return

    def _look_at(self, batch: _Batch) -> None:
        try:
            newest = _newest(self._nomad.allocations(batch.job))
            refused = self._refused(batch.job, batch.evaluation, [run.placement.group for run in batch.open if run.placement.group not in newest])
            batch.heard = self._clock()
        except NomadError as error:
            if not error.passing or self._clock() - batch.heard > self._settings.patience:
                raise
            return
        for run in batch.open:
            self._look(run, newest.get(run.placement.group), refused.get(run.placement.group), batch.started)
        if self._clock() < batch.started + self._settings.timeout:
            return
        for run in batch.open:
            late = Diagnosis(
                f"not proved after {self._settings.timeout:.0f} seconds; last known: {run.last}",
                "Look at the client with `journalctl -u nomad`, or give circleci_verify_probe_timeout more seconds.",
            )
            self._settle(run, batch.started, late)

    def _refused(self, job: str, evaluation: str, groups: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Figures of the scheduler about groups that have no allocation."""
        if not groups:
            return {}
        evaluations: list[Evaluation] = [self._nomad.evaluation(evaluation), *self._nomad.evaluations(job)]
        return {group: figures for item in evaluations for group, figures in item.failed.items() if group in groups}

    def _look(self, run: _Run, allocation: Optional[Allocation], refused: Optional[Mapping[str, Any]], started: float) -> None:
        proof = run.proof
        if allocation is None:
            if refused is None:
                return
            problem = of_placement(refused, run.placement.node)
            run.last = problem.found
            # A full client has room when its jobs end, and one that has just started reports its driver a little later.
            if not waits_for_room(refused) and self._clock() - started >= self._settings.placement_grace:
                self._settle(run, started, problem)
            return
        proof.scheduled = True
        task = allocation.tasks.get(TASK)
        if task is not None:
            proof.pulled = _pulled(task, self._settings.driver)
        if allocation.client_status == "complete" and task is not None and task.exit_code == 0:
            proof.uploaded = True
            self._settle(run, started, self._compare(run))
        elif allocation.client_status in ("complete", "failed", "lost"):
            self._settle(run, started, of_allocation(allocation, task, self._log(allocation), self._settings.image, self._store.endpoint))
        else:
            run.last = _state(allocation, task)

    def _settle(self, run: _Run, started: float, problem: Optional[Diagnosis]) -> None:
        run.settled = True
        run.proof.problem = problem
        run.proof.seconds = self._clock() - started

    def _log(self, allocation: Allocation) -> str:
        try:
            return self._nomad.log(allocation.id, TASK)
        except NomadError as error:
            return f"its log cannot be read: {error}"

    def _compare(self, run: _Run) -> Optional[Diagnosis]:
        bucket = self._settings.bucket
        try:
            found = self._store.get(bucket, run.key).body
        except S3Error as error:
            return Diagnosis(
                f"its job has uploaded the artifact, but it cannot be read back here ({error})",
                "Do both reach the same store by that name? Compare what it resolves to on the client and on the control host.",
            )
        wanted = content(run.placement.nonce, run.placement.node.name)
        if found == wanted:
            run.proof.read_back = True
            if run.proof.pulled:
                return None
            return Diagnosis("the artifact came back, but Nomad tells of no pull from the registry", "Update Nomad on the client; it must honour force_pull.")
        at = next((at for at, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
        return Diagnosis(
            f"its artifact came back different: {len(found)} bytes instead of {len(wanted)}, the first difference at byte {at}",
            "Something between client and store changes what is written; look for proxies and at the disk of the store.",
        )


def evidence(outcome: Outcome, image: str, when: str) -> dict[str, Any]:
    """The outcome as a level of proof for the report. Durations stand apart, so that two runs that find the same say the same."""
    proved = [client.name for client in outcome.clients if client.passed]
    good = f"{names_of(proved)}: {image} pulled, an artifact written into the object store, read back and compared" if proved else ""
    if outcome.nobody and not outcome.problems:
        return {"level": LEVELS[0], "state": "not run", "detail": "", "missing": ["a Nomad client, by the group circleci_nomad_clients or one of your own"]}
    problems = [f"the infrastructure probe: {problem}" for problem in outcome.problems]
    return {
        "level": LEVELS[0],
        "state": "passed" if outcome.passed else "failed",
        "detail": good if outcome.passed else " ".join(outcome.problems) or "no client was proved",
        "missing": [],
        "when": when,
        "problems": problems,
        "clients": [client.as_dict() for client in outcome.clients],
    }


def findings(outcome: Outcome) -> list[dict[str, Any]]:
    """What is worth a look although no client failed because of it."""
    if not outcome.unlisted:
        return []
    return [
        {
            "urgency": 3,
            "subject": "Nomad clients",
            "found": f"{names_of(outcome.unlisted)}, ready and not in the inventory",
            "expected": "only clients that the group circleci_nomad_clients names",
            "remedy": "Jobs run there unproved: add them to the group, or purge their nodes.",
            "source": "",
        }
    ]


def _match(wanted: Sequence[Wanted], nodes: Sequence[Node]) -> list[tuple[Wanted, Optional[Node]]]:
    """Nodes by name, or else by address; of several with one name the one that lives."""
    ranked = sorted(nodes, key=lambda node: (node.status != "ready", not node.eligible))
    if not wanted:
        return [(Wanted(node.name), node) for node in ranked if node.status == "ready"]
    result: list[tuple[Wanted, Optional[Node]]] = []
    for item in wanted:
        named = [node for node in ranked if node.name == item.name]
        addressed = [node for node in ranked if node.address in item.addresses]
        result.append((item, next(iter([*named, *addressed]), None)))
    return result


def _newest(allocations: Iterable[Allocation]) -> dict[str, Allocation]:
    found: dict[str, Allocation] = {}
    for item in sorted(allocations, key=lambda one: one.created):
        found[item.group] = item
    return found


def _pulled(task: Task, driver: str) -> bool:
    started = any(event.type == "Started" for event in task.events)
    if driver != "docker":
        return started
    return started and any(event.type == "Driver" and "ownloading image" in event.message for event in task.events)


def _state(allocation: Allocation, task: Optional[Task]) -> str:
    if task is None or not task.events:
        return f"its allocation is {allocation.client_status}"
    return f"{task.events[-1].type}: {task.events[-1].message}" if task.events[-1].message else task.events[-1].type


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
