"""HTML to PDF by WeasyPrint, in child processes that may be slow, large or die without harm to the worker.

The renderer reaches nothing: only `data:` and the bundled fonts are fetched. The same snapshot gives the same bytes.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import multiprocessing
import os
import resource
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from core.errors import UnavailableError
from invoicing.document_html import document_html, templates_folder

PDF_VARIANT = "pdf/a-3b"
_TIMEOUT_SECONDS = 60.0
_MEMORY_BYTES = 2 << 30
_FIXED_TIME = "1767225600"


class RenderingFailedError(UnavailableError):
    """The document could not be rendered now."""

    code = "rendering_failed"


def render_pdf(snapshot: Mapping[str, Any]) -> bytes:
    """Return the PDF/A-3b of a snapshot; runs wherever it is called."""
    from weasyprint import HTML

    html = document_html(snapshot)
    identifier = hashlib.sha256(html.encode()).digest()[:16]
    style = _style()
    # Subset fonts carry the time they were made: a fixed one keeps the bytes a function of the snapshot.
    os.environ["SOURCE_DATE_EPOCH"] = _FIXED_TIME
    document = HTML(string=html, base_url="asset:", url_fetcher=style.fetcher)
    rendered: bytes = document.write_pdf(
        stylesheets=[style.sheet], font_config=style.fonts, pdf_variant=PDF_VARIANT, pdf_identifier=identifier
    )
    return rendered


@dataclass(frozen=True, slots=True)
class _Style:
    fetcher: Any
    fonts: Any
    sheet: Any


@functools.cache
def _style() -> _Style:
    """Read stylesheet and fonts once per process: that is half the cost of a one-page document."""
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration

    # Let go of before the interpreter takes the library apart, which the fonts' own clean-up does not survive.
    atexit.register(_style.cache_clear)
    fetcher, fonts = _bundled_fetcher(), FontConfiguration()
    text = (templates_folder() / "invoice.css").read_text()
    return _Style(fetcher, fonts, CSS(string=text, base_url="asset:", url_fetcher=fetcher, font_config=fonts))


def _bundled_fetcher() -> Any:
    from weasyprint.urls import URLFetcher, URLFetcherResponse

    folder = templates_folder()
    allowed = {f"asset:fonts/{path.name}": path for path in (folder / "fonts").glob("*.ttf")}

    class BundledFetcher(URLFetcher):  # type: ignore[misc]
        """Fetches `data:` and `asset:` (a bundled font by its name); refuses everything else, files included."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            if url.startswith("data:"):
                return super().fetch(url, headers)
            if url not in allowed:
                raise ValueError(f"a document may not fetch {url[:100]}")
            return URLFetcherResponse(url, allowed[url].read_bytes(), {"Content-Type": "font/ttf"})

    return BundledFetcher(allowed_protocols=["data"])


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


class PdfWorkers:
    """Renders in a pool of child processes; one that hangs or dies is replaced."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool = self._new_pool()

    async def render(self, snapshot: Mapping[str, Any]) -> bytes:
        """Return the PDF; raises `RenderingFailedError` when the child died or took longer than a minute."""
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._pool, render_pdf, snapshot), _TIMEOUT_SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            self._replace()
            raise RenderingFailedError(f"rendering died or took too long: {error!r}") from error

    def close(self) -> None:
        """End the child processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _replace(self) -> None:
        for child in list((self._pool._processes or {}).values()):
            child.kill()
        self.close()
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned, not forked: the worker's threads and sockets have no business in the child.
        return ProcessPoolExecutor(
            self._processes, mp_context=multiprocessing.get_context("spawn"), initializer=_limit_memory
        )
