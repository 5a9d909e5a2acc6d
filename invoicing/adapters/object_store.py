"""Documents in an object store (S3 and what speaks its protocol), by obstore; and which store the settings mean.

obstore is Apache Arrow's `object_store` with its own signing and retries, asynchronous, in one wheel without
dependencies; the AWS SDK would bring its own date library and a thread for every call.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from core.errors import UnavailableError
from invoicing.adapters.folder import FolderDocuments
from invoicing.document_ports import DocumentStore
from runtime.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Config

_TIMEOUT = timedelta(seconds=30)


class StoreAwayError(UnavailableError):
    """The object store did not do what was asked."""

    code = "object_store_unavailable"


class S3Documents:
    """A `DocumentStore` in a bucket, below a prefix; `url` is `s3://bucket/prefix`.

    `endpoint` is that of another S3 than Amazon's. Without keys the environment's are taken (instance role, web
    identity, `AWS_…`).
    """

    def __init__(
        self, url: str, *, region: str, endpoint: str | None = None, access_key: str = "", secret_key: str = ""
    ) -> None:
        parts = urlsplit(url)
        self._base = f"s3://{parts.netloc}/"
        self._prefix = parts.path.strip("/")
        config: S3Config = {"region": region}
        if endpoint:
            config |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        if access_key:
            config |= {"access_key_id": access_key, "secret_access_key": secret_key}
        self._store = S3Store(
            parts.netloc,
            config=config,
            client_options={"timeout": _TIMEOUT, "allow_http": (endpoint or "").startswith("http://")},
            retry_config={"max_retries": 3, "retry_timeout": _TIMEOUT},
        )

    async def write(self, name: str, content: bytes) -> str:
        """Keep the bytes under a name such as `acme/MB-2026-000001.pdf`, durably; returns the location."""
        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            await obstore.put_async(self._store, key, content)
        except BaseError as error:
            raise StoreAwayError(f"the object store did not take {name}: {type(error).__name__}") from error
        return self._base + key

    async def read(self, location: str) -> bytes | None:
        """Return the bytes of a location of this store; None for any other, and where nothing is."""
        key = location.removeprefix(self._base)
        if key == location or not key.startswith(f"{self._prefix}/" if self._prefix else ""):
            return None
        try:
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise StoreAwayError(f"the object store did not give {key}: {type(error).__name__}") from error


def open_documents(settings: Settings) -> DocumentStore:
    """Return where documents are kept: the bucket of `documents_url`, else the folder."""
    if settings.documents_url is None:
        return FolderDocuments(settings.documents)
    secret = settings.documents_secret_key
    return S3Documents(
        settings.documents_url,
        region=settings.documents_region,
        endpoint=settings.documents_endpoint,
        access_key=settings.documents_access_key or "",
        secret_key=secret.get_secret_value() if secret else "",
    )
