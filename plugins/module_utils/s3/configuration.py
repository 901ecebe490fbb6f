# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expiry of objects and rules for browsers (CORS), as the documents that a bucket has for both.

Rules of somebody else stay: ours are known by their id.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from .client import S3Client, S3Error

OURS = "onprem-circleci-"
PROTECTED = ("audit-logs/", "onprem-circleci/", ".onprem-circleci-site")
"""What never expires: the audit logs of the product, and what marks the bucket as the site's. Agents have a bucket of their own."""
RULES = 1000
"""Rules that S3 takes for one bucket."""
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_METHODS = ("GET", "HEAD", "PUT")


@dataclass(frozen=True)
class Expiry:
    """Objects below each prefix go after so many days."""

    days: int
    prefixes: tuple[str, ...]

    def lines(self) -> list[str]:
        return [f"objects below {prefix} expire after {self.days} days" for prefix in self.prefixes]


NO_EXPIRY = Expiry(0, ())


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _child(node: ET.Element, *names: str) -> Optional[ET.Element]:
    found: Optional[ET.Element] = node
    for name in names:
        found = next((item for item in found if _local(item.tag) == name), None) if found is not None else None
    return found


def _value(node: ET.Element, *names: str) -> str:
    found = _child(node, *names)
    return (found.text or "").strip() if found is not None else ""


def _rules(document: bytes, name: str) -> list[ET.Element]:
    if not document.strip():
        return []
    try:
        root = ET.fromstring(document)  # noqa: S314 - the parser of every supported Python refuses entity bombs
    except ET.ParseError as error:
        raise S3Error(f"the store answers with rules that are no XML ({error})") from error
    return [node for node in root if _local(node.tag) == name]


def _bare(node: ET.Element) -> ET.Element:
    """The same without its namespace, to be put into a document of ours."""
    copy = ET.Element(_local(node.tag))
    copy.text = node.text
    copy.extend([_bare(child) for child in node])
    return copy


def _document(root: str, rules: Iterable[ET.Element]) -> bytes:
    top = ET.Element(root, {"xmlns": _NAMESPACE})
    top.extend(rules)
    return bytes(ET.tostring(top, encoding="utf-8"))


def protected(prefix: str) -> bool:
    """Whether expiry below *prefix* would reach what must stay."""
    return not prefix or any(prefix.startswith(item) or item.startswith(prefix) for item in PROTECTED)


# --- expiry -------------------------------------------------------------------------------------------------------------


def expiry_wish(client: S3Client, bucket: str, days: int, prefixes: Sequence[str]) -> Expiry:
    """What shall expire. Without *prefixes* it is every folder that the bucket has now, and none of those that must stay.

    S3 knows no rule for everything but something, so that each folder needs one of its own.
    """
    if not days:
        return NO_EXPIRY
    wrong = [prefix for prefix in prefixes if protected(prefix)]
    if wrong:
        raise S3Error(
            f"circleci_object_storage_expiry_prefixes: found {', '.join(map(repr, wrong))}, below which the audit logs lie, or what marks the bucket as the "
            f"site's; allowed is any other prefix. {', '.join(PROTECTED)} never expire."
        )
    chosen = tuple(sorted(set(prefixes))) or tuple(folder for folder in client.folders(bucket) if not protected(folder))
    if len(chosen) >= RULES:
        raise S3Error(
            f"bucket {bucket} has {len(chosen)} folders at its top, and S3 takes {RULES} rules; name those that shall expire in "
            "circleci_object_storage_expiry_prefixes, a common beginning will do"
        )
    return Expiry(days, chosen) if chosen else NO_EXPIRY


def read_expiry(client: S3Client, bucket: str) -> Expiry:
    """Our rules as the bucket has them; days -1 when they differ among each other, so that they are written anew."""
    days, prefixes = set(), []
    for rule in _rules(client.configuration(bucket, "lifecycle"), "Rule"):
        prefix = _value(rule, "Filter", "Prefix") or _value(rule, "Filter", "And", "Prefix") or _value(rule, "Prefix")
        if _value(rule, "ID").startswith(OURS) and prefix:
            days.add(int(_value(rule, "Expiration", "Days") or 0) if _value(rule, "Status") == "Enabled" else -1)
            prefixes.append(prefix)
    return Expiry(days.pop() if len(days) == 1 else -1 if days else 0, tuple(sorted(prefixes)))


def write_expiry(client: S3Client, bucket: str, wish: Expiry) -> None:
    """Put our rules beside those of others."""
    others = [_bare(rule) for rule in _rules(client.configuration(bucket, "lifecycle"), "Rule") if not _value(rule, "ID").startswith(OURS)]
    rules = others + [_expiry_rule(prefix, wish.days, number) for number, prefix in enumerate(wish.prefixes, 1)]
    if not rules:
        client.delete_configuration(bucket, "lifecycle")
        return
    client.put_configuration(bucket, "lifecycle", _document("LifecycleConfiguration", rules))


def _expiry_rule(prefix: str, days: int, number: int) -> ET.Element:
    rule = ET.Element("Rule")
    ET.SubElement(rule, "ID").text = f"{OURS}expiry-{number}"
    ET.SubElement(ET.SubElement(rule, "Filter"), "Prefix").text = prefix
    ET.SubElement(rule, "Status").text = "Enabled"
    ET.SubElement(ET.SubElement(rule, "Expiration"), "Days").text = str(days)
    return rule


# --- browsers -----------------------------------------------------------------------------------------------------------


def read_origins(client: S3Client, bucket: str) -> tuple[str, ...]:
    """Origins whose pages may read and write objects, as our rule has them."""
    for rule in _rules(client.configuration(bucket, "cors"), "CORSRule"):
        if _value(rule, "ID").startswith(OURS):
            return tuple(sorted((node.text or "").strip() for node in rule if _local(node.tag) == "AllowedOrigin"))
    return ()


def write_origins(client: S3Client, bucket: str, origins: Sequence[str]) -> None:
    """Put our rule beside those of others; no origin takes it away."""
    rules = [_bare(rule) for rule in _rules(client.configuration(bucket, "cors"), "CORSRule") if not _value(rule, "ID").startswith(OURS)]
    if origins:
        rule = ET.Element("CORSRule")
        ET.SubElement(rule, "ID").text = f"{OURS}browsers"
        for name, values in (("AllowedOrigin", origins), ("AllowedMethod", _METHODS), ("AllowedHeader", ("*",)), ("ExposeHeader", ("ETag",))):
            for value in values:
                ET.SubElement(rule, name).text = value
        ET.SubElement(rule, "MaxAgeSeconds").text = "3600"
        rules.append(rule)
    if not rules:
        client.delete_configuration(bucket, "cors")
        return
    client.put_configuration(bucket, "cors", _document("CORSConfiguration", rules))
