# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for buckets of Cloud Storage, after the discovery document of storage v1."""

from __future__ import annotations

import json
import re
import uuid
from email import message_from_bytes
from typing import Any
from urllib.parse import unquote

from .standin import Answer, Refused, Schema

SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
PREFIXES = ("/storage/v1/", "/upload/storage/v1/")
PUBLIC = ("allUsers", "allAuthenticatedUsers")
LOCATIONS = ("US", "EU", "ASIA", "US-CENTRAL1", "EUROPE-WEST4")
NUMBER, OTHER_NUMBER = "123456789012", "999999999999"


class Storage:
    """Buckets of one project, and those of others, whose names are taken.

    Beside the schema, from the vendor's pages: rules for names and labels, and no binding for everybody where public access is prevented.
    """

    def __init__(self, schema: Schema, project: str) -> None:
        self.schema, self.project = schema, project
        self.buckets: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.objects: dict[tuple[str, str], tuple[dict[str, Any], bytes]] = {}
        self.taken: set[str] = set()
        """Names of buckets of others, which we may not see."""
        self.prevention = False
        """Whether the organization forbids public access."""

    def add(self, name: str, number: str = NUMBER, **more: Any) -> dict[str, Any]:
        """A bucket that somebody made."""
        self.buckets[name] = {
            "kind": "storage#bucket", "id": name, "name": name, "selfLink": f"https://www.googleapis.com/storage/v1/b/{name}", "projectNumber": number,
            "location": "US", "storageClass": "STANDARD", "etag": "CAE=", "metageneration": "1", "timeCreated": "2026-05-23T21:24:00.000Z",
            "updated": "2026-05-23T21:24:00.000Z", "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}, "publicAccessPrevention": "inherited"},
            **more,
        }  # fmt: skip
        owners = [f"projectOwner:{self.project}"]
        self.policies[name] = {"kind": "storage#policy", "resourceId": f"projects/_/buckets/{name}", "version": 1, "etag": f"CAE{len(self.policies)}=",
                               "bindings": [{"role": "roles/storage.legacyBucketOwner", "members": owners}]}  # fmt: skip
        return self.buckets[name]

    def parsed(self, text: bytes, kind: str) -> Any:
        """Metadata and content of an upload."""
        if not kind.startswith("multipart/related; boundary="):
            raise Refused(400, "invalid", "multipart/related is needed")
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + text)
        about, content = [part.get_payload(decode=True) for part in message.get_payload()]  # type: ignore[union-attr, misc]
        return {"about": json.loads(bytes(about)), "content": bytes(content)}  # type: ignore[arg-type]

    def serve(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        upload = re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path)
        if upload and method == "POST" and query == {"uploadType": "multipart"}:
            return self._upload(self._named(upload[1]), body)
        match = re.fullmatch(r"/storage/v1/b(?:/([^/]+)(?:/(iam|o)(?:/([^/]+))?)?)?", path)
        if not match:
            raise Refused(404, "notFound", f"{path} is not there")
        name, kind, key = match.groups()
        if name is None:
            return self._list(query) if method == "GET" else self._insert(query, body)
        bucket = self._named(name)
        if kind == "o" and key and method == "GET":
            return self._object(name, unquote(key), query)
        if query:
            raise Refused(400, "invalid", f"unknown parameters {query}")
        if kind == "iam":
            return self._iam(bucket, method, body)
        if kind is None and method == "PATCH":
            self._change(bucket, body)
        elif kind is not None or method != "GET":
            raise Refused(404, "notFound", f"{method} {path} is not there")
        return 200, self.schema.answer("bucket", bucket), {}

    def _named(self, name: str) -> dict[str, Any]:
        if name in self.taken:
            raise Refused(403, "forbidden", f"firewall@example-project.iam.gserviceaccount.com does not have storage.buckets.get access to {name}.")
        if name not in self.buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def _list(self, query: dict[str, str]) -> Answer:
        if query.get("project") != self.project or set(query) - {"project", "prefix", "pageToken"}:
            raise Refused(400, "invalid", f"unknown project or parameters {query}")
        ours = [item for name, item in sorted(self.buckets.items()) if item["projectNumber"] == NUMBER and name.startswith(query.get("prefix", ""))]
        begin = int(query.get("pageToken", "0"))
        answer: dict[str, Any] = {"kind": "storage#buckets", "items": ours[begin : begin + 1]}
        if begin + 1 < len(ours):
            answer["nextPageToken"] = str(begin + 1)
        return 200, self.schema.answer("bucketList", answer), {}

    def _insert(self, query: dict[str, str], body: Any) -> Answer:
        if query != {"project": self.project}:
            raise Refused(403, "forbidden", f"no access to the project of {query}")
        self._check(body)
        name = body["name"]
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]", name) or name.startswith("goog") or "google" in name:
            raise Refused(400, "invalid", f"Invalid bucket name: '{name}'")
        if name in self.taken | set(self.buckets):
            raise Refused(409, "conflict", "The requested bucket name is not available. The bucket namespace is shared by all users of the system.")
        if body.get("location", "US").upper() not in LOCATIONS:
            raise Refused(400, "invalid", "The specified location constraint is not valid.")
        bucket = self.add(name)
        self._change(bucket, {key: value for key, value in body.items() if key != "name"})
        bucket["location"] = body.get("location", "US").upper()
        return 200, self.schema.answer("bucket", bucket), {}

    def _check(self, body: Any) -> None:
        if wrong := self.schema.wrong("bucket", body, sent=True):
            raise Refused(400, "invalid", "; ".join(wrong))

    def _change(self, bucket: dict[str, Any], body: Any) -> None:
        """As a merge patch; null takes away."""
        self._check(body)
        if "name" in body:
            raise Refused(400, "invalid", "the name cannot be changed")

        def merged(old: Any, new: Any) -> Any:
            if not isinstance(new, dict):
                return new
            kept = dict(old or {})
            for key, value in new.items():
                kept[key] = merged(kept.get(key), value)
            return {key: value for key, value in kept.items() if value is not None}

        wish = merged(bucket, body)
        public = any(set(binding["members"]) & set(PUBLIC) for binding in self.policies[bucket["name"]]["bindings"])
        if wish["iamConfiguration"].get("publicAccessPrevention") == "enforced" and public:
            raise Refused(412, "conditionNotMet", "The bucket has bindings for everybody.")
        bucket.update(wish)
        for key in set(bucket) - set(wish):
            del bucket[key]

    def _iam(self, bucket: dict[str, Any], method: str, body: Any) -> Answer:
        policy = self.policies[bucket["name"]]
        if method == "PUT":
            if wrong := self.schema.wrong("policy", body, sent=True):
                raise Refused(400, "invalid", "; ".join(wrong))
            if body.get("etag") != policy["etag"]:
                raise Refused(412, "conditionNotMet", "The etag is not that of the policy.")
            prevented = self.prevention or bucket["iamConfiguration"].get("publicAccessPrevention") == "enforced"
            if prevented and any(set(binding["members"]) & set(PUBLIC) for binding in body["bindings"]):
                raise Refused(412, "conditionNotMet", "The member bindings allUsers and allAuthenticatedUsers are not allowed since public access prevention is enforced.")
            policy.update(bindings=body["bindings"], etag=f"CAF{uuid.uuid4().hex[:4]}=")
        elif method != "GET":
            raise Refused(404, "notFound", "no such method")
        return 200, self.schema.answer("policy", policy), {}

    def _upload(self, bucket: dict[str, Any], body: Any) -> Answer:
        about = body["about"]
        if set(about) - {"name", "contentType", "metadata", "contentEncoding"}:
            raise Refused(400, "invalid", f"unknown fields {sorted(about)}")
        item = {"kind": "storage#object", "bucket": bucket["name"], **about, "size": str(len(body["content"])), "etag": "CAE=", "generation": "1"}
        self.objects[bucket["name"], about["name"]] = item, body["content"]
        return 200, item, {}

    def _object(self, bucket: str, key: str, query: dict[str, str]) -> Answer:
        if (bucket, key) not in self.objects:
            raise Refused(404, "notFound", f"No such object: {bucket}/{key}")
        item, content = self.objects[bucket, key]
        return 200, content if query.get("alt") == "media" else item, {}
