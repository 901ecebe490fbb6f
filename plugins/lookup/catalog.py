# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask the catalog of the vendor's facts from a playbook."""

from __future__ import annotations

DOCUMENTATION = r"""
name: catalog
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
version_added: 0.1.0
short_description: Ask what CircleCI decided for a release of CircleCI Server
description:
  - Gives the vendor's facts about a release of CircleCI Server 4.x as data, each with its source and how sure it is.
  - Reads files of this collection only, never a host and never the network.
  - Every fact or row has the keys C(source) and C(certainty). The certainty is C(documented), C(constructed),
    C(inferred), C(disputed) or C(gap).
options:
  _terms:
    description:
      - What to ask for, one or several of these words.
      - V(releases) is the list of all known releases, V(platforms) and V(object_storage) are lists that do not
        depend on a release, V(platform) is the platform named by O(name).
      - V(release) is all facts of O(release).
      - V(services), V(ports), V(internal_ports), V(images), V(values_keys), V(retired_values_keys), V(files),
        V(secrets), V(requirements), V(sizing), V(databases), V(failure_modes), V(upgrade_steps) and V(nomad_layouts)
        are lists of rows of O(release).
      - V(service) is the service of O(release) that O(name) names.
    required: true
    type: list
    elements: string
  release:
    description:
      - A release in three parts, as a quoted string.
      - Needed by every word but V(releases), V(platforms), V(platform) and V(object_storage).
    type: raw
  name:
    description:
      - The service or platform to give, or the row of a list to keep. Rows are found by their C(id), C(name) or C(key).
      - Other spellings work for services and platforms, so C(NGINX) finds nginx and C(aks) finds azure.
    type: string
seealso:
  - name: Port rules
    description: The port rules of the newest release as a page.
    link: https://github.com/onprem-circleci/circleci_server/blob/main/docs/reference/catalog-ports.md
  - name: Releases
    description: The releases as a page.
    link: https://github.com/onprem-circleci/circleci_server/blob/main/docs/reference/catalog-releases.md
"""

EXAMPLES = r"""
- name: Show which Kubernetes versions a release allows
  ansible.builtin.debug:
    msg: "{{ facts.kubernetes_min.value }} to {{ facts.kubernetes_max.value }}"
  vars:
    facts: "{{ lookup('onprem.circleci_server.catalog', 'release', release='4.10.0') }}"

- name: List the ports of Nomad clients
  ansible.builtin.debug:
    msg: "{{ lookup('onprem.circleci_server.catalog', 'ports', release='4.10.0') | selectattr('group', 'eq', 'nomad_client') }}"

- name: Say what users lose when a service is down
  ansible.builtin.debug:
    msg: "{{ lookup('onprem.circleci_server.catalog', 'service', release='4.10.0', name='frontend').failure_impact }}"

- name: Show the verdict of the vendor on a platform
  ansible.builtin.debug:
    msg: "{{ lookup('onprem.circleci_server.catalog', 'platform', name='aks').verdicts }}"

- name: Find one values key
  ansible.builtin.debug:
    msg: "{{ lookup('onprem.circleci_server.catalog', 'values_keys', release='4.10.0', name='global.domainName') }}"
"""

RETURN = r"""
_raw:
  description:
    - One element for each term. It is a list for words in the plural, a dictionary for V(release), V(service) and
      V(platform), and for any list that O(name) narrows down to one row.
  type: list
  elements: raw
  sample:
    - - group: load_balancer
        id: lb-in-https
        ports: ["443"]
        source: server-admin 4.0-4.10 hardening page
        certainty: documented
"""

from collections.abc import Callable, Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible.errors import AnsibleError  # noqa: E402
from ansible.plugins.lookup import LookupBase  # noqa: E402

from ..plugin_utils.catalog import Catalog, CatalogError, UnknownNameError, plain  # noqa: E402
from ..plugin_utils.site_catalog import OVERLAY, site_catalog  # noqa: E402

# Words that need a release and give a list of rows; each is the name of a method of the catalog.
_TABLES = (
    "services",
    "ports",
    "internal_ports",
    "images",
    "values_keys",
    "retired_values_keys",
    "files",
    "secrets",
    "requirements",
    "sizing",
    "databases",
    "failure_modes",
    "upgrade_steps",
    "nomad_layouts",
)
_WITHOUT_RELEASE = ("releases", "platforms", "platform", "object_storage")
_WORDS = ("releases", "release", "service", "platforms", "platform", "object_storage", *_TABLES)
_NAMES = ("id", "name", "key", "users", "product", "flavour", "service")


def answer(catalog: Catalog, term: str, release: Any, name: str | None) -> Any:
    """One term's answer as plain data."""
    if term not in _WORDS:
        raise UnknownNameError("term", term, _WORDS)
    if term not in _WITHOUT_RELEASE and release is None:
        raise CatalogError(f'The term "{term}" needs the option release, for example release="{catalog.latest()}".')
    if term in ("service", "platform") and not name:
        raise CatalogError(f'The term "{term}" needs the option name.')
    if term == "releases":
        return list(catalog.releases())
    if term == "platform":
        return plain(catalog.platform(str(name)))
    if term == "release":
        return plain(catalog.release(release))
    if term == "service":
        return plain(catalog.service(release, str(name)))
    if term == "platforms":
        rows: Sequence[Any] = catalog.platforms()
    elif term == "object_storage":
        rows = catalog.object_storage_options()
    else:
        table: Callable[[Any], Sequence[Any]] = getattr(catalog, term)
        rows = table(release)
    return plain(rows) if name is None else _row(term, rows, name, release)


def _row(term: str, rows: Sequence[Any], name: str, release: Any) -> Any:
    attribute = next(known for known in _NAMES if rows and hasattr(rows[0], known))
    found = [row for row in rows if getattr(row, attribute) == name]
    if not found:
        where = "" if release is None else f"CircleCI Server {release}"
        raise UnknownNameError(f"name in {term}", name, [getattr(row, attribute) for row in rows], where=where)
    return plain(found[0])


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        overlay = self._templar.template((variables or {}).get(OVERLAY, "")) if self._templar else ""
        try:
            catalog = site_catalog({OVERLAY: overlay})
            return [answer(catalog, str(term), self.get_option("release"), self.get_option("name")) for term in terms]
        except CatalogError as error:
            raise AnsibleError(str(error)) from error
