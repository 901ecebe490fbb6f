# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys that no 4.x release has and people still write. What 4.x itself renamed or removed is in the catalog."""

from __future__ import annotations

import dataclasses

from .model import Path, parse_path


@dataclasses.dataclass(frozen=True)
class Change:
    """A key that no release of 4.x has. C(successor) took its place, or C(advice) says what to do."""

    key: str
    successor: str = ""
    advice: str = ""
    source: str = ""

    @property
    def path(self) -> Path:
        return parse_path(self.key)

    def sentence(self) -> str:
        todo = f"write {self.successor} instead" if self.successor else "take it out"
        return f"is no key of CircleCI Server 4.x: {todo}{'; ' + self.advice if self.advice else ''}."


@dataclasses.dataclass(frozen=True)
class Retired:
    """A key of earlier releases, as the catalog has it."""

    path: Path
    fate: str
    since: str
    renamed_to: tuple[str, ...]
    source: str
    note: str
    observed: bool = False  # seen in the chart at hand, by the verb chart_check

    def sentence(self) -> str:
        if self.renamed_to:
            return f"was renamed in {self.since}: write {' and '.join(self.renamed_to)} instead."
        return f"is gone since {self.since}: take it out.{' ' + self.note if self.note else ''}"


_KOTS = "vendor's script that moves 3.x releases to 4.0"

CHANGES: tuple[Change, ...] = (
    # 3.x names, still found in files that were carried along
    Change("published", source=_KOTS),
    Change("domainName", "global.domainName", source=_KOTS),
    Change("license", "global.license", "or the Secret license", source=_KOTS),
    Change("kong.annotations", "nginx.annotations", source=_KOTS),
    Change("kong.aws_acm", "nginx.aws_acm", source=_KOTS),
    Change("postgresql.postgresqlUsername", "postgresql.auth.username", source=_KOTS),
    Change("postgresql.postgresqlPassword", "postgresql.auth.postgresPassword", source=_KOTS),
    Change("nomad.server.rpc.advertise", source=_KOTS),
    Change("minio", "object_storage", "the object store is outside the chart", source=_KOTS),
    # a slip of the vendor's own pages
    Change("tls.imports", "tls.import", "the prose misspells it", source="vendor's page on private certificates"),
)

# Only on a branch of the vendor's documentation that was never released.
UNRELEASED: tuple[Path, ...] = tuple(
    parse_path(f"redis.{name}")
    for name in ("internal", "host", "port", "readerHost", "readerPort", "ssl", "sslSkipVerify", "auth")
)


def change_of(path: Path) -> Change | None:
    """The change that took a key away before 4.0."""
    for change in CHANGES:
        if path[: len(change.path)] == change.path:
            return change
    return None
