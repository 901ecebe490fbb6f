# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that talk to a cloud."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  provider:
    description: The cloud.
    type: str
    required: true
    choices: [aws, azure, digitalocean, gcp]
  site:
    description: Name of the site. It is part of the mark.
    type: str
    required: true
  region:
    description: Region of AWS, or location of Azure.
    type: str
    default: ""
  network:
    description:
      - Where in the cloud the site is. Id of the VPC of AWS; C(projects/<project>/global/networks/<name>) of Google Cloud;
        C(/subscriptions/<id>/resourceGroups/<name>) of Azure. DigitalOcean needs none.
    type: str
    default: ""
  token:
    description:
      - Token of DigitalOcean, or access token of Google Cloud or Azure. AWS takes none.
      - Empty takes E(DIGITALOCEAN_TOKEN) of the control host, or what google-auth or azure-identity finds there.
    type: str
    default: ""
  endpoint:
    description: URL of the API, where it is not the public one, for instance an interface endpoint of the VPC.
    type: str
    default: ""
"""
