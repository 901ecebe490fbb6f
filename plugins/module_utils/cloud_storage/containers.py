# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Containers of Azure in a storage account, and the account where it is to be made.

What the gateway in front of them keeps in their metadata stays. Azure Blob has no versions, expiry or rules for browsers that the gateway would pass on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from ..cloud import TAG, CloudError
from ..cloud.azure import GROUP, GROUP_FORM, Arm

API_VERSION = "2023-01-01"
CLAIM = "onprem_circleci_site"
"""Metadata of a container that names the site. Azure takes identifiers only."""
CLOSED: Mapping[str, Any] = {"allowBlobPublicAccess": False, "minimumTlsVersion": "TLS1_2", "supportsHttpsTrafficOnly": True}
WORDS: Mapping[str, Callable[[Any], str]] = {
    "allowBlobPublicAccess": lambda value: f"public access {'not blocked' if value in (True, None) else 'blocked'}",
    "minimumTlsVersion": lambda value: f"TLS at least {str(value or 'TLS1_0').removeprefix('TLS').replace('_', '.')}",
    "supportsHttpsTrafficOnly": lambda value: "https only" if value in (True, None) else "http, too",
}


def requested(options: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str]]:
    """Account and containers, and what is asked of them, without a look at the cloud."""
    if options["sku"]:
        settings = "; ".join(words(CLOSED[name]) for name, words in WORDS.items())
        yield f"storage account {options['account']}", f"{options['sku']}; {settings}; {TAG} is {tag}"
    for name in filter(None, (options["bucket"], options["agent_bucket"])):
        yield f"container {name} of {options['account']}", f"private; {CLAIM} is {options['site']}"


class Containers:
    """The containers of a site. *sku* is the redundancy of an account that is to be made; without it the account has to be there."""

    def __init__(self, options: Mapping[str, Any], site: str, region: str, network: str, token: str, endpoint: str) -> None:
        problems = []
        if not GROUP.fullmatch(network):
            problems.append(f"circleci_cloud_network is {network!r}; Azure needs the resource group of the storage account as {GROUP_FORM}")
        if options["sku"] and not region:
            problems.append("circleci_cloud_region is empty; Azure needs the location of a storage account, for instance westeurope")
        if not options["account"]:
            problems.append("circleci_object_storage_backend_account is empty; the name of the storage account is needed")
        if problems:
            raise CloudError(*problems)
        self.site, self.owner, self.region, self.sku = site, options["site"], region, options["sku"]
        self.group, self.account = network, options["account"]
        self.id = f"{network}/providers/Microsoft.Storage/storageAccounts/{self.account}"
        self.names = {options["bucket"]: "circleci_object_storage_bucket"}
        if options["agent_bucket"]:
            self.names[options["agent_bucket"]] = "circleci_object_storage_agent_bucket"
        self.arm = Arm(region, token, endpoint)
        self.there: Optional[dict[str, Any]] = None
        self.containers: dict[str, Optional[dict[str, Any]]] = {}

    def read(self) -> tuple[list[str], list[str]]:
        """What is true of account and containers now, and what is to be."""
        self.there = self.arm.get(self.id, API_VERSION)
        problems = [*self._account_problems()]
        if problems:
            raise CloudError(*problems)
        self.containers = {name: self.arm.get(self._path(name), API_VERSION) if self.there else None for name in self.names}
        problems = [text for name, found in self.containers.items() for text in self._problems(name, found)]
        if problems:
            raise CloudError(*problems)
        before = [*self._account_lines(self.there)]
        after = [*(self._account_lines(self._account()) if self._ours() else before)]
        for name, found in self.containers.items():
            before += self._lines(name, found)
            after += self._lines(name, {"properties": {**(found or {}).get("properties", {}), "metadata": {CLAIM: self.owner}}})
        return before, after

    def apply(self) -> Iterator[str]:
        """Make the account, then what lies in it."""
        if self._ours() and list(self._account_lines(self.there)) != list(self._account_lines(self._account())):
            body = self._account()
            if self.there:
                self.arm.change("PATCH", self.id, API_VERSION, {"properties": dict(CLOSED)})
            else:
                self.arm.change("PUT", self.id, API_VERSION, body)
            yield f"storage account {self.account}"
        for name, found in self.containers.items():
            properties = (found or {}).get("properties") or {}
            metadata = dict(properties.get("metadata") or {})
            if metadata.get(CLAIM) == self.owner:
                continue
            body = {"properties": {"metadata": {**metadata, CLAIM: self.owner}, **({} if found else {"publicAccess": "None"})}}
            self.arm.change("PATCH" if found else "PUT", self._path(name), API_VERSION, body)
            yield f"container {name}"

    def _path(self, container: str) -> str:
        return f"{self.id}/blobServices/default/containers/{container}"

    def _ours(self) -> bool:
        """Whether the account is ours to make and keep."""
        return bool(self.sku) and (self.there is None or (self.there.get("tags") or {}).get(TAG) == self.site)

    def _account(self) -> dict[str, Any]:
        kept = self.there or {}
        return {
            "sku": kept.get("sku") or {"name": self.sku},
            "kind": kept.get("kind") or "StorageV2",
            "location": kept.get("location") or self.region,
            "tags": {**(kept.get("tags") or {}), TAG: self.site},
            "properties": dict(CLOSED),
        }

    def _account_lines(self, found: Optional[Mapping[str, Any]]) -> Iterator[str]:
        if not found or not self.sku:
            return
        yield f"storage account {self.account}, {found['sku']['name']} in {found['location']}"
        for name, words in WORDS.items():
            yield f"storage account {self.account}: {words((found.get('properties') or {}).get(name))}"
        if (found.get("tags") or {}).get(TAG):
            yield f"storage account {self.account}: {TAG} is {found['tags'][TAG]}"

    def _account_problems(self) -> Iterator[str]:
        variable, account = "circleci_object_storage_backend_account", self.account
        if self.there is None:
            if not self.sku:
                yield (f"{variable}: storage account {account} is not in {self.group}; make it there, name the resource group that has it in "
                       "circleci_cloud_network, or set circleci_cloud_storage_sku to have it made")  # fmt: skip
                return
            path = f"{self.group.partition('/resourceGroups/')[0]}/providers/Microsoft.Storage/checkNameAvailability"
            answer = self.arm.ask(path, API_VERSION, {"name": account, "type": "Microsoft.Storage/storageAccounts"})
            if not answer.get("nameAvailable"):
                theirs = answer.get("reason") == "AlreadyExists"
                why = "is taken, and not in this resource group: it belongs to somebody else, or to another group" if theirs else "is not allowed"
                yield f"{variable}: the name {account} {why} ({answer.get('message', '')}); choose another name"
            return
        if not self.sku:
            return
        if not self._ours():
            found = self.there.get("properties") or {}
            wrong = [words(found.get(name)) for name, words in WORDS.items() if words(found.get(name)) != words(CLOSED[name])]
            if wrong:
                yield (f"{variable}: storage account {account} is there and was not made by this collection for this site (it lacks the mark), and it has "
                       f"{', '.join(wrong)}; ask its owner to change that, or empty circleci_cloud_storage_sku to take it as it is")  # fmt: skip
        elif self.there["sku"]["name"] != self.sku:
            yield (f"circleci_cloud_storage_sku: found {self.sku}, but storage account {account} has {self.there['sku']['name']}; Azure converts it only "
                   "at the request of its owner, so set the variable to what is there")  # fmt: skip

    def _problems(self, name: str, found: Optional[Mapping[str, Any]]) -> Iterator[str]:
        properties = (found or {}).get("properties") or {}
        owner = (properties.get("metadata") or {}).get(CLAIM, "")
        if owner and owner != self.owner:
            yield (f"{self.names[name]}: container {name} belongs to the site {owner!r}, this one is {self.owner!r}; two sites cannot share a container: "
                   f"choose another name, or take {CLAIM} out of its metadata if that site is gone")  # fmt: skip
        if properties.get("publicAccess") not in (None, "None"):
            yield f"{self.names[name]}: container {name} can be read by everybody; set its access level to private, the gateway serves what is public"

    def _lines(self, name: str, found: Optional[Mapping[str, Any]]) -> Iterator[str]:
        if found is None:
            return
        yield f"container {name}: private"
        yield f"container {name} belongs to {((found.get('properties') or {}).get('metadata') or {}).get(CLAIM) or 'nobody'}"
