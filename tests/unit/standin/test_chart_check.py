# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb chart_check on charts that were changed on purpose, rendered by the real Helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.chart_facts import (
    content_digest,
    prove_chart,
    read_chart,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import parse_documents
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.proof import Proof
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.chart_check import (
    REGISTRY,
    Comparison,
    compare_chart,
    sample_request,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.chart_check.request import sample_facts
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import compose
from ansible_collections.onprem.circleci_server.tests.unit.plugins.plugin_utils.values.test_overlay import FIELD

from sandbox.standin import chart
from tests.unit.standin.planted import (
    bucket_key_renamed,
    edit,
    image_key_renamed,
    schema_of,
    values_of,
    workload_renamed,
)
from tests.unit.standin.test_chart import INSTALLABLE, _helm, needs_helm

pytestmark = needs_helm
RELEASE = "4.10.0"
Change = Callable[[Path], None]


class Checked:
    """A chart, what was read in it, and the comparison."""

    def __init__(self, release: str, folder: Path, change: Change) -> None:
        helm = _helm()
        assert helm
        self.helm, self.release = helm, release
        self.folder = chart.unpack(release, folder)
        change(self.folder)
        request = sample_request(Catalog.load(), release)
        self.facts = read_chart(self.folder, helm=helm, values=request["values"], registry=request["registry"], image_keys=request["image_keys"])
        self.comparison: Comparison = compare_chart(Catalog.load(), release, self.facts)
        self.overlay = folder / "overlay.json"
        self.overlay.write_text(json.dumps(self.comparison.overlay), encoding="utf-8")

    def rows(self, section: str) -> dict[str, tuple[str, str, str]]:
        """level, catalog and chart of each difference, by what it is about."""
        return {row.what: (row.level, row.catalog, row.chart) for row in self.comparison.differences if row.section == section}

    def install(self, catalog: Catalog) -> list[str]:
        """What stops a plain site with this chart: composing with the chart's schema, Helm itself, and the proof."""
        composed = compose(sample_facts(self.release), catalog, json.loads((self.folder / "values.schema.json").read_text(encoding="utf-8")))
        if composed.errors:
            return list(composed.errors)
        given = self.folder.parent / "given.json"
        given.write_text(json.dumps(composed.values), encoding="utf-8")
        argv = [self.helm, "template", "circleci-server", str(self.folder), "--values", str(given)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            return [done.stderr]
        proof = Proof(parse_documents(done.stdout), namespace="default", registry=REGISTRY, values=composed.values)
        inside = proof.check_prefixes()
        proof.check_images(inside, lambda path, reference: True)
        assert len(inside) > 40
        return [item.sentence() for item in proof.findings.items]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Callable[..., Checked]]:
    yield lambda change, release=RELEASE: Checked(release, tmp_path, change)


def untouched(folder: Path) -> None:
    assert (folder / "Chart.yaml").is_file()


@pytest.mark.parametrize("release", INSTALLABLE)
def test_chart_that_is_as_documented_breaks_nothing(check: Callable[..., Checked], release: str) -> None:
    checked = check(untouched, release)
    assert checked.facts["problems"] == []
    assert [row for row in checked.comparison.differences if row.level == "breaks"] == []
    # The stand-in takes some tags from the lists of images, which contradict the tables of values.
    keys = [row for row in checked.comparison.differences if row.section == "keys" and not row.what.endswith("image.tag: default")]
    assert [row for row in keys if row.level in ("differs", "gone", "new")] == []
    assert checked.comparison.left == []
    assert checked.install(Catalog.load()) == []
    assert checked.install(Catalog.load(overlay=str(checked.overlay))) == []


# -- each planted difference is found, and the overlay makes the site pass ----------------------------------------------


def test_image_that_another_key_moves(check: Callable[..., Checked]) -> None:
    checked = check(image_key_renamed)
    rows = checked.rows("images")
    assert rows["kong: key of repository"] == ("differs", "kong.image.repository", "kong.image.name")
    assert rows["image kong:3.4.2"][0] == "breaks"
    assert checked.rows("keys")["kong.image.repository"] == ("differs", "kong.image.repository", "kong.image.name")
    assert any("kong:3.4.2" in text for text in checked.install(Catalog.load()))
    assert checked.install(Catalog.load(overlay=str(checked.overlay))) == []
    composed = compose(sample_facts(RELEASE), Catalog.load(overlay=str(checked.overlay)))
    (row,) = [row for row in composed.explanations() if row["key"] == "kong.image.name"]
    assert row["certainty"] == "observed"
    # The operator's own values are held against the chart too.
    old = compose(sample_facts(RELEASE, {"kong": {"image": {"repository": "x"}}}), Catalog.load(overlay=str(checked.overlay)))
    assert "kong.image.repository was renamed in 4.10: write kong.image.name instead" in "".join(old.errors)


def image_added(folder: Path) -> None:
    values_of(folder, lambda tree: tree.update(sidecar={"image": {"repository": "docker.io/library/busybox", "tag": "1.37"}}))
    path = folder / "templates/kong/workload.yaml"
    path.write_text(
        path.read_text(encoding="utf-8")
        + """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sidecar, labels: {app: sidecar, layer: application}}
spec:
  selector: {matchLabels: {app: sidecar}}
  template:
    metadata: {labels: {app: sidecar, layer: application}}
    spec:
      containers:
        - name: sidecar
          image: "{{ .Values.sidecar.image.repository }}:{{ .Values.sidecar.image.tag }}"
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: sidecar-token, key: token}}}]
---
apiVersion: v1
kind: Service
metadata: {name: sidecar}
spec: {type: NodePort, selector: {app: sidecar}, ports: [{name: http, port: 8099}]}
""",
        encoding="utf-8",
    )


def test_image_workload_service_and_secret_that_nobody_knew(check: Callable[..., Checked]) -> None:
    checked = check(image_added)
    assert checked.rows("images")["docker.io/library/busybox"] == (
        "new", "unknown", "1.37; repository by sidecar.image.repository, tag by sidecar.image.tag",
    )  # fmt: skip
    assert checked.rows("images")["image docker.io/library/busybox:1.37"][0] == "breaks"
    assert checked.rows("keys")["sidecar.image.repository"] == ("new", "unknown", "string, docker.io/library/busybox")
    assert checked.rows("workloads")["sidecar"] == ("new", "unknown", "Deployment, containers sidecar")
    assert checked.rows("services")["sidecar:8099/tcp: exposed"] == ("differs", "not exposed", "NodePort")
    assert checked.rows("secrets")["sidecar-token"] == ("breaks", "unknown", "the operator must bring it, keys token")
    assert any("busybox" in text for text in checked.install(Catalog.load()))
    catalog = Catalog.load(overlay=str(checked.overlay))
    assert checked.install(catalog) == []
    assert catalog.image(RELEASE, "busybox").values_keys.repository == "sidecar.image.repository"  # type: ignore[union-attr]
    assert catalog.service(RELEASE, "sidecar").workloads[0].kind == "deployment"
    assert catalog.secret(RELEASE, "sidecar-token").keys[0].name == "token"
    assert {port.port for port in catalog.internal_ports(RELEASE) if port.kubernetes_service == "sidecar"} == {"8099"}
    # A chart says nothing about other releases.
    assert catalog.services("4.9.5") == Catalog.load().services("4.9.5")


def test_key_that_has_another_name_and_is_refused(check: Callable[..., Checked]) -> None:
    checked = check(bucket_key_renamed)
    assert checked.rows("keys")["object_storage.bucketName"] == ("differs", "object_storage.bucketName", "object_storage.bucket")
    assert checked.rows("keys")["composing"][0] == "breaks"
    assert "object_storage.bucketName is not a key of this chart" in "".join(checked.install(Catalog.load()))
    assert checked.install(Catalog.load(overlay=str(checked.overlay))) == []
    warnings = compose(sample_facts(RELEASE), Catalog.load(overlay=str(checked.overlay))).warnings
    assert any("object_storage.bucketName" in text and "object_storage.bucket" in text and "rename" in text for text in warnings)


def keys_changed(folder: Path) -> None:
    def in_values(tree: dict[str, Any]) -> None:
        tree["frontend"]["replicas"] = 7
        tree["frontend"]["brand_new"] = "shiny"
        tree["nginx"].pop("loadBalancerSourceRanges", None)
        tree["smtp"]["port"] = "25"
        del tree["tink"]["enabled"]

    def in_schema(tree: dict[str, Any]) -> None:
        tree["smtp"]["properties"]["port"] = {"type": "string"}
        del tree["tink"]["properties"]["enabled"]

    values_of(folder, in_values)
    schema_of(folder, in_schema)


def test_keys_that_differ_came_and_went(check: Callable[..., Checked]) -> None:
    checked = check(keys_changed)
    rows = checked.rows("keys")
    assert rows["frontend.replicas: default"] == ("differs", "1", "7")
    assert rows["frontend.brand_new"] == ("new", "unknown", "string, shiny")
    assert rows["smtp.port: type"] == ("differs", "int", "string")
    assert rows["tink.enabled"] == ("gone", "known", "refused by the schema")
    assert checked.install(Catalog.load()) != []
    catalog = Catalog.load(overlay=str(checked.overlay))
    assert checked.install(catalog) == []
    assert catalog.values_key(RELEASE, "frontend.replicas").default == 7
    assert catalog.values_key(RELEASE, "frontend.brand_new").certainty == "observed"
    composed = compose(sample_facts(RELEASE, {"frontend": {"brand_new": "dull"}, "tink": {"enabled": True}}), catalog)
    assert not any("brand_new" in text for text in composed.warnings)
    assert any("tink.enabled is gone since 4.10" in text for text in composed.errors), composed.errors


def objects_changed(folder: Path) -> None:
    edit(folder / "templates/nomad-server/nomad-server.yaml", "port: 4647, targetPort: rpc", "port: 5647, targetPort: rpc")
    workload_renamed(folder, "web-ui", "web-ui-next")
    edit(folder / "standin/workloads/webhook-service.yaml", "layer: application", "layer: data")
    (folder / "templates/soketi/workload.yaml").unlink()
    edit(folder / "templates/_helpers.tpl", '(list "signing-keys" (index $side 2))', '(list "signing-keys" "sign-key")')


def test_objects_that_differ(check: Callable[..., Checked]) -> None:
    checked = check(objects_changed)
    assert checked.rows("services")["nomad-server:4647/tcp"][0] == "differs"
    assert checked.rows("services")["nomad-server:5647/tcp"][0] == "new"
    workloads = checked.rows("workloads")
    assert workloads["web-ui"][0] == "gone"
    assert workloads["web-ui-next"] == ("new", "unknown", "Deployment, containers web-ui")
    assert workloads["soketi"][0] == "gone"
    assert workloads["webhook-service: label layer"] == ("differs", "application", "data")
    assert checked.rows("secrets")["signing-keys: keys"][0] == "breaks"
    catalog = Catalog.load(overlay=str(checked.overlay))
    names = [work.name for work in catalog.service(RELEASE, "web-ui-*").workloads]
    assert "web-ui-next" in names and "web-ui" not in names


@pytest.mark.parametrize("name", [name for name, (release, _values) in FIELD.items() if release in INSTALLABLE])
def test_values_of_the_field_pass_the_schema_of_the_chart(name: str) -> None:
    release, overlay = FIELD[name]
    schema = json.loads(chart.files(release)["values.schema.json"])
    assert list(compose(sample_facts(release, overlay), Catalog.load(), schema).errors) == []


def switch_refused(folder: Path) -> None:
    path = folder / "templates/kong/workload.yaml"
    path.write_text('{{ if .Values.insights_service.isEnabled }}{{ fail "not today" }}{{ end }}\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    values_of(folder, lambda tree: tree["insights_service"].update(isEnabled=False))


def test_switch_that_cannot_be_on_is_told_and_the_rest_is_compared(check: Callable[..., Checked]) -> None:
    checked = check(switch_refused)
    assert "insights_service.isEnabled cannot be switched on" in "".join(checked.facts["problems"])
    assert "not today" in "".join(checked.facts["problems"])
    assert len(checked.facts["images"]) > 40


def test_folder_and_archive_are_the_same_chart(tmp_path: Path) -> None:
    folder = chart.unpack(RELEASE, tmp_path)
    archive = tmp_path / "circleci-server-4.10.0.tgz"
    archive.write_bytes(chart.archive(RELEASE))
    assert content_digest(folder) == content_digest(archive)
    helm = _helm()
    assert helm
    request = sample_request(Catalog.load(), RELEASE)
    assert read_chart(archive, helm=helm, values=request["values"]) == read_chart(folder, helm=helm, values=request["values"])
    assert prove_chart(archive, helm=helm, values=request["values"], registry=REGISTRY) == {"outside": [], "problems": []}
