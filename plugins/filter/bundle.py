# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about bundles and what follows from having loaded one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils.mirror.errors import MirrorError
from ..plugin_utils.bundle_contents import ContentsError, bundle_contents, cluster_addons, gateway_image
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.mirror_outputs import mirror_outputs
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def _contents(release: str, *, catalog: Catalog = PLAIN, **choices: Any) -> dict[str, Any]:
    try:
        return bundle_contents(catalog, release, **choices)
    except (CatalogError, ContentsError) as error:
        raise AnsibleFilterError(str(error)) from error
    except TypeError as error:
        raise AnsibleFilterError(f"bundle_contents: {error}") from error


def _outputs(registry: str, release: str, *, catalog: Catalog = PLAIN, **options: Any) -> dict[str, Any]:
    try:
        return mirror_outputs(registry, catalog=catalog, release=release, **options)
    except (CatalogError, MirrorError) as error:
        raise AnsibleFilterError(str(error)) from error
    except TypeError as error:
        raise AnsibleFilterError(f"mirror_outputs: {error}") from error


def _addons(load_balancer: str, storage_class: str, versions: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    return cluster_addons(load_balancer=load_balancer, storage_class=storage_class, versions=versions)


def _gateway(kind: str, images: Mapping[str, str]) -> dict[str, str]:
    try:
        return gateway_image(kind, images)
    except (ContentsError, MirrorError) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters by name."""

    def filters(self) -> Mapping[str, Callable[..., Any]]:
        return {
            "bundle_contents": with_catalog(_contents),
            "cluster_addons": _addons,
            "gateway_image": _gateway,
            "mirror_outputs": with_catalog(_outputs),
        }
