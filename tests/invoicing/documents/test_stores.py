"""Where bytes are kept: the folder and S3 pass the same tests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import UnavailableError
from invoicing.adapters.folder import FolderDocuments
from invoicing.adapters.object_store import S3Documents, open_documents
from invoicing.document_ports import DocumentStore
from runtime.settings import InvalidSettingsError, load_settings
from tests.invoicing.documents.s3_standin import KEY, REGION, SECRET, S3StandIn


@pytest.fixture
async def s3() -> AsyncIterator[S3StandIn]:
    server = S3StandIn()
    await server.start()
    yield server
    await server.stop()


def s3_documents(server: S3StandIn, *, secret: str = SECRET, url: str = "s3://invoices/books") -> S3Documents:
    return S3Documents(url, region=REGION, endpoint=server.url, access_key=KEY, secret_key=secret)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: S3StandIn) -> DocumentStore:
    return FolderDocuments(tmp_path / "documents") if request.param == "folder" else s3_documents(s3)


async def test_what_was_written_is_read_whole_and_the_last_writing_counts(store: DocumentStore) -> None:
    content = bytes(range(256)) * 4096
    location = await store.write("acme/MB-2026-000001.pdf", content)
    assert await store.read(location) == content
    assert await store.write("acme/MB-2026-000001.pdf", b"again") == location
    assert await store.read(location) == b"again"


async def test_a_location_that_is_not_there_or_not_ours_is_nothing(store: DocumentStore) -> None:
    location = await store.write("acme/one.pdf", b"one")
    others = ("s3://elsewhere/books/acme/one.pdf", "s3://invoices/other/one.pdf", "/etc/passwd", "../one.pdf", "")
    for other in (location.replace("one.pdf", "two.pdf"), *others):
        assert await store.read(other) is None, other


async def test_the_object_lies_below_its_prefix_and_is_signed(s3: S3StandIn) -> None:
    assert await s3_documents(s3).write("acme/ünï 1.pdf", b"%PDF") == "s3://invoices/books/acme/ünï 1.pdf"
    assert s3.objects == {"/invoices/books/acme/ünï 1.pdf": b"%PDF"}
    assert s3.refused == 0
    with pytest.raises(UnavailableError):
        await s3_documents(s3, secret="wrong").write("acme/2.pdf", b"%PDF")
    assert (s3.refused, len(s3.objects)) == (1, 1)


async def test_a_store_that_stumbles_is_asked_again(s3: S3StandIn) -> None:
    s3.failures = 1
    location = await s3_documents(s3).write("acme/1.pdf", b"%PDF")
    assert (s3.failures, await s3_documents(s3).read(location)) == (0, b"%PDF")


async def test_the_settings_say_which_store_it_is(tmp_path: Path, s3: S3StandIn) -> None:
    assert isinstance(open_documents(load_settings(documents_dir=tmp_path)), FolderDocuments)
    settings = load_settings(
        documents_url="s3://invoices",
        documents_endpoint=s3.url,
        documents_region=REGION,
        documents_access_key=KEY,
        documents_secret_key=SECRET,
    )
    store = open_documents(settings)
    assert await store.read(await store.write("a.pdf", b"x")) == b"x"
    assert list(s3.objects) == ["/invoices/a.pdf"]
    assert SECRET not in repr(settings)
    with pytest.raises(InvalidSettingsError):
        load_settings(documents_url="https://invoices")


async def test_half_a_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderDocuments(tmp_path)
    location = await store.write("acme/1.pdf", b"whole")
    calls = itertools.count()

    def fail(_: int) -> None:
        next(calls)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        await store.write("acme/1.pdf", b"other")
    monkeypatch.undo()
    assert (next(calls), await store.read(location)) == (1, b"whole")
    assert [path.name for path in (tmp_path / "acme").iterdir()] == ["1.pdf"]
