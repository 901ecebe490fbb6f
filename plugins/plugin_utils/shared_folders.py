# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites of one inventory that name the same folder of the same host; the one thing besides ``site_reports`` that is read across sites.

What is found here needs no look at the host. That two names lead to one host is not always seen: there the mark in the folder tells it
(``module_utils/site_folder.py``).
"""

from __future__ import annotations

import posixpath
import typing as t

from .arguments import Argument, Problem

_CONTROL = "circleci_sites"
_FROM_ELSEWHERE = ("plan",)
"""Verbs that work from the inventory alone and may run on any machine for all sites, with ``-e ansible_connection=local``."""


def _value(variables: t.Mapping[str, t.Any], name: str) -> t.Any:
    """A variable of another site, or None where it cannot be resolved: that is for the run of that site to tell."""
    try:
        return variables.get(name)
    except Exception:  # whatever a template of somebody else raises
        return None


def _host(name: str, variables: t.Mapping[str, t.Any], verb: str) -> tuple[str, ...]:
    connection = _value(variables, "ansible_connection") or ""
    if verb in _FROM_ELSEWHERE:
        connection = ""
    elif connection in ("local", "ansible.builtin.local"):
        return ("local",)
    # Behind one address there may be several hosts, each with a port of its own.
    return (str(connection), str(_value(variables, "ansible_host") or name), str(_value(variables, "ansible_port") or 22))


def shared_folder(
    verb: str, groups: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any], inventory_hostname: str, folder: str, arguments: t.Mapping[str, Argument]
) -> list[Problem]:
    """What is wrong with the folder of records of one control host, beside those of the other sites."""
    argument, short_name = arguments["circleci_state_dir"], arguments["circleci_site"]
    if verb not in argument.verbs:
        return []
    own = _host(inventory_hostname, hostvars[inventory_hostname], verb), posixpath.normpath(folder)
    sharing = []
    for name in groups.get(_CONTROL, []):
        variables = hostvars[name]
        if name == inventory_hostname:
            continue
        its = _host(name, variables, verb), posixpath.normpath(str(_value(variables, argument.name) or argument.default))
        if its == own:
            sharing.append(f"{name} (site {_value(variables, short_name.name) or short_name.default})")
    if not sharing:
        return []
    found = f"{folder!r}, which {' and '.join(sharing)} has on the same host too"
    remedy = f"Set {argument.name} for each of them in its group site_<name>; the site whose records lie there keeps it."
    return [Problem(argument.name, found, f"a folder of its own for each site, such as {argument.default}-<name>", remedy)]
