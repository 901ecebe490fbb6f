# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The site's own certificate authority and Nomad's, and the certificates they issue. Needs the library cryptography."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:  # pragma: no cover
    HAS_CRYPTOGRAPHY = False

# The vendor's Terraform makes Nomad's authority with RSA 4096; leaves with 2048 bits are what every client of a CircleCI
# Server reads (JVM, Go, OpenSSL of old build images) and take a tenth of a second to make.
CA_BITS = 4096
LEAF_BITS = 2048
CA_DAYS = 7300
NOMAD_DAYS = 3650
# Longer ones are refused by macOS, where runners live.
TLS_DAYS = 825
WARN_DAYS = 30


class PkiError(Exception):
    """A certificate or key that cannot be used, in one sentence."""


@dataclass(frozen=True)
class Pair:
    """A certificate (or a chain, the leaf first) and its key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Subject:
    """What a certificate is for. C(usage): server, nomad_server or nomad_client."""

    common_name: str
    dns: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    usage: str = "server"
    organization: str = ""
    days: int = TLS_DAYS


@dataclass
class Findings:
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _name(common_name: str, organization: str = "") -> Any:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _pem(certificate: Any) -> str:
    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


def _key_pem(key: Any) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return str(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode())


def _not_before(builder: Any, days: int) -> Any:
    now = _now().replace(microsecond=0)
    # A day of slack for hosts whose clocks run behind.
    return builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=days))


def new_authority(common_name: str, days: int = CA_DAYS, bits: int = CA_BITS) -> Pair:
    """A self-signed authority that can issue leaves only."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = _name(common_name)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = _not_before(builder.serial_number(x509.random_serial_number()), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def _key_usage(authority: bool = False, agreement: bool = False) -> Any:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=agreement,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def issue(authority: Pair, subject: Subject, bits: int = LEAF_BITS) -> Pair:
    """A leaf with its key, signed by the authority."""
    ca = _load(authority.certificate)
    ca_key = _load_key(authority.key)
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    names: list[Any] = [x509.DNSName(name) for name in subject.dns]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.ips]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    nomad = subject.usage.startswith("nomad_")
    if nomad:
        # Nomad's agents are clients and servers of each other.
        usages.insert(0, ExtendedKeyUsageOID.CLIENT_AUTH)
    builder = x509.CertificateBuilder().subject_name(_name(subject.common_name, subject.organization))
    builder = builder.issuer_name(ca.subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = _not_before(builder, subject.days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(agreement=nomad), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())
    builder = builder.add_extension(issuer_id, critical=False)
    return Pair(_pem(builder.sign(ca_key, hashes.SHA256())), _key_pem(key))


def _load(pem: str) -> Any:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise PkiError("is no certificate in PEM form") from error


def _load_chain(pem: str) -> list[Any]:
    end = "-----END CERTIFICATE-----"
    parts = [part + end for part in pem.split(end)[:-1]]
    if not parts:
        raise PkiError("is no certificate in PEM form")
    return [_load(part[part.index("-----BEGIN") :] if "-----BEGIN" in part else part) for part in parts]


def _load_key(pem: str) -> Any:
    try:
        return serialization.load_pem_private_key(pem.encode(), password=None)
    except TypeError as error:
        raise PkiError("is a private key with a pass phrase: give it without one") from error
    except ValueError as error:
        raise PkiError("is no private key in PEM form") from error


def _until(certificate: Any) -> datetime.datetime:
    aware = getattr(certificate, "not_valid_after_utc", None)
    if aware is None:
        aware = certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)
    return aware  # type: ignore[no-any-return]


def _alternative_names(certificate: Any) -> tuple[list[str], list[str]]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    dns = [name.lower() for name in extension.get_values_for_type(x509.DNSName)]
    return dns, [str(address) for address in extension.get_values_for_type(x509.IPAddress)]


def covers(names: Sequence[str], wanted: str) -> bool:
    """Whether a name, or a wildcard of its own level, is among the names of a certificate."""
    wanted = wanted.lower()
    return wanted in names or f"*.{wanted.partition('.')[2]}" in names


def signed_by(leaf: Any, ca: Any) -> bool:
    """Whether a certificate carries the signature of an authority."""
    public = ca.public_key()
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(
                leaf.signature, leaf.tbs_certificate_bytes, padding.PKCS1v15(), leaf.signature_hash_algorithm
            )
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(leaf.signature_hash_algorithm))
        else:
            public.verify(leaf.signature, leaf.tbs_certificate_bytes)
    except InvalidSignature:
        return False
    return bool(leaf.issuer == ca.subject)


def check_pair(
    pair: Pair, dns: Sequence[str] = (), ips: Sequence[str] = (), authority: Optional[str] = None
) -> Findings:
    """What is wrong with a certificate and its key, and what soon will be."""
    result = Findings()
    chain: list[Any] = []
    try:
        chain = _load_chain(pair.certificate)
    except PkiError as error:
        result.errors.append(f"the certificate {error}")
    key: Any = None
    try:
        key = _load_key(pair.key)
    except PkiError as error:
        result.errors.append(f"the key {error}")
    if not chain:
        return result
    leaf = chain[0]
    if key is not None and _spki(leaf.public_key()) != _spki(key.public_key()):
        result.errors.append("the key does not belong to the certificate")
    left = _until(leaf) - _now()
    if left.total_seconds() <= 0:
        result.errors.append(f"the certificate expired on {_until(leaf):%Y-%m-%d}")
    elif left.days < WARN_DAYS:
        result.warnings.append(f"the certificate expires on {_until(leaf):%Y-%m-%d}")
    have_dns, have_ips = _alternative_names(leaf)
    missing = [name for name in dns if not covers(have_dns, name)] + [address for address in ips if address not in have_ips]
    if missing:
        have = ", ".join([*have_dns, *have_ips]) or "none"
        result.errors.append(f"the certificate lacks {', '.join(missing)} (it is for {have})")
    for lower, upper in zip(chain, chain[1:]):
        if not signed_by(lower, upper):
            result.errors.append("the certificates of the chain are not in order: the leaf first, then what signed it")
            break
    if authority is not None:
        try:
            if not signed_by(chain[-1], _load(authority)) and chain[-1] != _load(authority):
                result.errors.append("the certificate was not issued by the authority beside it")
        except PkiError as error:
            result.errors.append(f"the authority {error}")
    return result


def check_authority(pair: Pair) -> Findings:
    """As check_pair, for an authority. Its key may be absent when it is only to be trusted."""
    result = check_pair(pair) if pair.key else Findings()
    try:
        certificate = _load(pair.certificate)
    except PkiError as error:
        return result if result.errors else Findings([f"the authority {error}"])
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            result.errors.append("the certificate is not one of an authority")
    except x509.ExtensionNotFound:
        result.errors.append("the certificate is not one of an authority")
    return result


def _spki(public: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(public.public_bytes(serialization.Encoding.DER, form))


def json_web_keys() -> str:
    """A set with one RSA key pair for OIDC tokens, as JSON."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.private_numbers()
    public = numbers.public_numbers

    def text(number: int) -> str:
        size = (number.bit_length() + 7) // 8
        return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()

    digest = hashes.Hash(hashes.SHA256())
    digest.update(_spki(key.public_key()))
    entry = {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": base64.urlsafe_b64encode(digest.finalize()).rstrip(b"=").decode(),
        "n": text(public.n),
        "e": text(public.e),
        "d": text(numbers.d),
        "p": text(numbers.p),
        "q": text(numbers.q),
        "dp": text(numbers.dmp1),
        "dq": text(numbers.dmq1),
        "qi": text(numbers.iqmp),
    }
    return json.dumps({"keys": [entry]})
