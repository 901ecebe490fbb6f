# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the site variables to what is asked of a cloud. Nothing is picked: what has no variable is not asked for."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...module_utils import cloud_storage
from ...module_utils.cloud import PROVIDERS
from ...module_utils.cloud_dns import aws as route53
from ...module_utils.cloud_dns import azure as azure_dns
from ...module_utils.cloud_dns import digitalocean as digitalocean_dns
from ...module_utils.cloud_dns import google as cloud_dns_of_google
from ...module_utils.cloud_dns.model import kind_of
from ...module_utils.cloud_private_access import aws as private_of_aws
from ...module_utils.cloud_private_access import azure as private_of_azure
from ...module_utils.cloud_private_access import google as private_of_google
from ...module_utils.cloud_registry_access import aws as pull_of_aws
from ...module_utils.cloud_registry_access import azure as pull_of_azure
from ...module_utils.cloud_registry_access import digitalocean as pull_of_digitalocean
from ...module_utils.cloud_registry_access import google as pull_of_google
from ...module_utils.cloud_registry_access import model as pull
from ...module_utils.cloud_registry_template import HOST, HOST_FORM, VARIABLE, WHOLE_REGISTRY, ecr_api
from ..catalog import Catalog
from ..object_storage import SPEAK_GOOGLE, bucket_options, bucket_problems
from ..site_names import AS_IT_IS, SiteName
from ..values.secret_plan import host_of

STORES = {
    "aws": ("aws_s3_irsa", "aws_s3_keys"),
    "gcp": SPEAK_GOOGLE,
    "azure": ("versitygw_azure", "minio_gateway_azure"),
    "digitalocean": ("do_spaces",),
}
"""Kinds of object storage whose buckets lie in the cloud itself."""
CONSTRUCTS = {"aws": "S3 bucket", "gcp": "bucket of Cloud Storage", "azure": "Azure Storage", "digitalocean": "Spaces bucket"}
KEYS = {
    "aws": (re.compile(r"arn:aws(-[a-z]+)*:kms:[a-z0-9-]+:\d{12}:(key|alias)/[\w/-]+"), "the ARN of a key or an alias of KMS"),
    "gcp": (
        re.compile(r"projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+"),
        "projects/<project>/locations/<place>/keyRings/<ring>/cryptoKeys/<name>",
    ),
}
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
ZONES = {
    "aws": (route53.ZONE, "the id of a hosted zone, such as Z0123456789ABCDEFGHIJ"),
    "gcp": (cloud_dns_of_google.ZONE, "projects/<project>/managedZones/<name>"),
    "azure": (azure_dns.ZONE, azure_dns.FORM),
    "digitalocean": (digitalocean_dns.ZONE, "a domain, such as example.com"),
}
PRIVATE = {
    "aws": (private_of_aws.TABLE, private_of_aws.FORM),
    "gcp": (private_of_google.SUBNET, private_of_google.FORM),
    "azure": (private_of_azure.SUBNET, private_of_azure.FORM),
}
SERVICES = {"aws": "Route 53", "gcp": "Cloud DNS", "azure": "Azure DNS", "digitalocean": "domain of DigitalOcean"}
# Who may pull belongs to the nodes of the cluster, which is not ours: the request is told in the words of the cloud's own tool.
REGISTRIES = {
    "aws": (
        HOST,
        "role of the nodes",
        "aws iam attach-role-policy --role-name {node} --policy-arn arn:{partition}:iam::aws:policy/{role}",
    ),
    "gcp": (
        re.compile(r"(?P<place>[a-z0-9-]+)-docker\.pkg\.dev"),
        "service account of the nodes",
        "gcloud artifacts repositories add-iam-policy-binding {registry} --member serviceAccount:{node} --role {role}",
    ),
    "azure": (
        re.compile(r"(?P<place>[a-z0-9]{5,50})(?:-[a-z0-9]+)?\.azurecr\.(?:io|us|cn)"),
        "kubelet identity of the cluster",
        "az role assignment create --assignee-object-id {node} --assignee-principal-type ServicePrincipal --role {role} --scope {registry}",
    ),
    "digitalocean": (
        re.compile(r"(?P<place>registry)\.digitalocean\.com"),
        "cluster",
        "doctl kubernetes cluster registry add {node}, which is POST /v2/kubernetes/registry with cluster_uuids",
    ),
}
NODES = {
    "aws": (pull_of_aws.NODE, pull_of_aws.NODE_FORM, pull_of_aws.REGISTRY_FORM),
    "gcp": (pull_of_google.NODE, pull_of_google.NODE_FORM, pull_of_google.REGISTRY_FORM),
    "azure": (pull_of_azure.NODE, pull_of_azure.NODE_FORM, pull_of_azure.REGISTRY_FORM),
    "digitalocean": (pull_of_digitalocean.NODE, pull_of_digitalocean.NODE_FORM, pull_of_digitalocean.REGISTRY_FORM),
}
_HOSTNAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,62}", re.IGNORECASE)
COLUMNS = ("part", "construct", "name", "request")


def problems(catalog: Catalog, site: Mapping[str, Any]) -> list[str]:
    """What is wrong with it, each as one sentence. *site* holds site variables by name."""
    provider = PROVIDERS.get(str(site.get("circleci_platform")), "")
    if not provider:
        return []
    found = [*_storage_problems(catalog, provider, site), *_dns_problems(provider, site), *_private_problems(provider, site)]
    return [*found, *_registry_problems(provider, site), *_template_problems(provider, site)]


def _storage_problems(catalog: Catalog, provider: str, site: Mapping[str, Any]) -> Iterator[str]:
    kind, key, sku = (str(site.get(f"circleci_{name}") or "") for name in ("object_storage_kind", "cloud_storage_key", "cloud_storage_sku"))
    if not site.get("circleci_cloud_object_storage"):
        for name, value in (("key", key), ("sku", sku)):
            if value:
                yield f"circleci_cloud_storage_{name}: found {value!r}, but circleci_cloud_object_storage is false; take it out, or set that to true."
        return
    allowed = ", ".join(STORES[provider])
    if kind not in STORES[provider]:
        known = f"found {kind}, whose buckets are not made by the API of this cloud" if kind else "not set"
        yield (f"circleci_object_storage_kind: {known}; allowed with circleci_cloud_object_storage is {allowed}. Other kinds make their buckets in the "
               "site itself.")  # fmt: skip
        return
    yield from bucket_problems(catalog, site)
    if key and (provider not in KEYS or not KEYS[provider][0].fullmatch(key)):
        form = KEYS[provider][1] if provider in KEYS else "nothing: no key of a key service is set there by this collection"
        yield f"circleci_cloud_storage_key: found {key!r}; allowed is {form}."
    if sku and provider != "azure":
        yield f"circleci_cloud_storage_sku: found {sku!r}, but only Azure has storage accounts; take it out."
    account = str(site.get("circleci_object_storage_backend_account") or "")
    if provider == "azure" and not _ACCOUNT.fullmatch(account):
        yield (f"circleci_object_storage_backend_account: found {account!r}; allowed is the name of a storage account, 3 to 24 lower-case letters and "
               "digits.")  # fmt: skip


def _dns_problems(provider: str, site: Mapping[str, Any]) -> Iterator[str]:
    zone, target, endpoint = (str(site.get(f"circleci_cloud_dns_{name}") or "") for name in ("zone", "target", "endpoint"))
    if not zone:
        for name, value in (("target", target), ("endpoint", endpoint)):
            if value:
                yield f"circleci_cloud_dns_{name}: found {value!r}, but circleci_cloud_dns_zone is empty; take it out, or name the zone."
        return
    known, form = ZONES[provider]
    if not known.fullmatch(zone):
        yield f"circleci_cloud_dns_zone: found {zone!r}; allowed is {form}."
    if target and not _HOSTNAME.fullmatch(target.rstrip(".")):
        yield f"circleci_cloud_dns_target: found {target!r}; allowed is the name of the load balancer, such as example-1234.elb.us-west-2.amazonaws.com."
    if target and site.get("circleci_load_balancer_address"):
        yield (f"circleci_cloud_dns_target: found {target!r}, and circleci_load_balancer_address has an address; allowed is one of them, since a name leads to "
               "an address or to another name.")  # fmt: skip
    if endpoint and provider in ("azure", "digitalocean"):
        yield f"circleci_cloud_dns_endpoint: found {endpoint!r}, but names are set there by the API in circleci_cloud_endpoint; take it out."


def _private_problems(provider: str, site: Mapping[str, Any]) -> Iterator[str]:
    ends, zone = list(site.get("circleci_cloud_storage_private_access") or []), str(site.get("circleci_cloud_storage_private_zone") or "")
    kind = str(site.get("circleci_object_storage_kind") or "")
    if zone and (provider != "azure" or not ends):
        why = "circleci_cloud_storage_private_access is empty" if provider == "azure" else "only Azure has such a zone"
        yield f"circleci_cloud_storage_private_zone: found {zone!r}, but {why}; take it out."
    elif zone and not private_of_azure.ZONE.fullmatch(zone):
        yield f"circleci_cloud_storage_private_zone: found {zone!r}; allowed is {private_of_azure.ZONE_FORM}."
    if not ends:
        return
    variable = f"circleci_cloud_storage_private_access: found {', '.join(map(repr, ends))}"
    if provider == "digitalocean":
        yield f"{variable}, but DigitalOcean has no private way to Spaces; leave it empty."
        return
    known, form = PRIVATE[provider]
    if any(not known.fullmatch(end) for end in ends) or (provider == "azure" and len(ends) > 1):
        yield f"{variable}; allowed is {form}."
    if kind not in STORES[provider]:
        yield f"{variable}, but the buckets of {kind or 'the site'} do not lie in this cloud; leave it empty, or choose {', '.join(STORES[provider])}."
    region, store = str(site.get("circleci_cloud_region") or ""), str(site.get("circleci_object_storage_region") or "")
    if provider == "aws" and region and region != store:
        yield f"{variable}, but a gateway endpoint of {region} leads to no bucket of {store}; circleci_cloud_region and circleci_object_storage_region differ."


def _registry_problems(provider: str, site: Mapping[str, Any]) -> Iterator[str]:
    nodes, registry, endpoint = list(site.get(pull.NODES) or []), str(site.get(pull.REGISTRY) or ""), str(site.get(f"{pull.REGISTRY}_endpoint") or "")
    if not nodes:
        for name, value in ((pull.REGISTRY, registry), (f"{pull.REGISTRY}_endpoint", endpoint)):
            if value:
                yield f"{name}: found {value!r}, but {pull.NODES} is empty; take it out, or name who is to pull."
        return
    host = host_of(str(site.get("circleci_registry_host") or ""))
    if not REGISTRIES[provider][0].fullmatch(host):
        yield f"{pull.NODES}: found {', '.join(map(repr, nodes))}, but circleci_registry_host is {host}, no registry of this cloud; leave it empty."
        return
    known, form, wanted = NODES[provider]
    found = [*pull.wrong_nodes(nodes, known, form)]
    if provider == "gcp":
        found += pull_of_google.wrong_registry(registry, host) or pull_of_google.wrong_path(registry, str(site.get("circleci_registry_path") or ""))
    elif provider == "azure":
        found += [] if pull_of_azure.ACR.fullmatch(registry) else [f"{pull.REGISTRY}: found {registry!r}; allowed is {wanted}"]
    elif registry:
        found.append(f"{pull.REGISTRY}: found {registry!r}; allowed is {wanted}")
    yield from (f"{sentence}." for sentence in found)
    if endpoint and provider in ("azure", "digitalocean"):
        yield f"{pull.REGISTRY}_endpoint: found {endpoint!r}, but the right is given there by the API in circleci_cloud_endpoint; take it out."


def _template_problems(provider: str, site: Mapping[str, Any]) -> Iterator[str]:
    endpoint, host = str(site.get(f"{VARIABLE}_endpoint") or ""), host_of(str(site.get("circleci_registry_host") or ""))
    if not site.get(VARIABLE):
        if endpoint:
            yield f"{VARIABLE}_endpoint: found {endpoint!r}, but {VARIABLE} is false; take it out, or set that to true."
    elif provider != "aws" or not HOST.fullmatch(host):
        yield f"{VARIABLE}: true, and circleci_registry_host is {host}; only ECR ({HOST_FORM}) needs it, set it to false."


def dns_records(site: Mapping[str, Any], names: Iterable[SiteName]) -> list[dict[str, Any]]:
    """Records as the module cloud_dns takes them. Names that somebody else has are not among them. Empty when none are asked for."""
    if not site.get("circleci_cloud_dns_zone"):
        return []
    target = str(site.get("circleci_cloud_dns_target") or "")
    return [
        {"name": item.name, "values": list(item.values) or ([target] if item.needed and target else []), "needed": item.needed, "unknown": _unknown(item)}
        for item in names
        if item.values or item.unknown != AS_IT_IS
    ]


def _unknown(item: SiteName) -> str:
    if item.values:
        return ""
    variable = "circleci_load_balancer_address, or circleci_cloud_dns_target" if item.needed else "circleci_object_storage_load_balancer_address"
    return f"it leads to {item.unknown}, which is not known yet; set {variable} when it is"


def storage_options(catalog: Catalog, site: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the module cloud_storage, without keys. What is left out is left as it is. Empty when it is not asked for."""
    if not site.get("circleci_cloud_object_storage"):
        return {}
    stored = {name: site[f"circleci_object_storage_{name}"] for name in ("versioning", "expiry_days", "expiry_prefixes", "origins")}
    return {
        "store_endpoint": site["circleci_object_storage_endpoint"],
        "store_region": site["circleci_object_storage_region"],
        "bucket": site["circleci_object_storage_bucket"],
        # Where hosts serve the agents there is no bucket of them.
        "agent_bucket": "" if site["circleci_object_storage_agent_port"] else site["circleci_object_storage_agent_bucket"],
        "key": site["circleci_cloud_storage_key"],
        "account": site.get("circleci_object_storage_backend_account") or "",
        "sku": site["circleci_cloud_storage_sku"],
        **bucket_options(catalog, str(site["circleci_object_storage_kind"]), stored),
    }


def registry_options(catalog: Catalog, site: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the module cloud_registry_access. Empty when it is not asked for."""
    if not site.get(pull.NODES):
        return {}
    return {
        "registry_host": host_of(str(site["circleci_registry_host"])),
        "registry": site[pull.REGISTRY],
        "nodes": list(site[pull.NODES]),
        "grants": [dict(grant) for grant in catalog.platform(str(site["circleci_platform"])).registry_access.value],
    }


def registry_template_options(site: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the module cloud_registry_template. Empty when it is not asked for."""
    if not site.get(VARIABLE):
        return {}
    host = host_of(str(site["circleci_registry_host"]))
    api = ecr_api(host, str(site.get(f"{VARIABLE}_endpoint") or ""))
    return {"registry_host": host, "path": str(site.get("circleci_registry_path") or ""), "endpoint": api}


def requests(catalog: Catalog, site: Mapping[str, Any], names: Iterable[SiteName] = ()) -> list[tuple[str, ...]]:
    """What is asked for, as rows of C(COLUMNS); empty where the platform is no cloud, or nothing is asked."""
    provider = PROVIDERS.get(str(site.get("circleci_platform")), "")
    if not provider or problems(catalog, site):
        return []
    asked = [*_storage_requests(catalog, provider, site), *_dns_requests(provider, site, names), *_private_requests(provider, site)]
    return [*asked, *_registry_requests(catalog, provider, site)]


def _storage_requests(catalog: Catalog, provider: str, site: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    options = storage_options(catalog, site)
    if not options:
        return
    wanted = {"versioning": None, "expiry_days": None, "origins": None, **options, "site": site["circleci_domain"]}
    for name, text in cloud_storage.requested(provider, wanted, str(site["circleci_site"])):
        yield "object storage", CONSTRUCTS[provider], name, text


def _dns_requests(provider: str, site: Mapping[str, Any], names: Iterable[SiteName]) -> Iterator[tuple[str, ...]]:
    for record in dns_records(site, names):
        values = record["values"]
        kind = "/".join(dict.fromkeys(kind_of(value) for value in values)) if values else "A"
        yield "names", f"{SERVICES[provider]}, zone {site['circleci_cloud_dns_zone']}", record["name"], f"{kind} {', '.join(values) or record['unknown']}"


def _private_requests(provider: str, site: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    ends = list(site.get("circleci_cloud_storage_private_access") or [])
    if not ends:
        return
    if provider == "aws":
        yield "private access", "gateway endpoint of the VPC", f"com.amazonaws.{site['circleci_object_storage_region']}.s3", f"route tables {', '.join(ends)}"
    elif provider == "gcp":
        for end in ends:
            yield "private access", "private Google access", end, "on"
    else:
        account = site.get("circleci_object_storage_backend_account")
        yield "private access", "private endpoint", f"circleci-{site['circleci_site']}-blob", f"blob of the storage account {account}, in {ends[0]}"
        if site.get("circleci_cloud_storage_private_zone"):
            zone = str(site["circleci_cloud_storage_private_zone"])
            yield "private access", "private DNS zone", zone, "linked to the network of the subnet; the endpoint has its names in it"


def _registry_requests(catalog: Catalog, provider: str, site: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """How nodes get the right to pull from a registry of the same cloud; what the site does not know is left open."""
    known, who, command = REGISTRIES[provider]
    match = known.fullmatch(host_of(str(site.get("circleci_registry_host") or "")))
    if not match:
        return
    grants = pull.grants(catalog.platform(str(site["circleci_platform"])).registry_access.value)
    role, place = grants[0].role if grants else "", match["place"]
    registry, open_node, form = str(site.get(pull.REGISTRY) or ""), f"<{who}>", "{}"
    if provider == "gcp" and not registry:
        registry = f"<repository> --location {place}"
    elif provider == "azure":
        registry = registry or f"$(az acr show --name {place} --query id --output tsv)"
        open_node, form = f"<object id of the {who}>", "$(az aks show --ids {} --query identityProfile.kubeletidentity.objectId --output tsv)"
        others = [f'--role "{grant.role}" where the roleAssignmentMode of the registry is {grant.mode}' for grant in grants[1:]]
        command = "; ".join([command, *others])
    elif provider == "digitalocean":
        open_node = "<id of the cluster>"
    partition = "aws-cn" if place.startswith("cn-") else "aws-us-gov" if place.startswith("us-gov-") else "aws"
    for node in [form.format(name) for name in site.get(pull.NODES) or []] or [open_node]:
        text = command.format(node=node, registry=registry, role=role, partition=partition)
        yield "registry", f"right to pull, for the {who}", match[0], text
    if provider == "aws":
        prefix = str(site.get("circleci_registry_path") or "") or WHOLE_REGISTRY
        yield ("registry", "repository creation template", match[0],
               f"aws ecr create-repository-creation-template --region {place} --prefix {prefix} --applied-for CREATE_ON_PUSH; or a repository for each "
               "image before it is pushed")  # fmt: skip


def table(rows: Iterable[tuple[str, ...]], form: str) -> str:
    """The rows as C(csv) or C(markdown); nothing for none."""
    lines = list(rows)
    if not lines:
        return ""
    if form == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *lines])
        return buffer.getvalue()
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in (COLUMNS, ("---",) * len(COLUMNS), *lines))
