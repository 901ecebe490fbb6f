# SPDX-License-Identifier: GPL-3.0-or-later
"""One small program that stands in for the vendor's services. It is not the vendor's and does none of their work.

It asks at start for what the real service needs, refuses with one line when something is missing, and then answers
/health and /version. Standard library only, and little of it: many of these start at once on two cores.
"""

from __future__ import annotations

import os
import sys

from . import base


def run(role: str, arguments: list[str]) -> int:
    """Only the modules that a role uses are imported."""
    if role in ("service", "frontend", "kong"):
        from . import service

        return service.run(role)
    if role == "migrate":
        from . import migrate

        return migrate.run()
    if role in ("license", "known-hosts", "api-gateway", "table-rename"):
        from . import once

        return once.run(role)
    if role in ("mongodb", "rabbitmq", "redis", "vault", "vault-agent"):
        from . import stores

        return stores.run(role)
    if role == "mongosh":
        from . import mongosh

        return mongosh.run(arguments)
    if role in ("mongodump", "mongorestore"):
        from . import mongosh

        return mongosh.tool(role, arguments)
    if role in ("postgres", "postgres-upgrade"):
        from . import postgres

        return postgres.run(role)
    if role in ("telegraf", "otel"):
        from . import metrics

        return metrics.run(role)
    if role == "keysets":
        from . import keysets

        return keysets.run(arguments)
    base.log(f"unknown role {role}")
    return 2


def main() -> int:
    arguments = sys.argv[1:]
    role = arguments.pop(0) if arguments else os.environ.get("STANDIN_ROLE", "") or base.IDENTITY.get("role", "service")
    try:
        return run(role, arguments)
    except base.Refusal as exc:
        base.log(f"refuses to start: {exc}")
        return 1
