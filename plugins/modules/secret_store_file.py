#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_store_file
short_description: Read or replace a file that ansible-vault encrypted, and say whether it outlives the run
version_added: 0.1.0
description:
  - The action plugin of M(onprem.circleci_server.site_secrets) uses it for an escrow copy on the control host. What goes through here
    is encrypted already.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  path:
    description: Full path of the file.
    type: path
    required: true
  content:
    description: Encrypted text that replaces the file whole, readable by its owner only. Without it the file is only read.
    type: str
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: The text is encrypted.
"""

EXAMPLES = r"""
- name: Read the escrow copy
  onprem.circleci_server.secret_store_file:
    path: /var/lib/onprem-circleci/escrow/secrets.yml
"""

RETURN = r"""
text:
  description: The text of the file afterwards, empty when there is none.
  returned: success
  type: str
will_not_last:
  description: Why the file would not outlive the run, empty when it would.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.secrets.files import lasting_problem, read_text, write_text


def main() -> None:
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "content": {"type": "str"}}, supports_check_mode=True
    )
    path, content = module.params["path"], module.params["content"]
    problem = lasting_problem(path)
    try:
        before = read_text(path)
        if content is not None and not content.startswith("$ANSIBLE_VAULT;"):
            module.fail_json(msg=f"{path}: the text is not one that ansible-vault encrypted; nothing was written.")
        if content is not None and problem:
            module.fail_json(msg=f"{problem}; nothing was written.")
        if content is not None and content != before and not module.check_mode:
            write_text(path, content)
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"{path} cannot be read or written: {error}")
    module.exit_json(changed=content is not None and content != before, text=text, will_not_last=problem)


if __name__ == "__main__":
    main()
