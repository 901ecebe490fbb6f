# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases outside the cluster: where they are, and what the release wants them to be. No password is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalog import Catalog, ExternalDatabase, plain
from .model import SiteFacts


def external_databases(facts: SiteFacts, catalog: Catalog) -> list[dict[str, Any]]:
    """One entry for each database of others, as the module site_preflight takes it."""
    wanted = {row.product: row for row in catalog.databases(facts.release)}
    postgres, mongodb, rabbitmq = facts.postgres, facts.mongodb, facts.rabbitmq
    found: list[dict[str, Any]] = []
    if not postgres.internal and postgres.host:
        found.append(
            _entry(
                "circleci_postgresql", wanted["PostgreSQL"], [(postgres.host, postgres.port)],
                {"username": postgres.username, "tls": bool(postgres.secure_mode), "secret": postgres.existing_secret,
                 "secret_keys": ["password", "postgres-password"]},
            )
        )  # fmt: skip
    if not mongodb.internal and mongodb.hosts:
        hosts = [_address(text.strip(), 27017) for text in mongodb.hosts.split(",") if text.strip()]
        found.append(_entry("circleci_mongodb", wanted["MongoDB"], hosts, {"tls": mongodb.tls, "verify": not mongodb.tls_insecure}))
    if not rabbitmq.internal and rabbitmq.host and "RabbitMQ" in wanted:
        found.append(_entry("circleci_rabbitmq", wanted["RabbitMQ"], [(rabbitmq.host, rabbitmq.port)], {"tls": rabbitmq.tls}))
    return found


def _entry(variable: str, wanted: ExternalDatabase, hosts: list[tuple[str, int]], more: Mapping[str, Any]) -> dict[str, Any]:
    blank = {"username": "", "tls": False, "verify": True, "secret": "", "secret_keys": []}
    return {"variable": variable, "hosts": [{"host": host, "port": port} for host, port in hosts], **blank, **more, "wanted": plain(wanted)}


def _address(text: str, default: int) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[address]:port``."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (host.count(":") == 0 or host.startswith("[")):
        return host.strip("[]"), int(port)
    return text.strip("[]"), default
