# SPDX-License-Identifier: GPL-3.0-or-later
"""Strict stand-ins for Nomad and for the object store: they refuse what the real ones refuse, and time passes only when somebody waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.job import content
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import NomadError
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import Entry, Response, S3Error

BUCKET = "circleci-data"
IMAGE = "registry.site.example:5000/cimg/base:2025.05-20.04"
PULLED = [("Received", "Task received by client"), ("Driver", "Downloading image"), ("Started", "Task started by client")]
_JOB_KEYS = {"ID", "Name", "Type", "Datacenters", "NodePool", "TaskGroups"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class FakeStore:
    """One bucket. Links write one object, until they expire."""

    def __init__(self, clock: Clock, endpoint: str = "http://store.site.example:7070") -> None:
        self.endpoint = endpoint
        self.clock = clock
        self.objects: dict[str, bytes] = {}
        self.links: dict[str, tuple[str, float]] = {}
        self.missing_bucket = False
        self.down = ""
        self.undeletable = False
        self.versioned: Optional[bool] = False
        self.versions: list[str] = []

    def _up(self) -> None:
        if self.down:
            raise S3Error(self.down)

    def bucket_exists(self, bucket: str) -> bool:
        self._up()
        return bucket == BUCKET and not self.missing_bucket

    def presign(self, method: str, bucket: str, key: str, expires: int) -> str:
        assert (method, bucket) == ("PUT", BUCKET) and 0 < expires <= 604800
        url = f"{self.endpoint}/{bucket}/{key}?X-Amz-Expires={expires}&X-Amz-Signature={'f' * 64}"
        self.links[url] = (key, self.clock() + expires)
        return url

    def upload(self, url: str, body: bytes) -> None:
        key, end = self.links[url]
        assert unquote(urlsplit(url).path) == f"/{BUCKET}/{key}" and parse_qs(urlsplit(url).query)
        assert self.clock() < end, "the link has expired"
        self.objects[key] = body

    def list(self, bucket: str, prefix: str) -> Iterator[Entry]:
        self._up()
        return iter([Entry(key, len(body), "") for key, body in sorted(self.objects.items()) if key.startswith(prefix)])

    def get(self, bucket: str, key: str) -> Response:
        self._up()
        if key not in self.objects:
            raise S3Error(f"{self.endpoint} answered 404 to reading {bucket}/{key}: NoSuchKey", 404, "NoSuchKey")
        return Response(200, {}, self.objects[key])

    def delete(self, bucket: str, key: str) -> None:
        self._up()
        if self.undeletable:
            raise S3Error("the key pair lacks the right for that", 403)
        body = self.objects.pop(key, None)
        if self.versioned and body is not None:
            self.versions.append(key)

    def versioning(self, bucket: str) -> bool:
        if self.versioned is None:
            raise S3Error("the key pair lacks the right for that", 403)
        return self.versioned

    def delete_versions(self, bucket: str, prefix: str) -> None:
        assert prefix.startswith("onprem-circleci/"), "versions of users' objects are not ours to delete"
        self.versions = [key for key in self.versions if not key.startswith(prefix)]


def task(*events: tuple[str, str], exit_code: Optional[int] = None, state: str = "dead") -> dict[str, Any]:
    told: list[dict[str, Any]] = [{"Type": kind, "Time": number + 1, "DisplayMessage": text, "Details": {}} for number, (kind, text) in enumerate(events)]
    if exit_code is not None:
        told.append({"Type": "Terminated", "Time": 99, "DisplayMessage": f"Exit Code: {exit_code}", "Details": {"exit_code": str(exit_code)}})
    return {"State": state, "Failed": bool(exit_code), "Events": told}


class Ends:
    """How a job ends on a node: status of the allocation, state of its task, log, and whether it uploads before."""

    def __init__(self, status: str, state: Optional[dict[str, Any]], log: str = "", *, upload: bool = False, after: float = 2.0,
                 body: Optional[Callable[[bytes], bytes]] = None) -> None:  # fmt: skip
        self.status, self.state, self.log, self.upload, self.after, self.body = status, state, log, upload, after, body


def well(**options: Any) -> Ends:
    return Ends("complete", task(*PULLED, exit_code=0), upload=True, **options)


def node(name: str, address: str = "", **more: Any) -> dict[str, Any]:
    return {"ID": f"{name}-0000-4000-8000-000000000000", "Name": name, "Address": address or "10.0.0.1", "Datacenter": "default", "NodePool": "default",
            "Status": "ready", "StatusDescription": "", "SchedulingEligibility": "eligible", "Drain": False,
            "Drivers": {"docker": {"Detected": True, "Healthy": True, "HealthDescription": "Healthy"}}, **more}  # fmt: skip


class FakeNomad:
    """Places each group on its node at once, and lets it end as *ends* says, or leaves it unplaced for the reason in *refused*."""

    def __init__(self, clock: Clock, store: FakeStore, *nodes: dict[str, Any]) -> None:
        self.clock, self.store = clock, store
        self.node_list = list(nodes)
        self.ends: dict[str, Ends] = {}
        self.refused: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.registered: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []
        self.troubles: list[NomadError] = []
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda _method, _path: None

    def request(self, method: str, path: str, query: Optional[Mapping[str, str]] = None, body: Any = None) -> Any:
        self.requests.append((method, path))
        self.before(method, path)
        if self.troubles:
            raise self.troubles.pop(0)
        query = dict(query or {})
        if (method, path) == ("GET", "nodes"):
            return self.node_list
        if (method, path) == ("GET", "jobs"):
            return [{"ID": name} for name in sorted(self.jobs) if name.startswith(query.get("prefix", ""))]
        if (method, path) == ("POST", "jobs"):
            return self._register(body["Job"])
        parts = path.split("/")
        if method == "DELETE" and parts[0] == "job":
            assert query == {"purge": "true"}, "a job that is only stopped stays in the listing"
            if self.jobs.pop(parts[1], None) is None:
                raise NomadError("Nomad answered 404: job not found", 404)
            return {}
        if method == "GET" and parts[0] == "evaluation":
            return self._evaluation(parts[1].removeprefix("eval-"))
        if method == "GET" and parts[0] == "job" and parts[2:] == ["evaluations"]:
            return [self._evaluation(parts[1])]
        if method == "GET" and parts[0] == "job" and parts[2:] == ["allocations"]:
            return self._allocations(parts[1])
        if method == "GET" and parts[:3] == ["client", "fs", "logs"]:
            assert query["type"] in ("stdout", "stderr") and query["plain"] == "true" and query["task"] == "probe"
            return self.ends[parts[3].removeprefix("alloc-")].log
        raise AssertionError(f"{method} {path} is no request that Nomad knows")

    def _register(self, job: dict[str, Any]) -> dict[str, Any]:
        assert set(job) <= _JOB_KEYS and job["Type"] == "batch" and job["Datacenters"] and job["TaskGroups"]
        assert re.fullmatch(r"[a-z0-9-]+", job["ID"]) and job["ID"] not in self.jobs
        names = [group["Name"] for group in job["TaskGroups"]]
        assert len(names) == len(set(names)), "Nomad refuses groups of the same name"
        for group in job["TaskGroups"]:
            assert group["Count"] == 1 and group["RestartPolicy"]["Attempts"] == 0 and group["ReschedulePolicy"] == {"Attempts": 0, "Unlimited": False}
            assert group["RestartPolicy"]["Mode"] == "fail" and group["RestartPolicy"]["Interval"] >= 5_000_000_000
            (one,) = group["Tasks"]
            logs = one["LogConfig"]["MaxFiles"] * one["LogConfig"]["MaxFileSizeMB"]
            assert logs < group["EphemeralDisk"]["SizeMB"], "log storage must be smaller than the disk"
            assert one["Resources"]["MemoryMB"] >= 10 and all(isinstance(value, str) for value in one["Env"].values())
            text = "".join(one["Config"]["args"])
            assert "${" not in text and "%{" not in text, "Nomad would take it for a template"
            assert "X-Amz" not in text and one["Env"]["PROBE_URL"] not in text
        self.jobs[job["ID"]] = job
        self.registered[job["ID"]] = self.clock()
        self.history.append(job)
        return {"EvalID": f"eval-{job['ID']}"}

    def _place(self, group: dict[str, Any]) -> str:
        (constraint,) = group["Constraints"]
        assert (constraint["LTarget"], constraint["Operand"]) == ("${node.unique.id}", "=")
        return str(next(item["Name"] for item in self.node_list if item["ID"] == constraint["RTarget"]))

    def _evaluation(self, job: str) -> dict[str, Any]:
        failed = {group["Name"]: self.refused[name] for group in self.jobs[job]["TaskGroups"] if (name := self._place(group)) in self.refused}
        return {"ID": f"eval-{job}", "Status": "complete", "StatusDescription": "", "CreateIndex": 1, "FailedTGAllocs": failed or None}

    def _allocations(self, job: str) -> list[dict[str, Any]]:
        result = []
        for group in self.jobs[job]["TaskGroups"]:
            name = self._place(group)
            if name in self.refused:
                continue
            ends = self.ends.get(name) or self.ends.setdefault(name, well())
            result.append({"ID": f"alloc-{name}", "TaskGroup": group["Name"], "NodeID": group["Constraints"][0]["RTarget"], "CreateIndex": 5,
                           "ClientDescription": "", **self._state(job, group, name, ends)})  # fmt: skip
        return result

    def _state(self, job: str, group: dict[str, Any], name: str, ends: Ends) -> dict[str, Any]:
        if self.clock() - self.registered[job] < ends.after:
            return {"ClientStatus": "running", "TaskStates": {"probe": task(*PULLED[:2], state="pending")}}
        env = group["Tasks"][0]["Env"]
        if ends.upload and env["PROBE_URL"] in self.store.links:
            made = content(env["PROBE_NONCE"], name)
            self.store.upload(env["PROBE_URL"], ends.body(made) if ends.body else made)
            self.store.links.pop(env["PROBE_URL"])
        return {"ClientStatus": ends.status, "TaskStates": {"probe": ends.state} if ends.state else None}
