# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose folder of records it is.

Several sites may have one control host. A mark in the folder names the site whose gates, receipts, reports and restore points lie there, so that
none takes another's for its own, and C(uninstall) deletes none of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .preflight.findings import PROBLEM, Finding
from .records import RecordError, create_record, read_record, write_record

MARK = "site.json"
VARIABLE = "circleci_state_dir"


@dataclass(frozen=True)
class Site:
    """A site is what its domain is; the short name is for people."""

    site: str
    domain: str

    def __str__(self) -> str:
        return f"site {self.site} ({self.domain})"


class ForeignFolderError(Exception):
    """The folder is one of another site."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.subject}: found {finding.found}; allowed is {finding.expected}. {finding.remedy}")
        self.finding = finding


def _named_in(folder: Path) -> list[str]:
    """Domains that reports and restore points of a folder without a mark are about; a release before the mark left none."""
    return sorted(set(_domains([folder / "reports" / "report.json", *folder.glob("restore-points/[!.]*/restore-point.json")])))


def _domains(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
        domain = document.get("domain") if isinstance(document, dict) else None
        if domain and isinstance(domain, str):
            yield domain


class SiteFolder:
    """The folder of one site, as far as it is told apart from those of others."""

    def __init__(self, path: Path, site: Site, former_domains: Sequence[str] = ()) -> None:
        self.path = path
        self.mark = path / MARK
        self.site = site
        self._own = {site.domain, *former_domains}

    def marked(self) -> bool:
        """Whether the mark names this site; raises when mark or content name another."""
        return self._read() == self.site

    def before(self) -> str:
        """What the mark says, for a diff."""
        found = self._read()
        return f"{found}\n" if found else ""

    def claim(self, *, check: bool) -> bool:
        """Set the mark, or with *check* only say whether that would change something."""
        found = self._read()
        if found == self.site:
            return False
        if not check:
            content = {"site": self.site.site, "domain": self.site.domain}
            # Registry and object store may have their data below it, and are not root.
            self.path.mkdir(parents=True, exist_ok=True, mode=0o755)
            if found is not None:
                write_record(self.mark, content)
            elif not create_record(self.mark, content):
                # Somebody was faster: another site, or a second run for this one.
                return self.claim(check=False)
        return True

    def release(self, *, check: bool) -> bool:
        """Take the mark away."""
        if self._read() is None:
            return False
        if not check:
            self.mark.unlink()
        return True

    def _read(self) -> Optional[Site]:
        try:
            record = read_record(self.mark)
        except RecordError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        if not record:
            if self.mark.exists():
                raise RecordError(f"{self.mark}: names no site. Restore it from a backup or remove it.")
            foreign = [domain for domain in _named_in(self.path) if domain not in self._own]
            if foreign:
                raise self._foreign(f"{self.path} with reports or restore points of {', '.join(foreign)}", foreign)
            return None
        if not all(isinstance(record.get(name), str) and record[name] for name in ("site", "domain")):
            raise RecordError(f"{self.mark}: names no site. Restore it from a backup or remove it.")
        found = Site(record["site"], record["domain"])
        if found.domain not in self._own:
            raise self._foreign(f"{self.path}, which belongs to the {found} as {self.mark} says", [found.domain])
        return found

    def _foreign(self, found: str, domains: Sequence[str]) -> ForeignFolderError:
        return ForeignFolderError(
            Finding(
                check="state_folder",
                level=PROBLEM,
                subject=VARIABLE,
                found=found,
                expected=f"a folder of its own for the {self.site}",
                source="the folder on the control host",
                remedy=(
                    f"Set {VARIABLE} to another folder for one of the sites. When this is the same site with a new domain, "
                    f"set circleci_former_domains to {json.dumps(list(domains))} and run the same command again."
                ),
            )
        )
