# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the trust of nodes in the private registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
HEAD = "# Changed by onprem.circleci_server; what others wrote stays.\n"


def registries_yaml(text: str, host: str, authority: str = "") -> str:
    """See registries_yaml.yml."""
    # Ansible hands over subclasses of str, which YAML cannot write.
    text, host, authority = str(text), str(host), str(authority)
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise AnsibleFilterError(f"registries.yaml of the node is no YAML ({reason}); mend it, K3s and RKE2 cannot read it either") from error
    if not isinstance(found, dict) or not isinstance(found.get("configs") or {}, dict):
        raise AnsibleFilterError("registries.yaml of the node is no mapping with mirrors and configs; mend it, K3s and RKE2 cannot read it either")
    configs: dict[str, Any] = dict(found.get("configs") or {})
    entry = dict(configs.get(host) or {})
    tls = {name: value for name, value in dict(entry.get("tls") or {}).items() if name != "ca_file"}
    if authority:
        tls["ca_file"] = authority
    wish = {**entry, "tls": tls}
    if not tls:
        wish.pop("tls")
    if wish == (configs.get(host) or {}) and (authority or host not in configs):
        return text
    configs[host] = wish
    if not wish:
        configs.pop(host)
    result = {**found, "configs": configs}
    if not configs:
        result.pop("configs")
    return HEAD + yaml.safe_dump(result, sort_keys=True) if result else ""


def authorities(given: str | None, own: str | None) -> str:
    """See authorities.yml."""
    given, own = str(given or ""), str(own or "")
    if not given.strip() or not own.strip() or own.strip() in given:
        return given if given.strip() else own
    return f"{given.rstrip()}\n{own}"


def certificate_files(pem: str, path: str, folder: str, there: Sequence[str] = ()) -> list[dict[str, str]]:
    """See certificate_files.yml."""
    texts: list[str] = CERTIFICATE.findall(str(pem))
    stem = str(path).rsplit("/", 1)[-1].removesuffix(".crt")
    paths = [str(path), *(f"{folder}/{stem}-{number}.crt" for number in range(2, len(texts) + 1))]
    wish = [{"path": one, "content": f"{text}\n", "state": "present"} for one, text in zip(paths, texts)]
    return wish + [{"path": str(one), "state": "absent"} for one in sorted(there) if one not in paths]


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"authorities": authorities, "certificate_files": certificate_files, "registries_yaml": registries_yaml}
