# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of store can do, and what is wrong with a site's choice of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..catalog import Catalog, UnknownNameError
from ..catalog.model import ObjectStorageOption

MANAGED = ("versitygw_posix", "versitygw_s3", "versitygw_azure", "minio_server", "minio_nas", "minio_gateway_azure", "minio_gateway_s3")
"""Kinds that the collection can run on hosts of its own."""

KEEP_DATA = ("versitygw_posix", "minio_server", "minio_nas")
"""Those among them that keep the objects in a folder of their host."""

IN_CLUSTER = ("versitygw_s3", "versitygw_azure", "minio_gateway_s3")
"""Gateways that keep nothing and open the agents by themselves: they can run as a workload of the cluster."""

CHOICES = (*MANAGED, "aws_s3_keys", "aws_s3_irsa", "gcs_key", "gcs_workload_identity", "do_spaces", "s3")
"""What a site can choose. The others of the catalog are S3 stores that somebody else runs: s3."""

SPEAK_GOOGLE = ("gcs_key", "gcs_workload_identity")
"""Kinds whose buckets are filled by the interface of Cloud Storage and not by that of S3."""

_AWS_BUCKET = re.compile(r"(?!xn--|sthree-|amzn-s3-demo-)(?!.*(-s3alias|--ol-s3|--x-s3|--table-s3)$)")

CAPABILITIES = (
    ("presigned", "presigned URLs"),
    ("multipart", "multipart upload"),
    ("versioning", "versioned objects (Docker layer caching)"),
    ("lifecycle", "expiry rules"),
    ("cors", "rules for browsers (CORS)"),
    ("sts", "temporary credentials (presigned URLs switched off)"),
    ("bucket_policy", "bucket policies"),
    ("anonymous_prefix", "anonymous reads without listing (agents)"),
    ("anonymous_bucket", "anonymous reads of a whole bucket"),
)

_SECRET = "a value that is not shown"  # noqa: S105 - what is shown instead of one


def _age(version: str) -> str:
    day = re.search(r"\d{4}-\d{2}-\d{2}", version)
    return f"{version} is of {day.group()}" if day else f"its last version is {version}"


def capabilities(catalog: Catalog, kind: str) -> dict[str, Any]:
    """What the catalog says of a kind: the answers by name, and the same as lines for people."""
    option = catalog.object_storage_option(kind)
    answers = {name: getattr(option, name) for name, _title in CAPABILITIES}
    words = {True: "yes", False: "no", None: "unknown", "bucket": "yes", "server": "yes, for all buckets at once"}
    lines = [f"{title:<52} {words[answers[name]]}" for name, title in CAPABILITIES]
    state = "maintained" if option.maintained else "NOT MAINTAINED" if option.maintained is False else "unknown whether maintained"
    head = f"{option.id} ({option.kind}{f', {option.version}' if option.version else ''}, {state})"
    notes = [text for text in (option.advice, option.note) if text]
    if option.security:
        notes.append(f"Open: {', '.join(option.security)}")
    return {
        "kind": option.id,
        "maintained": option.maintained,
        "version": option.version,
        "licence": option.licence,
        "security": list(option.security),
        "answers": answers,
        "table": [head, *lines, *notes],
        "certainty": option.certainty,
        "source": option.source,
        # Where the listing cannot be kept closed, the bucket of the agents may be listed: nothing else lies in it.
        # Of a store that nobody here knows the least is asked, and tried.
        "agents": "objects" if option.anonymous_prefix or option.anonymous_prefix is None else "listed" if option.anonymous_bucket else "none",
        "speaks": "google" if option.id in SPEAK_GOOGLE else "s3",
    }


def bucket_options(catalog: Catalog, kind: str, site: Mapping[str, Any]) -> dict[str, Any]:
    """What the buckets are asked to be, as modules take it. What is left out is left as it is in the store.

    *site* has ``versioning``, ``expiry_days``, ``expiry_prefixes`` and ``origins``.
    """
    answers = capabilities(catalog, kind)["answers"]
    found: dict[str, Any] = {"expiry_prefixes": list(site["expiry_prefixes"])}
    if site["versioning"]:
        found["versioning"] = True
    if answers["lifecycle"] is True or site["expiry_days"]:
        found["expiry_days"] = int(site["expiry_days"])
    if answers["cors"] == "bucket" or (site["origins"] and answers["cors"] != "server"):
        found["origins"] = list(site["origins"])
    return found


def problems(catalog: Catalog, site: Mapping[str, Any], hosts: int) -> list[str]:
    """What is wrong with a site's choice, each as one sentence. *site* holds site variables by name, *hosts* counts circleci_object_storage."""
    kind = site.get("circleci_object_storage_kind")
    try:
        option = catalog.object_storage_option(str(kind))
    except UnknownNameError:
        return []  # the check of the variable's choices has said so
    in_cluster = site.get("circleci_object_storage_placement") == "cluster"
    found = [*_unmaintained(catalog, site, option), *_asked_too_much(site, option)]
    found += _placement(catalog, site, option, hosts) if in_cluster else [*_hosts(option, hosts), *_agents(site, option, hosts), *_unused(site)]
    found += [*_buckets(site, option), *_identity(site, option)]
    if (hosts or in_cluster) and option.id in MANAGED:
        found += [*_backend(site, option), *_credentials(site, option)]
    return found


def _unmaintained(catalog: Catalog, site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    accepted = list(site.get("circleci_object_storage_accepted_risks") or [])
    risky = sorted(other.id for other in catalog.object_storage_options() if other.maintained is False)
    found = [
        f"circleci_object_storage_accepted_risks: found {name!r}; allowed are the kinds that nobody maintains: {', '.join(risky)}."
        for name in accepted
        if name not in risky
    ]
    if option.maintained is False and option.id not in accepted:
        better = ", ".join(other.id for other in catalog.object_storage_options() if other.maintained and other.id in MANAGED)
        found.append(
            f"circleci_object_storage_kind: found {option.id}, which nobody maintains any more: {_age(option.version or 'unknown')}, and "
            f"{', '.join(option.security)} will stay open; allowed is a maintained kind ({better}, s3), or accept this by name: "
            f"circleci_object_storage_accepted_risks: [{option.id}]."
        )
    return found


def _asked_too_much(site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    found = []
    # What an unknown store can do is found out by trying; a known one is asked for nothing that it is not known to do.
    unknown = (None,) if option.id == "s3" else ()
    if site.get("circleci_object_storage_expiry_days") and option.lifecycle not in (True, *unknown):
        found.append(
            f"circleci_object_storage_expiry_days: found {site['circleci_object_storage_expiry_days']}, but {option.id} "
            f"{'has no expiry rules' if option.lifecycle is False else 'is not known to have expiry rules'}; allowed is 0, and expiry by whoever runs "
            "the store behind or its disk, or another kind."
        )
    if site.get("circleci_object_storage_origins") and option.cors is None and not unknown:
        found.append(
            f"circleci_object_storage_origins: is set, but no rules for browsers can be given to {option.id} from here; allowed is an empty list, and rules "
            "by whoever owns the store, or another kind."
        )
    if site.get("circleci_object_storage_versioning") and option.versioning not in (True, *unknown):
        found.append(
            f"circleci_object_storage_versioning: found true, but {option.id} "
            f"{'cannot keep versions' if option.versioning is False else 'is not known to keep versions'}; allowed is false, which goes without "
            "Docker layer caching, or another kind."
        )
    values = site.get("circleci_values")
    s3 = (values.get("object_storage") or {}).get("s3") if isinstance(values, Mapping) else None
    if isinstance(s3, Mapping) and s3.get("presigned") is False and option.sts not in (True, *unknown):
        found.append(
            f"circleci_values.object_storage.s3.presigned: found false, which needs temporary credentials, and {option.id} "
            f"{'has none' if option.sts is False else 'is not known to have them'}; allowed is true, where an object has 5 GB at most."
        )
    if option.anonymous_prefix is False and option.anonymous_bucket is False:
        found.append(f"circleci_object_storage_kind: found {option.id}, which cannot serve the agents without credentials; choose another kind.")
    return found


def _hosts(option: ObjectStorageOption, hosts: int) -> list[str]:
    if hosts and option.id not in MANAGED:
        return [
            f"circleci_object_storage: found {hosts} host(s) in this group, but {option.id} is run by somebody else; "
            "take them out of the group, or choose a kind that this collection runs: " + ", ".join(MANAGED) + "."
        ]
    if hosts > 1 and option.kind == "server" and "nfs" not in option.backends:
        return [
            f"circleci_object_storage: found {hosts} hosts in this group, and {option.id} keeps the objects on its own host, so that each would have "
            "others; allowed is one host, or a gateway (versitygw_s3, versitygw_azure) on several behind one name."
        ]
    return []


def fixed_address(catalog: Catalog, platform: str, balancer: str) -> str:
    """Annotation by which a Service gets a chosen address; empty where none is known."""
    known = next((dict(item.load_balancer.value or {}) for item in catalog.platforms() if item.id == platform), {})
    if balancer == "metallb":
        return str((known.get("metallb") or {}).get("address_annotation", "metallb.io/loadBalancerIPs"))
    # Ids of addresses are wanted on EKS, not addresses.
    return "" if platform == "eks" else str(known.get("fixed_address_annotation") or "")


def _placement(catalog: Catalog, site: Mapping[str, Any], option: ObjectStorageOption, hosts: int) -> list[str]:
    """What is wrong with a gateway in the cluster."""
    variable = "circleci_object_storage_placement"
    if option.id not in IN_CLUSTER:
        if option.id not in MANAGED:
            why = f"{option.id} is run by somebody else"
        elif option.id in KEEP_DATA:
            why = f"{option.id} keeps the objects itself, so that each replica would have others"
        else:
            why = f"{option.id} can open agents only together with their listing, and no host is there that could serve them"
        return [f"{variable}: found cluster, but {why}; allowed is hosts, or a gateway that keeps nothing ({', '.join(IN_CLUSTER)})."]
    found = []
    if hosts:
        found.append(
            f"circleci_object_storage: found {hosts} host(s) in this group, but {variable} is cluster; take them out of the group, or set {variable} to hosts."
        )
    port = int(site.get("circleci_object_storage_agent_port") or 0)
    if port:
        found.append(f"circleci_object_storage_agent_port: found {port}, but a gateway in the cluster has no host that could serve the agents; allowed is 0.")
    variable, address = "circleci_object_storage_load_balancer_address", str(site.get("circleci_object_storage_load_balancer_address") or "")
    if not address and site.get("circleci_load_balancer") == "metallb":
        found.append(f"{variable}: not set, and MetalLB gives only addresses that it was given; allowed is a free address in the network of the nodes.")
    if address and address == site.get("circleci_load_balancer_address"):
        found.append(f"{variable}: found {address}, which is circleci_load_balancer_address; allowed is another one, as each Service has its own.")
    platform, balancer = (str(site.get(f"circleci_{name}") or "") for name in ("platform", "load_balancer"))
    if address and platform and balancer and not fixed_address(catalog, platform, balancer):
        found.append(
            f"{variable}: found {address}, but no annotation is known by which a Service gets a chosen address on platform {platform}; allowed is empty. "
            "The cluster gives one, which the run prints."
        )
    return found


def _unused(site: Mapping[str, Any]) -> list[str]:
    variable = "circleci_object_storage_load_balancer_address"
    if not site.get(variable):
        return []
    return [f"{variable}: found {site[variable]}, but circleci_object_storage_placement is not cluster; take it out, or set that to cluster."]


def _agents(site: Mapping[str, Any], option: ObjectStorageOption, hosts: int) -> list[str]:
    variable = "circleci_object_storage_agent_port"
    port, endpoint = int(site.get(variable) or 0), urlsplit(str(site.get("circleci_object_storage_endpoint", "")))
    if hosts and not port and option.anonymous_prefix is False:
        return [
            f"{variable}: found 0, but {option.id} can open agents only together with their listing, and past the gateway to whoever reaches the store behind "
            "it; allowed is a port of its hosts on which they serve the agents themselves."
        ]
    if port and not hosts:
        return [f"{variable}: found {port}, but circleci_object_storage has no host that could serve the agents; allowed is 0."]
    if port and port == (endpoint.port or (80 if endpoint.scheme == "http" else 443)):
        return [f"{variable}: found {port}, which is the port of circleci_object_storage_endpoint; allowed is another one."]
    return []


def bucket_problems(catalog: Catalog, site: Mapping[str, Any]) -> list[str]:
    """What is wrong with the buckets alone, for those who only make them."""
    try:
        option = catalog.object_storage_option(str(site.get("circleci_object_storage_kind")))
    except UnknownNameError:
        return []  # the check of the variable's choices has said so
    return [*_unmaintained(catalog, site, option), *_asked_too_much(site, option), *_buckets(site, option)]


def _buckets(site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    found = []
    data, agents = (str(site.get(f"circleci_object_storage_{name}", "")) for name in ("bucket", "agent_bucket"))
    if data and data == agents:
        found.append(
            f"circleci_object_storage_agent_bucket: found {agents!r}, which is the bucket of artifacts and audit logs too, and everybody can read "
            "agents; allowed is any other name."
        )
    if option.id == "versitygw_s3" and len(data) > 55:
        found.append(
            f"circleci_object_storage_bucket: found {data!r} with {len(data)} characters; "
            f"{option.id} allows 55, as it makes a second bucket with -gateway at the end."
        )
    if "aws_s3" in option.backends:
        found += [
            f"{name}: found {value!r}; AWS keeps names that begin with xn--, sthree- or amzn-s3-demo-, or end with -s3alias, --ol-s3, --x-s3 or --table-s3."
            for name, value in (("circleci_object_storage_bucket", data), ("circleci_object_storage_agent_bucket", agents))
            if not _AWS_BUCKET.match(value)
        ]
    if option.id in SPEAK_GOOGLE:
        found += [
            f"{name}: found {value!r}; Google allows no name that begins with goog or contains google."
            for name, value in (("circleci_object_storage_bucket", data), ("circleci_object_storage_agent_bucket", agents))
            if value.startswith("goog") or "google" in value
        ]
    if "azure_blob" in option.backends:
        found += [
            f"{name}: found {value!r}; Azure allows no two hyphens in a row in the name of a container."
            for name, value in (("circleci_object_storage_bucket", data), ("circleci_object_storage_agent_bucket", agents))
            if "--" in value
        ]
    return found


def _identity(site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    """Roles of a cloud and the keys that go with a kind or do not."""
    found = []
    for name, kind, what in (
        ("irsa_role", "aws_s3_irsa", "the ARN of the role that pods take"),
        ("workload_identity", "gcs_workload_identity", "the service account that pods act as"),
    ):
        variable, value = f"circleci_object_storage_{name}", site.get(f"circleci_object_storage_{name}")
        if value and option.id != kind:
            found.append(f"{variable}: is set, but {option.id} does not use it; take it out, or choose {kind}.")
        elif not value and option.id == kind:
            found.append(f"{variable}: not set, and {kind} needs it; allowed is {what}.")
    if site.get("circleci_object_storage_service_account") and option.id not in SPEAK_GOOGLE:
        found.append(f"circleci_object_storage_service_account: is set, but {option.id} does not use it; take it out, or choose gcs_key.")
    return found


def _backend(site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    endpoint, account, key = (str(site.get(f"circleci_object_storage_backend_{name}") or "") for name in ("endpoint", "account", "key"))
    azure = "azure_blob" in option.backends
    if option.kind != "gateway":
        return [
            f"circleci_object_storage_backend_{name}: is set, but {option.id} has no store behind it; take it out, or choose a gateway."
            for name, value in (("endpoint", endpoint), ("account", account), ("key", key))
            if value
        ]
    found = []
    if not account:
        found.append(
            f"circleci_object_storage_backend_account: not set, and {option.id} needs it; allowed is "
            f"{'the name of the storage account' if azure else 'the access key of the store behind'}."
        )
    if not endpoint and not azure:
        found.append(f"circleci_object_storage_backend_endpoint: not set, and {option.id} needs it; allowed is the URL of the store behind.")
    if endpoint and urlsplit(endpoint).netloc == urlsplit(str(site.get("circleci_object_storage_endpoint", ""))).netloc:
        found.append(
            f"circleci_object_storage_backend_endpoint: found {endpoint!r}, which is "
            "circleci_object_storage_endpoint: the gateway would ask itself; allowed is the store behind it."
        )
    if not key and option.id != "versitygw_azure":
        found.append(
            f"circleci_object_storage_backend_key: not set, and {option.id} needs it; allowed is "
            + ("the key of the storage account. With a managed identity only versitygw_azure works." if azure else "the secret key of the store behind.")
        )
    if not azure and key and key == site.get("circleci_object_storage_secret_key"):
        found.append(
            f"circleci_object_storage_backend_key: found {_SECRET} and is that of circleci_object_storage_secret_key; allowed is another, so that what "
            "clients hold does not open the store behind."
        )
    return found


def _credentials(site: Mapping[str, Any], option: ObjectStorageOption) -> list[str]:
    if not option.id.startswith("minio_"):
        return []
    found = []
    access, secret = (str(site.get(f"circleci_object_storage_{name}") or "") for name in ("access_key", "secret_key"))
    if access and len(access) < 3:
        found.append(f"circleci_object_storage_access_key: found {access!r}; MinIO allows 3 characters and more.")
    if secret and len(secret) < 8:
        found.append(f"circleci_object_storage_secret_key: found {_SECRET} with {len(secret)} characters; MinIO allows 8 and more.")
    return found


def unproven(kind: str, endpoint: str, own_certificate: bool) -> list[dict[str, str]]:
    """Findings for preflight and report about what nobody has seen work with the product."""
    if not own_certificate:
        return []
    return [
        {
            "check": "object_storage_tls",
            "level": "warning",
            "subject": "circleci_object_storage_endpoint",
            "found": f"{endpoint} with a certificate of the site's private authority ({kind})",
            "expected": "a certificate that services trust without further settings, or http on a private network",
            "source": "server-admin values tables: no key for an authority of the object store is documented, and all examples use http",
            "remedy": "UNPROVEN: put the certificate of a public authority into the Secret "
            "onprem-circleci-object-storage-tls, or use http:// on a network that only the site reaches.",
            "reason": "",
        }
    ]
