# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Secrets of a site: makes what is missing once, checks what is there, never changes what was generated.

The cluster is the store and the truth. The plan (which Secret, which keys, of which length, in which form) comes from
the controller and holds no secret; the operator's inputs come beside it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Protocol

from ..helm.kube import SITE_ANNOTATION, KubeApi, KubeError, core, get_or_none, owner_of
from ..helm.releases import installed_version
from . import generate, pki

PLAN_FORMAT = "onprem.circleci_server/secret-plan/1"
OWNER_LABEL = "app.kubernetes.io/managed-by"
OWNER = "onprem.circleci_server"
KEYSETS_ANNOTATION = "onprem.circleci-server/keysets"
VENDOR, OWN, GIVEN = "vendor", "own", "given"
"""Where the keysets of artifacts and job history come from: the vendor's program, this collection, the operator."""
KEEP = {"helm.sh/resource-policy": "keep"}
TLS_KEYS = ("tls.crt", "tls.key", "ca.crt")
VENDOR_KEYS = ("cert.pem", "key.pem", "ca.pem")
APP_PASSWORD = "postgres-app-password"  # noqa: S105 - the name of a key


class SecretsError(Exception):
    """All problems of one run."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class ToolError(Exception):
    """Why the vendor's program for keysets could not be used, in one sentence."""


class KeysetTool(Protocol):
    """The vendor's program for keysets, see vendor_tool.py."""

    def missing(self) -> str:
        """Why there is no program to run, empty when there is one."""

    def make(self) -> dict[str, str]:
        """A keyset for each form."""


@dataclass
class Site:
    namespace: str
    release_name: str
    domain: str


@dataclass
class Report:
    """One line per Secret: name, state (present, created, restored, updated, wrong, missing, deleted), keys, detail."""

    secrets: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    changed: bool = False
    namespace_created: bool = False

    def add(self, name: str, state: str, keys: Sequence[str], detail: str = "") -> None:
        self.secrets.append({"name": name, "state": state, "keys": list(keys), "detail": detail})
        if state in ("created", "restored", "updated", "deleted"):
            self.changed = True


def _encode(text: str, encoding: str) -> str:
    raw = base64.b64encode(text.encode()).decode() if encoding == "base64" else text
    return base64.b64encode(raw.encode()).decode()


def decode(data: str, encoding: str) -> str:
    """The text of one entry of a Secret's data. ValueError when it does not have the form."""
    raw = base64.b64decode(data, validate=True)
    if encoding == "base64":
        raw = base64.b64decode(raw, validate=True)
    return raw.decode()


def _minor(release: str) -> tuple[int, ...]:
    """``4.10.0`` and ``4.10`` are ``(4, 10)``; empty when it is no release."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else ()


class SecretStore:
    """The Secrets of one namespace, read once."""

    def __init__(self, api: KubeApi, site: Site) -> None:
        self.api = api
        self.site = site
        self.objects: dict[str, dict[str, Any]] = {}
        self.namespace_exists = False
        self.data_exists = False

    def read(self) -> list[str]:
        """Problems that stop everything, such as a namespace of someone else."""
        namespace = self.site.namespace
        try:
            found = get_or_none(self.api, f"/api/v1/namespaces/{namespace}")
        except KubeError as error:
            if error.status != 403:
                raise
            found = {"metadata": {"name": namespace}}  # rights on the namespace's contents only; the list below decides
        if found is None:
            return []
        self.namespace_exists = True
        metadata = found.get("metadata") or {}
        if metadata.get("deletionTimestamp"):
            return [f"namespace {namespace} is being deleted: wait until it is gone, then run the same command again."]
        owner = owner_of(found)
        if owner and owner != self.site.domain:
            return [
                f"namespace {namespace} belongs to the site {owner}, not to {self.site.domain}: choose another "
                "circleci_namespace or another circleci_kubeconfig."
            ]
        listed = self.api.request("GET", core(namespace, "secrets"))
        self.objects = {item["metadata"]["name"]: item for item in listed.get("items", [])}
        claims = self.api.request("GET", core(namespace, "persistentvolumeclaims"))
        names = [item["metadata"]["name"] for item in claims.get("items", [])]
        self.data_exists = any(re.match(r"(data-postgresql|datadir-mongodb|data-rabbitmq)-\d+$", name) for name in names)
        return []

    def text(self, name: str, key: str, encoding: str = "plain") -> str:
        """One decoded entry, empty when it is not there. ValueError when it cannot be decoded."""
        data = (self.objects.get(name) or {}).get("data") or {}
        return decode(data[key], encoding) if key in data else ""

    def create_namespace(self) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.site.namespace,
                "annotations": {SITE_ANNOTATION: self.site.domain},
                "labels": {OWNER_LABEL: OWNER},
            },
        }
        self.api.request("POST", "/api/v1/namespaces", body=body)
        self.namespace_exists = True

    def metadata(self, item: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Labels and annotations that a Secret of the plan must carry."""
        labels: dict[str, str] = dict(item.get("labels") or {})
        annotations: dict[str, str] = dict(item.get("annotations") or {})
        annotations.update(KEEP)
        if item.get("adopt"):
            labels[OWNER_LABEL] = "Helm"
            annotations["meta.helm.sh/release-name"] = self.site.release_name
            annotations["meta.helm.sh/release-namespace"] = self.site.namespace
        else:
            labels.setdefault(OWNER_LABEL, OWNER)
        return labels, annotations

    def _body(self, item: Mapping[str, Any], data: dict[str, str], base: Optional[Mapping[str, Any]]) -> dict[str, Any]:
        labels, annotations = self.metadata(item)
        known = (base or {}).get("metadata") or {}
        metadata = {
            "name": item["name"],
            "namespace": self.site.namespace,
            "labels": {**(known.get("labels") or {}), **labels},
            "annotations": {**(known.get("annotations") or {}), **annotations},
        }
        kind = (base or {}).get("type") or item.get("type") or "Opaque"
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}

    def create(self, item: Mapping[str, Any], data: dict[str, str], base: Optional[Mapping[str, Any]] = None) -> None:
        """Make a Secret of the plan. C(base) is a kept one, whose type and further metadata come back with it."""
        self.api.request("POST", core(self.site.namespace, "secrets"), body=self._body(item, data, base))
        self._read_back(str(item["name"]), data)

    def patch(self, name: str, body: dict[str, Any]) -> None:
        self.api.request(
            "PATCH", core(self.site.namespace, "secrets", name), body=body, content_type="application/merge-patch+json"
        )
        self._read_back(name, body.get("data") or {})

    def _read_back(self, name: str, data: Mapping[str, str]) -> None:
        stored = self.api.request("GET", core(self.site.namespace, "secrets", name))
        self.objects[name] = stored
        have = stored.get("data") or {}
        lost = [key for key, value in data.items() if value is not None and have.get(key) != value]
        if lost:
            raise SecretsError(
                [f"Secret {name} did not keep what was written ({', '.join(lost)}): something changes Secrets in this namespace."]
            )

    def delete(self, name: str) -> None:
        try:
            self.api.request("DELETE", core(self.site.namespace, "secrets", name))
        except KubeError as error:
            if error.status != 404:
                raise
        self.objects.pop(name, None)


class PreparedSecrets(SecretStore):
    """The same where there is no cluster yet: what is made stays in memory, for a store that keeps it until there is one."""

    def __init__(self, site: Site, manifests: Mapping[str, Mapping[str, Any]]) -> None:
        self.site = site
        self.objects = {name: dict(item) for name, item in manifests.items()}
        self.namespace_exists, self.data_exists = True, False

    def read(self) -> list[str]:
        return []

    def create(self, item: Mapping[str, Any], data: dict[str, str], base: Optional[Mapping[str, Any]] = None) -> None:
        self.objects[str(item["name"])] = self._body(item, data, base)

    def patch(self, name: str, body: dict[str, Any]) -> None:
        found = self.objects[name]
        data = {**(found.get("data") or {}), **(body.get("data") or {})}
        metadata = dict(found.get("metadata") or {})
        for key, value in (body.get("metadata") or {}).items():
            metadata[key] = {**(metadata.get(key) or {}), **value}
        self.objects[name] = {**found, "metadata": metadata, "data": {key: value for key, value in data.items() if value is not None}}


class Keeper:
    """Carries out a plan."""

    def __init__(
        self,
        store: SecretStore,
        plan: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        write: bool,
        renew: Sequence[str] = (),
        regenerate_lost: Sequence[str] = (),
        kept: Optional[Mapping[str, Mapping[str, Any]]] = None,
        given: Optional[Mapping[str, Mapping[str, str]]] = None,
        keysets: str = "auto",
        tool: Optional[Callable[[Mapping[str, Any]], KeysetTool]] = None,
    ) -> None:
        """C(kept): manifests of a store, which bring back what the cluster lacks. C(given): texts by Secret and key, which
        an existing site or a credential brings; they too fill gaps only. C(keysets): auto, vendor or own."""
        if plan.get("format") != PLAN_FORMAT:
            raise SecretsError([f"plan has the format {plan.get('format')!r}: allowed is {PLAN_FORMAT}."])
        self.store = store
        self.items: list[Mapping[str, Any]] = list(plan["secrets"])
        self.inputs = {name: value for name, value in inputs.items() if value}
        self.write = write
        self.renew = set(renew)
        self.regenerate_lost = set(regenerate_lost)
        self.report = Report()
        self.kept = dict(kept or {})
        self.given = {name: dict(texts) for name, texts in (given or {}).items()}
        self._made_authorities: dict[str, pki.Pair] = {}
        self._keysets = keysets
        self._tool = tool

    # -- the three verbs ------------------------------------------------------------------------------------------

    def present(self) -> Report:
        """Make what is missing; bring the operator's inputs and the metadata up to date; check the rest."""
        stop = self.store.read()
        self._unknown_renewals()
        self._unknown_given()
        if stop:
            self.report.errors += stop
            return self.report
        self.items += [_app_password(name) for name in self._lost_passwords()]
        todo = [(item, self._judge(item)) for item in self.items]
        if self.report.errors:
            return self.report
        if not self.store.namespace_exists:
            self.report.changed = self.report.namespace_created = True
            if self.write:
                self.store.create_namespace()
        for item, verdict in todo:
            self._carry_out(item, verdict)
        return self.report

    def verified(self) -> Report:
        """Everything must be there and right; nothing is made."""
        stop = self.store.read()
        if stop:
            self.report.errors += stop
            return self.report
        missing = []
        for item in self.items:
            name = str(item["name"])
            if name not in self.store.objects:
                if not item.get("optional"):
                    missing.append(name)
                    self.report.add(name, "missing", self._key_names(item), str(item.get("purpose") or ""))
                continue
            problems = self._check(item)
            if self._differing_inputs(item):
                problems.append("differs from what the operator gives now: run the verb secrets to bring it up to date")
            problems += [f"lacks the metadata {text}" for text in self._metadata_gaps(item)]
            self._note(name, item, problems, "present")
        if missing:
            self.report.errors.append(
                f"These Secrets are missing in namespace {self.store.site.namespace}: {', '.join(missing)}. "
                "Run the verb secrets first."
            )
        return self.report

    def absent(self, names: Optional[Sequence[str]] = None) -> Report:
        """Delete the Secrets of the plan."""
        stop = self.store.read()
        if stop:
            self.report.errors += stop
            return self.report
        for item in self.items:
            name = str(item["name"])
            if name in self.store.objects and (names is None or name in names):
                if self.write:
                    self.store.delete(name)
                self.report.add(name, "deleted", self._key_names(item))
        return self.report

    # -- judging --------------------------------------------------------------------------------------------------

    def _unknown_renewals(self) -> None:
        renewable = {str(item["name"]) for item in self.items if item["maker"] in ("certificate", "nomad_certificate")}
        for name in sorted(self.renew - renewable):
            self.report.errors.append(
                f"renew names {name!r}: allowed are the certificates {', '.join(sorted(renewable)) or '(none)'}."
            )

    def _unknown_given(self) -> None:
        """A mistyped name must not end in a new secret beside old data."""
        known = {str(item["name"]): self._key_names(item) for item in self.items}
        for name, texts in sorted(self.given.items()):
            if name not in known:
                self.report.errors.append(f"circleci_secrets_given names the Secret {name}: allowed are {', '.join(sorted(known))}.")
            wrong = sorted(set(texts) - set(known.get(name, texts)))
            if wrong:
                self.report.errors.append(f"circleci_secrets_given.{name} has the key {', '.join(wrong)}: allowed are {', '.join(known[name])}.")

    def _lost_passwords(self) -> list[str]:
        """Kept passwords of database roles that a chart made for services which the plan does not know."""
        planned = {str(item["name"]) for item in self.items}
        return [
            name
            for name, item in sorted(self.kept.items())
            if list(item.get("data") or {}) == [APP_PASSWORD] and name not in planned and name not in self.store.objects
        ]

    def given_data(self) -> dict[str, dict[str, str]]:
        """What the operator gives, in the form that the release wants."""
        found: dict[str, dict[str, str]] = {}
        for item in self.items:
            encodings = {str(key["name"]): str(key.get("encoding") or "plain") for key in item["keys"]}
            texts = self.given.get(str(item["name"]), {})
            data = {key: _encode(text, encodings[key]) for key, text in texts.items() if text and key in encodings}
            if data:
                found[str(item["name"])] = data
        return found

    @property
    def once(self) -> list[str]:
        """Secrets that data depends on."""
        return [str(item["name"]) for item in self.items if item.get("bound_to_data")]

    def _back(self, item: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """What the store or the operator has of a Secret that is missing."""
        name = str(item["name"])
        data = self.given_data().get(name)
        if data:
            return {"metadata": {"name": name}, "data": data, "type": item.get("type")}
        kept = self.kept.get(name)
        return dict(kept) if kept else None

    @staticmethod
    def _key_names(item: Mapping[str, Any]) -> list[str]:
        return [str(key["name"]) for key in item["keys"]]

    def _note(self, name: str, item: Mapping[str, Any], problems: list[str], state: str) -> None:
        if problems:
            self.report.add(name, "wrong", self._key_names(item), "; ".join(problems))
            self.report.errors.append(f"Secret {name} in namespace {self.store.site.namespace}: {'; '.join(problems)}.")
        else:
            self.report.add(name, state, self._key_names(item))

    def _judge(self, item: Mapping[str, Any]) -> str:
        """create, renew, update, metadata or present; errors are noted at once."""
        name = str(item["name"])
        back = None if name in self.store.objects or name in self.regenerate_lost else self._back(item)
        if back is not None:
            # From here on it counts as being there: an authority is needed by the certificates after it.
            self.store.objects[name] = back
            problems = [*self._check(item), *self._bad_inputs(item)]
            if problems:
                origin = "circleci_secrets_given" if name in self.given else "the store"
                self.report.errors.append(f"Secret {name} cannot be brought back from {origin}: {'; '.join(problems)}.")
                return "skip"
            changes = self._differing_inputs(item)
            if changes and item["maker"] == "docker_config":
                changes = {".dockerconfigjson": self._merged_login(item)}
            if changes and item["maker"] == "certificate":
                back["data"] = {key: value for key, value in back["data"].items() if key != TLS_KEYS[2]}
            back["data"] = {**back["data"], **changes}
            return "restore"
        if name not in self.store.objects:
            lacking = self._missing_inputs(item)
            if lacking:
                if item.get("optional"):
                    return "skip"
                self.report.errors.append(f"Secret {name} is missing and cannot be made: {', '.join(lacking)} is empty.")
                return "skip"
            if item.get("bound_to_data") and self.store.data_exists and name not in self.regenerate_lost and not self._is_new(item):
                self.report.errors.append(
                    f"Secret {name} is missing, yet data of an earlier installation is there (volumes of the databases in "
                    f"namespace {self.store.site.namespace}): a new one would not fit it. Name the escrow copy that holds it "
                    f"in circleci_secrets_store, or the Secret in circleci_secrets_regenerate_lost when that data is of no use any more."
                )
                return "skip"
            bad = self._bad_inputs(item)
            if bad:
                self.report.errors += [f"Secret {name} cannot be made: {text}." for text in bad]
                return "skip"
            return "create"
        if name in self.renew and not self._pair_given(item):
            return "renew"
        if self._differing_inputs(item):
            bad = self._bad_inputs(item)
            if bad:
                self.report.errors += [f"Secret {name} cannot be brought up to date: {text}." for text in bad]
                return "skip"
            return "update"
        problems = self._check(item)
        foreign = self._foreign_owner(item)
        if foreign:
            problems.append(foreign)
        if problems:
            hint = ""
            if item["maker"] in ("certificate", "nomad_certificate") and not self._pair_given(item):
                hint = f" (name {name} in circleci_secrets_renew to issue a new one)"
            self._note(name, item, [text + hint for text in problems], "present")
            return "skip"
        return "metadata" if self._metadata_gaps(item) else "present"

    def _is_new(self, item: Mapping[str, Any]) -> bool:
        """Whether the product has this Secret only since a release after the one that is installed, so that no data can need it."""
        since = _minor(str(item.get("since") or ""))
        installed = _minor(installed_version(self.store.api, self.store.site.namespace)) if since else ()
        return bool(since and installed) and installed < since

    def _foreign_owner(self, item: Mapping[str, Any]) -> str:
        annotations = (self.store.objects[str(item["name"])].get("metadata") or {}).get("annotations") or {}
        release = annotations.get("meta.helm.sh/release-name")
        if release and release != self.store.site.release_name:
            return f"belongs to the Helm release {release}, not to {self.store.site.release_name}"
        return ""

    def _metadata_gaps(self, item: Mapping[str, Any]) -> list[str]:
        """Metadata that Helm needs to adopt a Secret. Our own marks are not forced upon Secrets of others."""
        if not item.get("adopt"):
            return []
        labels, annotations = self.store.metadata(item)
        have = self.store.objects[str(item["name"])].get("metadata") or {}
        gaps = [f"label {key}" for key, value in labels.items() if (have.get("labels") or {}).get(key) != value]
        gaps += [
            f"annotation {key}" for key, value in annotations.items() if (have.get("annotations") or {}).get(key) != value
        ]
        return gaps

    def _missing_inputs(self, item: Mapping[str, Any]) -> list[str]:
        maker = item["maker"]
        if maker in ("input", "docker_config"):
            lacking = [_option(key) for key in item["keys"] if self._wanted(key) and key["input"] not in self.inputs]
            return lacking + [f"circleci_{name}" for name in item.get("inputs") or [] if name not in self.inputs]
        if maker == "alphanumeric":
            return [_option(key) for key in item["keys"] if key.get("must_be_given") and key.get("input") not in self.inputs]
        return []

    @staticmethod
    def _wanted(key: Mapping[str, Any]) -> bool:
        return bool(key.get("input")) and not key.get("optional") and not key.get("generated")

    def _pair_given(self, item: Mapping[str, Any]) -> bool:
        prefix = item.get("input")
        return bool(prefix) and f"{prefix}_certificate" in self.inputs

    def _bad_inputs(self, item: Mapping[str, Any]) -> list[str]:
        """What is wrong with the inputs that would be written."""
        if item["maker"] == "certificate" and self._pair_given(item):
            pair = pki.Pair(self.inputs[f"{item['input']}_certificate"], self.inputs.get(f"{item['input']}_private_key", ""))
            return pki.check_pair(pair, item.get("dns") or (), item.get("ips") or ()).errors
        if item["maker"] == "authority" and self._pair_given(item):
            pair = pki.Pair(self.inputs[f"{item['input']}_certificate"], self.inputs.get(f"{item['input']}_private_key", ""))
            if not pair.key:
                return [f"circleci_secrets_{item['input']}_private_key is empty: an authority without its key cannot issue certificates"]
            return pki.check_authority(pair).errors
        bad = []
        for key in item["keys"]:
            text = self.inputs.get(str(key.get("input") or ""), "")
            if text:
                bad += [f"{_option(key)} {problem}" for problem in _check_text(key, text)]
        return bad

    def _from_inputs(self, item: Mapping[str, Any]) -> dict[str, str]:
        """The entries that the operator gives, encoded."""
        maker = item["maker"]
        if maker == "docker_config":
            if all(name in self.inputs for name in ("registry_username", "registry_password")):
                text = generate.docker_config(
                    str(item["registry"]), self.inputs["registry_username"], self.inputs["registry_password"]
                )
                return {".dockerconfigjson": _encode(text, "plain")}
            return {}
        if maker in ("certificate", "authority") and self._pair_given(item):
            pair = pki.Pair(self.inputs[f"{item['input']}_certificate"], self.inputs.get(f"{item['input']}_private_key", ""))
            return self._pair_data(item, pair)
        result = {}
        for key in item["keys"]:
            text = self.inputs.get(str(key.get("input") or ""), "")
            if text:
                result[str(key["name"])] = _encode(text, str(key.get("encoding") or "plain"))
        return result

    def _differing_inputs(self, item: Mapping[str, Any]) -> dict[str, str]:
        have = self.store.objects[str(item["name"])].get("data") or {}
        given = self._from_inputs(item)
        if item["maker"] == "docker_config" and given and ".dockerconfigjson" in have:
            try:
                if self._same_login(item, decode(have[".dockerconfigjson"], "plain")):
                    return {}
            except ValueError:
                pass
        return {key: value for key, value in given.items() if have.get(key) != value}

    def _same_login(self, item: Mapping[str, Any], text: str) -> bool:
        """A pull Secret may hold more registries, and may be written differently."""
        entry = (json.loads(text).get("auths") or {}).get(str(item["registry"])) or {}
        wanted = f"{self.inputs['registry_username']}:{self.inputs['registry_password']}"
        given = base64.b64decode(entry.get("auth") or "").decode() or f"{entry.get('username')}:{entry.get('password')}"
        return given == wanted

    # -- checking -------------------------------------------------------------------------------------------------

    def _check(self, item: Mapping[str, Any]) -> list[str]:
        """What is wrong with a Secret that is there."""
        name = str(item["name"])
        problems: list[str] = []
        texts: dict[str, str] = {}
        data = self.store.objects[name].get("data") or {}
        for key in item["keys"]:
            key_name, encoding = str(key["name"]), str(key.get("encoding") or "plain")
            if key_name not in data:
                if not key.get("optional"):
                    problems.append(f"the key {key_name} is missing")
                continue
            try:
                texts[key_name] = decode(data[key_name], encoding)
            except (ValueError, binascii.Error):
                problems.append(f"the value of {key_name} does not have the form {encoding} that release wants")
                continue
            problems += [f"{key_name} {text}" for text in _check_text(key, texts[key_name])]
            if key.get("form") == "uri_safe" and not re.fullmatch(r"[A-Za-z0-9_.~-]+", texts[key_name]):
                # It may have been chosen long ago; changing it here would lock the database.
                self.report.warnings.append(
                    f"Secret {name}: {key_name} has characters that can break connection URIs; letters and digits are safe."
                )
        if problems:
            return problems
        check = self._CHECKS.get(str(item["maker"]))
        return check(self, item, texts) if check else []

    def _check_docker(self, item: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
        try:
            hosts = list(json.loads(texts[".dockerconfigjson"]).get("auths") or {})
        except (ValueError, AttributeError):
            return [".dockerconfigjson is no docker configuration"]
        if item["registry"] not in hosts:
            return [
                f".dockerconfigjson is for {', '.join(hosts) or 'no registry'}, not for {item['registry']}: set circleci_registry_host to the former, "
                "or run the verb secrets when the registry has moved"
            ]
        return []

    def _check_certificate(self, item: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
        names = VENDOR_KEYS if item.get("form") == "vendor" else TLS_KEYS
        pair = pki.Pair(texts.get(names[0], ""), texts.get(names[1], ""))
        authority = texts.get(names[2]) or None
        found = pki.check_pair(pair, item.get("dns") or (), item.get("ips") or (), authority)
        name = str(item["name"])
        self.report.warnings += [f"Secret {name}: {text}." for text in found.warnings]
        if item.get("authority") and authority and not self._pair_given(item):
            kept = self.store.text(str(item["authority"]), "ca.crt")
            if kept and kept.strip() != authority.strip() and name in _own(self.store, name):
                found.errors.append(f"it was issued by another authority than the one in Secret {item['authority']}")
        return found.errors

    def _check_authority(self, item: Mapping[str, Any], texts: Mapping[str, str]) -> list[str]:
        found = pki.check_authority(pki.Pair(texts.get("ca.crt", ""), texts.get("ca.key", "")))
        self.report.warnings += [f"Secret {item['name']}: {text}." for text in found.warnings]
        return found.errors

    _CHECKS: dict[str, Callable[[Keeper, Mapping[str, Any], Mapping[str, str]], list[str]]] = {
        "docker_config": _check_docker,
        "certificate": _check_certificate,
        "nomad_certificate": _check_certificate,
        "authority": _check_authority,
    }

    # -- making ---------------------------------------------------------------------------------------------------

    def _carry_out(self, item: Mapping[str, Any], verdict: str) -> None:
        name, keys = str(item["name"]), self._key_names(item)
        if verdict == "skip":
            return
        if verdict == "present":
            self.report.add(name, "present", keys)
            return
        if verdict == "restore":
            base = self.store.objects[name]
            if self.write:
                self.store.create(item, base["data"], base)
            self.report.add(name, "restored", keys, "from circleci_secrets_given" if name in self.given else "from the store")
            return
        if verdict == "create":
            detail = str(item.get("purpose") or "")
            if item.get("tool"):
                origin, tool, said = self._origin(item)
                detail += f"; {said}"
                if self.write:
                    texts = tool.make() if tool else {}
                    annotations = {**(item.get("annotations") or {}), KEYSETS_ANNOTATION: origin}
                    self.store.create({**item, "annotations": annotations}, self._make(item, texts))
            elif self.write:
                self.store.create(item, self._make(item))
            self.report.add(name, "created", keys, detail)
            return
        if verdict == "metadata":
            detail = f"gets {', '.join(self._metadata_gaps(item))}"
            if self.write:
                labels, annotations = self.store.metadata(item)
                self.store.patch(name, {"metadata": {"labels": labels, "annotations": annotations}})
            self.report.add(name, "updated", keys, detail)
            return
        if verdict == "renew":
            if self.write:
                self.store.patch(name, {"data": self._make(item)})
            self.report.add(name, "updated", keys, "issued again")
            return
        changes = self._differing_inputs(item)
        if item["maker"] == "docker_config" and self.write:
            changes = {".dockerconfigjson": self._merged_login(item)}
        if self.write:
            labels, annotations = self.store.metadata(item)
            body: dict[str, Any] = {"data": dict(changes)}
            if item["maker"] == "certificate":
                # The authority beside the old pair says nothing about the operator's own.
                body["data"][TLS_KEYS[2]] = None
            if item.get("adopt"):
                body["metadata"] = {"labels": labels, "annotations": annotations}
            self.store.patch(name, body)
        self.report.add(name, "updated", sorted(changes), "follows the operator's input")

    def _origin(self, item: Mapping[str, Any]) -> tuple[str, Optional[KeysetTool], str]:
        """Who makes the keysets, and why."""
        given = self._from_inputs(item)
        if all(name in given for name in self._key_names(item)):
            return GIVEN, None, "given"
        if self._keysets == OWN:
            return OWN, None, "made by this collection, as asked"
        tool = self._tool(item["tool"]) if self._tool else None
        missing = tool.missing() if tool else "there is no cluster yet to run the vendor's program in"
        if not missing:
            return VENDOR, tool, "made by the vendor's program server-keysets"
        if self._keysets == VENDOR:
            raise ToolError(missing)
        return OWN, None, f"made by this collection, since {missing}"

    def keysets_origin(self) -> str:
        """Who made the keysets that are there: vendor, own, given, or empty when nobody wrote it down."""
        name = next((str(item["name"]) for item in self.items if item.get("tool")), "")
        metadata = (self.store.objects.get(name) or {}).get("metadata") or {}
        return str((metadata.get("annotations") or {}).get(KEYSETS_ANNOTATION) or "")

    def _merged_login(self, item: Mapping[str, Any]) -> str:
        """Other registries of the same pull Secret stay."""
        fresh = json.loads(
            generate.docker_config(str(item["registry"]), self.inputs["registry_username"], self.inputs["registry_password"])
        )
        try:
            kept = json.loads(self.store.text(str(item["name"]), ".dockerconfigjson") or "{}")
            kept.setdefault("auths", {}).update(fresh["auths"])
        except (ValueError, AttributeError):
            kept = fresh
        return _encode(json.dumps(kept, sort_keys=True, separators=(",", ":")), "plain")

    def _make(self, item: Mapping[str, Any], made: Optional[Mapping[str, str]] = None) -> dict[str, str]:
        """The data of a new Secret; C(made) are texts by form that a program of the vendor made."""
        maker = str(item["maker"])
        given = self._from_inputs(item)
        if maker in ("input", "docker_config") or (maker in ("certificate", "authority") and given):
            return given
        if maker == "authority":
            pair = pki.new_authority(str(item["common_name"]))
            self._made_authorities[str(item["name"])] = pair
            return {"ca.crt": _encode(pair.certificate, "plain"), "ca.key": _encode(pair.key, "plain")}
        if maker in ("certificate", "nomad_certificate"):
            authority = self._authority(str(item["authority"]))
            subject = pki.Subject(
                common_name=str(item["common_name"]),
                dns=tuple(item.get("dns") or ()),
                ips=tuple(item.get("ips") or ()),
                usage=str(item.get("usage") or "server"),
                organization=str(item.get("organization") or ""),
                days=int(item.get("days") or pki.TLS_DAYS),
            )
            return self._pair_data(item, pki.issue(authority, subject), authority.certificate)
        texts: dict[str, str] = {}
        for key in item["keys"]:
            name = str(key["name"])
            if name in given:
                continue
            if key.get("same_as"):
                other = str(key["same_as"])
                texts[name] = texts[other] if other in texts else decode(given[other], str(key.get("encoding") or "plain"))
            elif maker == "alphanumeric":
                texts[name] = generate.alphanumeric(int(key["length"]))
            elif made and key.get("form") in made:
                texts[name] = made[str(key["form"])]
                problems = _check_text(key, texts[name])
                if problems:
                    raise ToolError(f"what it printed for {name} {problems[0]}")
            else:
                texts[name] = _MAKERS[str(key["form"])]()
        encodings = {str(key["name"]): str(key.get("encoding") or "plain") for key in item["keys"]}
        return {**{name: _encode(text, encodings[name]) for name, text in texts.items()}, **given}

    def _authority(self, name: str) -> pki.Pair:
        made = self._made_authorities.get(name)
        if made is not None:
            return made
        pair = pki.Pair(self.store.text(name, "ca.crt"), self.store.text(name, "ca.key"))
        if not pair.certificate or not pair.key:
            raise SecretsError([f"Secret {name} holds no authority with its key: certificates cannot be issued."])
        return pair

    def _pair_data(self, item: Mapping[str, Any], pair: pki.Pair, authority: str = "") -> dict[str, str]:
        if item["maker"] == "authority":
            return {"ca.crt": _encode(pair.certificate, "plain"), "ca.key": _encode(pair.key, "plain")}
        names = VENDOR_KEYS if item.get("form") == "vendor" else TLS_KEYS
        encodings = {str(key["name"]): str(key.get("encoding") or "plain") for key in item["keys"]}
        data = {names[0]: pair.certificate, names[1]: pair.key}
        if authority:
            data[names[2]] = authority
        return {name: _encode(text, encodings.get(name, "plain")) for name, text in data.items()}


def _option(key: Mapping[str, Any]) -> str:
    """The variable that the operator gives a value by: that of the site, or else the option of the role."""
    return str(key.get("option") or f"circleci_secrets_{key['input']}")


def _app_password(name: str) -> dict[str, Any]:
    key = {"name": APP_PASSWORD, "form": "uri_safe"}
    return {"name": name, "maker": "alphanumeric", "adopt": True, "bound_to_data": True, "keys": [key], "purpose": f"database password of {name}"}


def _own(store: SecretStore, name: str) -> list[str]:
    labels = (store.objects[name].get("metadata") or {}).get("labels") or {}
    return [name] if labels.get(OWNER_LABEL) == OWNER else []


_MAKERS: dict[str, Callable[[], str]] = {
    "signing_keyset": generate.signing_keyset,
    "encryption_keyset": generate.encryption_keyset,
    "tink_keyset": generate.tink_keyset,
    "json_web_keys": pki.json_web_keys,
}


def _check_text(key: Mapping[str, Any], text: str) -> list[str]:
    """What is wrong with one decoded value."""
    if not text:
        return ["is empty"]
    problems = []
    if key.get("exact") and len(text) != int(key["length"]):
        problems.append(f"must have exactly {key['length']} characters, has {len(text)}")
    form = str(key.get("form") or "")
    if form == "alphanumeric" and not re.fullmatch(r"[A-Za-z0-9]+", text):
        problems.append("must consist of letters and digits only, since it ends up in connection URIs")
    if form in ("signing_keyset", "encryption_keyset") and not _is_keyset(text, form):
        problems.append("is no keyset of the vendor's tool (EDN with :meta and :keys)")
    if form == "tink_keyset":
        problem = _tink_problem(text)
        if problem:
            problems.append(problem)
    if form == "json_web_keys":
        problem = _jwks_problem(text)
        if problem:
            problems.append(problem)
    if form == "json":
        try:
            json.loads(text)
        except ValueError:
            problems.append("is not JSON")
    return problems


def _is_keyset(text: str, form: str) -> bool:
    wanted = {"signing_keyset": "SIGN_AND_VERIFY", "encryption_keyset": "DECRYPT_AND_ENCRYPT"}[form]
    return text.lstrip().startswith("{") and ":meta" in text and ":keys" in text and wanted in text


def _tink_problem(text: str) -> str:
    try:
        keyset = json.loads(text)
        key_ids = [key["keyId"] for key in keyset["key"]]
        values = [(key["keyData"]["typeUrl"], base64.b64decode(key["keyData"]["value"])) for key in keyset["key"]]
    except (ValueError, KeyError, TypeError, binascii.Error):
        return "is no Tink keyset in JSON form"
    if keyset.get("primaryKeyId") not in key_ids:
        return "names a primary key that it does not hold"
    for kind, value in values:
        if kind == generate.TINK_TYPE and (len(value) != 34 or value[:2] != b"\x1a\x20"):
            return "holds a key that was cut short (34 bytes are needed; the vendor's printed example has 33)"
    return ""


def _jwks_problem(text: str) -> str:
    try:
        keys = json.loads(text)["keys"]
        private = [key for key in keys if "d" in key]
    except (ValueError, KeyError, TypeError):
        return "is no JSON Web Key Set: take the set with the public and the private key"
    return "" if private else "holds no private key: take the set with the public and the private key"


def read_values(api: KubeApi, namespace: str, wanted: Sequence[Mapping[str, Any]]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Decoded values of named Secrets, and what is missing. C(wanted): name, keys (all when empty), encoding, optional."""
    values: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for item in wanted:
        name = str(item["name"])
        found = get_or_none(api, core(namespace, "secrets", name))
        if found is None:
            if not item.get("optional"):
                problems.append(f"Secret {name} is missing in namespace {namespace}: run the verb secrets first.")
            continue
        data = found.get("data") or {}
        keys = list(item.get("keys") or sorted(data))
        values[name] = {}
        for key in keys:
            if key not in data:
                problems.append(f"Secret {name} in namespace {namespace} lacks the key {key} (it has {', '.join(sorted(data))}).")
                continue
            try:
                values[name][key] = decode(data[key], str(item.get("encoding") or "plain"))
            except (ValueError, binascii.Error):
                problems.append(f"Secret {name} in namespace {namespace}: {key} does not have the form {item.get('encoding')}.")
    return values, problems
