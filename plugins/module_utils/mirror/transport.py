# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP/1.1 client made for moving blobs: kept connections, sendfile, big reads, stall detection, proxies, TLS.

``http.client`` is not used because its parser costs more than most of our requests, and because it hides the socket that sendfile needs.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional, Union
from urllib.parse import unquote, urljoin, urlsplit

from .errors import Broken, MirrorError, NetworkError, RegistryError, Stopped, UsageError
from .limits import TokenBucket

USER_AGENT = "onprem-circleci-mirror/1"
BUFFER = 1 << 18
HEADER_LIMIT = 1 << 16
_RECORD = 5 + (1 << 14) + 256  # a record of TLS at its longest
_PLAINTEXT = 1 << 15  # encrypted and sent at once; what is larger is memory that the kernel has to give for each piece
_CIPHERTEXT = 1 << 18  # read at once; larger brings little and is held twice by each of up to 32 lanes
SLOWEST = 1024  # bytes per second below which a transfer counts as stalled
_KERNEL_TIMEOUTS = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Slice:
    """A piece of an open file."""

    fd: int
    offset: int
    size: int


Body = Union[bytes, Sequence[Slice], None]


@dataclass(frozen=True)
class HttpOptions:
    """Everything about transport that is the same for all hosts."""

    ca_file: Optional[str] = None
    ca_data: Optional[str] = None
    client_cert: Optional[str] = None
    client_key: Optional[str] = None
    insecure_skip_verify: bool = False
    connect_timeout: float = 20.0
    stall_timeout: float = 30.0
    answer_timeout: float = 600.0
    proxies_from_environment: bool = True
    bucket: Optional[TokenBucket] = field(default=None, compare=False)


def tls_context(options: HttpOptions) -> ssl.SSLContext:
    """The system's certificate authorities plus the site's own, and our certificate when there is one."""
    context = ssl.create_default_context()
    try:
        if options.ca_file or options.ca_data:
            context.load_verify_locations(cafile=options.ca_file or None, cadata=options.ca_data or None)
        if options.client_cert:
            context.load_cert_chain(options.client_cert, options.client_key or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The CA certificate {options.ca_file or '(given as text)'} or client certificate "
            f"{options.client_cert or '(none)'} cannot be read: {error}. PEM files are wanted."
        ) from error
    if options.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _in_network(host: str, rule: str) -> bool:
    """Whether an address lies in a network, as Go and the tools of Kubernetes take one in no_proxy."""
    import ipaddress  # few need it

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False


def _environment_proxy(scheme: str, host: str, port: int) -> Optional[str]:
    """The proxy that the environment asks for, as curl and Go read it."""

    def get(name: str) -> str:
        # Upper-case HTTP_PROXY is ignored by curl because of CGI; nothing here runs as CGI.
        return os.environ.get(name) or os.environ.get(name.upper()) or ""

    for rule in get("no_proxy").split(","):
        rule = rule.strip().lower()
        if not rule:
            continue
        name, _colon, rule_port = rule.rpartition(":") if rule.count(":") == 1 else (rule, "", "")
        if rule_port and rule_port != str(port):
            continue
        name = name.lstrip("*").lstrip(".")
        if rule == "*" or host == name or host.endswith("." + name) or _in_network(host, rule):
            return None
    if host in ("localhost", "127.0.0.1", "::1"):
        return None
    return get(f"{scheme}_proxy") or get("all_proxy") or None


class Headers:
    """Header fields, names in lower case."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def get(self, name: str, default: str = "") -> str:
        for key, value in self._pairs:
            if key == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]


class _Raw(threading.local):
    """What came from the network and is not yet decrypted; one for each thread, as it is empty between two calls."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CIPHERTEXT))


_raw = _Raw()


class TlsStream:
    """TLS over a socket that we read ourselves.

    ``SSLSocket`` asks the kernel twice for each record of 16 KiB, and each time the peer gets an acknowledgement of its own: over loopback that costs
    both sides more than decrypting. Here many records come in one call.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self.patience = sock.gettimeout() or 0.0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        done = False
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                # The alert tells the peer why.
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            self._flush()
            if not done:
                self._receive(0)

    def _flush(self) -> None:
        if self._outgoing.pending > 0:
            self._sock.sendall(self._outgoing.read())

    def _receive(self, surely: int) -> bool:
        """Take what comes, and wait for *surely* bytes of it where the peer will send as many; whether they came in time."""
        view, flags = (_raw.view[:surely], socket.MSG_WAITALL) if surely > 0 and _KERNEL_TIMEOUTS else (_raw.view, 0)
        count = self._sock.recv_into(view, len(view), flags)
        if count:
            self._incoming.write(view[:count])
        else:
            self._incoming.write_eof()
        return count >= min(surely, len(view))

    def sendall(self, data: Union[bytes, memoryview]) -> None:
        """Encrypt and send; in pieces, so that a long body is not held twice."""
        rest = memoryview(data)
        while len(rest):
            piece, rest = rest[:_PLAINTEXT], rest[_PLAINTEXT:]
            while len(piece):
                try:
                    piece = piece[self._tls.write(piece) :]
                except ssl.SSLWantReadError:
                    self._flush()
                    self._receive(0)
            self._flush()

    def recv_into(self, view: memoryview) -> int:
        """Fill *view*, of which the peer will send every byte, as far as whole records come in time; 0 when the peer closed."""
        count, size, in_time, patience_ends = 0, len(view), True, 0.0
        while True:
            try:
                while count < size:
                    # With a buffer, any writable one, it returns a count.
                    got: int = self._tls.read(size - count, view[count:])  # type: ignore[arg-type, assignment]
                    if not got:
                        break
                    count += got
                return count
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLEOFError:
                # Closed without a goodbye; who knows how much should have come sees that it is short.
                return count
            # One more record may be there in part; waiting for more than all others would be waiting for ever.
            surely = size - count - _RECORD
            if count and (surely <= 0 or not in_time):
                return count
            now = time.monotonic()
            patience_ends = patience_ends or now + self.patience
            if now >= patience_ends:
                raise socket.timeout("no whole record")
            try:
                in_time = self._receive(surely)
            except OSError:
                if not count:
                    raise
                # What came is kept; the next read tells what is wrong.
                return count

    def recv(self, most: int) -> bytes:
        """What is there, and at least one byte; empty when the peer closed."""
        while True:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLEOFError:
                return b""
            self._receive(0)

    @property
    def idle(self) -> bool:
        """Whether nothing is left that came and was not read."""
        return not self._incoming.pending and not self._tls.pending()


class Connection:
    """One connection to one host, maybe through a proxy."""

    def __init__(self, sock: socket.socket, tls: Optional[TlsStream], via_proxy: bool, proxy_header: str, options: HttpOptions) -> None:
        self.sock = sock
        self.tls = tls
        self.stream: Union[socket.socket, TlsStream] = tls or sock
        self.absolute = via_proxy
        self.proxy_header = proxy_header
        self.options = options
        self.left = b""  # bytes that came with the headers and belong to the body
        self.used = False
        self._timeout = -1.0
        self.set_timeout(options.stall_timeout)

    def set_timeout(self, seconds: float) -> None:
        """Give up on reads and writes after *seconds* without any byte."""
        if seconds == self._timeout:
            return
        self._timeout = seconds
        if self.tls:
            self.tls.patience = seconds
        if not _KERNEL_TIMEOUTS:
            self.sock.settimeout(seconds)
            return
        # A blocking socket with kernel timeouts saves a poll for each read and write.
        self.sock.settimeout(None)
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()

    def alive(self) -> bool:
        """Whether a kept connection is still open: an idle one has nothing to read."""
        try:
            readable = select.select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False
        return not readable and (self.tls is None or self.tls.idle)

    def send(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except (OSError, ssl.SSLError) as error:
            raise Broken(f"sending failed: {_reason(error)}") from error

    def send_slices(self, slices: Sequence[Slice], tick: Callable[[int], None]) -> None:
        """Send file content: from the kernel on plain HTTP, in 256 KiB pieces over TLS."""
        bucket = self.options.bucket
        for piece in slices:
            offset, end = piece.offset, piece.offset + piece.size
            while offset < end:
                want = min(end - offset, bucket.piece if bucket else 1 << 22)
                if bucket:
                    bucket.take(want)
                try:
                    if self.tls:
                        data = os.pread(piece.fd, min(want, BUFFER), offset)
                        self.tls.sendall(data)
                        sent = len(data)
                    else:
                        sent = os.sendfile(self.sock.fileno(), piece.fd, offset, want)
                except BlockingIOError as error:
                    raise Broken(f"sending stalled for {self._timeout:.0f} s") from error
                except (OSError, ssl.SSLError) as error:
                    raise Broken(f"sending failed: {_reason(error)}") from error
                if sent == 0:
                    raise MirrorError("A file became shorter while it was sent; verify the bundle and run again.")
                offset += sent
                tick(sent)

    def receive_head(self) -> bytes:
        data = self.left
        self.left = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                self.left = data[end + 4 :]
                return data[:end]
            if len(data) > HEADER_LIMIT:
                raise RegistryError("The answer's header is longer than 64 KiB; this is not a registry.")
            try:
                piece = self.stream.recv(1 << 16)
            except (BlockingIOError, socket.timeout) as error:
                raise Broken(f"no answer for {self._timeout:.0f} s") from error
            except (OSError, ssl.SSLError) as error:
                raise Broken(f"receiving failed: {_reason(error)}") from error
            if not piece:
                raise Broken("the connection was closed before an answer" if not data else "the connection was closed in the middle of a header")
            data += piece

    def receive_into(self, view: memoryview) -> int:
        """Fill *view* as far as bytes come; 0 when the peer closed."""
        if self.left:
            count = min(len(view), len(self.left))
            view[:count] = self.left[:count]
            self.left = self.left[count:]
            return count
        try:
            if self.tls:
                return self.tls.recv_into(view)
            if not _KERNEL_TIMEOUTS:
                return self._fill(view)
            return self.sock.recv_into(view, len(view), socket.MSG_WAITALL)
        except (BlockingIOError, socket.timeout) as error:
            raise Broken(f"stalled: nothing came for {self._timeout:.0f} s") from error
        except (OSError, ssl.SSLError) as error:
            raise Broken(f"receiving failed: {_reason(error)}") from error

    def _fill(self, view: memoryview) -> int:
        """Join what comes in small pieces, as hashing and writing cost by the piece. A slow line gets back what came in time."""
        count, patience_ends = self.sock.recv_into(view), time.monotonic() + self._timeout
        while 0 < count < len(view) and time.monotonic() < patience_ends:
            try:
                more = self.sock.recv_into(view[count:])
            except (OSError, ssl.SSLError):
                # What came is kept; the next read tells what is wrong.
                break
            if not more:
                break
            count += more
        return count


class Response:
    """An answer; use it as a context manager so that the connection is kept or closed."""

    def __init__(self, client: HttpClient, key: tuple[str, str, int], connection: Connection, method: str, url: str, head: bytes) -> None:
        self.url = url
        self._client, self._key, self._connection = client, key, connection
        lines = head.decode("latin-1").split("\r\n")
        try:
            version, status, *_reason_words = lines[0].split(" ", 2)
            self.status = int(status)
        except ValueError:
            raise RegistryError(f"{url}: the answer starts with {lines[0][:60]!r}, which is not HTTP. Plain HTTP and TLS mixed up?") from None
        pairs = []
        for line in lines[1:]:
            name, _colon, value = line.partition(":")
            pairs.append((name.strip().lower(), value.strip()))
        self.headers = Headers(pairs)
        self._keep = version == "HTTP/1.1" and not any("close" in value.lower() for value in self.headers.get_all("connection"))
        self._chunked = "chunked" in self.headers.get("transfer-encoding").lower()
        self.length: Optional[int] = None  # None: until the chunks or the connection end
        if method == "HEAD" or self.status in (204, 304) or self.status < 200:
            self.length, self._chunked = 0, False
        elif not self._chunked:
            text = self.headers.get("content-length")
            if text.isdigit():
                self.length = int(text)
            elif text:
                raise RegistryError(f"{url}: Content-Length is {text[:40]!r}.")
            else:
                self._keep = False
        self._remaining = self.length
        self._chunk_left = 0
        self._ended = self.length == 0
        self._window_start = time.monotonic()
        self._window_bytes = 0

    def __enter__(self) -> Response:
        return self

    def __exit__(self, kind: object, *_exc: object) -> None:
        if kind is None and not self._ended and self.length is not None and self._remaining is not None and self._remaining <= 1 << 16:
            with contextlib.suppress(Broken, MirrorError):
                self.read(1 << 16)
        if self._ended and self._keep and not self._connection.left and kind is None:
            self._client.give_back(self._key, self._connection)
        else:
            self._connection.close()

    def _line(self) -> bytes:
        data = self._connection.left
        while b"\r\n" not in data:
            if len(data) > 4096:
                raise Broken("a chunk header makes no sense")
            buffer = bytearray(1)
            self._connection.left = b""
            if not self._connection.receive_into(memoryview(buffer)):
                raise Broken("the connection was closed inside a chunked body")
            data += bytes(buffer)
        line, _end, self._connection.left = data.partition(b"\r\n")
        return line

    def _next_chunk(self) -> bool:
        try:
            size = int(self._line().split(b";")[0], 16)
        except ValueError:
            raise Broken("a chunk size makes no sense") from None
        if size:
            self._chunk_left = size
            return True
        while self._line():  # trailers
            pass
        self._ended = True
        return False

    def read_into(self, view: memoryview) -> int:
        """Put the next bytes of the body into *view*; 0 at its end. Raises Broken on a short body or a stall."""
        if self._ended or not len(view):
            return 0
        if self._chunked:
            if not self._chunk_left and not self._next_chunk():
                return 0
            view = view[: self._chunk_left]
        elif self._remaining is not None:
            view = view[: self._remaining]
        bucket = self._client.options.bucket
        if bucket:
            view = view[: bucket.piece]
        count = self._connection.receive_into(view)
        if bucket:
            bucket.take(count)
        if count == 0:
            if self._remaining is None and not self._chunked:
                self._ended = True
                return 0
            raise Broken("the connection was closed in the middle of the body")
        if self._chunked:
            self._chunk_left -= count
            if not self._chunk_left:
                self._line()
        elif self._remaining is not None:
            self._remaining -= count
            self._ended = self._remaining == 0
        self._window_bytes += count
        if self._window_bytes >= 1 << 20:
            self._window_start, self._window_bytes = time.monotonic(), 0
        elif count < 1 << 14:
            span = time.monotonic() - self._window_start
            limit = self._client.options.stall_timeout
            if span >= limit:
                if self._window_bytes < SLOWEST * span and not bucket:
                    raise Broken(f"stalled: {self._window_bytes} bytes in {span:.0f} s")
                self._window_start, self._window_bytes = time.monotonic(), 0
        return count

    def read(self, limit: int) -> bytes:
        """The whole body, refused when it is longer than *limit*."""
        if self.length is not None and self.length > limit:
            raise RegistryError(f"{_shown(self.url)}: the answer has {self.length} bytes, more than the {limit} expected.")
        data = bytearray()
        buffer = memoryview(bytearray(min(1 << 16, limit + 1)))
        while True:
            count = self.read_into(buffer)
            if not count:
                return bytes(data)
            data += buffer[:count]
            if len(data) > limit:
                raise RegistryError(f"{_shown(self.url)}: the answer has more than the {limit} bytes expected.")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _shown(url: str) -> str:
    """A URL without what may be secret in it: user, query (signed links) and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


shown_url = _shown


class HttpClient:
    """Connections to any number of hosts, kept for the next request."""

    def __init__(self, options: HttpOptions, stop: Optional[threading.Event] = None) -> None:
        self.options = options
        self.stop = stop or threading.Event()
        self.requests = 0
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._context: Optional[ssl.SSLContext] = None

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def give_back(self, key: tuple[str, str, int], connection: Connection) -> None:
        with self._lock:
            self._idle.setdefault(key, []).append(connection)

    def _take_idle(self, key: tuple[str, str, int]) -> Optional[Connection]:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.alive():
                connection.used = True
                return connection
            connection.close()

    def _connect(self, scheme: str, host: str, port: int) -> Connection:
        tls: Optional[TlsStream] = None
        proxy = _environment_proxy(scheme, host, port) if self.options.proxies_from_environment else None
        header = ""
        target_host, target_port = host, port
        if proxy:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if parts.scheme != "http" or not parts.hostname:
                raise UsageError(f"The proxy {_shown(proxy)!r} for {host} cannot be used: only http://host:port proxies are known.")
            target_host, target_port = parts.hostname, parts.port or 8080
            if parts.username is not None:
                secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
                header = f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}\r\n"
        try:
            sock = socket.create_connection((target_host, target_port), timeout=self.options.connect_timeout)
        except OSError as error:
            raise Broken(f"cannot connect to {'proxy ' if proxy else ''}{target_host}:{target_port}: {_reason(error)}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if scheme == "https":
                if proxy:
                    self._tunnel(sock, host, port, header)
                with self._lock:
                    if self._context is None:
                        self._context = tls_context(self.options)
                tls = TlsStream(sock, self._context, host)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise RegistryError(
                f"{host}:{port}: its certificate is not trusted: {error.verify_message}. Give the certificate authority that signed it (ca_file or ca_data)."
            ) from error
        except ssl.SSLError as error:
            sock.close()
            if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
                raise RegistryError(f"{host}:{port} does not speak TLS. If it is a plain HTTP registry, say so (plain_http).") from error
            raise Broken(f"TLS with {host}:{port} failed: {_reason(error)}") from error
        except OSError as error:
            sock.close()
            raise Broken(f"TLS with {host}:{port} failed: {_reason(error)}") from error
        except BaseException:
            sock.close()
            raise
        return Connection(sock, tls, bool(proxy) and tls is None, header, self.options)

    @staticmethod
    def _tunnel(sock: socket.socket, host: str, port: int, header: str) -> None:
        name = f"[{host}]" if ":" in host else host
        sock.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{header}\r\n".encode("ascii"))
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < HEADER_LIMIT:
            piece = sock.recv(1)
            if not piece:
                raise Broken("the proxy closed the connection")
            answer += piece
        status = answer.split(b" ", 2)[1:2]
        if status != [b"200"]:
            raise RegistryError(f"The proxy refused to connect to {host}:{port}: {answer.splitlines()[0].decode('latin-1')[:80]}.")

    def once(
        self,
        method: str,
        url: str,
        headers: Optional[dict[str, str]] = None,
        body: Body = None,
        tick: Callable[[int], None] = lambda count: None,
    ) -> Response:
        """Send one request and read the head of its answer. Raises Broken when the connection does."""
        parts = urlsplit(url)
        host, tls = parts.hostname or "", parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(f"{_shown(url)!r} is not an http or https URL.")
        port = parts.port or (443 if tls else 80)
        key = (parts.scheme, host, port)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        netloc = f"[{host}]" if ":" in host else host
        if parts.port:
            netloc += f":{parts.port}"
        length = len(body) if isinstance(body, bytes) else sum(piece.size for piece in body) if body is not None else None
        while True:
            connection = self._take_idle(key)
            if connection is None:
                connection = self._connect(*key)
            fields = [
                f"{method} {f'{parts.scheme}://{netloc}' if connection.absolute else ''}{target} HTTP/1.1",
                f"Host: {netloc}",
                f"User-Agent: {USER_AGENT}",
            ]
            if length is not None or method in ("POST", "PUT", "PATCH"):
                fields.append(f"Content-Length: {length or 0}")
            fields.extend(f"{name}: {value}" for name, value in (headers or {}).items())
            if any("\r" in item or "\n" in item for item in fields):
                raise UsageError(f"{_shown(url)}: a header or the URL holds a line break.")
            head = ("\r\n".join(fields) + "\r\n" + (connection.proxy_header if connection.absolute else "") + "\r\n").encode("latin-1")
            self.requests += 1
            try:
                connection.set_timeout(self.options.stall_timeout)
                try:
                    if isinstance(body, bytes):
                        connection.send(head + body if len(body) < 1 << 16 else head)
                        if len(body) >= 1 << 16:
                            connection.send(body)
                    else:
                        connection.send(head)
                        if body is not None:
                            connection.send_slices(body, tick)
                except Broken:
                    # A registry that refuses a body answers and closes; that answer says more than the broken pipe.
                    if connection.used and not isinstance(body, (list, tuple)):
                        raise
                    connection.set_timeout(2.0)
                    try:
                        answer = connection.receive_head()
                    except Broken:
                        answer = b""
                    if not answer:
                        raise
                    return Response(self, key, connection, method, url, answer + b"\r\nConnection: close")
                connection.set_timeout(self.options.answer_timeout if method in ("PUT", "PATCH", "POST") else max(60.0, self.options.stall_timeout))
                answer = connection.receive_head()
                while answer[9:12] in (b"100", b"102", b"103"):
                    answer = connection.receive_head()
                connection.set_timeout(self.options.stall_timeout)
                return Response(self, key, connection, method, url, answer)
            except Broken:
                connection.close()
                # The peer may close a kept connection at any time; that is no fault. Bodies from files are the caller's to repeat.
                if connection.used and not isinstance(body, (list, tuple)):
                    continue
                raise
            except BaseException:
                connection.close()
                raise


def retry_after(headers: Headers, now: Optional[float] = None) -> Optional[float]:
    """The seconds that ``Retry-After`` asks for, given as a number or as a date."""
    text = headers.get("retry-after")
    if not text:
        return None
    if text.isdigit():
        return float(text)
    # Seldom needed, and slow to import.
    import email.utils

    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, when - (time.time() if now is None else now))


@dataclass(frozen=True)
class Patience:
    """How often and how long to try again."""

    tries: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_retry_after: float = 900.0

    def wait(self, attempt: int, asked: Optional[float]) -> float:
        """Seconds before try number *attempt* + 1; what the registry asked for is honoured in full."""
        if asked is not None:
            return min(asked, self.longest_retry_after)
        return min(self.longest_wait, self.first_wait * float(2**attempt))


def sleep_or_stop(stop: threading.Event, seconds: float) -> None:
    """Wait, but not when the run is to end."""
    if stop.wait(seconds):
        raise Stopped("Stopped; run the same command again to go on.")


def follow(base: str, location: str) -> str:
    """Where a Location header points to."""
    return urljoin(base, location)


def same_host(first: str, second: str) -> bool:
    """Whether two URLs name the same scheme, host and port: only then may credentials go along."""
    one, two = urlsplit(first), urlsplit(second)

    def port(parts: object, scheme: str, number: Optional[int]) -> int:
        return number or (443 if scheme == "https" else 80)

    return (one.scheme, one.hostname, port(one, one.scheme, one.port)) == (two.scheme, two.hostname, port(two, two.scheme, two.port))


__all__ = [
    "BUFFER", "Body", "Connection", "Headers", "HttpClient", "HttpOptions", "NetworkError", "Patience", "Response", "Slice",
    "follow", "retry_after", "same_host", "shown_url", "sleep_or_stop",
]
