# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One signature over bundle.json covers every byte of a bundle: it names all blobs and parts by digest.

minisign signatures are checked here, without any program; SSH signatures with ``ssh-keygen -Y verify``, OpenPGP ones with ``gpg``.
All of it works offline with a public key given beforehand.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import ed25519
from .bundle import MANIFEST_NAME, SIGNATURE_SUFFIXES, Bundle, read_trailer, write_closing
from .errors import MirrorError, TrustError, UsageError
from .made_here import was_made_here

SSH_NAMESPACE = "onprem-circleci-bundle"
SSH_IDENTITY = "bundle"


@dataclass(frozen=True)
class Trust:
    """Which key must have signed a bundle."""

    public_key: str = ""  # a key, or the path of a file with one: minisign, SSH or OpenPGP
    allow_unsigned: bool = False
    allow_made_here: bool = False  # a bundle that this user fetched on this machine needs no signature


def _key_text(key: str) -> tuple[str, bytes]:
    """The kind of a public key and its bytes."""
    raw = key.strip().encode("utf-8")
    path = Path(key.strip())
    if "\n" not in key.strip() and len(key) < 4096:
        with contextlib.suppress(OSError, ValueError):
            if path.is_file():
                raw = path.read_bytes()
    text = raw.decode("utf-8", "replace").strip()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("untrusted comment:")]
    if lines and re.fullmatch(r"RW[A-Za-z0-9+/]{54}", lines[-1].strip()):
        return "minisign", lines[-1].strip().encode("ascii")
    if lines and re.match(r"(ssh-|ecdsa-|sk-)\S+ AAAA", lines[0]):
        return "ssh", "\n".join(lines).encode("ascii", "replace")
    if "BEGIN PGP PUBLIC KEY BLOCK" in text or (raw[:1] and raw[0] & 0x80 and b"\n" not in raw[:2]):
        return "gpg", raw
    raise UsageError(
        f"The public key {key.strip()[:60]!r} is not one: a minisign key (RW…), an SSH key "
        "(ssh-ed25519 AAAA…), an OpenPGP key block, or the path of a file with one is wanted."
    )


def verify_minisign(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check a minisign signature and its trusted comment; raises TrustError."""
    try:
        key = base64.b64decode(public_key, validate=True)
        lines = signature.decode("utf-8").splitlines()
        blob = base64.b64decode(lines[1], validate=True)
        comment, whole = lines[2], base64.b64decode(lines[3], validate=True)
    except (IndexError, ValueError, binascii.Error):
        raise TrustError("The file bundle.json.minisig is not a minisign signature.") from None
    if len(key) != 42 or len(blob) != 74 or key[:2] != b"Ed" or not comment.startswith("trusted comment: "):
        raise TrustError("The minisign key or signature has the wrong length or kind.")
    if blob[2:10] != key[2:10]:
        raise TrustError(f"The bundle is signed with the minisign key {blob[9:1:-1].hex().upper()}, not with the given one, {key[9:1:-1].hex().upper()}.")
    if blob[:2] == b"ED":
        signed = hashlib.blake2b(message).digest()
    elif blob[:2] == b"Ed":
        signed = message
    else:
        raise TrustError("The minisign signature is of an unknown kind.")
    if not ed25519.verify(key[10:], signed, blob[10:]):
        raise TrustError("The minisign signature does not fit bundle.json: it was changed after signing.")
    if not ed25519.verify(key[10:], blob[10:] + comment[17:].encode("utf-8"), whole):
        raise TrustError("The trusted comment of the minisign signature was changed after signing.")


def _run(arguments: Sequence[str], message: bytes, tool: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(list(arguments), input=message, capture_output=True, timeout=120, check=False)
    except FileNotFoundError:
        raise TrustError(
            f"The program {tool} is wanted for this kind of signature and is not installed here. Sign with minisign instead, which needs no program to check."
        ) from None
    except subprocess.TimeoutExpired as error:
        raise TrustError(f"{tool} did not end within two minutes.") from error


def verify_ssh(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature of ``ssh-keygen -Y sign``; raises TrustError."""
    with tempfile.TemporaryDirectory(prefix="mirror-trust-") as folder:
        allowed, signed = Path(folder) / "allowed", Path(folder) / "signature"
        allowed.write_bytes(b"".join(f'{SSH_IDENTITY} namespaces="{SSH_NAMESPACE}" '.encode("ascii") + line + b"\n" for line in public_key.splitlines()))
        signed.write_bytes(signature)
        done = _run(["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", SSH_IDENTITY, "-n", SSH_NAMESPACE, "-s", str(signed)], message, "ssh-keygen")
    if done.returncode != 0:
        raise TrustError("The SSH signature does not fit: bundle.json was changed after signing, or another key signed it.")


def verify_gpg(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check a detached OpenPGP signature against this one key, in a keyring of its own; raises TrustError."""
    with tempfile.TemporaryDirectory(prefix="mirror-trust-") as folder:
        os.chmod(folder, 0o700)
        signed, key = Path(folder) / "signature", Path(folder) / "key"
        signed.write_bytes(signature)
        key.write_bytes(public_key)
        common = ["gpg", "--homedir", folder, "--batch", "--quiet", "--no-autostart"]
        if _run([*common, "--import", str(key)], b"", "gpg").returncode != 0:
            raise TrustError("gpg cannot read the public key.")
        done = _run([*common, "--status-fd", "1", "--trust-model", "always", "--verify", str(signed), "-"], message, "gpg")
    if done.returncode != 0 or b"[GNUPG:] VALIDSIG " not in done.stdout:
        raise TrustError("The OpenPGP signature does not fit: bundle.json was changed after signing, or another key signed it.")


_CHECKS = {"minisign": (".minisig", verify_minisign), "ssh": (".sig", verify_ssh), "gpg": (".asc", verify_gpg)}


def check_trust(raw: bytes, signatures: Mapping[str, bytes], trust: Trust) -> str:
    """Is bundle.json signed by the given key? Returns how it was trusted; raises TrustError."""
    if trust.public_key:
        kind, key = _key_text(trust.public_key)
        suffix, check = _CHECKS[kind]
        if suffix not in signatures:
            if trust.allow_unsigned and not signatures:
                return "unsigned, allowed"
            found = ", ".join(MANIFEST_NAME + name for name in sorted(signatures)) or "none"
            raise TrustError(f"A {kind} public key was given, but there is no {MANIFEST_NAME}{suffix} (signatures found: {found}). Nothing was loaded.")
        check(key, raw, signatures[suffix])
        return f"signed, {kind}"
    if trust.allow_unsigned:
        return "not checked, allowed"
    if trust.allow_made_here and was_made_here(raw):
        return "made here"
    state = "is signed, but no public key was given to check it" if signatures else "is not signed"
    raise TrustError(f"The bundle {state}. Give the public key of whoever made it, or allow unsigned bundles explicitly. Nothing was loaded.")


# --- signing --------------------------------------------------------------------------------------------------------


def sign_command(kind: str, key: str, path: Path) -> list[str]:
    """The command that signs *path*; it may ask for a passphrase on the terminal."""
    if kind == "minisign":
        return ["minisign", "-S", "-s", key, "-m", str(path), "-t", "bundle"]
    if kind == "ssh":
        return ["ssh-keygen", "-Y", "sign", "-f", key, "-n", SSH_NAMESPACE, str(path)]
    if kind == "gpg":
        return ["gpg", "--batch", "--yes", "--armor", "--detach-sign", *(["--local-user", key] if key else []), "--output", f"{path}.asc", str(path)]
    raise UsageError(f"{kind!r} is no kind of signature. Allowed: minisign, ssh, gpg.")


def sign_bundle(directory: Path, kind: str, key: str, environment: Optional[Mapping[str, str]] = None) -> str:
    """Sign bundle.json with a tool, then put the signature into each part. Returns the signature's file name."""
    path = Path(directory) / MANIFEST_NAME
    if not path.is_file():
        raise UsageError(f"{path}: there is no bundle to sign.")
    suffix = _CHECKS[kind][0] if kind in _CHECKS else ""
    command = sign_command(kind, key, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}{suffix}")
    try:
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=None if environment is None else {**os.environ, **environment})
    except FileNotFoundError:
        raise UsageError(f"The program {command[0]} is not installed here; it makes {kind} signatures.") from None
    if done.returncode != 0 or not Path(f"{path}{suffix}").is_file():
        raise MirrorError(f"{command[0]} made no signature (exit code {done.returncode}).")
    attach_signatures(Path(directory))
    return f"{MANIFEST_NAME}{suffix}"


def attach_signatures(directory: Path) -> None:
    """Write the signatures that lie beside bundle.json into each part, so that one medium alone can be checked."""
    signatures: dict[str, bytes] = {}
    for suffix in SIGNATURE_SUFFIXES:
        path = directory / (MANIFEST_NAME + suffix)
        if path.is_file():
            signatures[suffix] = path.read_bytes()
    if sum(len(body) for body in signatures.values()) > 15 << 10:
        raise UsageError("The signatures take more than 15 KiB together; parts have no room for that.")
    from .bundle import PYZ_NAME, oci_index
    from .pyz import build_pyz

    with Bundle.open([directory]) as bundle:
        pyz = directory / PYZ_NAME
        engine = pyz.read_bytes() if pyz.is_file() else build_pyz()
        index = oci_index(bundle.refs, bundle.sizes, bundle.media)
        for number in range(1, bundle.parts + 1):
            part = bundle.part_path(number)
            if part is None:
                raise bundle.missing_part(number)
            fd = os.open(part, os.O_RDWR)
            try:
                trailer = bundle.check_part(fd, number, str(part))
                # Everything before the closing section stays as it is; the old closing section is written anew.
                write_closing(fd, bundle.id, number, bundle.parts, trailer["extents"], bundle.raw, index, engine, signatures)
                os.fsync(fd)
                read_trailer(fd, str(part))
            finally:
                os.close(fd)


__all__ = ["Trust", "attach_signatures", "check_trust", "sign_bundle"]
