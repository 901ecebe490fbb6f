# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for one registry: the distribution API with authentication, patience and resumable uploads."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional, Union
from urllib.parse import quote, urlencode, urlsplit

from .errors import Broken, DigestMismatch, MirrorError, NetworkError, RegistryError
from .limits import Adaptive, parallel_start
from .oci import ACCEPT, DOCKER_HUB, MANIFEST_LIMIT, Manifest, check_repository, digest_of, is_digest
from .transport import (
    BUFFER,
    Body,
    Headers,
    HttpClient,
    HttpOptions,
    Patience,
    Response,
    Slice,
    follow,
    retry_after,
    same_host,
    shown_url,
    sleep_or_stop,
)

_RETRY = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Credential:
    """A user with a password, or an identity token; never shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass
class Upload:
    """An upload that a registry keeps open for us."""

    location: str
    cookie: str = field(default="", repr=False)
    offset: int = 0


class UploadLost(Exception):
    """The registry does not know this upload any more; start the blob again."""


class TooLarge(Exception):
    """413: something on the way takes only smaller bodies."""


class Authenticator:
    """Answers 401: basic credentials, or tokens per set of scopes, renewed before they end."""

    def __init__(self, http: HttpClient, credential: Optional[Credential], base: str, patience: Patience) -> None:
        self._http, self._credential, self._base, self._patience = http, credential, base, patience
        self._lock = threading.Lock()
        self._mode = ""
        self._realm = self._service = ""
        self._tokens: dict[frozenset[str], tuple[str, float]] = {}

    def _basic(self) -> str:
        credential = self._credential or Credential()
        return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()

    def header(self, scopes: frozenset[str]) -> Optional[str]:
        """What to send along, as far as it is known which way the registry wants."""
        with self._lock:
            if self._mode == "basic" and self._credential and self._credential.username:
                return self._basic()
            if self._mode != "bearer":
                return None
            token = self._valid(scopes)
            return "Bearer " + (token or self._fetch(scopes))

    def _valid(self, scopes: frozenset[str]) -> Optional[str]:
        now = time.monotonic()
        for held, (token, ends) in self._tokens.items():
            if ends > now and scopes <= held:
                return token
        return None

    def challenged(self, headers: Headers, scopes: frozenset[str], sent: Optional[str]) -> Optional[str]:
        """The header for another try after a 401, or None when there is nothing better to offer."""
        offers = {}
        for line in headers.get_all("www-authenticate"):
            kind, _space, rest = line.partition(" ")
            offers[kind.lower()] = {match[1].lower(): match[2] or match[3] or "" for match in _PARAMETER.finditer(rest)}
        with self._lock:
            if "bearer" in offers and offers["bearer"].get("realm"):
                self._mode = "bearer"
                self._realm, self._service = offers["bearer"]["realm"], offers["bearer"].get("service", "")
                if self._base.startswith("https:") and not self._realm.startswith("https:"):
                    raise RegistryError(f"{self._base} sends us to {shown_url(self._realm)} for a token, which is not https; credentials are not sent there.")
                if sent and sent.startswith("Bearer "):
                    # Refused or expired before its time: forget it, unless another thread has already fetched a newer one.
                    for held in [held for held, (token, _ends) in self._tokens.items() if token == sent[7:]]:
                        del self._tokens[held]
                return "Bearer " + (self._valid(scopes) or self._fetch(scopes))
            if "basic" in offers and self._credential and self._credential.username:
                self._mode = "basic"
                header = self._basic()
                return None if sent == header else header
        return None

    def _fetch(self, scopes: frozenset[str]) -> str:
        headers: dict[str, str] = {}
        fields = [("service", self._service)] if self._service else []
        credential = self._credential
        if credential and credential.identity_token:
            method, url = "POST", self._realm
            fields += [("client_id", "onprem-circleci-mirror"), ("grant_type", "refresh_token"), ("refresh_token", credential.identity_token)]
            fields.append(("scope", " ".join(sorted(scopes))))
            body: Optional[bytes] = urlencode(fields).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            method, body = "GET", None
            fields += [("scope", scope) for scope in sorted(scopes)]
            if credential and credential.username:
                headers["Authorization"] = self._basic()
            url = self._realm + ("&" if "?" in self._realm else "?") + urlencode(fields)
        attempt = 0
        while True:
            asked: Optional[float] = None
            try:
                with self._http.once(method, url, headers, body) as response:
                    if response.status == 200:
                        return self._keep(scopes, response.read(1 << 20))
                    if response.status not in _RETRY:
                        raise RegistryError(
                            f"{shown_url(self._realm)}: no token for {', '.join(sorted(scopes)) or 'the registry'}: "
                            f"status {response.status}. Check user and password.",
                            response.status,
                        )
                    asked = retry_after(response.headers)
            except Broken as error:
                if attempt + 1 >= self._patience.tries:
                    raise NetworkError(f"{shown_url(self._realm)}: {error}") from error
            attempt += 1
            if attempt >= self._patience.tries:
                raise NetworkError(f"{shown_url(self._realm)}: the token service is overloaded. Run the same command again.")
            sleep_or_stop(self._http.stop, self._patience.wait(attempt, asked))

    def _keep(self, scopes: frozenset[str], body: bytes) -> str:
        try:
            data = json.loads(body)
            token = str(data.get("token") or data["access_token"])
            life = float(data.get("expires_in") or 60)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RegistryError(f"{shown_url(self._realm)}: the token service gave no token.") from None
        # Renewed a little early, so that a body is seldom sent with a token that ends under way.
        self._tokens[scopes] = (token, time.monotonic() + life - min(30.0, life * 0.2))
        return token


def _shown_error(body: bytes) -> tuple[str, str]:
    try:
        first = json.loads(body)["errors"][0]
        return str(first.get("code") or ""), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""


class RegistryClient:
    """One registry, C(host), C(host:port), or either with the path below which it keeps repositories. Safe to use from many threads."""

    def __init__(
        self,
        host: str,
        username: Optional[str] = None,
        password: Optional[str] = None,
        *,
        ca_file: Optional[str] = None,
        ca_data: Optional[str] = None,
        client_cert: Optional[str] = None,
        client_key: Optional[str] = None,
        plain_http: bool = False,
        insecure_skip_verify: bool = False,
        credential: Optional[Credential] = None,
        http: Optional[HttpClient] = None,
        patience: Optional[Patience] = None,
        parallel: Optional[int] = None,
        parallel_most: int = 16,
    ) -> None:
        self.host = host
        server, _slash, path = host.partition("/")
        self._below = f"{path}/" if path else ""
        self.base = f"{'http' if plain_http else 'https'}://{'registry-1.docker.io' if server == DOCKER_HUB else server}"
        self.http = http or HttpClient(
            HttpOptions(
                ca_file=ca_file or None, ca_data=ca_data or None, client_cert=client_cert, client_key=client_key, insecure_skip_verify=insecure_skip_verify
            )
        )
        self.patience = patience or Patience()
        if credential is None and username:
            credential = Credential(username, password or "")
        self._auth = Authenticator(self.http, credential, self.base, self.patience)
        self.adaptive = Adaptive(parallel or parallel_start(not plain_http), parallel_most)
        self.push = False  # ask for push in each token: one token per repository instead of two
        self.retries = 0

    def close(self) -> None:
        self.http.close()

    # --- one request ------------------------------------------------------------------------------------------------

    def _scopes(self, repositories: Sequence[str]) -> frozenset[str]:
        if not repositories:
            return frozenset()
        action = "pull,push" if self.push else "pull"
        others = [f"repository:{self._below}{name}:pull" for name in repositories[1:] if name != repositories[0]]
        return frozenset([f"repository:{self._below}{repositories[0]}:{action}", *others])

    def _url(self, repository: str, what: str) -> str:
        return f"/v2/{self._below}{repository}/{what}"

    def request(
        self,
        method: str,
        url: str,
        repositories: Sequence[str] = (),
        *,
        scopes: Optional[frozenset[str]] = None,
        headers: Optional[dict[str, str]] = None,
        body: Body = None,
        good: Iterable[int] = (200,),
        what: str = "",
        repeat: bool = True,
        tick: Callable[[int], None] = lambda count: None,
    ) -> Response:
        """Send one request, patiently. Raises Broken only with ``repeat=False`` (bodies whose session must be looked after)."""
        url = follow(self.base, url)
        what = what or shown_url(url)
        scopes = self._scopes(repositories) if scopes is None else scopes
        attempt = challenges = redirects = 0
        origin = self.base
        while True:
            if self.http.stop.is_set() and repeat:
                sleep_or_stop(self.http.stop, 0)
            sent = self._auth.header(scopes) if same_host(url, origin) else None
            send = dict(headers or {})
            if sent:
                send["Authorization"] = sent
            asked: Optional[float] = None
            try:
                response = self.http.once(method, url, send, body, tick)
            except Broken as error:
                self.adaptive.back_off()
                if not repeat:
                    raise
                problem = str(error)
            else:
                status = response.status
                if status in good:
                    return response
                with response:
                    if status in _REDIRECT and method in ("GET", "HEAD") and response.headers.get("location"):
                        redirects += 1
                        target = follow(url, response.headers.get("location"))
                        if redirects > 10:
                            raise RegistryError(f"{what}: more than 10 redirects.")
                        if url.startswith("https:") and not target.startswith("https:"):
                            raise RegistryError(f"{what}: redirected from https to {shown_url(target)}; refused.")
                        url = target
                        continue
                    if status == 401 and same_host(url, origin):
                        challenges += 1
                        retry = self._auth.challenged(response.headers, scopes, sent) if challenges <= 2 else None
                        if retry is not None:
                            continue
                        raise RegistryError(
                            f"{what}: {self.host} wants {'other' if sent else ''} credentials (401). "
                            f"Give a user and password for {self.host}, or log in with docker or podman.",
                            401,
                        )
                    if status == 413:
                        raise TooLarge(what)
                    detail = b""
                    if method != "HEAD":
                        try:
                            detail = response.read(1 << 16)
                        except (Broken, MirrorError):
                            detail = b""
                    code, message = _shown_error(detail)
                    if status not in _RETRY:
                        raise RegistryError(
                            f"{what}: {self.host} answered {status}{f' {code}' if code else ''}{f': {message}' if message else ''}.", status, code
                        )
                    asked = retry_after(response.headers)
                    problem = f"status {status}{f' {code}' if code else ''}"
                    self.adaptive.back_off()
                    if not repeat and status != 429 and asked is None:
                        raise Broken(problem)
            attempt += 1
            self.retries += 1
            if attempt >= self.patience.tries:
                raise NetworkError(f"{what}: {problem}, {attempt} times. What was done is kept; run the same command again.")
            # A little disorder keeps threads from coming back all at once.
            sleep_or_stop(self.http.stop, self.patience.wait(attempt - 1, asked) * (1.0 + random.random() * 0.1))  # noqa: S311

    # --- reading ----------------------------------------------------------------------------------------------------

    def _manifest_url(self, repository: str, reference: str) -> str:
        return self._url(check_repository(repository, repository), f"manifests/{quote(reference, safe=':')}")

    def head_manifest(self, repository: str, reference: str) -> Optional[str]:
        """The digest behind a tag (or a digest that is there); None when there is none. One request, no quota."""
        url = self._manifest_url(repository, reference)
        with self.request("HEAD", url, [repository], headers={"Accept": ACCEPT}, good=(200, 404), what=f"{self.host}/{repository}:{reference}") as response:
            if response.status == 404:
                return None
            digest = response.headers.get("docker-content-digest")
        if is_digest(digest):
            return digest
        # Some registries leave the header out of HEAD.
        return self.get_manifest(repository, reference).digest

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest behind a tag or a digest; its bytes are checked against the digest."""
        what = f"{self.host}/{repository}{'@' if is_digest(reference) else ':'}{reference}"
        url = self._manifest_url(repository, reference)
        for attempt in range(self.patience.tries):
            try:
                with self.request("GET", url, [repository], headers={"Accept": ACCEPT}, what=what) as response:
                    body = response.read(MANIFEST_LIMIT)
                    media_type, told = response.headers.get("content-type"), response.headers.get("docker-content-digest")
                break
            except Broken as error:
                self.retries += 1
                if attempt + 1 >= self.patience.tries:
                    raise NetworkError(f"{what}: {error}") from error
                sleep_or_stop(self.http.stop, self.patience.wait(attempt, None))
        manifest = Manifest.from_body(body, media_type, what)
        wanted = reference if is_digest(reference) else told if is_digest(told) else manifest.digest
        if manifest.digest != wanted:
            raise DigestMismatch(f"{what}: the content has the digest {manifest.digest}, expected {wanted}. Nothing was kept.")
        return manifest

    def head_blob(self, repository: str, digest: str) -> Optional[int]:
        """The size of a blob in a repository, None when it is not there."""
        url, what = self._url(repository, f"blobs/{digest}"), f"{self.host}/{repository}@{digest}"
        with self.request("HEAD", url, [repository], good=(200, 404), what=what) as response:
            if response.status == 404:
                return None
            text = response.headers.get("content-length")
            return int(text) if text.isdigit() else 0

    def open_blob(self, repository: str, digest: str, offset: int = 0, end: Optional[int] = None) -> Response:
        """A blob as a stream, from *offset* on when the registry can do that (206), else from its start (200)."""
        headers = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"} if offset or end is not None else {}
        return self.request(
            "GET", self._url(repository, f"blobs/{digest}"), [repository], headers=headers, good=(200, 206, 416), what=f"{self.host}/{repository}@{digest}"
        )

    def stream_blob(self, repository: str, digest: str, sink: Callable[[memoryview], object], limit: Optional[int] = None) -> int:
        """Send a whole blob to *sink*, checked; broken connections go on where they broke."""
        what = f"{self.host}/{repository}@{digest}"
        buffer = memoryview(bytearray(BUFFER))
        hasher, done, fruitless = hashlib.sha256(), 0, 0
        while True:
            before = done
            try:
                with self.open_blob(repository, digest, done) as response:
                    if response.status == 416:
                        raise DigestMismatch(f"{what}: the registry has fewer bytes than it should.")
                    skip = done if response.status == 200 else 0
                    while True:
                        count = response.read_into(buffer)
                        if not count:
                            break
                        view = buffer[min(skip, count) : count]
                        skip -= min(skip, count)
                        hasher.update(view)
                        done += len(view)
                        if limit is not None and done > limit:
                            raise RegistryError(f"{what}: is larger than the {limit} bytes expected.")
                        sink(view)
                break
            except Broken as error:
                fruitless = 0 if done > before else fruitless + 1
                self.retries += 1
                if fruitless >= self.patience.tries:
                    raise NetworkError(f"{what}: {error}") from error
                sleep_or_stop(self.http.stop, self.patience.wait(fruitless, None))
        if "sha256:" + hasher.hexdigest() != digest:
            raise DigestMismatch(f"{what}: the content has the digest sha256:{hasher.hexdigest()}. Nothing was kept.")
        return done

    def get_blob(self, repository: str, digest: str, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob in memory."""
        data = bytearray()
        self.stream_blob(repository, digest, data.extend, limit)
        return bytes(data)

    def blob_to_file(self, repository: str, digest: str, path: Union[str, Path], mode: int = 0o644) -> int:
        """A blob into a file, which appears only when it is whole and checked."""
        import tempfile

        target = Path(path)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                size = self.stream_blob(repository, digest, stream.write)
                os.fchmod(stream.fileno(), mode)
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        return size

    def _pages(self, url: str, key: str, scopes: frozenset[str], what: str) -> list[str]:
        found: list[str] = []
        while True:
            with self.request("GET", url, scopes=scopes, good=(200, 404), what=what) as response:
                if response.status == 404:
                    return found
                try:
                    data = json.loads(response.read(32 << 20))
                except (ValueError, Broken) as error:
                    raise RegistryError(f"{what}: the list cannot be read: {error}") from error
                found.extend(str(item) for item in data.get(key) or [])
                link = response.headers.get("link")
            match = re.match(r'<([^>]+)>\s*;.*rel="?next"?', link)
            if not match:
                return found
            url = match[1]

    def list_tags(self, repository: str) -> list[str]:
        """All tags of a repository; none when it is not there."""
        return self._pages(self._url(repository, "tags/list?n=1000"), "tags", self._scopes([repository]), f"tags of {self.host}/{repository}")

    def list_repositories(self) -> list[str]:
        """All repositories that the registry lists; with a path, those below it."""
        found = self._pages("/v2/_catalog?n=1000", "repositories", frozenset({"registry:catalog:*"}), f"catalog of {self.host}")
        return [name[len(self._below) :] for name in found if name.startswith(self._below)]

    # --- writing ----------------------------------------------------------------------------------------------------

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Take a manifest away; False when it was not there."""
        what = f"{self.host}/{repository}@{digest}"
        scopes = frozenset({f"repository:{self._below}{repository}:delete,pull,push"})
        try:
            with self.request("DELETE", self._manifest_url(repository, digest), scopes=scopes, good=(202, 200, 404), what=what) as response:
                return response.status != 404
        except RegistryError as error:
            if error.status == 405:
                raise RegistryError(
                    f"{what}: {self.host} does not allow deleting (405). On distribution set storage.delete.enabled: true, then run again.", 405
                ) from error
            raise

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Put a manifest under a tag or its digest; the registry's digest must be ours."""
        what = f"{self.host}/{repository}{'@' if is_digest(reference) else ':'}{reference}"
        url = self._manifest_url(repository, reference)
        with self.request(
            "PUT", url, [repository], headers={"Content-Type": manifest.media_type}, body=manifest.body, good=(201, 200, 202), what=what
        ) as response:
            told = response.headers.get("docker-content-digest")
        if is_digest(told) and told != manifest.digest:
            raise DigestMismatch(f"{what}: {self.host} stored it as {told}, it is {manifest.digest}.")

    def _upload(self, response: Response, before: Optional[Upload] = None) -> Upload:
        location = response.headers.get("location")
        if not location:
            raise RegistryError(f"{shown_url(response.url)}: {self.host} started an upload but did not say where.")
        cookies = [item.split(";")[0] for item in response.headers.get_all("set-cookie")]
        return Upload(follow(response.url, location), "; ".join(cookies) or (before.cookie if before else ""))

    def start_upload(self, repository: str, digest: str = "", mount_from: str = "") -> Optional[Upload]:
        """Open an upload. With *mount_from* the registry is first asked to take the blob from there: None means it has."""
        url = self._url(repository, "blobs/uploads/")
        repositories = [repository]
        if mount_from:
            url += "?" + urlencode({"mount": digest, "from": self._below + mount_from})
            repositories.append(mount_from)
        with self.request("POST", url, repositories, good=(201, 202), what=f"{self.host}/{repository}: upload") as response:
            return None if response.status == 201 else self._upload(response)

    def _cookies(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        if upload.cookie and same_host(upload.location, self.base):
            headers["Cookie"] = upload.cookie
        return headers

    def _lost(self, error: RegistryError, what: str) -> Exception:
        return UploadLost(f"{what}: {error}") if error.status in (400, 404, 410, 416) and error.code != "DIGEST_INVALID" else error

    def finish_upload(
        self, repository: str, upload: Upload, digest: str, slices: Sequence[Slice] = (), tick: Callable[[int], None] = lambda count: None
    ) -> None:
        """Send the last (or only) piece and close the upload. Raises Broken, UploadLost, TooLarge."""
        url = upload.location + ("&" if urlsplit(upload.location).query else "?") + urlencode({"digest": digest})
        headers = self._cookies(upload, {"Content-Type": "application/octet-stream"})
        what = f"{self.host}/{repository}@{digest}"
        try:
            with self.request("PUT", url, [repository], headers=headers, body=list(slices), good=(201, 204), what=what, repeat=False, tick=tick) as response:
                told = response.headers.get("docker-content-digest")
        except RegistryError as error:
            raise self._lost(error, what) from error
        if is_digest(told) and told != digest:
            raise DigestMismatch(f"{what}: {self.host} stored it as {told}.")

    def patch_upload(self, repository: str, upload: Upload, slices: Sequence[Slice], tick: Callable[[int], None] = lambda count: None) -> Upload:
        """Send one chunk; the answer says where the next one goes. Raises Broken, UploadLost, TooLarge."""
        size = sum(piece.size for piece in slices)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{upload.offset}-{upload.offset + size - 1}"}
        what = f"{self.host}/{repository}: upload"
        try:
            with self.request(
                "PATCH",
                upload.location,
                [repository],
                headers=self._cookies(upload, headers),
                body=list(slices),
                good=(202, 201, 204),
                what=what,
                repeat=False,
                tick=tick,
            ) as response:
                after = self._upload(response, upload)
                after.offset = upload.offset + size
                told = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range"))
                if told and int(told[1]) + 1 != after.offset:
                    raise UploadLost(f"{what}: {self.host} has {int(told[1]) + 1} bytes, we sent {after.offset}")
                return after
        except RegistryError as error:
            raise self._lost(error, what) from error

    def upload_status(self, repository: str, upload: Upload) -> Optional[Upload]:
        """Where an upload of an earlier run stands; None when the registry does not know it any more."""
        try:
            with self.request(
                "GET", upload.location, [repository], headers=self._cookies(upload, {}), good=(204, 202, 200), what=f"{self.host}/{repository}: upload"
            ) as response:
                told = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range"))
                location = response.headers.get("location")
        except RegistryError:
            return None
        if not told:
            return None
        # "0-0" means both nothing and one byte; nobody sends one byte.
        offset = int(told[1]) + 1 if int(told[1]) else 0
        return Upload(follow(upload.location, location) if location else upload.location, upload.cookie, offset)

    def cancel_upload(self, repository: str, upload: Upload) -> None:
        """Tell the registry to forget an upload; not all can."""
        with contextlib.suppress(RegistryError, Broken, MirrorError):
            self.request("DELETE", upload.location, [repository], good=(204, 202, 200, 404, 405), repeat=False).__exit__(None)

    def push_blob(self, repository: str, data: bytes) -> str:
        """Put a small blob into a repository, unless it is there."""
        digest = digest_of(data)
        upload = self.start_upload(repository, digest, repository)
        if upload is not None:
            url = upload.location + ("&" if urlsplit(upload.location).query else "?") + urlencode({"digest": digest})
            headers = self._cookies(upload, {"Content-Type": "application/octet-stream"})
            self.request("PUT", url, [repository], headers=headers, body=data, good=(201, 204), what=f"{self.host}/{repository}@{digest}").__exit__(None)
        return digest
