# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of databases outside the cluster, from the control host: they answer, they are what the release wants, their login is good."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ..databases import Login, NoAnswer, ServerFacts, ask_mongodb, ask_postgres, ask_rabbitmq
from .findings import OK, PROBLEM, WARNING, Finding


def check_databases(databases: Sequence[Mapping[str, Any]], passwords: Mapping[str, str], ca_certificate: str) -> list[Finding]:
    """All findings. *databases* are those of the filter C(external_databases), *passwords* are known by the variable of their database."""
    return [
        finding
        for database in databases
        for server in database["hosts"]
        for finding in _check(database, str(server["host"]), int(server["port"]), passwords.get(str(database["variable"]), ""), ca_certificate)
    ]


def _check(database: Mapping[str, Any], host: str, port: int, password: str, ca_certificate: str) -> Iterator[Finding]:
    wanted, variable = database["wanted"], str(database["variable"])
    product, source = str(wanted["product"]), str(wanted["source"])
    refused = next((name for end, name in wanted["refused_hosts"].items() if host.endswith(end)), "")
    if refused:
        yield Finding(
            "external_database", PROBLEM, variable, f"{host}, which is {refused}", f"{product} itself", source,
            f"The vendor does not support {refused}. Run {product}, or take the one of the chart.",
        )  # fmt: skip
        return
    try:
        facts = _ask(database, host, port, password, ca_certificate)
    except NoAnswer as error:
        yield _unanswered(error, variable, f"{product} {host}:{port}", _expected(wanted), source)
        return
    if product not in facts.product:
        yield Finding(
            "external_database", PROBLEM, variable, f"{host}:{port} is {facts.product}", product, source, f"Name the address of {product}.",
        )  # fmt: skip
        return
    if facts.version:
        yield _version(facts, wanted, variable, host)
    else:
        yield Finding(
            "external_database", WARNING, variable, f"{product} {host}:{port} answers; its version was not asked, since no password is known",
            _expected(wanted), source, "Give circleci_secrets_postgres_password, or run the verb secrets first.",
        )  # fmt: skip
    if wanted["tls"]:
        yield _tls(facts, wanted, variable, host, encrypted=bool(database["tls"]))
    if facts.version:
        yield from _extensions(facts, wanted, variable, host)


def _ask(database: Mapping[str, Any], host: str, port: int, password: str, ca_certificate: str) -> ServerFacts:
    product = str(database["wanted"]["product"])
    if product == "RabbitMQ":
        return ask_rabbitmq(host, port, tls=bool(database["tls"]), ca_certificate=ca_certificate)
    if product == "MongoDB":
        return ask_mongodb(host, port, tls=bool(database["tls"]), verify=bool(database["verify"]), ca_certificate=ca_certificate)
    login = Login(str(database["username"]), password) if password and database["username"] else None
    return ask_postgres(host, port, login, list(database["wanted"]["extensions"]))


def _unanswered(error: NoAnswer, variable: str, server: str, expected: str, source: str) -> Finding:
    found = f"{server}: {error}"
    if error.kind == "reach":
        return Finding(
            "external_database", WARNING, variable, found, expected, source,
            "Pods must reach it; from the control host it is only looked at, and its version is not known.",
        )  # fmt: skip
    if error.kind == "login":
        return Finding(
            "external_database_login", PROBLEM, variable, found, "a role and password that the database knows", source,
            "Correct the user name or its password.",
        )  # fmt: skip
    if error.kind == "certificate":
        return Finding(
            "external_database", WARNING, variable, found, expected, source,
            "Give the PEM of the authority that signed its certificate as circleci_ca_certificate, and make sure that the services trust it: "
            "for databases the vendor documents no key for an authority of one's own.",
        )  # fmt: skip
    return Finding("external_database", WARNING, variable, found, expected, source, "Look what listens there; its version is not known.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _cut(version: str, like: str) -> tuple[int, ...]:
    """A version to as many parts as another one has."""
    return _numbers(version)[: len(_numbers(like))]


def _expected(wanted: Mapping[str, Any]) -> str:
    low, high = wanted["lowest"], wanted["highest"]
    if low and high:
        return f"{wanted['product']} {low} to {high}"
    return f"{wanted['product']} {low} or later" if low else f"{wanted['product']} of any version: the vendor names none"


def _version(facts: ServerFacts, wanted: Mapping[str, Any], variable: str, host: str) -> Finding:
    low, high = wanted["lowest"], wanted["highest"]
    good = not (low and _cut(facts.version, low) < _numbers(low)) and not (high and _cut(facts.version, high) > _numbers(high))
    note = f" {wanted['note']}" if wanted.get("note") and not good else ""
    return Finding(
        "external_database", OK if good else PROBLEM, variable, f"{wanted['product']} {facts.version} on {host}", _expected(wanted), str(wanted["source"]),
        "" if good else f"Bring the database to such a version first, or waive external_database with a reason.{note}",
    )  # fmt: skip


def _tls(facts: ServerFacts, wanted: Mapping[str, Any], variable: str, host: str, *, encrypted: bool) -> Finding:
    agreed = facts.tls.partition("v")[2]
    good = bool(agreed) and _numbers(agreed) >= _numbers(wanted["tls"])
    # Without secure_mode the services do not use it.
    level = OK if good else PROBLEM if encrypted else WARNING
    return Finding(
        "external_database_tls", level, variable, f"{host} agrees on {facts.tls or 'no TLS'}", f"TLS {wanted['tls']}", str(wanted["source"]),
        "" if good else f"Let the server speak TLS {wanted['tls']}" + ("." if encrypted else "; without secure_mode the services speak in the clear."),
    )  # fmt: skip


def _extensions(facts: ServerFacts, wanted: Mapping[str, Any], variable: str, host: str) -> Iterator[Finding]:
    for name, version in wanted["extensions"].items():
        found: Optional[str] = facts.extensions.get(name)
        good = found is not None and _cut(found, version) == _numbers(version)
        yield Finding(
            "external_database_extension", OK if good else PROBLEM, variable, f"{name} {found} on {host}" if found else f"no {name} on {host}",
            f"{name} {version}", str(wanted["source"]),
            "" if good else f"Install {name} {version} on the database server, or waive external_database_extension with a reason.",
        )  # fmt: skip
