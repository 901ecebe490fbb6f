# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two ways to a Nomad server: through the API server of the cluster that runs it, or straight to its address with a client certificate."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import quote, urlencode, urlsplit

from ..helm.kube import KubeApi, KubeError

NOBODY = (0, 429, 502, 503, 504)
"""Answers of somebody in between, or of a Nomad that has no leader yet: asking again may help."""


class NomadError(Exception):
    """Nomad refused, or could not be reached (status 0). The text is a sentence for the operator."""

    def __init__(self, message: str, status: int = 0, passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.passing = passing or status in NOBODY


class Transport(Protocol):
    """One request below ``/v1``. The tests have a strict stand-in for it."""

    def request(self, method: str, path: str, query: Optional[Mapping[str, str]] = None, body: Any = None) -> Any:
        """The decoded answer (a text when it is no JSON); NomadError otherwise."""


def _refused(status: int, text: str, what: str) -> NomadError:
    text = " ".join(text.split())[:500]
    if status == 403:
        return NomadError(
            f"Nomad answered 403 to {what} ({text}): it demands an ACL token, which CircleCI Server does not use. Switch ACLs off, or allow anonymous jobs.",
            status,
        )
    # Nomad tells an election, and a server that is lost on the way to the leader, with status 500.
    passing = status == 500 and any(words in text for words in ("No cluster leader", "rpc error", "EOF", "connection refused", "Not ready"))
    return NomadError(f"Nomad answered {status} to {what}: {text or 'no reason'}", status, passing)


class ClusterTransport:
    """Through the API server's proxy to the service of the Nomad servers; no port has to be open for it."""

    def __init__(self, api: KubeApi, namespace: str, service: str) -> None:
        self._api = api
        self._namespace = namespace
        self._service = service
        self._base = f"/api/v1/namespaces/{quote(namespace)}/services/{quote(service, safe=':')}/proxy/v1"

    def request(self, method: str, path: str, query: Optional[Mapping[str, str]] = None, body: Any = None) -> Any:
        what = f"{method} /v1/{path}"
        try:
            answer = self._api.request(method, f"{self._base}/{path}", dict(query or {}) or None, body)
        except KubeError as error:
            raise self._explained(error, what) from error
        return _decoded(answer)

    def _explained(self, error: KubeError, what: str) -> NomadError:
        where = f"service {self._service} in namespace {self._namespace}"
        if error.status == 404 and "services" in error.message and "not found" in error.message:
            return NomadError(f"the cluster has no {where}: install the release, or give the address of Nomad servers outside the cluster.", 404)
        if error.status == 503 and "no endpoints" in error.message:
            return NomadError(f"no Nomad server is ready behind {where}: look at `kubectl -n {self._namespace} get pods -l app=nomad-server`.", 503)
        if error.status == 403 and "forbidden" in error.message:
            return NomadError(f"{error.sentence} It needs get, create and delete on services/proxy in namespace {self._namespace}.", 403)
        if error.status in (0, 401):
            return NomadError(error.sentence, error.status)
        return _refused(error.status, error.message, what)


class AddressTransport:
    """Straight to servers outside the cluster, which want a client certificate of their own authority."""

    def __init__(self, address: str, ca: str = "", certificate: str = "", key: str = "", timeout: float = 60.0) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.path.strip("/"):
            raise NomadError(f"the address of Nomad is {address!r}; it must be http(s)://host[:port] and nothing behind it", 400)
        if bool(certificate) != bool(key):
            raise NomadError("a client certificate for Nomad needs both the certificate and its key", 400)
        self._host, self._port = parts.hostname, parts.port or 4646
        self._timeout = timeout
        self._tls: Optional[ssl.SSLContext] = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cadata=ca or None)
                if certificate:
                    _load_pair(self._tls, certificate, key)
            except (ssl.SSLError, ValueError) as error:
                raise NomadError(f"the certificates for Nomad at {address} are no PEM that fits together ({error})", 400) from error

    def request(self, method: str, path: str, query: Optional[Mapping[str, str]] = None, body: Any = None) -> Any:
        target = f"/v1/{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, target, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except ssl.SSLCertVerificationError as error:
            raise NomadError(
                f"Nomad at {self._host}:{self._port} has a certificate that is not trusted here ({error.verify_message}): give the PEM of its authority.", 495
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NomadError(
                f"Nomad at {self._host}:{self._port} cannot be reached ({error}): are its "
                "servers up, the port open and the client certificate of its authority?"
            ) from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise _refused(answer.status, text, f"{method} /v1/{path}")
        return _decoded(text)


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Python takes a pair from a file only; it is readable by its owner and gone at once."""
    handle, name = tempfile.mkstemp(prefix="nomad-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(certificate.rstrip("\n") + "\n" + key)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def _decoded(answer: Any) -> Any:
    if not isinstance(answer, str):
        return answer
    try:
        return json.loads(answer)
    except ValueError:
        return answer
