# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be right before a service starts. Values first, all problems in one line; then the peers, one after the other."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable

from . import schema
from .base import NotYet, Refusal, env, flag, get, knock, log, release, wait_for

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$")
_TOKEN = re.compile(r'\s*(?:([{}\[\]])|"((?:[^"\\]|\\.)*)"|(:?[A-Za-z0-9_./+-]+)|,)')


def edn(text: str) -> object:
    """The part of EDN that keysets are written in: maps, vectors, strings, keywords, whole numbers, true and false."""
    tokens: list[tuple[str, str]] = []
    place, text = 0, text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if not match:
            raise ValueError(f"unexpected {text[place]!r} at character {place + 1}")
        place = match.end()
        for kind, value in zip(("mark", "text", "word"), match.groups()):
            if value is not None:
                tokens.append((kind, value))
    tokens.reverse()

    def read() -> object:
        if not tokens:
            raise ValueError("it ends too early")
        kind, value = tokens.pop()
        if kind == "text":
            return value
        if kind == "word":
            if value.startswith(":"):
                return value
            if value in ("true", "false"):
                return value == "true"
            return int(value)
        if value not in "{[":
            raise ValueError(f"unexpected {value!r}")
        end = "}" if value == "{" else "]"
        items: list[object] = []
        while tokens and tokens[-1] != ("mark", end):
            items.append(read())
        if not tokens:
            raise ValueError(f"{end!r} is missing")
        tokens.pop()
        if value == "[":
            return items
        if len(items) % 2:
            raise ValueError("a map has a key without a value")
        return {key if isinstance(key, (str, int)) else str(key): item for key, item in zip(items[::2], items[1::2])}

    result = read()
    if tokens:
        raise ValueError("there is more after its end")
    return result


def _bytes(value: object, size: int, what: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"{what} is no URL-safe base64")
    if len(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))) != size:
        raise ValueError(f"{what} is not of {size} bytes")


def keyset(text: str, purpose: str) -> None:
    """A Keyczar keyset as the vendor's tool prints it."""
    found = edn(text)
    if not isinstance(found, dict) or not isinstance(found.get(":meta"), dict) or not isinstance(found.get(":keys"), dict):
        raise ValueError("it is no map with :meta and :keys")
    meta = found[":meta"]
    if meta.get("purpose") != purpose:
        raise ValueError(f"its purpose is {meta.get('purpose')!r}, {purpose} is needed")
    primary = [item.get("versionNumber") for item in meta.get("versions") or [] if isinstance(item, dict) and item.get("status") == "PRIMARY"]
    if len(primary) != 1 or primary[0] not in found[":keys"]:
        raise ValueError("it has no primary key")
    for key in found[":keys"].values():
        if purpose == "SIGN_AND_VERIFY":
            _bytes(key.get("hmacKeyString"), 32, "hmacKeyString")
        else:
            _bytes(key.get("aesKeyString"), 16, "aesKeyString")
            _bytes((key.get("hmacKey") or {}).get("hmacKeyString"), 32, "hmacKey")


def tink(text: str) -> None:
    """A clear-text Tink keyset with XChaCha20Poly1305 keys."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("key"), list) or not found["key"]:
        raise ValueError("it has no list `key`")
    ids = []
    for key in found["key"]:
        data = key.get("keyData") or {}
        if not str(data.get("typeUrl", "")).endswith(".XChaCha20Poly1305Key"):
            raise ValueError(f"key type {data.get('typeUrl')!r} is not XChaCha20Poly1305")
        try:
            value = base64.b64decode(str(data.get("value")), validate=True)
        except binascii.Error:
            raise ValueError("a key value is no base64") from None
        if len(value) != 34 or value[:2] != b"\x1a\x20":
            raise ValueError(f"a key value decodes to {len(value)} bytes, 34 are needed")
        if key.get("status") == "ENABLED":
            ids.append(key.get("keyId"))
    if found.get("primaryKeyId") not in ids:
        raise ValueError("primaryKeyId names no enabled key")


def jwk_set(text: str) -> None:
    stripped = text.strip()
    if not stripped.startswith("{"):
        try:
            stripped = base64.b64decode(stripped, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("it is neither JSON nor base64 of JSON") from None
    try:
        found = json.loads(stripped)
    except ValueError:
        raise ValueError("it is no JSON") from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not keys or not all(isinstance(key, dict) and key.get("kty") and key.get("d") for key in keys):
        raise ValueError("it is no set of private keys")


def _about(what: str, check: Callable[[], None]) -> list[str]:
    try:
        check()
    except ValueError as exc:
        return [f"{what}: {exc}"]
    return []


def _given(variable: str, what: str) -> list[str]:
    value = env(variable)
    if not value.strip():
        return [f"{what} is empty"]
    return []


def values(needs: list[str]) -> list[str]:
    """Problems of what was given as values or Secrets."""
    problems: list[str] = []
    for need in needs:
        if need == "domain":
            problems += _given("CIRCLE_DOMAIN", "global.domainName")
            if env("CIRCLE_DOMAIN") and not _HOST.match(env("CIRCLE_DOMAIN")):
                problems.append(f"global.domainName {env('CIRCLE_DOMAIN')!r} is no domain name")
        elif need == "license":
            problems += _given("CIRCLE_LICENSE", "global.license (Secret license)")
        elif need == "api_token":
            problems += _given("CIRCLE_API_TOKEN", "Secret api-token")
        elif need == "pusher":
            problems += _given("PUSHER__SECRET", "Secret pusher")
        elif need == "session_cookie":
            length = len(env("CIRCLE_SECRETS__SESSION_COOKIE_KEY"))
            if length != 16:
                problems.append(f"session-cookie-key (Secret session-cookie) has {length} characters, exactly 16 are needed")
        elif need == "keyset":
            problems += _about("keyset.signing (Secret signing-keys)", lambda: keyset(env("CIRCLE_SECRETS__KEYSET__SIGN"), "SIGN_AND_VERIFY"))
            problems += _about("keyset.encryption (Secret signing-keys)", lambda: keyset(env("CIRCLE_SECRETS__KEYSET__CRYPT"), "DECRYPT_AND_ENCRYPT"))
        elif need == "encryption" and flag("TINK_ENABLED"):
            problems += _about("tink.keyset (Secret tink)", lambda: tink(env("TINK_KEYSET")))
        elif need == "json_web_keys":
            problems += _about("oidc_service.json_web_keys", lambda: jwk_set(env("JSON_WEB_KEYS")))
        elif need == "github":
            problems += _given("GITHUB__CLIENT_ID", "github.clientId (Secret github-secret)")
            problems += _given("GITHUB__CLIENT_SECRET", "github.clientSecret (Secret github-secret)")
            if flag("GITHUB__ENTERPRISE"):
                problems += _given("GITHUB__DEFAULT_TOKEN", "github.defaultToken (Secret github-secret), needed with github.enterprise,")
                if env("GITHUB__HOSTNAME") in ("", "ghe.example.com"):
                    problems.append(f"github.hostname is {env('GITHUB__HOSTNAME')!r} with github.enterprise")
        elif need == "cloud":
            problems.append(f"{env('CLOUD_PROVIDERS') or 'no provider is enabled, and this service'} needs a cloud that cannot be reached from here")
        elif need == "autoscaler":
            problems.append("the Nomad autoscaler works on AWS and Google Cloud only")
        elif need == "object_storage":
            if not (flag("S3__ENABLED") or flag("GCS__ENABLED")):
                problems.append("neither object_storage.s3.enabled nor object_storage.gcs.enabled is true")
            problems += _given("OBJECT_STORAGE__BUCKET", "object_storage.bucketName")
            if flag("S3__ENABLED") and env("S3__IRSA_ROLE") and not env("AWS_WEB_IDENTITY_TOKEN_FILE"):
                problems.append("object_storage.s3.irsaRole is set, which switches static keys off, and there is no web identity token")
            elif flag("S3__ENABLED"):
                problems += _given("S3__ACCESS_KEY", "object_storage.s3.accessKey (Secret object-storage-secret)")
                problems += _given("S3__SECRET_ACCESS_KEY", "object_storage.s3.secretKey (Secret object-storage-secret)")
    return problems


def _postgres() -> None:
    from .pgwire import PgError, from_environment

    with from_environment() as session:
        try:
            session.run(f"SELECT {schema.column(release())} FROM {schema.TABLE} LIMIT 1")
        except PgError as exc:
            if exc.code in ("42P01", "42501"):
                raise NotYet(f"the schema of {env('PGDATABASE')} is not there yet ({exc})") from exc
            if exc.code == "42703":
                found = session.run(f"SELECT release FROM {schema.VERSIONS} ORDER BY level DESC LIMIT 1")
                wrote = found[0][0] if found else "?"
                # of the same level: the migrator came between the two questions
                if schema.level(wrote or "4.0") <= schema.level(release()):
                    raise NotYet(f"the schema of {env('PGDATABASE')} was still that of an older release") from exc
                raise Refusal(f"{env('PGDATABASE')}: {exc}; release {wrote} has migrated this schema, and {release()} cannot work with it") from exc
            raise Refusal(f"{env('PGDATABASE')}: {exc}") from exc


def _store(kind: str, prefix: str, port: int) -> None:
    from . import stores

    stores.login(kind, env(f"{prefix}_HOST"), int(env(f"{prefix}_PORT") or port), env(f"{prefix}_USER"), env(f"{prefix}_PASSWORD"))


def _redis() -> None:
    from . import stores

    stores.ping_redis(env("REDIS_HOST") or "redis-master", int(env("REDIS_PORT") or 6379))


def _nomad() -> None:
    address = env("NOMAD_ADDR")
    if address.startswith("https:"):
        from urllib.parse import urlsplit

        parts = urlsplit(address)
        knock(parts.hostname or "", parts.port or 4646)
        return
    status, body = get(f"{address}/v1/status/leader")
    if status != 200 or len(body.strip()) < 5:
        raise NotYet(f"Nomad at {address} has no leader (status {status})")


def _vault() -> None:
    status, _body = get(f"{env('VAULT_ADDR')}/v1/sys/health")
    if status != 200:
        raise NotYet(f"Vault at {env('VAULT_ADDR')} answers {status}")


def _object_storage() -> None:
    if flag("GCS__ENABLED"):
        knock("storage.googleapis.com", 443)
        return
    from . import s3

    s3.check(env("S3__ENDPOINT"), env("OBJECT_STORAGE__BUCKET"), env("S3__REGION") or "us-east-1", env("S3__ACCESS_KEY"), env("S3__SECRET_ACCESS_KEY"))


def agents() -> str:
    """Jobs, not pods, fail when agents are missing: so this is said and not refused."""
    address = env("AGENT_BASE_URL").rstrip("/")
    try:
        status, body = get(f"{address}/release.txt")
    except (OSError, Refusal) as exc:
        return f"{address}/release.txt: {exc}"
    return "" if status == 200 and body.strip() else f"{address}/release.txt: status {status}"


def peers(needs: list[str]) -> None:
    if env("PGHOST"):
        wait_for("PostgreSQL", _postgres)
    for need in needs:
        if need == "mongodb":
            wait_for("MongoDB", lambda: _store("mongodb", "MONGO", 27017))
        elif need == "rabbitmq":
            wait_for("RabbitMQ", lambda: _store("rabbitmq", "RABBITMQ", 5672))
        elif need == "redis":
            wait_for("Redis", _redis)
        elif need == "nomad":
            wait_for("Nomad", _nomad)
        elif need == "encryption" and not flag("TINK_ENABLED"):
            wait_for("Vault", _vault)
        elif need == "object_storage":
            wait_for("the object store", _object_storage)
        elif need == "agents":
            problem = agents()
            if problem:
                log(f"agents are not to be had, jobs will fail: {problem}")


def all_of(needs: list[str]) -> None:
    problems = values(needs)
    if problems:
        raise Refusal("; ".join(problems))
    peers(needs)
