# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of GitHub Enterprise from the control host: it answers, its certificate is trusted, its token is good, its host key has the right form."""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ..url_openers import token_opener
from .findings import OK, PROBLEM, WARNING, Finding

_SOURCE = "vendor docs: air-gapped installation, GitHub Enterprise"
_SOURCE_PARENT = "vendor prerequisites: GitHub Enterprise and the server on one parent domain"
_KEY_TYPES = ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_SHA256 = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")


@dataclass(frozen=True)
class Answer:
    """How GitHub Enterprise answered: a status, or ``error`` with what stopped the request."""

    status: int = 0
    error: str = ""
    version: str = ""
    scopes: Optional[str] = None
    """OAuth scopes of the token that was sent; None when the answer says nothing of them."""


def ask(hostname: str, path: str, *, token: str = "", ca_certificate: str = "") -> Answer:
    """One GET, without a proxy: GitHub Enterprise is inside the site."""
    headers = {"Accept": "application/vnd.github+json", **({"Authorization": f"token {token}"} if token else {})}
    request = urllib.request.Request(f"https://{hostname}{path}", headers=headers)
    try:
        opener = token_opener(ca_certificate, proxy=False)
    except ValueError:
        return Answer(error="circleci_github_ca_certificate holds no certificate in PEM form")
    try:
        with opener.open(request, timeout=10) as answer:
            return _read(answer.status, answer.headers, answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        return _read(error.code, error.headers, b"")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(error=str(getattr(error, "reason", error)) or type(error).__name__)


def _read(status: int, headers: Any, body: bytes) -> Answer:
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        content = {}
    version = str(content.get("installed_version") or "") if isinstance(content, dict) else ""
    return Answer(status, version=version or str(headers.get("X-GitHub-Enterprise-Version") or ""), scopes=headers.get("X-OAuth-Scopes"))


def check_reach(answer: Answer, hostname: str) -> Finding:
    """Whether GitHub Enterprise answers with a certificate that is trusted."""
    expected = "GitHub Enterprise Server with a certificate that its users trust"
    where = "circleci_github_hostname"
    if answer.error.startswith("circleci_"):
        return Finding("vcs_certificate", PROBLEM, "circleci_github_ca_certificate", answer.error, expected, _SOURCE, "Give it as PEM text.")
    if "certificate" in answer.error.lower():
        return Finding(
            "vcs_certificate", PROBLEM, where, f"{hostname}: {answer.error}", expected, _SOURCE,
            "Give the PEM of its authority as circleci_github_ca_certificate, or a certificate that names the host.",
        )  # fmt: skip
    if answer.error:
        return Finding(
            "vcs", WARNING, where, f"{hostname}: {answer.error}", expected, _SOURCE,
            "Pods, Nomad clients and browsers must reach it; from the control host it is only looked at.",
        )  # fmt: skip
    if answer.status in (200, 401, 403) and (answer.version or answer.status != 200):
        told = f"{hostname} answers" + (f", GitHub Enterprise Server {answer.version}" if answer.version else "")
        return Finding("vcs", OK, where, told, expected, _SOURCE)
    return Finding(
        "vcs", WARNING, where, f"{hostname} answers {answer.status} to /api/v3/meta, which GitHub Enterprise does not", expected, _SOURCE,
        "Correct the name, or look what answers there.",
    )  # fmt: skip


def check_token(answer: Answer, hostname: str) -> Finding:
    """Whether the default token is good, and has no right that nobody needs."""
    subject, expected = "circleci_github_default_token", "a personal access token without scopes"
    if answer.status in (401, 403, 404):
        return Finding(
            "vcs_token", PROBLEM, subject, f"{hostname} refuses it ({answer.status})", expected, _SOURCE,
            "Make one in GitHub Enterprise: Settings, Developer settings, Personal access tokens; tick no scope.",
        )  # fmt: skip
    if answer.status != 200:
        return Finding("vcs_token", WARNING, subject, answer.error or f"status {answer.status}", expected, _SOURCE, "It was not tried.")
    if answer.scopes:
        return Finding("vcs_token", WARNING, subject, f"it has the scopes {answer.scopes}", expected, _SOURCE, "Make one without scopes: it is only read with.")
    return Finding("vcs_token", OK, subject, f"{hostname} takes it", expected, _SOURCE)


def good_fingerprint(text: str) -> bool:
    """Whether every line is a host key as ssh-keyscan prints it, or a SHA256 fingerprint."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    return bool(lines) and all(_SHA256.fullmatch(line) or _host_key(line.split()) for line in lines)


def _host_key(words: list[str]) -> bool:
    start = next((index for index, word in enumerate(words) if word in _KEY_TYPES), -1)
    if start not in (0, 1) or len(words) <= start + 1:
        return False
    try:
        blob = base64.b64decode(words[start + 1], validate=True)
    except (binascii.Error, ValueError):
        return False
    kind = words[start].encode()
    return blob[:4] == len(kind).to_bytes(4, "big") and blob[4 : 4 + len(kind)] == kind


def check_fingerprint(text: str, *, proxied: bool) -> Optional[Finding]:
    """The host key with which checkouts by SSH are guarded; None when nothing is to be said."""
    subject, expected = "circleci_github_fingerprint", "lines of ssh-keyscan, such as github.example.com ssh-ed25519 AAAA…"
    if not text:
        if not proxied:
            return None
        found = "empty behind a proxy, which ssh-keyscan does not take"
        return Finding("vcs_fingerprint", WARNING, subject, found, expected, _SOURCE, "Give the host key of GitHub Enterprise.")
    if good_fingerprint(text):
        return Finding("vcs_fingerprint", OK, subject, "a host key", expected, _SOURCE)
    return Finding("vcs_fingerprint", PROBLEM, subject, "no host key", expected, _SOURCE, "Give what ssh-keyscan prints for GitHub Enterprise.")


def check_webhooks(site: Mapping[str, Any]) -> Finding:
    """The way back: GitHub Enterprise opens the webhooks, so that no look from here can prove it."""
    domain, addresses = str(site["domain"]), [str(item) for item in site.get("addresses") or ()]
    known = [text for text in addresses if _is_address(text)]
    told = "is not named in circleci_ports.vcs" if not known else f"is {', '.join(known)}"
    return Finding(
        "vcs_webhooks", OK if known else WARNING, "circleci_ports", f"GitHub Enterprise {told}",
        f"GitHub Enterprise reaches https://{domain}/hooks/github, and the packet filters let it in", _SOURCE,
        "" if known else "Name its addresses as circleci_ports.vcs, so that the rules let its webhooks in and their way can be told to the network team.",
    )  # fmt: skip


def check_parent(hostname: str, domain: str) -> Optional[Finding]:
    """A warning where the two have no domain in common; None for addresses and names without a domain."""
    if any(_is_address(name) or "." not in name for name in (hostname, domain)):
        return None
    subject, expected = "circleci_domain", "a name below the same domain as GitHub Enterprise"
    common = 0
    for one, other in zip(reversed(hostname.lower().split(".")), reversed(domain.lower().split("."))):
        if one != other:
            break
        common += 1
    # One label in common is a top-level domain, which everybody shares.
    if common > 1:
        return Finding("vcs_domain", OK, subject, f"{domain} beside {hostname}", expected, _SOURCE_PARENT)
    return Finding(
        "vcs_domain", WARNING, subject, f"{domain} beside {hostname}", expected, _SOURCE_PARENT,
        "Pictures of users do not load then. Choose names below one domain before the first installation, or live without the pictures.",
    )  # fmt: skip


def check_github_com() -> Finding:
    """What a site that wants to use GitHub.com is told."""
    return Finding(
        "vcs", WARNING, "circleci_github_hostname", "GitHub.com", "GitHub Enterprise Server inside, where the site is cut off", _SOURCE,
        "GitHub.com cannot deliver webhooks to a site that it does not reach, and nobody could log in. Only with a way to and from the internet it can serve.",
    )  # fmt: skip


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def check_vcs(site: Mapping[str, Any]) -> list[Finding]:
    """Every check of one GitHub Enterprise. Keys: hostname, ca_certificate, fingerprint, token, proxied, domain, addresses."""
    hostname = str(site.get("hostname") or "")
    if not hostname:
        return []
    if hostname == "github.com":
        return [check_github_com()]
    authority, token = str(site.get("ca_certificate") or ""), str(site.get("token") or "")
    answer = ask(hostname, "/api/v3/meta", ca_certificate=authority)
    findings = [check_reach(answer, hostname)]
    if token and not answer.error:
        findings.append(check_token(ask(hostname, "/api/v3/user", token=token, ca_certificate=authority), hostname))
    fingerprint = check_fingerprint(str(site.get("fingerprint") or ""), proxied=bool(site.get("proxied")))
    if fingerprint is not None:
        findings.append(fingerprint)
    findings.append(check_webhooks(site))
    parent = check_parent(hostname.partition(":")[0], str(site["domain"]))
    return [*findings, *([parent] if parent else [])]
