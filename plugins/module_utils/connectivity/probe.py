# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Tries many connections at once with a bound, and says of each what was found and whether that was wanted."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Union

from .certificates import CertificateError, days_left, not_after
from .flows import Flow

# What must stay closed is waited for in vain. A wait costs a socket and nothing else, so it takes no turn from other connections; two seconds are two
# packets without an answer, since the kernel sends the second after one.
SILENT_AT_ONCE = 256
SILENT_SECONDS = 2.0
# A packet filter that answers instead of keeping silent says one of these.
REJECTED = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)


@dataclass
class Outcome:
    """What a connection found. ``verdict`` is proved, failed or unproved (nothing can be said either way)."""

    name: str
    address: str
    port: int
    protocol: str
    expect: str
    found: str = ""
    verdict: str = ""
    detail: str = ""
    milliseconds: int = 0
    days_left: Optional[int] = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, the flow's own keys beside the findings."""
        result = asdict(self)
        result.update(result.pop("extra"))
        return result


def judge(expect: str, found: str) -> str:
    """The verdict on what was found."""
    if found in ("name", "error"):
        return "failed"
    if expect == "closed":
        # A refusal may come from a host without a listener as well as from a packet filter: it proves neither.
        return {"timeout": "proved", "rejected": "proved", "open": "failed"}.get(found, "unproved")
    if expect == "reachable":
        if found == "no answer":
            return "unproved"
        return "proved" if found in ("open", "refused") else "failed"
    if expect == "open":
        return "proved" if found == "open" else "unproved" if found == "no answer" else "failed"
    return "proved" if found == expect else "failed"


def _why(error: BaseException) -> tuple[str, str]:
    """Found and detail of a failed connection."""
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timeout", "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "untrusted", error.verify_message or str(error)
    if isinstance(error, ssl.SSLError):
        return "no tls", str(error.reason or error)
    if isinstance(error, ConnectionRefusedError):
        return "refused", "nothing listens, or a packet filter refused"
    if isinstance(error, OSError):
        if isinstance(error, socket.gaierror):
            return "name", f"the name does not resolve: {error.strerror}"
        if error.errno in REJECTED:
            return "rejected", error.strerror or str(error)
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            return "reset", "the connection was cut"
        if error.errno == errno.ETIMEDOUT:
            return "timeout", "no answer in time"
        return "error", str(error)
    return "error", str(error)


def _context(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(cadata=ca)
    return context


async def _end_of_untrusted(flow: Flow) -> Optional[int]:
    """Days left of a certificate that did not verify: an expired one is then told as such."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _reader, writer = await asyncio.wait_for(
            asyncio.open_connection(flow.address, flow.port, ssl=context, server_hostname=flow.server_name), flow.timeout
        )
    except (OSError, ssl.SSLError, asyncio.TimeoutError):
        return None
    try:
        return _days(writer)
    finally:
        writer.close()


def _days(writer: asyncio.StreamWriter) -> Optional[int]:
    tls = writer.get_extra_info("ssl_object")
    der = tls.getpeercert(True) if tls is not None else None
    if not der:
        return None
    try:
        return days_left(not_after(der))
    except CertificateError:
        return None


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: Flow, outcome: Outcome, word: str) -> None:
    request = f"GET {flow.path} HTTP/1.1\r\nHost: {flow.server_name}\r\nUser-Agent: onprem-circleci-verify\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    await writer.drain()
    line = (await asyncio.wait_for(reader.readline(), flow.timeout)).decode("latin-1").strip()
    words = line.split()
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        outcome.found, outcome.detail = "no http", f"answered {line[:60]!r}"
        return
    status = int(words[1])
    wanted = status in flow.status if flow.status else status < 500
    outcome.found = word if wanted else f"{word} {status}"
    outcome.detail = f"status {status}"


async def _tcp(flow: Flow, outcome: Outcome, context: Optional[ssl.SSLContext]) -> None:
    secure = flow.expect in ("tls", "https")
    options: dict[str, Any] = {"ssl": context, "server_hostname": flow.server_name} if secure else {}
    seconds = min(flow.timeout, SILENT_SECONDS) if flow.expect == "closed" else flow.timeout
    reader, writer = await asyncio.wait_for(asyncio.open_connection(flow.address, flow.port, **options), seconds)
    try:
        outcome.found = "tls" if secure else "open"
        if secure:
            outcome.days_left = _days(writer)
        if flow.expect in ("http", "https"):
            await _http(reader, writer, flow, outcome, flow.expect)
    finally:
        writer.close()


class _Datagram(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Union[tuple[str, int], Any]) -> None:
        if not self.answer.done():
            self.answer.set_result("open")

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_result("refused" if isinstance(exc, ConnectionRefusedError) else "rejected")


async def _udp(flow: Flow, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_Datagram, remote_addr=(flow.address, flow.port))
    try:
        transport.sendto(flow.datagram)
        outcome.found = await asyncio.wait_for(asyncio.shield(protocol.answer), min(flow.timeout, 1.0))
    except asyncio.TimeoutError:
        outcome.found, outcome.detail = "no answer", "a datagram that nobody answers proves nothing"
    finally:
        transport.close()


async def _one(flow: Flow, limit: asyncio.Semaphore, context: Optional[ssl.SSLContext], minimum_days: int) -> Outcome:
    outcome = Outcome(flow.name, flow.address, flow.port, flow.protocol, flow.expect, extra=dict(flow.extra))
    async with limit:
        start = time.monotonic()
        try:
            if flow.protocol == "udp":
                await _udp(flow, outcome)
            else:
                await _tcp(flow, outcome, context)
        except (OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            outcome.found, outcome.detail = _why(error)
            if outcome.found == "untrusted":
                outcome.days_left = await _end_of_untrusted(flow)
        outcome.milliseconds = int((time.monotonic() - start) * 1000)
    outcome.verdict = judge(flow.expect, outcome.found)
    if outcome.days_left is not None and outcome.days_left < 0:
        outcome.detail = f"the certificate ended {-outcome.days_left} days ago"
        outcome.verdict = "failed"
    elif outcome.days_left is not None and outcome.days_left < minimum_days and not outcome.detail:
        outcome.detail = f"the certificate ends in {outcome.days_left} days"
    return outcome


async def _all(flows: Sequence[Flow], parallel: int, ca: str, minimum_days: int) -> list[Outcome]:
    limit, silent = asyncio.Semaphore(parallel), asyncio.Semaphore(SILENT_AT_ONCE)
    context = _context(ca) if any(flow.expect in ("tls", "https") for flow in flows) else None
    return list(await asyncio.gather(*(_one(flow, silent if flow.expect == "closed" else limit, context, minimum_days) for flow in flows)))


def probe(flows: Sequence[Flow], parallel: int = 64, ca: str = "", minimum_days: int = 30) -> list[Outcome]:
    """Try all flows, at most ``parallel`` at a time beside those that must stay closed; the order of the results is that of the flows."""
    return asyncio.run(_all(flows, parallel, ca, minimum_days)) if flows else []
