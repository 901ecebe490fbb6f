# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What all that talks to a cloud shares."""

from __future__ import annotations

MARK = "onprem.circleci_server"
"""How descriptions of things of ours begin."""
TAG = "onprem-circleci-site"
"""Tag of things of ours, where they have tags; its value is the site."""
PROVIDERS = {"eks": "aws", "gke": "gcp", "azure": "azure", "digitalocean": "digitalocean"}
"""Platform of the site: its cloud."""


class CloudError(Exception):
    """Everything that stands in the way, in sentences for people."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
