# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with one release, whose databases answer as the stand-in's do: the stand-in's own programs evaluate what they are asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import IO, Any

import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm import releases
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.releases import StoredRelease
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.kubectl import OperationError, Place
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

NS = "circleci-server"
REGISTRY = "registry.example.com:5000"


def image(version: str) -> str:
    return f"{REGISTRY}/server-mongodb:{version}"


def postgres_image(version: str) -> str:
    return f"{REGISTRY}/server-postgres:{version}"


def statefulset(product: str, reference: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": product}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": product, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": product, "image": reference}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        },
    }


def deployment(name: str, replicas: int = 1, layer: str = "application") -> dict[str, Any]:
    labels = {"app": name, "layer": layer}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": labels}}},
    }


class World:
    """Objects that a controller would keep in step: after each change pods are as their workloads say."""

    def __init__(self, mongodb: str = "4.4.15-debian-10-r8", feature: str = "4.4") -> None:
        self.api = FakeKube(NS)
        self.broken: set[str] = set()
        self.feature, self.documents = feature, {"before": "kept"}
        self.schemas = {"domain": "CREATE TABLE records (document text);", "conductor_production": "CREATE TABLE records (document text);"}
        self.rows = {"domain": "old rows", "conductor_production": "old rows"}
        self.roles = "CREATE ROLE app_rw;\nCREATE ROLE postgres;\nALTER ROLE app_rw PASSWORD 'SCRAM';\n"
        self.data_major = 12
        self.refused_dumps: dict[int, BaseException] = {}
        """What a server of that major version ends pg_restore with."""
        self.ran: list[str] = []
        self.stdin: list[str] = []
        self.now = 0.0
        self.api.secret(NS, "postgresql", {"postgres-password": "pg-secret"})
        self.api.secret(NS, "mongodb-credentials", {"mongodb-root-password": "mongo-secret"})
        self.documents_of_release = [
            deployment("frontend", 2),
            deployment("kong"),
            statefulset("postgresql", postgres_image("12.16.37-x")),
            statefulset("mongodb", image(mongodb)),
        ]
        self.release(1, "4.9.5", self.documents_of_release)
        for item in self.documents_of_release:
            self.api.put(self.path(item), {**item, "metadata": {**item["metadata"], "generation": 1}})
        for product in ("postgresql", "mongodb"):
            self.api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-{product}-0", {"metadata": {"name": f"data-{product}-0"}})
        self.settle()

    @staticmethod
    def path(item: dict[str, Any]) -> str:
        return f"/apis/apps/v1/namespaces/{NS}/{item['kind'].lower()}s/{item['metadata']['name']}"

    def release(self, revision: int, version: str, documents: Sequence[dict[str, Any]], status: str = "deployed") -> StoredRelease:
        name = f"sh.helm.release.v1.circleci-server.v{revision}"
        document = {
            "name": "circleci-server",
            "version": revision,
            "config": {"mongodb": {"auth": {"existingSecret": "mongodb-credentials"}, "image": {"registry": REGISTRY}}, "global": {"domainName": "ci.example.com"}},
            "manifest": "---\n".join(yaml.safe_dump(item) for item in documents),
            "info": {"status": status, "description": ""},
            "chart": {"metadata": {"name": "circleci-server", "version": version}, "values": {}},
        }
        body = {
            "metadata": {"name": name, "labels": {"owner": "helm", "name": "circleci-server", "version": str(revision), "status": status}},
            "type": "helm.sh/release.v1",
            "data": {"release": releases.encode(document)},
        }
        self.api.put(f"/api/v1/namespaces/{NS}/secrets/{name}", body)
        return releases.stored(body)

    def stored(self) -> StoredRelease:
        found = releases.current(releases.history(self.api, NS, "circleci-server"))
        assert found is not None
        return found

    # -- the controllers ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Pods as the workloads say. A database that refuses its files is not ready."""
        for path in [path for path in self.api.objects if f"/namespaces/{NS}/pods/" in path]:
            del self.api.objects[path]
        for path, item in list(self.api.objects.items()):
            kind = path.split("/")[-2]
            if kind not in ("deployments", "statefulsets"):
                continue
            count, name = item["spec"].get("replicas", 1), item["metadata"]["name"]
            labels = item["spec"]["template"]["metadata"]["labels"]
            opens = {"mongodb": self.mongodb_opens, "postgresql": self.postgresql_opens}
            # Without a pod nobody makes a claim anew.
            ready = count > 0 and name not in self.broken and (name not in opens or opens[name]())
            for number in range(count):
                self.api.put(
                    f"/api/v1/namespaces/{NS}/pods/{name}-{number}",
                    {
                        "metadata": {"name": f"{name}-{number}", "labels": labels},
                        "spec": {"containers": item["spec"]["template"]["spec"]["containers"] if kind == "statefulsets" else []},
                        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}], "containerStatuses": []},
                    },
                )
            item["status"] = {
                "observedGeneration": 1, "replicas": count, "readyReplicas": count if ready else 0, "updatedReplicas": count,
                "availableReplicas": count if ready else 0, "currentRevision": "1", "updateRevision": "1",
            }  # fmt: skip

    def mongodb_program(self) -> str:
        item = self.api.objects[f"/apis/apps/v1/namespaces/{NS}/statefulsets/mongodb"]
        tag = item["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]
        return ".".join(tag.split("-")[0].split(".")[:2])

    def mongodb_opens(self) -> bool:
        steps = ("3.6", "4.0", "4.2", "4.4", "5.0", "6.0", "7.0")
        if not self.api.objects.get(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-mongodb-0"):
            # A StatefulSet makes its claim anew, and MongoDB starts empty.
            self.api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-mongodb-0", {"metadata": {"name": "data-mongodb-0"}})
            self.feature, self.documents = self.mongodb_program(), {}
        place = steps.index(self.mongodb_program())
        return self.feature in steps[max(place - 1, 0) : place + 1]

    def postgresql_program(self) -> int:
        item = self.api.objects[f"/apis/apps/v1/namespaces/{NS}/statefulsets/postgresql"]
        return int(item["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2].split(".")[0])

    def postgresql_opens(self) -> bool:
        claim = f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-postgresql-0"
        if not self.api.objects.get(claim):
            self.api.put(claim, {"metadata": {"name": "data-postgresql-0"}})
            self.data_major, self.schemas, self.rows = self.postgresql_program(), {}, {}
        return self.postgresql_program() == self.data_major

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def clock(self) -> float:
        return self.now

    # -- the pods -----------------------------------------------------------------------------------------------------

    def run(
        self,
        place: Place,
        script: str,
        arguments: Sequence[str] = (),
        *,
        secret: str = "",
        source: IO[bytes] | None = None,
        sink: Callable[[bytes], object] | None = None,
    ) -> str:
        given = source.read() if source is not None else b""
        self.ran.append(f"{place.pod} {script} {' '.join(arguments)}")
        self.stdin.append(given[:200].decode("utf-8", "replace"))
        wanted = {"postgresql": "pg-secret", "mongodb": "mongo-secret"}[place.container]
        assert wanted not in script and wanted not in " ".join(arguments), "a secret stands in an argument"
        if "mongosh" in script:
            return self._shell(given.decode())
        if secret != wanted:
            raise OperationError("command", "authentication failed")
        out = self._postgres(script, list(arguments), given) if place.container == "postgresql" else self._mongo(script, given)
        if sink is not None:
            sink(out.encode())
            return ""
        return out

    def _shell(self, text: str) -> str:
        if "mongo-secret" not in text:
            raise OperationError("command", "authentication failed")
        found = re.search(r"setFeatureCompatibilityVersion: '([\d.]+)'(.*?)}", text)
        if found:
            if found[1] == "7.0" and "confirm: true" not in found[2]:
                return "onprem-circleci:{\"ok\": 0}\n"
            self.feature = found[1]
            return 'admin> onprem-circleci:{"ok":1}\nadmin> '
        return f'onprem-circleci:{{"featureCompatibilityVersion":{{"version":"{self.feature}"}},"ok":1}}\n'

    def _mongo(self, script: str, given: bytes) -> str:
        if "mongodump" in script:
            return json.dumps(self.documents)
        assert "--drop" in script
        self.documents = json.loads(given)
        return ""

    def _postgres(self, script: str, arguments: list[str], given: bytes) -> str:
        if not self.postgresql_opens() or "postgresql" in self.broken:
            raise OperationError("command", "connection refused")
        if "-f -" in script and "count(*)" in given.decode():
            return f"public.records|{len(self.rows[arguments[0]])}\n"
        if "psql -XqAt" in script:
            sql = arguments[1]
            if "datname FROM pg_database" in sql:
                return "\n".join(sorted(self.schemas)) + "\n"
            if "server_version_num" in sql:
                return "120016\n"
            if found := re.match(r'DROP DATABASE IF EXISTS "(\w+)"', sql):
                self.schemas.pop(found[1], None)
                self.rows.pop(found[1], None)
            return ""
        if "--schema-only" in script:
            # Each version of pg_dump writes the same tables in its own words.
            return f"-- a comment\n\\restrict abc{len(self.ran)}\nSET of {self.postgresql_program()};\n{self.schemas[arguments[0]]}\n"
        if "pg_dumpall" in script:
            return self.roles
        if "--format=custom" in script:
            return json.dumps([arguments[0], self.schemas[arguments[0]], self.rows[arguments[0]]])
        if "pg_restore" in script:
            if self.postgresql_program() in self.refused_dumps:
                raise self.refused_dumps[self.postgresql_program()]
            name, schema, rows = json.loads(given)
            self.schemas[name], self.rows[name] = schema, rows
            return ""
        if "psql -Xq -d postgres -f -" in script:
            assert b"ROLE postgres" not in given
            return 'psql:<stdin>:1: ERROR:  role "app_rw" already exists\n'
        raise AssertionError(script)


