# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The right of a cluster's nodes to pull from the registry of their cloud.

AWS attaches a policy to the role of the nodes, Azure assigns a role to the identity of their kubelets, Google binds one to their service account,
DigitalOcean integrates its registry with the cluster. The right is given where it is missing and never taken away: it bears no mark that all clouds have.
"""

from __future__ import annotations

from .aws import NodeRoles
from .azure import KubeletIdentities
from .digitalocean import IntegratedClusters
from .google import NodeAccounts

__all__ = ["IntegratedClusters", "KubeletIdentities", "NodeAccounts", "NodeRoles"]
