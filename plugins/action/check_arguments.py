# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gate of every verb: checks the site variables of one control host, all of them, on the controller."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import PROBLEM, Finding
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import arguments as site_arguments
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import cloud_request, object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog, CatalogError
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.port_model import SiteInventoryError, site_members
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.shared_folders import shared_folder
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import site_facts

_PREFIX = "circleci_"


class _CatalogFacts:
    def __init__(self) -> None:
        self._catalog = Catalog.load()

    def check_release(self, version: object) -> None:
        try:
            self._catalog.release(t.cast("str", version))
        except CatalogError as error:
            raise ValueError(str(error)) from error

    def check_platform(self, platform: object) -> None:
        try:
            known = self._catalog.platform(t.cast("str", platform))
        except CatalogError as error:
            raise ValueError(str(error)) from error
        if known.installer_action.value == "refuse":
            raise ValueError(
                f"found {platform!r}, and the vendor says of {known.name}: {known.verdicts[-1].note} There is no override; allowed is a cluster of "
                "another kind. Runners may run there for a server that runs elsewhere"
            )

    def check_block(self, name: str, value: t.Mapping[str, t.Any]) -> list[str]:
        part = _BLOCKS[name]
        _facts, problems = site_facts({part: dict(value)})
        return [f"{name}: {text.removeprefix(f'{part}.').removeprefix(part).lstrip()}" for text in problems]

    def check_overlay(self, path: str) -> None:
        if not path.startswith("/"):
            raise ValueError(f"found {path!r}; allowed is a full path on the controller, such as {{{{ inventory_dir }}}}/{path}")
        try:
            Catalog.load(overlay=path)
        except CatalogError as error:
            raise ValueError(str(error)) from error


# Blocks of site variables and the facts of a site that they become.
_BLOCKS = {
    "circleci_postgresql": "postgres",
    "circleci_mongodb": "mongodb",
    "circleci_rabbitmq": "rabbitmq",
    "circleci_vault": "vault",
    "circleci_smtp": "smtp",
    "circleci_proxy": "proxy",
}


def _stores(variables: t.Mapping[str, t.Any]) -> int:
    """Hosts of the same site that run its object store."""
    try:
        return len(site_members(variables.get("groups", {}), "circleci_object_storage", str(variables.get("inventory_hostname", ""))))
    except SiteInventoryError as error:
        raise AnsibleError(str(error)) from error


def _unnamed(verb: str, variables: t.Mapping[str, t.Any], values: t.Mapping[str, t.Any], argument: site_arguments.Argument) -> list[site_arguments.Problem]:
    """Groups of a cloud are known by the name of their site: two sites with the same one would take each other's rules away."""
    sites = list(variables.get("groups", {}).get("circleci_sites", []))
    if verb != "cloud_prepare" or len(sites) < 2 or values.get(argument.name, argument.default) != argument.default:
        return []
    found = f"found {argument.default!r}, the default, and the inventory has {len(sites)} sites"
    return [site_arguments.Problem(argument.name, found, "a short name of its own for each site", missing=True)]


class ActionModule(ActionBase):
    """Compare the variables of the current host with arguments.yml."""

    _supports_check_mode = True
    _supports_diff = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(argument_spec={"verb": {"type": "str", "required": True}, "fail": {"type": "bool", "default": True}})
        arguments = site_arguments.load_arguments()
        names = [name for name in variables if name.startswith(_PREFIX)]
        values: dict[str, t.Any] = {}
        problems: list[site_arguments.Problem] = []
        for name in names:
            argument = arguments.get(name)
            if argument is None or options["verb"] not in argument.verbs:
                continue
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError as error:
                reason = "its text is not shown" if argument.secret else str(error).splitlines()[0]
                problems.append(site_arguments.Problem(name, f"cannot be resolved: {reason}".rstrip("."), ""))
        problems += site_arguments.check(
            options["verb"],
            values,
            names_in_inventory=names,
            arguments=arguments,
            role_options=site_arguments.role_option_names(),
            catalog=_CatalogFacts(),
        )
        problems += _unnamed(options["verb"], variables, values, arguments["circleci_site"])
        folder = values.get("circleci_state_dir", arguments["circleci_state_dir"].default)
        if isinstance(folder, str):
            host = str(variables["inventory_hostname"])
            problems += shared_folder(options["verb"], variables.get("groups", {}), variables["hostvars"], host, folder, arguments)
        if options["verb"] in ("cloud_prepare", "plan"):
            problems += [site_arguments.Problem.from_sentence(text) for text in cloud_request.problems(Catalog.load(), values)]
        if options["verb"] in ("preflight", "plan", "install"):
            problems += [site_arguments.Problem.from_sentence(text) for text in object_storage.problems(Catalog.load(), values, _stores(variables))]
        result: dict[str, t.Any] = {
            "changed": False,
            "problems": [str(problem) for problem in problems],
            "findings": [_finding(problem, options["verb"]) for problem in problems],
        }
        if problems and options["fail"]:
            listing = "\n".join(f"  - {problem}" for problem in problems)
            host = variables.get("inventory_hostname", "?")
            return {**result, "failed": True, "msg": f"{len(problems)} problem(s) with the variables of {host}, nothing was changed:\n{listing}"}
        return {**result, "msg": f"{len(values)} variables were looked at, {len(problems)} problem(s)."}


def _finding(problem: site_arguments.Problem, verb: str) -> dict[str, str]:
    source = f"arguments.yml, verb {verb}"
    if problem.missing:
        remedy = "Set it, or give it with --extra-vars; secrets belong into a file of ansible-vault."
        return Finding("arguments", PROBLEM, problem.name, "not set", problem.remedy.rstrip("."), source, remedy).as_dict()
    expected = problem.allowed or "a known variable with a value that can be used"
    return Finding("arguments", PROBLEM, problem.name, problem.found, expected, source, problem.remedy).as_dict()
