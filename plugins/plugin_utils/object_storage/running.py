# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host runs a store: program, arguments, environment, folders. Roles write it down, tests start the programs with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .kinds import MANAGED

CONFIG_DIR = "/etc/onprem-circleci/object-storage"
PROGRAM_DIR = "/usr/local/bin"
USER = "circleci-store"
_ARTIFACTS = {"minio_gateway_azure": "minio-gateway-azure", "minio_gateway_s3": "minio-gateway-s3", "minio_nas": "minio-nas"}


class ServiceError(Exception):
    """One sentence for the operator."""


def service(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about the service of *kind*.

    ``arguments`` can be read by everybody on the host, so that no credentials are in them; ``environment`` is a secret.
    """
    if kind not in MANAGED:
        raise ServiceError(
            f"circleci_object_storage_kind: found {kind!r}, which is not run on hosts of circleci_object_storage; allowed is one of {', '.join(MANAGED)}."
        )
    config = _config(options)
    family, arguments, made, folders = process(kind, options)
    artifact = _ARTIFACTS.get(kind, family)
    environment = {**made, **{name: str(value) for name, value in (options.get("environment") or {}).items()}}
    return {
        "kind": kind,
        "description": f"Object store of CircleCI Server ({kind})",
        "artifact": artifact,
        "member": family if family == "versitygw" else "",
        "program": f"{PROGRAM_DIR}/{family}",
        "arguments": arguments,
        "command": " ".join(unit_word(word) for word in (f"{PROGRAM_DIR}/{family}", *arguments)),
        "environment": environment,
        "environment_file": environment_file(environment),
        "directories": [
            *({"path": path} for path in ("/etc/onprem-circleci", config, f"{config}/certs")),
            *({"path": path, "owner": USER, "group": USER, "mode": "0750"} for path in folders),
        ],
        "keeps_data": bool(folders),
        "is_gateway": not folders,
        # Bucket behind the gateway that must be there before it starts, since it keeps the policies of all others.
        "policies": environment.get("VGW_S3_META_BUCKET", ""),
        # MinIO looks for these names.
        "certificate": f"{config}/certs/public.crt",
        "private_key": f"{config}/certs/private.key",
    }


def process(kind: str, options: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Any], list[str]]:
    """Program, arguments, environment and folders of its data, wherever it runs."""
    family, _line, backend = kind.partition("_")
    made = (_versitygw if family == "versitygw" else _minio)(backend, options)
    return family, made["arguments"], made["environment"], made["folders"]


def _config(options: Mapping[str, Any]) -> str:
    return str(options.get("config_dir") or CONFIG_DIR)


def _listen(options: Mapping[str, Any]) -> str:
    address = str(options.get("address") or "")
    return f"[{address}]:{options['port']}" if ":" in address else f"{address}:{options['port']}"


def _versitygw(backend: str, options: Mapping[str, Any]) -> dict[str, Any]:
    environment = {
        "ROOT_ACCESS_KEY_ID": options["access_key"],
        "ROOT_SECRET_ACCESS_KEY": options["secret_key"],
        "VGW_PORT": _listen(options),
        "VGW_REGION": options["region"],
        # Without it each request opens a connection of its own.
        "VGW_KEEP_ALIVE": "true",
        # The log of requests would hold presigned URLs.
        "VGW_QUIET": "true",
    }
    if options.get("tls"):
        environment |= {"VGW_CERT": f"{_config(options)}/certs/public.crt", "VGW_KEY": f"{_config(options)}/certs/private.key"}
    arguments, folders = [backend], []
    if backend == "posix":
        buckets, versions = (f"{options['data_dir']}/posix/{name}" for name in ("buckets", "versions"))
        arguments.append(buckets)
        folders = [options["data_dir"], f"{options['data_dir']}/posix", buckets]
        if options.get("versioning"):
            environment["VGW_VERSIONING_DIR"] = versions
            folders.append(versions)
    elif backend == "s3":
        environment |= {
            "VGW_S3_ACCESS_KEY": options["backend_account"],
            "VGW_S3_SECRET_KEY": options["backend_key"],
            "VGW_S3_ENDPOINT": options["backend_endpoint"],
            "VGW_S3_REGION": options["backend_region"],
            "VGW_S3_USE_PATH_STYLE": "true",
            "VGW_S3_META_BUCKET": options["policies"],
            # Many stores send no checksums, and each answer without would be a line in the log.
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        if str(options["backend_endpoint"]).startswith("http:"):
            # Without TLS the SDK of the gateway cannot send the checksum of what it passes on.
            environment["VGW_S3_DISABLE_DATA_INTEGRITY_CHECK"] = "true"
    else:
        environment["AZ_ACCOUNT_NAME"] = options["backend_account"]
        # Without a key the gateway takes the managed identity of its host.
        environment |= {
            name: options[source] for name, source in (("AZ_ACCESS_KEY", "backend_key"), ("AZ_ENDPOINT", "backend_endpoint")) if options.get(source)
        }
    return {"arguments": arguments, "environment": environment, "folders": folders}


def _minio(mode: str, options: Mapping[str, Any]) -> dict[str, Any]:
    environment = {
        "MINIO_ROOT_USER": options["access_key"],
        "MINIO_ROOT_PASSWORD": options["secret_key"],
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_SITE_REGION": options["region"],
        # It does not start without, and writes nothing there.
        "HOME": "/nonexistent",
    }
    common = ["--quiet", "--address", _listen(options), "--certs-dir", f"{_config(options)}/certs"]
    folders: list[str] = []
    if options.get("origins"):
        environment["MINIO_API_CORS_ALLOW_ORIGIN"] = ",".join(options["origins"])
    if mode == "nas":
        data = f"{options['data_dir']}/minio-nas"
        arguments, folders = ["gateway", "nas", *common, data], [options["data_dir"], data]
    elif mode == "server":
        data = f"{options['data_dir']}/minio"
        arguments, folders = ["server", *common, data], [options["data_dir"], data]
    elif mode == "gateway_azure":
        environment |= {"AZURE_STORAGE_ACCOUNT": options["backend_account"], "AZURE_STORAGE_KEY": options["backend_key"]}
        arguments = ["gateway", "azure", *common, *([options["backend_endpoint"]] if options.get("backend_endpoint") else [])]
    else:
        environment |= {"AWS_ACCESS_KEY_ID": options["backend_account"], "AWS_SECRET_ACCESS_KEY": options["backend_key"]}
        arguments = ["gateway", "s3", *common, options["backend_endpoint"]]
    return {"arguments": arguments, "environment": environment, "folders": folders}


def unit_word(word: str) -> str:
    """A word of a systemd command line. It expands % and $, and splits at spaces."""
    text = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_@%$+=:,./\[\]-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def environment_file(environment: Mapping[str, str]) -> str:
    """An EnvironmentFile of systemd, which reads double quotes as a shell does and expands nothing."""
    lines = []
    for name, value in environment.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or any(ord(letter) < 32 for letter in value):
            raise ServiceError(
                f"circleci_object_storage: the variable {name} of the service has a name or a value with control characters that systemd does not take."
            )
        quoted = re.sub(r'(["\\`$])', r"\\\1", value)
        lines.append(f'{name}="{quoted}"\n')
    return "".join(lines)
