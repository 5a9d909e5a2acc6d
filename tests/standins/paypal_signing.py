"""Webhook certificates and signatures (page "Integrate webhooks"). Owns a test authority and whom it vouches for."""

from __future__ import annotations

import base64
import functools
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# The names that PayPal's own Java SDK asked for; the sandbox has one more level.
NAME = "messageverificationcerts.paypal.com"


@dataclass(frozen=True)
class Signer:
    """A key and its certificate, with the certificates between it and the root, as one PEM file."""

    key: rsa.RSAPrivateKey
    pem: bytes

    def sign(self, transmission_id: str, time: str, webhook_id: str, body: bytes) -> str:
        """Sign `id|time|webhook id|CRC32 of the raw body`, RSA-SHA256, in Base64."""
        message = f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(body)}".encode()
        return base64.b64encode(self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()


class Authority:
    """A root and an intermediate authority of our own; `name` tells two of them apart."""

    def __init__(self, name: str = "first") -> None:
        self._name = name
        self._root_key, self._middle_key = new_key(f"{name} root"), new_key(f"{name} middle")
        now = datetime.now(UTC)
        self.root = _certify("Stand-in Root", self._root_key, "Stand-in Root", self._root_key, now, ca=True)
        self._middle = _certify("Stand-in CA", self._middle_key, "Stand-in Root", self._root_key, now, ca=True)

    @property
    def pem(self) -> bytes:
        """The root, to be trusted."""
        return _pem(self.root)

    def issue(self, name: str = NAME, *, begins: datetime | None = None, days: int = 90, whole: bool = True) -> Signer:
        """Certify a new key for a name; `whole=False` leaves the intermediate certificate out of the file."""
        key = new_key(f"{self._name} {name} {begins}")
        leaf = _certify(name, key, "Stand-in CA", self._middle_key, begins or datetime.now(UTC), days=days)
        return Signer(key, _pem(leaf) + (_pem(self._middle) if whole else b""))


@functools.cache
def new_key(name: str) -> rsa.RSAPrivateKey:
    """Make the key with this name, once per process: making one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def self_signed(name: str = NAME) -> Signer:
    """What a forger can make: the right name, and nobody who vouches for it."""
    key = new_key("forged")
    return Signer(key, _pem(_certify(name, key, name, key, datetime.now(UTC))))


def _certify(
    name: str,
    key: rsa.RSAPrivateKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    begins: datetime,
    *,
    days: int = 90,
    ca: bool = False,
) -> x509.Certificate:
    begins -= timedelta(hours=1)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(issuer_id, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_usage(ca=ca), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=not ca, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
