# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Site variables: what they are, and what is wrong with the ones a site gives.

``arguments.yml`` at the collection's root holds each variable once. This module reads it, checks a site's values for
type and meaning, and refuses unknown ``circleci_*`` names. All problems come back together; nothing is raised for them.
"""

from __future__ import annotations

import base64
import difflib
import ipaddress
import re
import typing as t
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]

GATES = ("dns", "oauth_application", "first_administrator", "personal_token", "organization_namespace", "runner_tokens")
"""Steps that only a person can take, in the order in which ``install`` stops at them."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Names of repositories as the distribution specification has them.
_REGISTRY_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[^/\s*?#@]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ORB = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+@(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_MINIMUM_PART_SIZE = 1024 * 1024


class VendorFacts(t.Protocol):
    """What the checks ask the catalog: an object that raises ``ValueError`` with a helpful sentence for unknown names."""

    def check_release(self, version: object) -> None: ...

    def check_platform(self, platform: object) -> None: ...

    def check_overlay(self, path: str) -> None: ...

    def check_block(self, name: str, value: t.Mapping[str, t.Any]) -> list[str]: ...


@dataclass(frozen=True)
class Argument:
    """One site variable as ``arguments.yml`` describes it."""

    name: str
    type: str
    description: str
    verbs: tuple[str, ...]
    required: tuple[str, ...] = ()
    default: t.Any = None
    has_default: bool = False
    choices: tuple[str, ...] = ()
    elements: str = ""
    secret: bool = False
    check: str = ""
    example: str = ""
    unless: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Variables with values that make this one needless."""

    def needed(self, verb: str, values: t.Mapping[str, t.Any]) -> bool:
        """Whether *verb* cannot do without it at this site."""
        return verb in self.required and not any(values.get(name) in others for name, others in self.unless)

    @property
    def plain_description(self) -> str:
        """The description without Ansible's markup, for messages."""
        return re.sub(r"\b[VCO]\(([^)]*)\)", r"\1", self.description)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one variable; ``str()`` makes one sentence of it."""

    name: str
    found: str
    allowed: str
    remedy: str = ""
    missing: bool = False

    @classmethod
    def from_sentence(cls, text: str) -> Problem:
        """A problem that somebody else found and put into words, beginning with the variable's name."""
        name, _colon, rest = text.partition(": ")
        return cls(name, rest.rstrip("."), "")

    def __str__(self) -> str:
        state = self.found if self.missing or not self.allowed else f"found {self.found}"
        allowed = f"; allowed is {self.allowed}" if self.allowed else ""
        return f"{self.name}: {state}{allowed}.{' ' + self.remedy if self.remedy else ''}"


@dataclass
class Findings:
    """Problems of one site, in the order of ``arguments.yml``; unknown names last."""

    problems: list[Problem] = field(default_factory=list)

    def add(self, name: str, found: object, allowed: str, *, secret: bool = False) -> None:
        """Note that *name* has a value that is not allowed; a secret's value is never repeated."""
        shown = "a value that is not shown" if secret else repr(found)
        self.problems.append(Problem(name, shown, allowed))


def _fail_on_float(found: object) -> str | None:
    if isinstance(found, float):
        return 'text in quotes; without quotes YAML reads a number, so that 4.10 becomes 4.1. Write it as "4.10.0"'
    return None


def load_arguments(root: Path = ROOT) -> dict[str, Argument]:
    """Read ``arguments.yml`` below *root*."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load((root / "arguments.yml").read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
    return {
        name: Argument(
            name=name,
            type=entry["type"],
            description=entry["description"],
            verbs=tuple(entry["verbs"]),
            required=tuple(entry.get("required", ())),
            default=entry.get("default"),
            has_default="default" in entry,
            choices=tuple(entry.get("choices", ())),
            elements=entry.get("elements", ""),
            secret=entry.get("secret", False),
            check=entry.get("check", ""),
            example=str(entry.get("example", "")),
            unless=tuple((other, tuple(found)) for other, found in entry.get("unless", {}).items()),
        )
        for name, entry in document["arguments"].items()
    }


def role_option_names(root: Path = ROOT) -> set[str]:
    """Names of the options of all roles: they may stand in an inventory beside the site variables."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    names: set[str] = set()
    for spec in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        document = yaml.load(spec.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader
        for entry_point in document["argument_specs"].values():
            names.update(entry_point.get("options") or {})
    return names


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "bool": (bool,),
    "list": (list, tuple),
    "dict": (dict,),
}
_TYPE_NAMES = {"str": "text", "path": "a path", "int": "a whole number", "bool": "true or false", "list": "a list", "dict": "a mapping"}


def _check_host_port(value: str) -> bool:
    host, _colon, port = value.partition(":")
    if "/" in value or not _HOSTNAME.fullmatch(host):
        return False
    return ":" not in value or (port.isdigit() and 0 < int(port) < 65536)


def _check_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and (port is None or port > 0)
        and not parts.query
        and not parts.fragment
        and parts.username is None
    )


def _check_address(value: str) -> bool:
    if value == "":
        return True
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _check_certificates(value: str) -> bool:
    if value.strip() == "":
        return True
    blocks = _CERTIFICATE.findall(value)
    try:
        return bool(blocks) and all(base64.b64decode("".join(block.split()), validate=True)[:1] == b"\x30" for block in blocks)
    except ValueError:
        return False


_TEXT_CHECKS: dict[str, tuple[t.Callable[[str], bool], str]] = {
    "label": (lambda v: bool(_LABEL.fullmatch(v)), "a DNS label: 1 to 63 lower-case letters, digits and hyphens"),
    # What Helm takes.
    "release_name": (lambda v: bool(_LABEL.fullmatch(v)) and len(v) <= 53, "1 to 53 lower-case letters, digits and hyphens"),
    "domain": (lambda v: bool(_HOSTNAME.fullmatch(v)) and "." in v and v == v.lower(), "a lower-case domain name without a scheme, such as ci.example.com"),
    "hostname": (lambda v: bool(_HOSTNAME.fullmatch(v)), "a host name without a scheme"),
    "host_port": (_check_host_port, "host or host:port without a scheme, such as registry.example.com:5000; a path is circleci_registry_path"),
    "registry_path": (
        lambda v: v == "" or bool(_REGISTRY_PATH.fullmatch(v)),
        "names of lower-case letters, digits, dots, hyphens and underlines, separated by slashes, such as example-project/circleci",
    ),
    "url": (_check_url, "an http or https URL without credentials and query, such as https://store.example.com"),
    "certificates": (_check_certificates, "certificates as PEM text, that begins with -----BEGIN CERTIFICATE-----"),
    "address": (_check_address, "an IPv4 or IPv6 address, or empty"),
    "folder": (
        lambda v: v.startswith("/") and PurePosixPath(v).parent != PurePosixPath(v) and ".." not in PurePosixPath(v).parts,
        "the full path of a folder of its own, such as /var/lib/onprem-circleci",
    ),
    "bucket": (lambda v: bool(_BUCKET.fullmatch(v)), "3 to 63 lower-case letters, digits and hyphens"),
}


def _check_meaning(argument: Argument, value: t.Any, catalog: VendorFacts, findings: Findings) -> None:
    if argument.check in _TEXT_CHECKS:
        accepts, allowed = _TEXT_CHECKS[argument.check]
        if not accepts(value):
            # Who gives the wrong file as a certificate may have given the key.
            findings.add(argument.name, value, allowed, secret=argument.secret or argument.check == "certificates")
    elif argument.check in ("release", "platform", "overlay"):
        if argument.check == "overlay" and value == "":
            return
        try:
            getattr(catalog, f"check_{argument.check}")(value)
        except ValueError as error:
            findings.problems.append(Problem(argument.name, str(error).rstrip("."), ""))
    elif argument.check == "block":
        findings.problems += [Problem.from_sentence(text) for text in catalog.check_block(argument.name, value)]
    elif argument.check == "part_size":
        if value != 0 and value < _MINIMUM_PART_SIZE:
            findings.add(argument.name, value, f"0 for one part, or {_MINIMUM_PART_SIZE} bytes and more")
    elif argument.check == "days":
        if not 0 <= value <= 36500:
            findings.add(argument.name, value, "0, or 1 to 36500 days")
    elif argument.check == "port":
        if value != 0 and not 1024 <= value <= 65535:
            findings.add(argument.name, value, "0 for none, or a port from 1024 to 65535")
    elif argument.check == "origins":
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                findings.add(argument.name, origin, "an origin without a path, such as https://app.ci.example.com")
    elif argument.check == "versions":
        for name, version in value.items():
            if not isinstance(version, str):
                findings.add(f"{argument.name}.{name}", version, "a version in quotes, or an empty text")
    elif argument.check == "orbs":
        for orb in value:
            if not _ORB.fullmatch(orb):
                findings.add(argument.name, orb, "an exact version namespace/orb@major.minor.patch, such as circleci/node@5.2.0")
    elif argument.check == "gates":
        for gate in value:
            if gate not in GATES:
                findings.add(argument.name, gate, "one of " + ", ".join(GATES))
    elif argument.check == "waivers":
        for waiver in value:
            if not isinstance(waiver, dict) or not waiver.get("name") or not waiver.get("reason"):
                findings.add(argument.name, waiver, "a mapping with name and reason, both filled")


def _check_type(argument: Argument, value: t.Any, findings: Findings) -> bool:
    if argument.type in ("str", "path") and (hint := _fail_on_float(value)):
        findings.add(argument.name, value, hint, secret=argument.secret)
        return False
    if not isinstance(value, _TYPES[argument.type]) or (argument.type == "int" and isinstance(value, bool)):
        findings.add(argument.name, value, _TYPE_NAMES[argument.type], secret=argument.secret)
        return False
    if argument.elements and isinstance(value, (list, tuple)):
        wrong = [item for item in value if not isinstance(item, _TYPES[argument.elements])]
        for item in wrong:
            findings.add(argument.name, item, f"a list of which each item is {_TYPE_NAMES[argument.elements]}", secret=argument.secret)
        return not wrong
    return True


def check(
    verb: str,
    values: t.Mapping[str, t.Any],
    *,
    names_in_inventory: t.Iterable[str],
    arguments: t.Mapping[str, Argument],
    role_options: t.Collection[str],
    catalog: VendorFacts,
) -> list[Problem]:
    """Return every problem with a site's variables for *verb*.

    *values* holds the variables that are set, templated; *names_in_inventory* every variable name that the site sets.
    """
    findings = Findings()
    for argument in arguments.values():
        if verb not in argument.verbs:
            continue
        value = values.get(argument.name)
        needed = argument.needed(verb, values)
        if value is None or (value == "" and needed):
            if needed:
                example = f", for instance {argument.example}" if argument.example else ""
                allowed = "one of " + ", ".join(argument.choices) if argument.choices else _TYPE_NAMES[argument.type]
                found = f"not set, and {verb} needs it"
                findings.problems.append(Problem(argument.name, found, allowed + example, argument.plain_description, missing=True))
            continue
        if not _check_type(argument, value, findings):
            continue
        if argument.choices and value not in argument.choices:
            findings.add(argument.name, value, "one of " + ", ".join(argument.choices))
        elif argument.check:
            _check_meaning(argument, value, catalog, findings)
    known = set(arguments) | set(role_options)
    for name in sorted(set(names_in_inventory) - known):
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
        hint = f"Did you mean {close[0]}?" if close else "docs/reference/arguments.md lists the known ones."
        findings.problems.append(Problem(name, "unknown variable", "", hint))
    return findings.problems
