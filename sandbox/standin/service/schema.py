# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's database schema: each minor renames one column, so that an older release really breaks on a newer schema."""

from __future__ import annotations

from .base import Refusal

TABLE = "standin_records"
VERSIONS = "standin_schema_version"
# first minor of a level, and the name of the column from there on
LEVELS = (("4.0", "body"), ("4.7", "content"), ("4.8", "payload"), ("4.9", "document"), ("4.10", "record"))
# tables that field reports name
KNOWN = {
    "conductor_production": ("job_started_events", "job_ended_events", "build_jobs"),
    "cron_service_production": ("qrtz_triggers", "qrtz_job_details"),
}


def _key(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(".")[:2])
    except ValueError:
        raise Refusal(f"release {text!r} is none") from None


def level(release: str) -> int:
    """How many of the levels a release knows."""
    found = sum(1 for first, _column in LEVELS if _key(first) <= _key(release))
    if not found:
        raise Refusal(f"release {release} is older than the first schema")
    return found


def column(release: str) -> str:
    return LEVELS[level(release) - 1][1]


def step(target: int, database: str) -> list[str]:
    """The statements that lead from the level below to `target`."""
    new = LEVELS[target - 1][1]
    if target == 1:
        made = [
            f"CREATE TABLE {TABLE} (id bigserial PRIMARY KEY, {new} text NOT NULL, written_by text NOT NULL, written_at timestamptz NOT NULL DEFAULT now())",
            f"INSERT INTO {TABLE} ({new}, written_by) VALUES ('first start', 'stand-in')",
        ]
        return made + [f"CREATE TABLE {name} (id bigserial PRIMARY KEY, data jsonb)" for name in KNOWN.get(database, ())]
    return [f"ALTER TABLE {TABLE} RENAME COLUMN {LEVELS[target - 2][1]} TO {new}"]
