# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that talk to the object store."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoint:
    description: URL of the object store, http or https.
    type: str
    required: true
  access_key:
    description: Access key of the object store. Needed with O(speaks=s3).
    type: str
    default: ""
  secret_key:
    description: Secret key that belongs to O(access_key).
    type: str
    default: ""
  region:
    description: Region that requests are signed for; with O(speaks=google) the location of buckets that are made.
    type: str
    default: us-east-1
  store_ca_certificate:
    description: PEM of the authority that signed the store's certificate. Empty trusts what the host trusts.
    type: str
    default: ""
  speaks:
    description:
      - Interface of the store. V(google) is the JSON interface of Cloud Storage, which needs the library cryptography on this host.
    type: str
    choices: [s3, google]
    default: s3
  service_account:
    description:
      - With O(speaks=google) the key of a service account, as the JSON text that Google gives. Empty takes the identity of this machine, which can sign
        no URLs.
    type: str
    default: ""
  backend:
    description: Whether this is the store behind the site's gateway, so that messages name its variables.
    type: bool
    default: false
"""
