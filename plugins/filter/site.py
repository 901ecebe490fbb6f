# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read other hosts of the same site, and the way out of a run that waits for a person."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils.mirror.oci import Reference
from ..plugin_utils.bundle_contents import ContentsError, bundle_contents
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.catalog.versions import minor_of
from ..plugin_utils.port_model import SiteInventoryError, site_group, site_members
from ..plugin_utils.site_catalog import PLAIN, with_catalog
from ..plugin_utils.values import secret_plan

EXIT_AT_GATE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is broken, run the same command again."""

_CONTROL = "circleci_sites"
# What roles register on a control host: when it begins, at the gates, at the end.
# One by one: ansible-doc warns of names that are assigned together.
_BEGUN = "__circleci_site_secrets"
_GATES = "__circleci_gates_open"
_VERDICT = "__circleci_verify_site"
_VERB_SECRETS = "verb secrets"


def _members(groups: Mapping[str, Any], group: str, inventory_hostname: str) -> list[str]:
    try:
        return list(site_members(groups, group, inventory_hostname))
    except SiteInventoryError as error:
        raise AnsibleFilterError(str(error)) from error


def site_results(
    variable: str, group: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str
) -> dict[str, Any]:
    """Values of a variable on those hosts of a group that are in the same site and have it, by host."""
    return {name: hostvars[name][variable] for name in _members(groups, group, inventory_hostname) if variable in hostvars[name]}


def docker_networks(variable: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str) -> dict[str, list[str]]:
    """Networks that Docker takes, by Nomad client of the same site that was looked at."""
    found = site_results(variable, "circleci_nomad_clients", groups, hostvars, inventory_hostname)
    return {name: list(result["docker_networks"]) for name, result in found.items() if result.get("docker_networks")}


def site_findings(
    group: str, variable: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str
) -> list[dict[str, Any]]:
    """Findings that a registered result holds on the hosts of a group in the same site, as one list."""
    found = site_results(variable, group, groups, hostvars, inventory_hostname)
    return [finding for result in found.values() for finding in result.get("findings", [])]


def site_reports(variable: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[str]:
    """Reports that the control hosts of all sites of this run hold in a registered result; the one thing that is read across sites, and only if asked for."""
    found = []
    for name in groups.get(_CONTROL, []):
        result = hostvars[name].get(variable, {})
        if isinstance(result, Mapping) and "report" in result:
            found.append(str(result["report"]))
    return found


def later_findings(results: Sequence[Mapping[str, Any]], secrets: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What verbs that will be run later miss, each variable once.

    *secrets* is what the module site_secrets found: when all Secrets are there, nobody needs what the verb secrets needs.
    """
    made = bool((secrets or {}).get("verified"))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        for finding in result.get("findings", []):
            if made and finding["source"].endswith(_VERB_SECRETS):
                continue
            key = (finding["subject"], finding["found"])
            known = found.setdefault(key, dict(finding))
            if known["source"] != finding["source"]:
                known["source"] += f", {finding['source'].rpartition(', ')[2]}"
    return list(found.values())


_URGENCY = {"problem": 1, "warning": 3}


def report_findings(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings of preflight's shape as the report takes them; what is in order is left out."""
    names = ("subject", "found", "expected", "remedy", "source")
    return [{"urgency": _URGENCY[item["level"]], **{name: item.get(name, "") for name in names}} for item in findings if item["level"] in _URGENCY]


def control_host_value(variable: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str) -> Any:
    """Value of a variable on the control host of the same site."""
    names = _members(groups, _CONTROL, inventory_hostname)
    if len(names) != 1:
        raise AnsibleFilterError(
            f"{inventory_hostname}: its site has {len(names)} hosts in {_CONTROL} ({', '.join(names) or 'none'}); exactly one is allowed. "
            "Put the control host of the site there, or the hosts of each site into a group site_<name>."
        )
    if variable not in hostvars[names[0]]:
        raise AnsibleFilterError(
            f"{names[0]}: {variable} is not set. The play that sets it did not run for this host; run the verb without --limit, --tags and --start-at-task."
        )
    return hostvars[names[0]][variable]


def _begun(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the role gates found, by control host of this run; empty for one that failed before."""
    known = [name for name in groups.get(_CONTROL, []) if name in hostvars]  # none is known to --syntax-check
    return {name: hostvars[name].get(_GATES, {}) for name in known if _BEGUN in hostvars[name]}


def _end_at_open_gates(gates: Mapping[str, Mapping[str, Any]], check_mode: bool = False) -> None:
    told = "The run would stop here, since a person must act" if check_mode else "A person must act before the run can go on"
    lines = [f"  {name}: {gate['open']}: {gate['sentence']}\n" for name, gate in gates.items() if gate.get("open")]
    sys.stdout.write(f"\n{told} (exit code {EXIT_AT_GATE}):\n" + "".join(lines))
    sys.stdout.flush()
    if not check_mode:
        raise SystemExit(EXIT_AT_GATE)


def past_gates(hosts: list[str], groups: Mapping[str, Any], hostvars: Mapping[str, Any], check_mode: bool = False) -> list[str]:
    """*hosts* without the sites that wait for a person or failed; the run ends with exit code 75 when all of them wait.

    In check mode nobody is left out.

    ansible-playbook has one exit code for all failures, and a site that waits has not failed. The hosts of a play are
    worked out in the main process, which makes this the one place from where a collection can choose the exit code.
    """
    gates = _begun(groups, hostvars)
    stays = [name for name, gate in gates.items() if gate.get("open") != ""]
    if check_mode or not stays:
        return hosts
    if all(gate.get("open") for gate in gates.values()):
        _end_at_open_gates(gates)
    return [*hosts, *(f"!{site_group(groups, name) or 'all'}" for name in stays)]


def exit_at_open_gates(hosts: list[str], groups: Mapping[str, Any], hostvars: Mapping[str, Any], check_mode: bool = False) -> list[str]:
    """End the run with exit code 75 when sites wait for a person and the others are in order; otherwise return *hosts* unchanged.

    In check mode it says that the run would end, and goes on.
    """
    gates = _begun(groups, hostvars)
    waiting = [name for name, gate in gates.items() if gate.get("open")]
    in_order = [name for name in gates if hostvars[name].get(_VERDICT, {}).get("reasons") == []]
    if waiting and (check_mode or len(waiting) + len(in_order) == len(gates)):
        _end_at_open_gates(gates, check_mode)
    return hosts


def preflight_facts(release: str, daily_users: int = 0, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    """What the preflight checks need to know of a release, as plain data."""
    if int(daily_users) < 0:
        raise AnsibleFilterError(f"preflight_facts: circleci_daily_users is {daily_users}; 0 or more people are needed")
    try:
        facts = catalog.release(release)
        size = next(row for row in catalog.sizing(release) if row.suits(int(daily_users)))
    except CatalogError as error:
        raise AnsibleFilterError(f"preflight_facts: {error}") from error
    return {
        "version": facts.version,
        "kubernetes_min": facts.kubernetes_min.value,
        "kubernetes_max": facts.kubernetes_max.value,
        "cluster_users": size.users,
        "cluster_nodes": size.nodes,
        "cluster_cpus": size.cpu,
        "cluster_memory_gb": size.memory_gb,
        "cluster_link_gbps": size.nic_gbps,
        "upgrade_from": list(facts.upgrade_from.value),
        "support_end": facts.support_end.value,
    }


def platform_facts(name: str, release: str) -> dict[str, Any]:
    """What the preflight checks need to know of platforms, as plain data: all ways to tell them, and the verdict on the one that is said."""
    catalog = Catalog.load()
    try:
        said = catalog.platform(name)
        verdict = said.verdict(minor_of(release))
    except (CatalogError, KeyError) as error:
        raise AnsibleFilterError(f"platform_facts: {error}") from error
    return {
        "id": said.id,
        "name": said.name,
        "verdict": verdict.status,
        "note": verdict.note or "",
        "source": verdict.source,
        "blockers": [fact.value for fact in said.blockers],
        "runner_needed": said.runner_needed.value,
        "installer_rights": said.installer_rights.value,
        "volumes": {key: said.storage_class.value[key] for key in ("driver", "provisioners") if key in said.storage_class.value},
        "detect": {platform.id: list(platform.detect.value) for platform in catalog.platforms()},
        "ingress": [
            {"name": holder, "setting": variant["ingress_setting"]}
            for platform in catalog.platforms()
            for variant in platform.variants.values()
            for holder in variant.get("ingress_names", ())
        ],
    }


def nomad_client_secret(host: str) -> dict[str, Any]:
    """What to read for the certificate of one Nomad client, as an item for the module site_secret_values."""
    return {"name": secret_plan.nomad_client_secret(host), "optional": True}


def nomad_client_facts(release: str, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    """What a Nomad client of a release needs to know, as plain data."""
    try:
        images = {image.role: image for image in catalog.images(release) if image.group == "nomad_client"}
        version = bundle_contents(catalog, release)["file_versions"].get("nomad-client")
        port = next(rule for rule in catalog.ports(release) if rule.id == "client-out-nomad").ports[0]
    except (CatalogError, ContentsError) as error:
        raise AnsibleFilterError(f"nomad_client_facts: {error}") from error

    def local(role: str) -> str:
        return Reference.parse(images[role].reference or "").local if role in images else ""

    if not version:
        raise AnsibleFilterError(f"nomad_client_facts: no version of the Nomad client is known for release {release}; the catalog has a gap there")
    return {
        "version": version,
        "rpc_port": int(port),
        "pause_image": local("reaper"),
        "gc_image": local("housekeeping"),
    }


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "site_results": site_results,
            "docker_networks": docker_networks,
            "site_findings": site_findings,
            "site_reports": site_reports,
            "later_findings": later_findings,
            "report_findings": report_findings,
            "control_host_value": control_host_value,
            "past_gates": past_gates,
            "exit_at_open_gates": exit_at_open_gates,
            "preflight_facts": with_catalog(preflight_facts),
            "platform_facts": platform_facts,
            "nomad_client_facts": with_catalog(nomad_client_facts),
            "nomad_client_secret": nomad_client_secret,
        }
