# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""One site per platform, as small as a real one may be. The golden values files are composed from these."""

from __future__ import annotations

from typing import Any

FULL = ("4.7.15", "4.8.12", "4.9.5", "4.10.0")
OLD = ("4.0.6", "4.1.10", "4.2.7", "4.3.9", "4.4.7", "4.5.5", "4.6.6")
PLATFORMS = ("eks", "gke", "azure", "digitalocean", "rancher", "generic")

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nexample\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN EXAMPLE KEY-----\nexample\n-----END EXAMPLE KEY-----\n"

_BASE: dict[str, Any] = {
    "domain": "ci.example.com",
    "registry": {"host": "registry.example.com:5000"},
    "github": {"hostname": "github.example.com"},
    "tls": {"certificate": CERTIFICATE, "private_key": KEY, "issued_by_site_ca": True},
    "nomad_clients": ["nomad1", "nomad2"],
    # Releases before 4.4 have no Secret of the operator's for these.
    "nomad": {"mtls": {"ca": CERTIFICATE, "certificate": CERTIFICATE, "private_key": KEY}},
}
_S3: dict[str, Any] = {
    "kind": "s3",
    "endpoint": "https://store.example.com:7070",
    "bucket": "circleci-data",
    "agent_bucket": "circleci-agents",
    "region": "us-east-1",
}
_PLATFORM: dict[str, dict[str, Any]] = {
    "eks": {
        "object_storage": {
            **_S3, "endpoint": "https://s3.eu-west-1.amazonaws.com", "region": "eu-west-1",
            "irsa_role": "arn:aws:iam::123456789012:role/circleci-object-storage",
        },
        "load_balancer": {"internal": True},
        "machine_provisioner": {
            "providers": {
                "ec2": {
                    "enabled": True, "region": "eu-west-1", "subnets": ["subnet-1"], "securityGroupId": "sg-1",
                    "irsaRole": "arn:aws:iam::123456789012:role/circleci-machines",
                }
            }
        },
    },
    "gke": {
        "object_storage": {
            "kind": "gcs", "bucket": "circleci-data", "agent_base_url": "https://storage.googleapis.com/circleci-agents",
            "workload_identity": "storage@example.iam.gserviceaccount.com",
        },
        "load_balancer": {"address": "192.0.2.10"},
    },
    "azure": {"object_storage": _S3, "load_balancer": {"internal": True, "address": "10.0.0.10"}},
    "digitalocean": {"object_storage": _S3, "load_balancer": {"internal": True}},
    "rancher": {"object_storage": _S3, "load_balancer": {"address": "192.0.2.10"}},
    "generic": {"object_storage": _S3, "load_balancer": {"kind": "metallb", "address": "192.0.2.10"}},
}


def site(release: str, platform: str, **changes: Any) -> dict[str, Any]:
    return {**_BASE, **_PLATFORM[platform], "release": release, "platform": platform, **changes}
