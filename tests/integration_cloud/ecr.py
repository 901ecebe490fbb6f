# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN of the part of ECR that moto does not have: repository creation templates.

It takes and gives what the model of AWS has (schemas/ecr.yml), one page of them holds two, a template that is there is not made again, and requests have to be
signed for ECR in its region. It looks at no signature and makes no repository.
"""

from __future__ import annotations

import json
import re
from email.message import Message
from typing import Any

from .standin import Answer, Refused, StandIn

TARGET = "AmazonEC2ContainerRegistry_V20150921."
PAGE = 2


class Templates(StandIn):
    """The templates of one registry."""

    def __init__(self, account: str = "123456789012", region: str = "us-west-2") -> None:
        super().__init__("ecr")
        self.account, self.region = account, region
        self.templates: dict[str, dict[str, Any]] = {}
        self.operations: list[str] = []

    def allowed(self, path: str, token: str) -> bool:
        return re.match(rf"AWS4-HMAC-SHA256 Credential=[^/]+/\d{{8}}/{self.region}/ecr/aws4_request,", token) is not None

    def parsed(self, path: str, text: bytes, headers: Message[str, str]) -> Any:
        if headers.get("Content-Type") != "application/x-amz-json-1.1":
            raise Refused(400, "SerializationException", "")
        return json.loads(text)

    def refusal(self, refused: Refused) -> Any:
        return {"__type": refused.code, "message": refused.message}

    def sent(self, definition: str, body: Any) -> Any:
        if wrong := self.schema.wrong(definition, body, sent=True):
            raise Refused(400, "InvalidParameterException", "; ".join(wrong))
        return body

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, headers: Message[str, str]) -> Answer:
        operation = headers.get("X-Amz-Target", "").removeprefix(TARGET)
        self.operations.append(operation)
        if operation == "DescribeRepositoryCreationTemplates":
            asked = self.sent(f"{operation}Request", body)
            if "prefixes" in asked and not set(asked["prefixes"]) <= set(self.templates):
                raise Refused(400, "TemplateNotFoundException", "The repository creation template does not exist")
            found = [self.templates[prefix] for prefix in sorted(asked.get("prefixes", self.templates))]
            start = int(asked.get("nextToken") or 0)
            answer: dict[str, Any] = {"registryId": self.account, "repositoryCreationTemplates": found[start : start + PAGE]}
            if start + PAGE < len(found):
                answer["nextToken"] = str(start + PAGE)
        elif operation == "CreateRepositoryCreationTemplate":
            asked = self.sent(f"{operation}Request", body)
            if asked["prefix"] in self.templates:
                raise Refused(400, "TemplateAlreadyExistsException", "The repository creation template already exists")
            self.add(**asked)
            answer = {"registryId": self.account, "repositoryCreationTemplate": self.templates[asked["prefix"]]}
        else:
            raise Refused(400, "UnknownOperationException", "")
        return 200, self.schema.answer(f"{operation}Response", answer), {"Content-Type": "application/x-amz-json-1.1"}

    def add(self, **settings: Any) -> None:
        """What somebody made."""
        self.templates[settings["prefix"]] = {"imageTagMutability": "MUTABLE", "createdAt": 1.0, "updatedAt": 1.0, **settings}
