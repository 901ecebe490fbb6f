# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mirroring modules share: access to registries, differences to show, errors in terms of the operator's variables."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .mirror.access import Access
from .mirror.bundle import Bundle
from .mirror.errors import EXIT_AGAIN, EXIT_REGISTRY, MirrorError, NetworkError, RegistryError, TrustError
from .mirror.sign import Trust
from .mirror.transport import Patience
from .orbs.index import REPOSITORY as ORBS

REGISTRY_SPEC: dict[str, Any] = {
    "registry": {"type": "str", "required": True},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "ca_certificate": {"type": "str", "default": ""},
    "plain_http": {"type": "bool", "default": False},
}
BUNDLE_SPEC: dict[str, Any] = {
    "directories": {"type": "list", "elements": "path", "required": True},
    "public_key": {"type": "str", "default": "", "no_log": False},
    "allow_unsigned": {"type": "bool", "default": False},
}


def trust_of(options: Mapping[str, Any]) -> Trust:
    """Whom the operator believes."""
    return Trust(public_key=options["public_key"], allow_unsigned=options["allow_unsigned"])


def trust_explained(error: MirrorError) -> str:
    """The engine's sentence with the site variables that decide about it."""
    if isinstance(error, TrustError):
        return f"{error} circleci_bundle_public_key says who must have signed it; circleci_bundle_allow_unsigned accepts a bundle without a signature."
    return f"circleci_bundle_dir: {error}"


def contents(bundle: Bundle) -> dict[str, dict[str, str]]:
    """What a bundle brings, by kind: name in the registry to tag. The prefix of files and packages is left out."""
    found: dict[str, dict[str, str]] = {"images": {}, "charts": {}, "files": {}, "packages": {}, "orbs": {}}
    for ref in bundle.refs:
        place, _colon, tag = ref.target.partition(":")
        if place.startswith("onprem/files/"):
            found["files"][place.removeprefix("onprem/files/")] = tag
        elif place.startswith("onprem/packages/"):
            found["packages"][place.removeprefix("onprem/packages/")] = tag
        elif place == ORBS:
            found["orbs"][place] = tag
        elif place.startswith("charts/"):
            found["charts"][place.removeprefix("charts/")] = tag
        else:
            found["images"][ref.target] = ref.digest
    return found


def registry_access(options: Mapping[str, Any], *, quick: bool = False, **more: Any) -> Access:
    """Access to the one private registry of a site. *quick* gives up at once, for questions whose answer may be no."""
    registry = options["registry"]
    if quick:
        more["patience"] = Patience(tries=1)
    return Access(
        credentials={registry: (options["username"], options["password"])} if options["username"] else {},
        use_docker_config=False,
        ca_data=options["ca_certificate"] or None,
        plain_http_hosts=[registry] if options["plain_http"] else [],
        **more,
    )


def reach(options: Mapping[str, Any]) -> None:
    """Fail at once when nothing listens at the registry; the engine would try again for a minute. No request is made."""
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in ("http_proxy", "https_proxy", "all_proxy")):
        return
    host, _colon, port = options["registry"].partition("/")[0].partition(":")
    reason: OSError = OSError("not tried")
    for attempt in range(3):
        if attempt:
            time.sleep(1)
        try:
            socket.create_connection((host, int(port or (80 if options["plain_http"] else 443))), timeout=10).close()
            return
        except OSError as error:
            reason = error
    raise NetworkError(f"{options['registry']} cannot be reached: {reason.strerror or reason}.")


def plainer(error: MirrorError, options: Mapping[str, Any]) -> MirrorError:
    """One question to the registry itself, when many failed: is it the login, the certificate, or the way there?"""
    if error.exit_code not in (EXIT_REGISTRY, EXIT_AGAIN) or "\n" not in str(error):
        return error
    access = registry_access(options, quick=True)
    try:
        access.client(options["registry"]).request("GET", "/v2/", what=options["registry"]).__exit__(None)
    except MirrorError as one:
        return one
    finally:
        access.close()
    return error


def explained(error: MirrorError, registry: str) -> str:
    """The engine's sentence with the site variables that decide about it."""
    lines = str(error).splitlines()
    text = lines[0] + (f" ({len(lines) - 1} more of that kind.)" if len(lines) > 1 else "")
    if isinstance(error, RegistryError) and error.status in (401, 403):
        return f"{text} Check circleci_registry_username and circleci_registry_password against {registry}."
    if isinstance(error, RegistryError) and error.status == 404 and ".dkr.ecr." in registry:
        return (
            f"{text} ECR takes images only into repositories that are there: make them, or set circleci_cloud_registry_create_on_push and run cloud_prepare "
            "where the cloud can be reached."
        )
    if "certificate is not trusted" in text:
        return f"{text} circleci_ca_certificate must hold the PEM of that authority."
    if "status 500" in text or "no space left" in text.lower() or "status 507" in text:
        # The distribution registry tells the reason to its log only, and in nearly all cases it is this one.
        return (
            f"{text} A registry that cannot store what it gets is mostly out of disk: look at the free space of its storage folder "
            f"(circleci_registry_storage_dir on {registry}) and at its log (journalctl -u onprem-circleci-registry), then run the same command again."
        )
    if error.exit_code == EXIT_AGAIN:
        return f"{text} Is circleci_registry_host ({registry}) right, and can this host reach it?"
    return text


def change_lines(changes: Iterable[Any]) -> dict[str, Any]:
    """``diff`` of named things: what was there, what will be, and how many bytes move for it."""
    before, after = [], []
    for change in changes:
        if change.before:
            before.append(f"{change.name} {change.before}\n")
        if change.after:
            after.append(f"{change.name} {change.after}{f' ({change.bytes} bytes)' if change.bytes else ''}\n")
    return {"before": "".join(sorted(before)), "after": "".join(sorted(after))}


def named_difference(before: Mapping[str, str], after: Mapping[str, str], header: str) -> dict[str, str]:
    """``diff`` of two sets of names."""
    return {
        "before_header": header,
        "after_header": header,
        "before": "".join(f"{name} {pin}\n" for name, pin in sorted(before.items())),
        "after": "".join(f"{name} {pin}\n" for name, pin in sorted(after.items())),
    }


def logins(given: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Credentials by host as the engine takes them; entries without a user are asked for without a login."""
    return {str(host): (str(entry["username"]), str(entry.get("password") or "")) for host, entry in given.items() if entry and entry.get("username")}


def vendor_explained(error: MirrorError) -> str:
    """The engine's sentence with the variables of the connected side."""
    text = str(error)
    if "cciserver.azurecr.io" in text and isinstance(error, RegistryError) and error.status in (401, 403):
        return f"{text} Check circleci_vendor_registry_username and circleci_vendor_registry_password."
    return text


def forget_payload(module: Any) -> None:
    """Take away the file that brought this module here: it holds the arguments, and a kill would leave it lying.

    Only long modules need that. Python has read it already, and ansible itself removes the folder at the end.
    """
    folder = Path(module.tmpdir)
    if getattr(module, "_keep_remote_files", False) or "ansible-tmp-" not in folder.name:
        return
    for path in folder.glob("AnsiballZ_*.py"):
        with contextlib.suppress(OSError):
            os.unlink(path)
