# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cloud does for a bucket beside its policy: public access that is blocked, keys that encrypt, a tag that tells whose it is.

It is set where the cloud itself is asked, by the verb cloud_prepare; keys that only fill a bucket need no right for it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .client import S3Client

BLOCKED = "blocked, whatever a policy says"
BY_POLICY = "by the policy alone"
OPEN = "not blocked"
CLOUD_KEYS = "keys that the cloud keeps"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ACLS, _POLICIES = ("BlockPublicAcls", "IgnorePublicAcls"), ("BlockPublicPolicy", "RestrictPublicBuckets")
_KMS = "aws:kms"


@dataclass(frozen=True)
class Protection:
    """How a bucket is protected. In a wish an empty C(key) takes any."""

    public: str = OPEN
    key: str = ""
    tag: tuple[str, str] = ("", "")

    def lines(self, bucket: str) -> Iterator[str]:
        yield f"bucket {bucket}: public access {self.public}"
        if self.key:
            yield f"bucket {bucket}: objects are encrypted with {self.key}"
        if self.tag[1]:
            yield f"bucket {bucket}: {self.tag[0]} is {self.tag[1]}"

    def over(self, now: Protection) -> Protection:
        """What becomes of *now* when this is wished."""
        return Protection(self.public, self.key or now.key or CLOUD_KEYS, self.tag)


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _texts(document: bytes, name: str) -> list[str]:
    if not document.strip():
        return []
    return [(node.text or "").strip() for node in ET.fromstring(document).iter() if _local(node.tag) == name]  # noqa: S314 - its parser refuses entity bombs


def _first(document: bytes, name: str) -> str:
    return next(iter(_texts(document, name)), "")


def _document(name: str) -> ET.Element:
    return ET.Element(name, {"xmlns": _NAMESPACE})


def _tags(document: bytes) -> dict[str, str]:
    return dict(zip(_texts(document, "Key"), _texts(document, "Value")))


def read(client: S3Client, bucket: str, tag: str) -> Protection:
    """As S3 of AWS tells it."""
    block = client.configuration(bucket, "publicAccessBlock")
    acls, policies = ([_first(block, name).lower() == "true" for name in names] for names in (_ACLS, _POLICIES))
    public = BLOCKED if all(acls + policies) else BY_POLICY if all(acls) and not any(policies) else OPEN
    encryption = client.configuration(bucket, "encryption")
    key = _first(encryption, "KMSMasterKeyID") or {"": "", "AES256": CLOUD_KEYS}.get(_first(encryption, "SSEAlgorithm"), "a key of AWS for S3")
    return Protection(public, key, (tag, _tags(client.configuration(bucket, "tagging")).get(tag, "")))


def write(client: S3Client, bucket: str, wish: Protection, now: Protection) -> None:
    """Bring it from *now* to the wish. Tags of others stay."""
    if wish.public != now.public:
        root = _document("PublicAccessBlockConfiguration")
        for name in (*_ACLS, *_POLICIES):
            ET.SubElement(root, name).text = "true" if wish.public == BLOCKED or name in _ACLS else "false"
        client.put_configuration(bucket, "publicAccessBlock", bytes(ET.tostring(root, encoding="utf-8")))
    if wish.key != now.key:
        root = _document("ServerSideEncryptionConfiguration")
        rule = ET.SubElement(root, "Rule")
        default = ET.SubElement(rule, "ApplyServerSideEncryptionByDefault")
        kms: Optional[str] = None if wish.key == CLOUD_KEYS else wish.key
        ET.SubElement(default, "SSEAlgorithm").text = _KMS if kms else "AES256"
        if kms:
            ET.SubElement(default, "KMSMasterKeyID").text = kms
            # Without it each object costs a request to the key service.
            ET.SubElement(rule, "BucketKeyEnabled").text = "true"
        client.put_configuration(bucket, "encryption", bytes(ET.tostring(root, encoding="utf-8")))
    if wish.tag != now.tag:
        root = _document("Tagging")
        tags = ET.SubElement(root, "TagSet")
        for name, value in sorted({**_tags(client.configuration(bucket, "tagging")), wish.tag[0]: wish.tag[1]}.items()):
            item = ET.SubElement(tags, "Tag")
            ET.SubElement(item, "Key").text, ET.SubElement(item, "Value").text = name, value
        client.put_configuration(bucket, "tagging", bytes(ET.tostring(root, encoding="utf-8")))
