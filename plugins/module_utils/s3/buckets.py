# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Buckets of a site: made or checked, one of them open for anonymous reads, and claimed by one site only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from . import configuration
from .client import S3Client, S3Error
from .configuration import NO_EXPIRY, Expiry, expiry_wish
from .protection import Protection

NO_PROTECTION = Protection()
OWNER_KEY = ".onprem-circleci-site"
"""An object in each bucket that names the site. Two sites in one bucket would overwrite each other's agents and audit logs."""


@dataclass(frozen=True)
class BucketWish:
    """What a bucket shall be like. None leaves a thing as it is; ``public_list`` opens the listing too, where a kind cannot do less."""

    name: str
    variable: str
    site: str
    public_read: bool = False
    public_list: bool = False
    versioning: Optional[bool] = None
    expiry: Optional[Expiry] = None
    origins: Optional[tuple[str, ...]] = None
    protection: Optional[Protection] = None
    """Only where the cloud itself is asked."""


@dataclass
class BucketState:
    """What a bucket is like now."""

    exists: bool = False
    public_read: bool = False
    versioning: bool = False
    owner: str = ""
    expiry: Expiry = NO_EXPIRY
    origins: tuple[str, ...] = ()
    foreign_statements: list[Any] = field(default_factory=list)
    protection: Protection = NO_PROTECTION
    of_others: bool = False
    """Whether the bucket is in an account of somebody else who lets us use it."""

    def lines(self, wish: BucketWish) -> list[str]:
        if not self.exists:
            return []
        lines = [f"bucket {wish.name}", f"bucket {wish.name} belongs to {self.owner or 'nobody'}"]
        if self.public_read:
            lines.append(f"objects of bucket {wish.name} can be {'listed and ' if wish.public_list else ''}read by everybody")
        if self.versioning:
            lines.append(f"bucket {wish.name} keeps versions")
        if wish.protection is not None:
            lines += self.protection.lines(wish.name)
        lines += [f"bucket {wish.name}: {line}" for line in self.expiry.lines()]
        lines += [f"bucket {wish.name}: pages of {origin} may use presigned URLs" for origin in self.origins]
        return lines


def wishes(options: Mapping[str, Any]) -> list[BucketWish]:
    """The buckets of a site, by the options that modules have for them."""
    origins = None if options["origins"] is None else tuple(sorted(set(options["origins"])))
    found = [BucketWish(options["bucket"], "circleci_object_storage_bucket", options["site"], versioning=options["versioning"], origins=origins)]
    if options["agent_bucket"]:
        listed = bool(options.get("agents_listed"))
        found.append(BucketWish(options["agent_bucket"], "circleci_object_storage_agent_bucket", options["site"], public_read=True, public_list=listed))
    return found


def with_expiry(client: S3Client, wish: BucketWish, options: Mapping[str, Any]) -> BucketWish:
    """The wish with the expiry of the data bucket, which depends on the folders that it has."""
    if options["expiry_days"] is None or wish.name != options["bucket"]:
        return wish
    named = options["expiry_prefixes"]
    there = named or not options["expiry_days"] or client.bucket_exists(wish.name)
    return replace(wish, expiry=expiry_wish(client, wish.name, options["expiry_days"], named) if there else NO_EXPIRY)


def read_policy(bucket: str, *, listing: bool = False) -> dict[str, Any]:
    """The policy that opens all objects of a bucket for reading, and its listing only when asked."""
    statements = [{"Sid": "AnonymousRead", "Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]}]
    if listing:
        statements.append(
            {
                "Sid": "AnonymousList",
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _principals(statement: Mapping[str, Any]) -> list[Any]:
    # Stores answer with their own spelling: a single value for a list, an AWS mapping for the star.
    principal = statement.get("Principal")
    return _list(principal.get("AWS") if isinstance(principal, Mapping) else principal)


def _opened(statement: Any) -> set[tuple[str, str]]:
    """What a statement opens for everybody, as action and resource."""
    if not _opens(statement):
        return set()
    return {(str(action), str(resource)) for action in _list(statement.get("Action")) for resource in _list(statement.get("Resource"))}


def _opens(statement: Any) -> bool:
    return isinstance(statement, Mapping) and statement.get("Effect") == "Allow" and "*" in _principals(statement) and not statement.get("Condition")


def read_state(client: S3Client, wish: BucketWish) -> BucketState:
    """What the store says about the bucket."""
    state = BucketState(exists=client.bucket_exists(wish.name))
    if not state.exists:
        return state
    if wish.protection is not None:
        state.of_others = not client.owns(wish.name)
        if state.of_others:
            return state
        state.protection = client.protection(wish.name, wish.protection.tag[0])
    wanted = read_policy(wish.name, listing=wish.public_list)["Statement"]
    policy = client.bucket_policy(wish.name)
    # Some stores answer with one statement for all actions and resources, so that only what is opened can be compared.
    wanted_pairs = set().union(*(_opened(statement) for statement in wanted))
    spelt = {(action, resource) for action, _one in wanted_pairs for _other, resource in wanted_pairs}
    opened: set[tuple[str, str]] = set()
    for statement in _list((policy or {}).get("Statement") or []):
        pairs = _opened(statement)
        if pairs and pairs <= spelt:
            opened |= pairs
        else:
            state.foreign_statements.append(statement)
    state.public_read = wanted_pairs <= opened
    if wish.versioning is not None:
        state.versioning = client.versioning(wish.name)
    if wish.expiry is not None:
        state.expiry = configuration.read_expiry(client, wish.name)
    if wish.origins is not None:
        state.origins = configuration.read_origins(client, wish.name)
    if client.head(wish.name, OWNER_KEY) is not None:
        state.owner = client.get(wish.name, OWNER_KEY).body.decode(errors="replace").strip()
    return state


def problems(wish: BucketWish, state: BucketState) -> list[str]:
    """Why the bucket must not be used as it is."""
    found = []
    if state.of_others:
        found.append(
            f"{wish.variable}: bucket {wish.name} is there, but in an account or a project of somebody else, who lets these credentials use it; "
            "choose another name."
        )
    if state.owner and state.owner != wish.site:
        found.append(
            f"{wish.variable}: bucket {wish.name} belongs to the site {state.owner!r}, this one is {wish.site!r}. Two sites cannot share a bucket: "
            f"choose another name, or delete the object {OWNER_KEY} in it if that site is gone."
        )
    if state.exists and not wish.public_read and (state.public_read or any(_opens(statement) for statement in state.foreign_statements)):
        found.append(
            f"{wish.variable}: bucket {wish.name} can be read by everybody, and it holds artifacts, caches and audit logs. "
            "Take its public policy away; agents have a bucket of their own."
        )
    if wish.versioning is False and state.versioning:
        found.append(f"{wish.variable}: bucket {wish.name} keeps versions, and nobody asked for it: its disk will fill. Suspend versioning, or ask for it.")
    return found


def wanted_state(wish: BucketWish, state: BucketState) -> BucketState:
    """The state after ``apply``."""
    expiry = state.expiry if wish.expiry is None else wish.expiry
    origins = state.origins if wish.origins is None else wish.origins
    protection = wish.protection.over(state.protection) if wish.protection is not None else state.protection
    versioning = bool(wish.versioning) or state.versioning
    return BucketState(True, wish.public_read, versioning, wish.site, expiry, origins, state.foreign_statements, protection)


def apply(client: S3Client, wish: BucketWish, state: BucketState) -> None:
    """Bring the bucket from *state* to what is wished."""
    if not state.exists:
        client.create_bucket(wish.name)
    # Before anything lies in it; and a policy that opens the agents needs it.
    if wish.protection is not None:
        now = state.protection if state.exists else client.protection(wish.name, wish.protection.tag[0])
        wanted = wish.protection.over(now)
        if wanted != now:
            client.protect(wish.name, wanted, now)
    if wish.versioning and not state.versioning:
        client.enable_versioning(wish.name)
    if not state.owner:
        client.put(wish.name, OWNER_KEY, f"{wish.site}\n".encode(), headers={"content-type": "text/plain"})
    if wish.expiry is not None and wish.expiry != state.expiry:
        configuration.write_expiry(client, wish.name, wish.expiry)
    if wish.origins is not None and wish.origins != state.origins:
        configuration.write_origins(client, wish.name, wish.origins)
    if wish.public_read and not state.public_read:
        policy = read_policy(wish.name, listing=wish.public_list)
        policy["Statement"] = [*state.foreign_statements, *policy["Statement"]]
        client.put_bucket_policy(wish.name, policy)
        if not read_state(client, wish).public_read:
            raise S3Error(
                f"{client.endpoint} took the policy of bucket {wish.name} ({json.dumps(policy)}) "
                "but does not show it; can this kind of store open a bucket for reading?"
            )


def empty_and_delete(client: S3Client, bucket: str) -> None:
    """Delete a bucket with all that is in it."""
    for entry in list(client.list(bucket)):
        client.delete(bucket, entry.key)
    client.delete_versions(bucket)
    client.delete_bucket(bucket)
