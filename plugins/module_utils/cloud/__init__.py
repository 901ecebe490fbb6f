# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""How each cloud is asked: its addresses, credentials and transport, and what marks a thing there as ours.

What is wanted of a cloud is the business of the packages beside: its firewall, the site's object storage, the right to pull, its names.
"""

from __future__ import annotations

from .addresses import APIS, AZURE_LOGINS, METADATA, aws_api, endpoints, part_api, part_region
from .errors import MARK, PROVIDERS, TAG, CloudError

__all__ = ["APIS", "AZURE_LOGINS", "MARK", "METADATA", "PROVIDERS", "TAG", "CloudError", "aws_api", "endpoints", "part_api", "part_region"]
