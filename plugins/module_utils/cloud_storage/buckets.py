# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Buckets of AWS, Google Cloud and DigitalOcean Spaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Optional

from ..cloud import TAG, CloudError, endpoints
from ..cloud.aws import AwsSession
from ..cloud.google import NETWORK_FORM, google_token
from ..s3 import buckets
from ..s3.buckets import BucketState, BucketWish
from ..s3.client import S3Client, S3Error
from ..s3.google import SCOPE, GoogleClient
from ..s3.protection import BLOCKED, BY_POLICY, CLOUD_KEYS, Protection
from ..s3.signature import Credentials

PROJECT = re.compile(r"projects/(?P<project>[a-z0-9.:-]+)/global/networks/[a-z0-9-]+")


class Buckets:
    """The buckets of a site, and how they have to be. Without *protected* the cloud has nothing beside the policy of a bucket."""

    def __init__(self, client: S3Client, options: Mapping[str, Any], protected: Optional[tuple[Protection, Protection]]) -> None:
        self.client, self.options = client, options
        self.wishes = buckets.wishes(options)
        if protected:
            self.wishes = [replace(wish, protection=how) for wish, how in zip(self.wishes, protected)]
        self.states: list[tuple[BucketWish, BucketState]] = []

    def read(self) -> tuple[list[str], list[str]]:
        """What is true of the buckets now, and what is to be."""
        problems = []
        for wish in self.wishes:
            try:
                wish = buckets.with_expiry(self.client, wish, self.options)
                self.states.append((wish, buckets.read_state(self.client, wish)))
            except S3Error as error:
                problems.append(f"{wish.variable}: {error}")
        problems += [problem.rstrip(".") for wish, state in self.states for problem in buckets.problems(wish, state)]
        if problems:
            raise CloudError(*problems)
        before = [line for wish, state in self.states for line in state.lines(wish)]
        return before, [line for wish, state in self.states for line in buckets.wanted_state(wish, state).lines(wish)]

    def apply(self) -> Iterator[str]:
        """Bring one after the other there, and say which is done."""
        for wish, state in self.states:
            if state.lines(wish) == buckets.wanted_state(wish, state).lines(wish):
                continue
            try:
                buckets.apply(self.client, wish, state)
            except S3Error as error:
                raise CloudError(f"{wish.variable}: {error}") from error
            yield f"bucket {wish.name}"


def protections(provider: str, options: Mapping[str, Any], tag: str) -> Optional[tuple[Protection, Protection]]:
    """How the cloud is to protect the data bucket and that of the agents; None where it has nothing beside their policies."""
    if provider == "digitalocean":
        return None
    # Of AWS, whoever has no credentials may use no key of the key service, so that agents are encrypted with those that S3 keeps.
    agents_key = CLOUD_KEYS if provider == "aws" else options["key"]
    return Protection(BLOCKED, options["key"], (TAG, tag)), Protection(BY_POLICY, agents_key, (TAG, tag))


def of_aws(options: Mapping[str, Any], tag: str) -> Buckets:
    """With the credentials of the control host, as boto3 finds them."""
    access, secret, session = AwsSession(options["store_region"]).keys()
    client = _client(S3Client, options["store_endpoint"], Credentials(access, secret, options["store_region"], session))
    return Buckets(client, options, protections("aws", options, tag))


def of_google(options: Mapping[str, Any], tag: str, network: str, token: str) -> Buckets:
    """With the token that is given, or the credentials of the control host, as google-auth finds them."""
    match = PROJECT.fullmatch(network)
    if not match:
        raise CloudError(f"circleci_cloud_network is {network!r}; Google needs the network as {NETWORK_FORM}, whose project the buckets are made in")
    # The default is a region of S3 and means that none was chosen.
    location = "" if options["store_region"] == "us-east-1" else options["store_region"]
    given = google_token(token, SCOPE, endpoints("gcp", "", options["store_endpoint"]))
    client = _client(GoogleClient, options["store_endpoint"], None, location=location, project=match["project"], token=given)
    return Buckets(client, options, protections("gcp", options, tag))


def of_digitalocean(options: Mapping[str, Any]) -> Buckets:
    """With the keys of the site: Spaces takes no token of the API."""
    if not options["access_key"] or not options["secret_key"]:
        raise CloudError("circleci_object_storage_access_key or circleci_object_storage_secret_key is empty; Spaces takes no other credentials")
    keys = Credentials(options["access_key"], options["secret_key"], options["store_region"])
    return Buckets(_client(S3Client, options["store_endpoint"], keys), options, None)


def requested(provider: str, options: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str]]:
    """Each bucket, and what is asked of it, without a look at the cloud."""
    protected = protections(provider, options, tag) or (None, None)
    for wish, how in zip(buckets.wishes(options), protected):
        asked = replace(wish, protection=how)
        lines = buckets.wanted_state(asked, BucketState()).lines(asked)[1:]
        if wish.name == options["bucket"] and options["expiry_days"]:
            lines.append(f"objects below {', '.join(options['expiry_prefixes']) or 'each folder'} expire after {options['expiry_days']} days, audit logs never")
        yield wish.name, "; ".join(line.removeprefix(f"bucket {wish.name}").removeprefix(":").strip() for line in lines)


def _client(kind: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return kind(*arguments, **named)
    except S3Error as error:
        raise CloudError(str(error)) from error
