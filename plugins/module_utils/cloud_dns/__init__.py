# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Names of a site in a zone of its cloud: what is wanted, what is there, whose it is, and the difference.

C(model) is pure. An adapter for each cloud reads the zone and applies the difference; it decides nothing.
"""

from __future__ import annotations

from .aws import Route53
from .azure import AzureDns
from .digitalocean import DigitalOceanDns
from .google import CloudDns
from .model import Names, Zone

__all__ = ["AzureDns", "CloudDns", "DigitalOceanDns", "Names", "Route53", "Zone"]
