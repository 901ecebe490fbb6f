# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds, from the catalog and from what the collection brings itself. Worked out on the controller, once a site."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ...module_utils.mirror.lock import FILES_REPOSITORY
from ...module_utils.mirror.oci import Reference
from ..catalog import Catalog

VENDOR_REGISTRY = "cciserver.azurecr.io"
IMAGE_GROUPS = ("nomad_client", "runner", "database_upgrade", "reality_check", "tool", "backup")
_NEEDED_GROUPS = ("nomad_client",)
"""Without these, and without the probe's image, no job runs: a bundle that lacks one is refused. Of what else is gone it is only warned."""
PROBE_REPOSITORY = "cimg/base"
_OWN_WORK = ("image_list", "keysets")
"""Roles of images that do on the vendor's way what the collection does itself."""


class ContentsError(Exception):
    """One sentence for the operator."""


@lru_cache(maxsize=1)
def brought() -> dict[str, Any]:
    """What the vendor does not decide."""
    return cast("dict[str, Any]", json.loads((Path(__file__).with_name("brought.json")).read_text(encoding="utf-8")))


def bundle_contents(
    catalog: Catalog,
    release: str,
    *,
    load_balancer: str = "",
    storage_class: str = "",
    object_storage_kind: str = "",
    object_storage_placement: str = "hosts",
    groups: Iterable[str] = IMAGE_GROUPS,
    optional: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Slices for the connected host, which never sees the catalog.

    *optional* names files of the catalog that have a condition (``circleci-cli``, ``machine-runner``, ``support-bundle``, …) with their versions;
    an empty version takes the one that is known.
    """
    choices = {
        "load_balancer": load_balancer,
        "storage_class": storage_class,
        "object_storage_kind": object_storage_kind,
        "object_storage_placement": object_storage_placement,
    }
    optional = optional or {}
    overrides = {**brought()["versions"], **(versions or {}), **{name: version for name, version in optional.items() if version}}
    images = catalog.images(release)
    wanted_groups = set(groups)
    unknown = sorted(wanted_groups - {image.group for image in images} - set(IMAGE_GROUPS))
    if unknown:
        raise ContentsError(f"groups: {', '.join(unknown)} is no group of images; known: {', '.join(IMAGE_GROUPS)}")
    listed: list[dict[str, Any]] = [
        {
            "ref": image.reference or f"{image.repository}:latest",
            "path": image.group,
            "why": f"{image.role}{f', when {image.condition}' if image.condition else ''}",
            "needed": image.tag is not None and (image.group in _NEEDED_GROUPS or image.repository == PROBE_REPOSITORY),
        }
        for image in images
        if image.group != "chart" and image.group in wanted_groups and image.role not in _OWN_WORK
    ]
    # In the cluster an image runs, and no host needs the program.
    on_hosts = object_storage_kind if object_storage_placement == "hosts" else ""
    files = _catalog_files(catalog, release, on_hosts, set(optional), overrides)
    for thing in brought()["things"]:
        if not all(choices[key] in values for key, values in thing["when"].items()):
            continue
        version = overrides.get(thing["name"], thing["version"])
        listed += [{"ref": image.format(version=version), "path": thing["name"], "why": thing["why"], "needed": True} for image in thing["images"]]
        if "url" not in thing:
            continue
        files.append(
            {
                "name": thing["name"],
                "version": version,
                "version_from": "",
                "url": thing["url"].format(version=version),
                "checksum_url": thing.get("checksum_url", "").format(version=version),
                "checksum_kind": thing.get("checksum_kind", ""),
                "filename": thing["filename"],
                "mode": thing.get("mode", "0644"),
                "object_path": "",
                "why": thing["why"],
            }
        )
    return {
        "release": release,
        "chart": f"{VENDOR_REGISTRY}/circleci-server:{release}",
        "images": listed,
        "known_repositories": sorted({image.repository for image in images}),
        "relocation_keys": sorted(
            {
                key
                for image in images
                if image.values_keys is not None
                for key in (image.values_keys.registry, image.values_keys.org, image.values_keys.repository)
                if key is not None
            }
        ),
        "files": sorted(files, key=lambda item: str(item["name"])),
        "file_versions": {item["name"]: item["version"] for item in files if item["version"]},
    }


def cluster_addons(*, load_balancer: str = "", storage_class: str = "", versions: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Add-ons that the collection brings into the cluster, with the artifact and the images that the bundle holds for each."""
    choices = {"load_balancer": load_balancer, "storage_class": storage_class}
    overrides = {**brought()["versions"], **(versions or {})}
    found = []
    for thing in brought()["things"]:
        if "addon" not in thing or not all(choices.get(key, "") in values for key, values in thing["when"].items()):
            continue
        version = overrides.get(thing["name"], thing["version"])
        found.append(
            {
                "name": thing["addon"],
                "artifact": f"{FILES_REPOSITORY}/{thing['name']}",
                "version": version,
                "images": [image.format(version=version) for image in thing["images"]],
                "default_storage_class": thing.get("default_storage_class", ""),
            }
        )
    return found


def gateway_image(kind: str, images: Mapping[str, str], versions: Mapping[str, str] | None = None) -> dict[str, str]:
    """``image`` by its upstream name and ``digest`` of a gateway that runs in the cluster. *images* are those of the loaded bundle, name to digest."""
    overrides = {**brought()["versions"], **(versions or {})}
    for thing in brought()["things"]:
        if kind not in thing["when"].get("object_storage_kind", ()) or "cluster" not in thing["when"].get("object_storage_placement", ()):
            continue
        image = str(thing["images"][0].format(version=overrides.get(thing["name"], thing["version"])))
        local = Reference.parse(image).local
        if local not in images:
            raise ContentsError(
                f"circleci_object_storage_placement: found cluster, but the bundle holds no {image}; make it again with circleci_object_storage_kind: {kind} "
                "and circleci_object_storage_placement: cluster, and load it."
            )
        return {"image": image, "digest": images[local]}
    raise ContentsError(f"circleci_object_storage_kind: found {kind}, for which no image is brought; circleci_object_storage_placement must be hosts.")


def _catalog_files(catalog: Catalog, release: str, object_storage_kind: str, optional: set[str], versions: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    specs = catalog.files(release)
    unknown = sorted(optional - {spec.name for spec in specs})
    if unknown:
        known = ", ".join(sorted({spec.name for spec in specs}))
        raise ContentsError(f"circleci_bundle_optional_files: {', '.join(unknown)} is no file of release {release}; known: {known}")
    for spec in specs:
        version = versions.get(spec.name, spec.version)
        from_chart = (spec.version_from or "").partition("images.yaml: ")[2]
        if spec.name in optional:
            if not spec.url or not (version or from_chart):
                raise ContentsError(
                    f"circleci_bundle_optional_files: {spec.name} cannot be fetched: "
                    + ("no download address is known" if not spec.url else f'give its version, like {spec.name}: "1.2.3"')
                )
        elif not _by_default(spec.kind, spec.name, spec.condition, object_storage_kind):
            continue
        if not spec.url or spec.made_on_site or spec.kind == "chart":
            continue
        for platform in spec.platforms if "{os}" in spec.url else ("",):
            os_name, _slash, arch = platform.partition("/")
            values = {"version": version or "{version}", "os": os_name, "arch": arch}
            url = spec.url.format(**values)
            program = not any(url.endswith(end) for end in (".txt", ".zip", ".tar.gz", ".yaml"))
            found.append(
                {
                    "name": spec.name + (f"-{os_name}-{arch}" if platform else ""),
                    # canary.txt and its like have no version of their own: they belong to the release they were fetched for.
                    "version": version or ("" if from_chart else release),
                    "version_from": "" if version else from_chart,
                    "url": url,
                    "checksum_url": (spec.checksum_url or "").format(**values),
                    "checksum_kind": spec.checksum_kind or "",
                    "filename": url.rsplit("/", 1)[-1],
                    "mode": "0755" if program else "0644",
                    "object_path": (spec.object_path or "").format(**values),
                    "why": f"{spec.used_by}{f', when {spec.condition}' if spec.condition else ''}",
                }
            )
    return found


def _by_default(kind: str, name: str, condition: str | None, object_storage_kind: str) -> bool:
    if kind == "gateway":
        return object_storage_kind.startswith(name)
    if kind == "runner":
        return False
    return condition is None
