# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A private way from the site's network to the object storage of its cloud, so that nothing of it goes over the internet.

AWS has a gateway endpoint, Google private Google access of a subnetwork, Azure a private endpoint with a zone of its own. DigitalOcean has none.
"""

from __future__ import annotations

from .aws import GatewayEndpoint
from .azure import PrivateEndpoint
from .google import PrivateGoogleAccess

__all__ = ["GatewayEndpoint", "PrivateEndpoint", "PrivateGoogleAccess"]
