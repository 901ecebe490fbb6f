# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site's object store is: what its kind can do, what is wrong with the choice, and how a host runs it.

The facts are the catalog's; here is what follows from them. Worked out on the controller, since hosts never see the catalog.
"""

from .agents import AgentsError, agent_objects, agent_trees, agents_url
from .kinds import (
    CHOICES,
    IN_CLUSTER,
    KEEP_DATA,
    MANAGED,
    SPEAK_GOOGLE,
    bucket_options,
    bucket_problems,
    capabilities,
    problems,
    unproven,
)
from .running import ServiceError, service
from .workload import service_annotations, workload

__all__ = [
    "CHOICES", "IN_CLUSTER", "KEEP_DATA", "MANAGED", "SPEAK_GOOGLE", "AgentsError", "ServiceError", "agent_objects", "agent_trees", "agents_url",
    "bucket_options", "bucket_problems", "capabilities", "problems", "service", "service_annotations", "unproven", "workload",
]  # fmt: skip
