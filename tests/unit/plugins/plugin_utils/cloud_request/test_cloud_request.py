# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.cloud_request import (
    dns_records,
    problems,
    registry_options,
    registry_template_options,
    requests,
    storage_options,
    table,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_names import site_names

CATALOG = Catalog.load()
STORE = {
    "kind": "aws_s3_irsa", "endpoint": "https://s3.us-west-2.amazonaws.com", "region": "us-west-2", "bucket": "example-data", "agent_bucket": "example-agents",
    "agent_port": 0, "versioning": True, "expiry_days": 90, "expiry_prefixes": [], "origins": ["https://app.ci.example.com"], "backend_account": "",
    "accepted_risks": [],
}  # fmt: skip


def site(platform: str = "eks", **changed: Any) -> dict[str, Any]:
    base = {f"circleci_object_storage_{name}": value for name, value in STORE.items()}
    return {
        "circleci_platform": platform, "circleci_site": "osaka", "circleci_domain": "ci.example.com", **base, "circleci_cloud_object_storage": True,
        "circleci_cloud_storage_key": "", "circleci_cloud_storage_sku": "", "circleci_cloud_dns_zone": "", "circleci_cloud_dns_target": "",
        "circleci_cloud_dns_endpoint": "", "circleci_load_balancer_address": "", "circleci_cloud_storage_private_access": [],
        "circleci_cloud_storage_private_zone": "", "circleci_cloud_region": "us-west-2", "circleci_registry_host": "registry.example.com:5000", **{f"circleci_{name}": value for name, value in changed.items()},
    }  # fmt: skip


AZURE = {"object_storage_kind": "versitygw_azure", "object_storage_backend_account": "examplecircleci", "object_storage_versioning": False,
         "object_storage_expiry_days": 0}  # fmt: skip


def test_what_is_asked_for_is_what_the_role_asks_for() -> None:
    asked = storage_options(CATALOG, site())
    assert asked == {
        "store_endpoint": "https://s3.us-west-2.amazonaws.com", "store_region": "us-west-2", "bucket": "example-data", "agent_bucket": "example-agents",
        "key": "", "account": "", "sku": "", "versioning": True, "expiry_days": 90, "expiry_prefixes": [], "origins": ["https://app.ci.example.com"],
    }  # fmt: skip
    assert storage_options(CATALOG, site(cloud_object_storage=False)) == {}
    assert storage_options(CATALOG, site(object_storage_agent_port=7071))["agent_bucket"] == ""


@pytest.mark.parametrize("platform, changed, said", [
    ("eks", {"object_storage_kind": "versitygw_s3"}, "found versitygw_s3, whose buckets are not made by the API of this cloud; allowed with "
     "circleci_cloud_object_storage is aws_s3_irsa, aws_s3_keys"),
    ("eks", {"object_storage_kind": None}, "circleci_object_storage_kind: not set; allowed"),
    ("eks", {"object_storage_bucket": "xn--data"}, "AWS keeps names"),
    ("eks", {"cloud_storage_key": "alias/mine"}, "circleci_cloud_storage_key: found 'alias/mine'; allowed is the ARN"),
    ("eks", {"cloud_storage_sku": "Standard_LRS"}, "only Azure has storage accounts"),
    ("eks", {"cloud_object_storage": False, "cloud_storage_sku": "Standard_LRS"}, "but circleci_cloud_object_storage is false"),
    ("gke", {"object_storage_kind": "gcs_key", "object_storage_expiry_days": 0, "object_storage_origins": [], "object_storage_bucket": "google-data"}, "Google allows no name"),
    ("gke", {"object_storage_kind": "gcs_key", "object_storage_origins": []}, "circleci_object_storage_expiry_days: found 90"),
    ("digitalocean", {"object_storage_kind": "do_spaces", "cloud_storage_key": "x"}, "no key of a key service"),
    ("azure", {**AZURE, "object_storage_bucket": "two--hyphens"}, "no two hyphens in a row"),
    ("azure", {**AZURE, "object_storage_backend_account": "Example_1"}, "3 to 24 lower-case letters"),
    ("azure", {**AZURE, "object_storage_kind": "minio_gateway_azure"}, "nobody maintains"),
])  # fmt: skip
def test_what_is_wrong_is_one_sentence(platform: str, changed: dict[str, Any], said: str) -> None:
    found = problems(CATALOG, site(platform, **changed))
    assert len(found) == 1 and said in found[0], found
    assert requests(CATALOG, site(platform, **changed)) == []


def test_what_is_asked_for_is_a_table_for_those_who_own_the_cloud() -> None:
    rows = list(csv.DictReader(io.StringIO(table(requests(CATALOG, site()), "csv"))))
    assert [(row["part"], row["construct"], row["name"]) for row in rows] == [
        ("object storage", "S3 bucket", "example-data"), ("object storage", "S3 bucket", "example-agents")]  # fmt: skip
    data, agents = (row["request"] for row in rows)
    for text in ("public access blocked, whatever a policy says", "encrypted with keys that the cloud keeps", "belongs to ci.example.com", "keeps versions",
                 "onprem-circleci-site is osaka", "pages of https://app.ci.example.com", "each folder expire after 90 days, audit logs never"):  # fmt: skip
        assert text in data, data
    assert "can be read by everybody" in agents and "public access by the policy alone" in agents and "versions" not in agents
    assert table(requests(CATALOG, site()), "markdown").count("\n") == 4
    azure = requests(CATALOG, site("azure", **AZURE, cloud_storage_sku="Standard_ZRS"))
    assert [row[2] for row in azure] == ["storage account examplecircleci", "container example-data of examplecircleci", "container example-agents of examplecircleci"]
    assert "Standard_ZRS; public access blocked; TLS at least 1.2; https only" in azure[0][3]


def test_nothing_is_asked_for_without_a_variable_or_a_cloud() -> None:
    assert table(requests(CATALOG, site(cloud_object_storage=False)), "csv") == table([], "markdown") == ""
    assert requests(CATALOG, site("generic")) == [] and problems(CATALOG, site("generic")) == []


ZONE: dict[str, Any] = {"cloud_object_storage": False, "cloud_dns_zone": "Z0123456789ABCDEFGHIJ"}
HOSTS = {"circleci_registry": ["192.0.2.11"], "circleci_object_storage": []}


def names(balancer: str = "192.0.2.100") -> Any:
    facts = {"domain": "ci.example.com", "load_balancer": {"address": balancer}, "registry": {"host": "registry.example.com:5000"},
             "object_storage": {"endpoint": "https://s3.us-west-2.amazonaws.com"}, "github": {"hostname": "github.example.com"}}  # fmt: skip
    return site_names(facts, lambda group: HOSTS[group])


@pytest.mark.parametrize("platform, changed, said", [
    ("eks", {"cloud_dns_zone": "example.com"}, "allowed is the id of a hosted zone"),
    ("gke", {"cloud_dns_zone": "example-zone"}, "allowed is projects/<project>/managedZones/<name>"),
    ("azure", {"cloud_dns_zone": "/subscriptions/x"}, "dnsZones/<domain>"),
    ("digitalocean", {"cloud_dns_zone": "Example.com"}, "allowed is a domain"),
    ("eks", {"cloud_dns_target": "a name.example.com"}, "allowed is the name of the load balancer"),
    ("eks", {"cloud_dns_target": "example.elb.amazonaws.com", "load_balancer_address": "192.0.2.100"}, "allowed is one of them"),
    ("eks", {"cloud_dns_zone": "", "cloud_dns_target": "example.elb.amazonaws.com"}, "circleci_cloud_dns_zone is empty"),
    ("digitalocean", {"cloud_dns_zone": "example.com", "cloud_dns_endpoint": "https://dns.example.com"}, "circleci_cloud_endpoint; take it out"),
])  # fmt: skip
def test_what_is_wrong_with_a_zone_is_one_sentence(platform: str, changed: dict[str, Any], said: str) -> None:
    found = problems(CATALOG, site(platform, **{**ZONE, **changed}))
    assert len(found) == 1 and said in found[0], found


def test_names_lead_where_the_inventory_says_and_nobody_elses_are_among_them() -> None:
    records = dns_records(site(**ZONE), names())
    assert [(item["name"], item["values"], item["needed"]) for item in records] == [
        ("ci.example.com", ["192.0.2.100"], True), ("app.ci.example.com", ["192.0.2.100"], True), ("registry.example.com", ["192.0.2.11"], False),
    ]  # fmt: skip
    assert dns_records(site(cloud_object_storage=False), names()) == []
    waiting = dns_records(site(**ZONE), names(balancer=""))
    assert waiting[0]["values"] == [] and "set circleci_load_balancer_address, or circleci_cloud_dns_target when it is" in waiting[0]["unknown"]
    named = dns_records(site(**ZONE, cloud_dns_target="example.elb.amazonaws.com"), names(balancer=""))
    assert [item["values"] for item in named] == [["example.elb.amazonaws.com"]] * 2 + [["192.0.2.11"]]
    rows = requests(CATALOG, site(**ZONE), names())
    assert ("names", "Route 53, zone Z0123456789ABCDEFGHIJ", "app.ci.example.com", "A 192.0.2.100") in rows and len(rows) == 3


GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/example-circleci/providers/Microsoft.Network"
SUBNET, PRIVATE_ZONE = f"{GROUP}/virtualNetworks/example/subnets/nodes", f"{GROUP}/privateDnsZones/privatelink.blob.core.windows.net"
GOOGLE = {"object_storage_kind": "gcs_key", "object_storage_expiry_days": 0, "object_storage_origins": [], "cloud_object_storage": False}


@pytest.mark.parametrize("platform, changed, said", [
    ("eks", {"cloud_storage_private_access": ["subnet-1"]}, "allowed is ids of route tables"),
    ("eks", {"cloud_storage_private_access": ["rtb-0123456789abcdef0"], "cloud_region": "eu-west-1"}, "leads to no bucket of us-west-2"),
    ("eks", {"cloud_storage_private_access": ["rtb-0123456789abcdef0"], "object_storage_kind": "s3", "cloud_object_storage": False}, "do not lie in this cloud"),
    ("gke", {**GOOGLE, "cloud_storage_private_access": ["nodes"]}, "allowed is projects/<project>/regions/<region>/subnetworks/<name>"),
    ("azure", {**AZURE, "cloud_storage_private_access": [SUBNET, SUBNET]}, "allowed is the id of one subnet"),
    ("azure", {**AZURE, "cloud_storage_private_zone": PRIVATE_ZONE}, "circleci_cloud_storage_private_access is empty"),
    ("azure", {**AZURE, "cloud_storage_private_access": [SUBNET], "cloud_storage_private_zone": "example.com"}, "privatelink.blob.core.windows.net"),
    ("digitalocean", {"object_storage_kind": "do_spaces", "cloud_storage_private_access": ["x"]}, "DigitalOcean has no private way to Spaces"),
])  # fmt: skip
def test_what_is_wrong_with_a_private_way_is_one_sentence(platform: str, changed: dict[str, Any], said: str) -> None:
    found = problems(CATALOG, site(platform, **changed))
    assert len(found) == 1 and said in found[0], found


def test_private_ways_are_told() -> None:
    plain: dict[str, Any] = {"cloud_object_storage": False}
    assert requests(CATALOG, site(**plain, cloud_storage_private_access=["rtb-0123456789abcdef0"])) == [
        ("private access", "gateway endpoint of the VPC", "com.amazonaws.us-west-2.s3", "route tables rtb-0123456789abcdef0")]  # fmt: skip
    subnet = "projects/p/regions/us-central1/subnetworks/nodes"
    assert requests(CATALOG, site("gke", **GOOGLE, cloud_storage_private_access=[subnet])) == [("private access", "private Google access", subnet, "on")]
    rows = requests(CATALOG, site("azure", **AZURE, **plain, cloud_storage_private_access=[SUBNET], cloud_storage_private_zone=PRIVATE_ZONE))
    assert [row[1:3] for row in rows] == [("private endpoint", "circleci-osaka-blob"), ("private DNS zone", PRIVATE_ZONE)]


@pytest.mark.parametrize("platform, host, said", [
    ("eks", "123456789012.dkr.ecr.us-west-2.amazonaws.com", "--role-name <role of the nodes> --policy-arn arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"),
    ("eks", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "arn:aws-cn:iam::aws:policy"),
    ("gke", "us-central1-docker.pkg.dev", "<repository> --location us-central1 --member serviceAccount:<service account of the nodes> --role roles/artifactregistry.reader"),
    ("azure", "examplecircleci.azurecr.io", "--role AcrPull --scope $(az acr show --name examplecircleci"),
    ("azure", "examplecircleci-a1b2c3.azurecr.io", '--role "Container Registry Repository Reader" where the roleAssignmentMode of the registry is AbacRepositoryPermissions'),
    ("digitalocean", "registry.digitalocean.com/example", "doctl kubernetes cluster registry add <id of the cluster>"),
])  # fmt: skip
def test_the_right_to_pull_from_a_registry_of_the_cloud_is_told(platform: str, host: str, said: str) -> None:
    plain: dict[str, Any] = {"cloud_object_storage": False, "registry_host": host}
    (part, construct, name, request), *others = requests(CATALOG, site(platform, **plain))
    assert (part, name) == ("registry", host.partition("/")[0]) and construct.startswith("right to pull") and said in request
    # Only ECR has to be told that images may come.
    assert [row[1] for row in others] == (["repository creation template"] if platform == "eks" else [])
    # A registry elsewhere is nobody's business there.
    assert requests(CATALOG, site(platform, **{**plain, "registry_host": "registry.example.com"})) == []


ACR = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/example-circleci/providers/Microsoft.ContainerRegistry/registries/examplecircleci"
AKS = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/example-circleci/providers/Microsoft.ContainerService/managedClusters/example"
PULL: dict[str, dict[str, Any]] = {
    "eks": {"registry_host": "123456789012.dkr.ecr.us-west-2.amazonaws.com", "cloud_registry_nodes": ["nodes", "other-nodes"]},
    "gke": {**GOOGLE, "registry_host": "us-central1-docker.pkg.dev", "registry_path": "p/circleci",
            "cloud_registry": "projects/p/locations/us-central1/repositories/circleci", "cloud_registry_nodes": ["nodes@p.iam.gserviceaccount.com"]},
    "azure": {**AZURE, "registry_host": "examplecircleci.azurecr.io", "cloud_registry": ACR, "cloud_registry_nodes": [AKS]},
    "digitalocean": {"object_storage_kind": "do_spaces", "registry_host": "registry.digitalocean.com", "cloud_registry_nodes": ["bd5f5959-5e1e-4205-a714-a914373942af"]},
}  # fmt: skip


@pytest.mark.parametrize("platform, changed, said", [
    ("eks", {"registry_host": "registry.example.com:5000"}, "no registry of this cloud; leave it empty"),
    ("eks", {"cloud_registry_nodes": ["two words"]}, "found 'two words'; allowed are names of the IAM roles"),
    ("eks", {"cloud_registry": "x"}, "circleci_cloud_registry: found 'x'; allowed is nothing"),
    ("eks", {"cloud_registry_nodes": [], "cloud_registry_endpoint": "https://iam.example.com"}, "circleci_cloud_registry_nodes is empty; take it out"),
    ("gke", {"cloud_registry": ""}, "circleci_cloud_registry: found ''; allowed is projects/<project>/locations"),
    ("gke", {"cloud_registry": "projects/p/locations/europe/repositories/circleci"}, "name the repository of that place"),
    ("gke", {"registry_path": ""}, "circleci_registry_path: found '', and circleci_cloud_registry is projects/p/locations/us-central1/repositories/circleci, whose images"),
    ("gke", {"registry_path": "p/circleci-other"}, "lie below p/circleci; name one repository in both"),
    ("azure", {"cloud_registry": "examplecircleci"}, "allowed is /subscriptions/<id>"),
    ("azure", {"cloud_registry_endpoint": "https://management.example.com"}, "circleci_cloud_endpoint; take it out"),
    ("digitalocean", {"cloud_registry_nodes": ["example"]}, "allowed are ids of clusters"),
])  # fmt: skip
def test_what_is_wrong_with_the_right_to_pull_is_one_sentence(platform: str, changed: dict[str, Any], said: str) -> None:
    found = problems(CATALOG, site(platform, **{"cloud_object_storage": False, **PULL[platform], **changed}))
    assert len(found) == 1 and said in found[0] and found[0].endswith("."), found


@pytest.mark.parametrize("platform, said", [
    ("eks", ["aws iam attach-role-policy --role-name nodes --policy-arn", "--role-name other-nodes"]),
    ("gke", ["add-iam-policy-binding projects/p/locations/us-central1/repositories/circleci --member serviceAccount:nodes@p.iam.gserviceaccount.com --role"]),
    ("azure", [f"--assignee-object-id $(az aks show --ids {AKS} --query identityProfile.kubeletidentity.objectId --output tsv) "
               f"--assignee-principal-type ServicePrincipal --role AcrPull --scope {ACR}; --role"]),
    ("digitalocean", ["doctl kubernetes cluster registry add bd5f5959-5e1e-4205-a714-a914373942af,"]),
])  # fmt: skip
def test_who_is_to_pull_is_asked_for_and_told_by_the_roles_of_the_catalog(platform: str, said: list[str]) -> None:
    variables = site(platform, **{"cloud_object_storage": False, "cloud_registry": "", **PULL[platform]})
    rows = [row for row in requests(CATALOG, variables) if row[1].startswith("right to pull")]
    assert len(rows) == len(said) and all(text in row[3] for text, row in zip(said, rows, strict=True)), rows
    options = registry_options(CATALOG, variables)
    assert options["nodes"] == PULL[platform]["cloud_registry_nodes"] and options["registry_host"] == PULL[platform]["registry_host"]
    assert [grant["role"] for grant in options["grants"]] == {
        "eks": ["AmazonEC2ContainerRegistryPullOnly"], "gke": ["roles/artifactregistry.reader"], "azure": ["AcrPull", "Container Registry Repository Reader"],
        "digitalocean": [],
    }[platform]  # fmt: skip
    assert registry_options(CATALOG, {**variables, "circleci_cloud_registry_nodes": []}) == {}


def test_a_template_of_ecr_is_asked_for_and_told() -> None:
    ecr: dict[str, Any] = {"cloud_object_storage": False, "registry_host": "123456789012.dkr.ecr.us-west-2.amazonaws.com"}
    on_push = {**ecr, "cloud_registry_create_on_push": True}
    assert registry_template_options(site(**ecr)) == {}
    assert registry_template_options(site(**on_push, registry_path="circleci-server")) == {
        "registry_host": ecr["registry_host"], "path": "circleci-server", "endpoint": "https://api.ecr.us-west-2.amazonaws.com"}  # fmt: skip
    china = {**on_push, "registry_host": "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"}
    assert registry_template_options(site(**china))["endpoint"] == "https://api.ecr.cn-north-1.amazonaws.com.cn"
    private = "https://vpce-0123-api.ecr.us-west-2.vpce.amazonaws.com/"
    assert registry_template_options(site(**on_push, cloud_registry_create_on_push_endpoint=private))["endpoint"] == private.rstrip("/")
    assert [row[3] for row in requests(CATALOG, site(**on_push, registry_path="circleci-server")) if row[1] == "repository creation template"] == [
        "aws ecr create-repository-creation-template --region us-west-2 --prefix circleci-server --applied-for CREATE_ON_PUSH; or a repository for each image before "
        "it is pushed"]  # fmt: skip
    assert problems(CATALOG, site(**on_push)) == []


@pytest.mark.parametrize("platform, changed, said", [
    ("eks", {"cloud_registry_create_on_push": True}, "circleci_registry_host is registry.example.com; only ECR (<account>.dkr.ecr.<region>.amazonaws.com) needs it"),
    ("gke", {"cloud_registry_create_on_push": True, "registry_host": "us-central1-docker.pkg.dev"}, "only ECR"),
    ("eks", {"cloud_registry_create_on_push_endpoint": "https://ecr.example.com"}, "circleci_cloud_registry_create_on_push is false; take it out"),
])  # fmt: skip
def test_a_template_without_ecr_is_refused(platform: str, changed: dict[str, Any], said: str) -> None:
    found = problems(CATALOG, site(platform, **{"cloud_object_storage": False, **changed}))
    assert len(found) == 1 and said in found[0] and found[0].endswith("."), found
