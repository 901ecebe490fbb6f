# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalog as one site has it: with the overlay that its variable names. Filters and the lookup ask here, so that none can forget it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from jinja2 import pass_context
from jinja2.runtime import Context

from .catalog import Catalog, CatalogError

OVERLAY = "circleci_catalog_overlay"
PLAIN = Catalog.load()
"""What the vendor's pages say; nothing is read before somebody asks."""


def site_catalog(variables: Mapping[str, Any] | Context) -> Catalog:
    """The catalog for a site with these (templated) variables."""
    path = variables.get(OVERLAY)
    return Catalog.load(overlay=str(path) if path else "")


def with_catalog(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that hands the site's catalog to *function* as the keyword C(catalog)."""

    @pass_context
    @functools.wraps(function)
    def called(context: Context, *arguments: Any, **options: Any) -> Any:
        try:
            catalog = site_catalog(context)
        except CatalogError as error:
            raise AnsibleFilterError(f"{OVERLAY}: {error}") from error
        return function(*arguments, catalog=catalog, **options)

    return called
