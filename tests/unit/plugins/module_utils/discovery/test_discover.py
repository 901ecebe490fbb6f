# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.discovery import (
    DiscoveryError,
    DiscoveryResult,
    discover,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.discovery.walk import in_object, merged, switches

# Stands for helm: it prints what the test laid down, one file for the configured render and one for everything enabled,
# and refuses the switches that the test forbids.
HELM = """#!/usr/bin/env python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
values = json.load(open(sys.argv[sys.argv.index("--values") + 1]))
with open(here / "calls.jsonl", "a") as log:
    log.write(json.dumps({"argv": sys.argv[1:], "values": values}) + "\\n")
if (here / "old").exists() and "--skip-schema-validation" in sys.argv:
    sys.exit("Error: unknown flag: --skip-schema-validation")
def on(name):
    return values.get(name, {}).get("enabled") is True
if (here / "exclusive").exists() and on("a") and on("b"):
    sys.exit("Error: execution error at (circleci-server/templates/x.yaml:1:3): a and b exclude each other")
if (here / "broken").exists():
    sys.exit("Error: parse error in values")
sys.stdout.write((here / "configured.yaml").read_text())
for name in ("a", "b"):
    if on(name):
        sys.stdout.write((here / f"{name}.yaml").read_text())
"""

CONFIGURED = """---
# Source: circleci-server/templates/frontend.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend}
spec:
  template:
    spec:
      initContainers:
        - {name: wait, image: "cciserver.azurecr.io/frontend-migrator:2"}
      containers:
        - name: frontend
          image: cciserver.azurecr.io/frontend:1
          args: ["--sidecar", "quay.io/some/sidecar:v3"]
          env:
            - {name: REAPER_IMAGE, value: "pause:3.6"}
            - {name: REDIS, value: "redis:6379"}
---
# Source: circleci-server/templates/cm.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: nomad}
data:
  job.hcl: |
    config { image = "kong:3.4.2" }
---
# Source: circleci-server/templates/cron.yaml
apiVersion: batch/v1
kind: CronJob
metadata: {name: clean}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: "kong:3.4.2"}]}}}}}
"""
A = """
---
# Source: circleci-server/templates/collector.yaml
apiVersion: opentelemetry.io/v1
kind: OpenTelemetryCollector
metadata: {name: otel}
spec:
  image: otel/opentelemetry-collector-contrib:0.144.0
  targetAllocator:
    image: {repository: ghcr.io/otel/allocator, tag: "1"}
"""
B = """
---
# Source: circleci-server/templates/vault.yaml
apiVersion: v1
kind: Pod
metadata: {name: vault}
spec: {ephemeralContainers: [{name: d, image: "cciserver.azurecr.io/vault-cci:0.4"}], containers: []}
"""


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.chart = path / "circleci-server"
        self.chart.mkdir()
        self.helm = path / "helm"
        self.helm.write_text(HELM)
        self.helm.chmod(self.helm.stat().st_mode | stat.S_IXUSR)
        (path / "configured.yaml").write_text(CONFIGURED)
        (path / "a.yaml").write_text(A)
        (path / "b.yaml").write_text(B)
        (self.chart / "Chart.yaml").write_text("name: circleci-server\nversion: 4.10.0\n")
        (self.chart / "values.yaml").write_text(
            "a: {enabled: false}\nb: {enabled: false}\nproxy: {enabled: '1'}\n"
            "frontend: {image: {repository: frontend, tag: '1'}}\n"
            "backup: {image: {registry: docker.io, repository: velero/velero, tag: v1.16.1}}\n"
            "nomad: {buildAgentImage: circleci/picard}\n"
        )
        (self.chart / "images.yaml").write_text("circleci/picard: 1.0.3-server\ncircleci/docker-agent: 1.2\n")

    def discover(self, values: dict[str, Any] | None = None, **options: Any) -> DiscoveryResult:
        return discover(self.chart, values, helm=str(self.helm), **options)

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def rules(result: DiscoveryResult) -> dict[str, set[str]]:
    return {entry.ref.name: {why.rule for why in entry.why} for entry in result.refs}


def test_finds_every_kind_of_place(site: Site) -> None:
    found = rules(site.discover())
    assert found == {
        "cciserver.azurecr.io/frontend-migrator:2": {"init container"},
        "cciserver.azurecr.io/frontend:1": {"container", "map of values with repository and tag"},
        "cciserver.azurecr.io/vault-cci:0.4": {"ephemeral container"},
        "docker.io/circleci/picard:1.0.3-server": {"list of the chart", "value whose key says image, tag from images.yaml"},
        "docker.io/library/kong:3.4.2": {"container"},
        "docker.io/library/pause:3.6": {"setting whose name says image"},
        "docker.io/otel/opentelemetry-collector-contrib:0.144.0": {"image of a custom resource"},
        "docker.io/velero/velero:v1.16.1": {"map of values with repository and tag"},
        "ghcr.io/otel/allocator:1": {"image of a custom resource"},
        "quay.io/some/sidecar:v3": {"string with a registry host"},
    }


def test_known_repositories_are_seen_in_texts(site: Site) -> None:
    assert "string that names a known image" in rules(site.discover(known=["kong"]))["docker.io/library/kong:3.4.2"]


def test_reasons_name_file_and_path(site: Site) -> None:
    entry = next(entry for entry in site.discover().refs if entry.ref.repository == "library/kong")
    assert [(why.file, why.path) for why in entry.why] == [
        ("circleci-server/templates/cron.yaml", "CronJob/clean spec.jobTemplate.spec.template.spec.containers[0].image")
    ]


def test_only_places_that_run_are_sure(site: Site) -> None:
    sure = {entry.ref.name: entry.sure for entry in site.discover().refs}
    assert not sure["docker.io/library/pause:3.6"]
    assert not sure["docker.io/velero/velero:v1.16.1"]
    assert sure["cciserver.azurecr.io/frontend:1"]
    assert sure["docker.io/circleci/picard:1.0.3-server"]


def test_renders_as_configured_and_with_everything_on(site: Site) -> None:
    site.discover({"mine": 1})
    first, second = (call["values"] for call in site.calls())
    assert first == {"mine": 1}
    assert second == {
        "mine": 1,
        "a": {"enabled": True},
        "b": {"enabled": True},
        "proxy": {"enabled": True},
        "oidc_service": {"json_web_keys": "ZHVtbXk="},
    }


def test_switches_that_exclude_each_other_are_tried_alone(site: Site) -> None:
    (site.path / "exclusive").touch()
    result = site.discover({"b": {"enabled": False}})
    assert {"ghcr.io/otel/allocator:1", "cciserver.azurecr.io/vault-cci:0.4"} <= set(rules(result))
    assert result.skipped_switches == {}


def test_a_switch_that_never_renders_is_named(site: Site) -> None:
    (site.path / "exclusive").touch()
    result = site.discover({"b": {"enabled": True}})
    assert list(result.skipped_switches) == ["a.enabled"]
    assert "exclude each other" in result.skipped_switches["a.enabled"]


def test_older_helm_without_the_flag(site: Site) -> None:
    (site.path / "old").touch()
    assert "cciserver.azurecr.io/frontend:1" in rules(site.discover())


def test_relocation_is_taken_out_of_the_values(site: Site) -> None:
    site.discover({"global": {"container": {"registry": "registry.example:5000", "other": 1}}}, relocation_keys=["global.container.registry", "kong.image.repository"])
    assert site.calls()[0]["values"] == {"global": {"container": {"other": 1}}}


def test_an_image_in_the_private_registry_is_refused(site: Site) -> None:
    (site.path / "configured.yaml").write_text(CONFIGURED.replace("cciserver.azurecr.io/frontend:1", "registry.example:5000/frontend:1"))
    with pytest.raises(DiscoveryError, match=r"registry\.example:5000/frontend:1 lies in the private registry.*frontend\.yaml.*circleci_values"):
        site.discover(private_registries=["registry.example:5000"])


def test_lists_and_own_images_come_with_their_reason(site: Site) -> None:
    result = site.discover(listed=[{"ref": "circleci/docker-gc:2.0", "path": "nomad_client", "why": "cleans Nomad clients"}], extras=["me/job:1"])
    whys = {entry.ref.name: entry.why[0].as_dict() for entry in result.refs}
    assert whys["docker.io/circleci/docker-gc:2.0"] == {"file": "catalog", "path": "nomad_client", "rule": "cleans Nomad clients"}
    assert whys["docker.io/me/job:1"]["rule"] == "asked for by you"


def test_a_wrong_extra_is_refused(site: Site) -> None:
    with pytest.raises(DiscoveryError, match=r"your variables: extra images: 'Me/Job': 'Me/Job' is not a repository path.*lower case"):
        site.discover(extras=["Me/Job"])


def test_errors_are_one_sentence(site: Site) -> None:
    (site.path / "broken").touch()
    with pytest.raises(DiscoveryError, match=r"^helm cannot render circleci-server 4\.10\.0: Error: parse error in values$"):
        site.discover()
    with pytest.raises(DiscoveryError, match="helm is not on the connected host"):
        discover(site.chart, helm="/nowhere/helm")
    with pytest.raises(DiscoveryError, match=r"Chart\.yaml is not there"):
        discover(site.path, helm=str(site.helm))


def test_values_never_travel_as_arguments(site: Site) -> None:
    site.discover({"global": {"license": "canary-secret"}})
    assert "canary-secret" not in json.dumps([call["argv"] for call in site.calls()])


def test_sub_charts_bring_their_switches(site: Site) -> None:
    below = site.chart / "charts/metrics"
    below.mkdir(parents=True)
    (below / "Chart.yaml").write_text("name: metrics\nversion: '1'\n")
    (below / "values.yaml").write_text("node: {isEnabled: false}\n")
    site.discover()
    assert site.calls()[1]["values"]["metrics"] == {"node": {"isEnabled": True}}


def test_walk_helpers() -> None:
    assert set(switches({"x": {"enabled": True, "y": {"isEnabled": 1}}, "enabled": {"no": 1}})) == {("x", "enabled"), ("x", "y", "isEnabled")}
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "d": 3}}) == {"a": {"c": 2, "d": 3}}
    assert list(in_object("no object", [])) == []
