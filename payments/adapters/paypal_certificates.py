"""The certificate that a PayPal webhook names. Owns where it may come from, and why it is believed.

The sender of a webhook says where its certificate lies, so the address is compared with a list before anything is
fetched, and what was fetched counts only if a certificate authority vouches for one of PayPal's two names at this
instant. Source: PayPal's page "Integrate webhooks", self verification; the names are those that PayPal's own Java SDK
checked (`SSLUtil.validateCertificateChain`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import httpx2
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from core.clock import Clock
from core.errors import UnavailableError
from payments.paypal_ports import UntrustedCertificateError

CERTIFICATE_NAMES = ("messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com")
_FETCH_SECONDS = 5
_BYTES_MAX = 64 * 1024
_KEPT_FOR = timedelta(hours=24)
_KEPT_MAX = 16
# A stranger can name certificates that do not exist as fast as he likes; PayPal changes its own about once a year.
_FETCHES_PER_MINUTE = 10
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Kept:
    key: rsa.RSAPublicKey
    until: datetime


def is_allowed_address(url: str, prefixes: Sequence[str]) -> bool:
    """Tell whether a certificate may be fetched from `url`: below one of the prefixes, by a plain name, no more."""
    if len(url) > 500 or not url.isascii():
        return False
    for prefix in prefixes:
        name = url.removeprefix(prefix)
        if name != url and 0 < len(name) <= 200 and all(sign.isalnum() or sign in "-_." for sign in name):
            return name.strip(".") != "" and urlsplit(url).netloc == urlsplit(prefix).netloc
    return False


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM file; raises `UntrustedCertificateError` for anything else."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UntrustedCertificateError(f"no certificate: {error}") from error


def check_chain(chain: Sequence[x509.Certificate], roots: list[x509.Certificate], at: datetime) -> rsa.RSAPublicKey:
    """Return the key of the first certificate if the roots vouch for it and one of PayPal's names at this instant.

    Chain, dates, names and uses are checked as for a TLS server (RFC 5280, CA/Browser Forum). Raises
    `UntrustedCertificateError`.
    """
    leaf, others = chain[0], list(chain[1:])
    faults = []
    for name in CERTIFICATE_NAMES:
        verifier = PolicyBuilder().store(Store(roots)).time(at).build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(leaf, others)
        except VerificationError as error:
            faults.append(f"{name}: {error}")
        else:
            break
    else:
        raise UntrustedCertificateError("; ".join(faults)[:400])
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
        raise UntrustedCertificateError("not an RSA key of 2048 bits or more")
    return key


def load_roots(ca_file: Path | None) -> list[x509.Certificate]:
    """Return the certificate authorities to trust: those of the file, or Mozilla's list as packed by `certifi`."""
    path = ca_file or Path(certifi.where())
    return x509.load_pem_x509_certificates(path.read_bytes())


class PayPalCertificates:
    """Fetches, checks and keeps the keys of PayPal's webhook certificates."""

    def __init__(self, prefixes: Sequence[str], roots: Sequence[x509.Certificate], clock: Clock) -> None:
        self._prefixes, self._roots, self._clock = tuple(prefixes), list(roots), clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._fetches: deque[datetime] = deque()
        self._fetching = asyncio.Lock()
        self._http = httpx2.AsyncClient(timeout=httpx2.Timeout(_FETCH_SECONDS), follow_redirects=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def is_allowed(self, url: str) -> bool:
        """Tell whether PayPal keeps its certificates there."""
        return is_allowed_address(url, self._prefixes)

    async def find_key(self, url: str) -> rsa.RSAPublicKey:
        """Return the public key of the certificate at an allowed address.

        Raises `UntrustedCertificateError`, and `UnavailableError` if it cannot be fetched now.
        """
        # What is kept waits for nobody's fetching.
        if (known := self._known(url)) is not None:
            return known
        async with self._fetching:
            if (known := self._known(url)) is not None:
                return known
            now = self._clock.now()
            chain = read_chain(await self._fetch(url, now))
            key = check_chain(chain, self._roots, now)
            # Never kept beyond its own end: then it is fetched and judged again.
            self._kept[url] = _Kept(key, min(now + _KEPT_FOR, chain[0].not_valid_after_utc))
            while len(self._kept) > _KEPT_MAX:
                self._kept.popitem(last=False)
            return key

    def _known(self, url: str) -> rsa.RSAPublicKey | None:
        kept = self._kept.get(url)
        if kept is None or self._clock.now() >= kept.until:
            return None
        self._kept.move_to_end(url)
        return kept.key

    async def _fetch(self, url: str, now: datetime) -> bytes:
        if not self.is_allowed(url):
            raise UntrustedCertificateError("not an address of PayPal's certificates")
        while self._fetches and now - self._fetches[0] > timedelta(minutes=1):
            self._fetches.popleft()
        if len(self._fetches) >= _FETCHES_PER_MINUTE:
            raise UnavailableError("too many certificates were asked for within a minute")
        self._fetches.append(now)
        try:
            async with self._http.stream("GET", url) as response:
                if response.status_code != 200:
                    raise UnavailableError(f"the certificate's address answers {response.status_code}")
                found = bytearray()
                async for part in response.aiter_bytes():
                    found += part
                    if len(found) > _BYTES_MAX:
                        raise UntrustedCertificateError("far too long for a certificate")
        except (httpx2.HTTPError, OSError) as error:
            raise UnavailableError(f"the certificate cannot be fetched: {error!r}"[:200]) from error
        log.info("paypal.certificate_fetched", url=url)
        return bytes(found)
