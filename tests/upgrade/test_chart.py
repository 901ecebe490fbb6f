# SPDX-License-Identifier: GPL-3.0-or-later
"""A first install with a chart that is not as documented: compared on the connected side, refused as it is, installed with what was seen.

The vendor's registry has such a chart while these tests run. test_path.py goes on with the documented one.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import content, docker, layout, verbs
from sandbox.standin import chart
from sandbox.standin.oci import Entry, Layout, gzip_bytes, tar_bytes
from tests.unit.standin import planted

from .conftest import NAMESPACE, PATH, STATE, Site, bring, carry_over, extra, probed, said

RELEASE = PATH[0]
BUNDLE = "/srv/bundle-other-chart"
CHECKED = f"{STATE}/chart-check/circleci-server-{RELEASE}"
OVERLAY = f"/root/circleci-server-{RELEASE}.overlay.json"
OTHER: dict[str, Any] = extra(RELEASE, circleci_bundle_dir=BUNDLE)
WITH_OVERLAY: dict[str, Any] = {**OTHER, "circleci_catalog_overlay": OVERLAY}


def other_chart(folder: Path) -> bytes:
    """The archive of a chart with another name for three things: the key that moves an image, a key that must be set, and a workload."""
    unpacked = chart.unpack(RELEASE, folder)
    planted.image_key_renamed(unpacked)
    planted.bucket_key_renamed(unpacked)
    planted.workload_renamed(unpacked, "legacy-notifier", "notifier")
    planted.not_called_a_stand_in(unpacked)
    files = {path.relative_to(unpacked): path.read_bytes() for path in sorted(unpacked.rglob("*")) if path.is_file()}
    return gzip_bytes(tar_bytes(Entry(f"{chart.NAME}/{path}", data) for path, data in files.items()))


@pytest.fixture(scope="module", autouse=True)
def vendor_has_another_chart(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Its registry reads this chart above what it had: the same tag, another digest."""
    folder = tmp_path_factory.mktemp("chart")
    oci = Layout(folder / "oci")
    oci.chart(f"{layout.VENDOR_REGISTRY}/{chart.NAME}:{RELEASE}", chart.metadata_of(RELEASE), other_chart(folder))
    oci.finish()
    content.seed_registries(folder / "oci", folder / "registry")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder / "registry" / layout.VENDOR_REGISTRY, ".")
    vendor, served = layout.host("vendor").container, f"/srv/internet/registry/{layout.VENDOR_REGISTRY}"
    docker.execute(vendor, ["sh", "-ec", "mkdir -p /run/other-chart && tar -C /run/other-chart -x"], stdin=packed.getvalue())
    docker.execute(vendor, ["mount", "-t", "overlay", "-o", f"ro,lowerdir=/run/other-chart:{served}", "overlay", served])
    yield
    docker.execute(vendor, ["umount", served])


def test_chart_check_finds_what_differs(site: Site) -> None:
    result = site.run("chart_check", given=extra(RELEASE), name="chart-check")
    assert result.code == 0, said(result)
    report = json.loads(verbs.read("workstation", f"{CHECKED}.json"))
    found = {row["what"]: row["chart"] for row in report["differences"]}
    assert found["kong: key of repository"] == "kong.image.name"
    assert found["object_storage.bucketName"] == "object_storage.bucket"
    assert found["notifier"].startswith("Deployment")
    assert report["left"] == []


def test_install_refuses_the_other_chart_with_the_documented_facts(site: Site) -> None:
    site.on("bastion", "sh", "-c", f"cat > {OVERLAY}", stdin=verbs.read("workstation", f"{CHECKED}.overlay.json"))
    site.on("workstation", "cp", f"{CHECKED}.overlay.json", OVERLAY)
    bring(site, WITH_OVERLAY, "bundle-other-chart")
    carry_over(BUNDLE)
    made = site.run("secrets", given=WITH_OVERLAY, name="secrets-other-chart")
    assert made.code == 0, said(made)
    result = site.run("install", given=OTHER, name="install-without-overlay")
    assert result.code == 2 and "additional properties 'bucketName' not allowed" in said(result), said(result)
    assert "run the verb chart_check with it and give its overlay as circleci_catalog_overlay" in said(result), said(result)
    assert site.kubectl("-n", NAMESPACE, "get", "deployments", "-o", "name") == ""


def test_the_overlay_makes_the_install_pass(site: Site) -> None:
    probed(site, site.run("install", given=WITH_OVERLAY, name="install-with-overlay"))
    assert site.release() == (RELEASE, "deployed") and RELEASE in site.page()
    kong = site.kubectl("-n", NAMESPACE, "get", "deployment", "kong", "-o", "jsonpath={.spec.template.spec.containers[*].image}")
    assert kong.startswith("registry.site.example:5000/"), kong
    report = json.loads(verbs.read("bastion", f"{STATE}/reports/report.json"))
    known = {workload["name"] for service in report["services"] for workload in service["workloads"]}
    assert "notifier" in known and "legacy-notifier" not in known
    check = site.run("install", given=WITH_OVERLAY, arguments=["--check", "--diff"], name="install-with-overlay-check")
    again = site.run("install", given=WITH_OVERLAY, name="install-with-overlay-again")
    assert (check.code, check.changed, again.code, again.changed) == (0, {}, 0, {}), (said(check), check.changes(), said(again), again.changes())


def test_the_report_says_which_chart_the_catalog_was_compared_with(site: Site) -> None:
    compared = json.loads(verbs.read("workstation", f"{CHECKED}.json"))["chart"]["digest"]
    report = json.loads(verbs.read("bastion", f"{STATE}/reports/report.json"))
    assert report["chart"]["compared"] is True and compared in json.dumps(report["chart"]), report["chart"]
