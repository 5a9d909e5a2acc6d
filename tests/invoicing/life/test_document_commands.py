"""`meterbook invoice render|resend` and `preview --pdf` on the real engines: a document before it is one, and after."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pypdf import PdfReader
from typer.testing import CliRunner

from catalogues.commands import apply_files
from catalogues.load_catalogue import shipped_files
from core.clock import SystemClock
from core.errors import MeterbookError
from invoicing.adapters.object_store import open_documents
from invoicing.adapters.postgres_documents import PostgresDocuments
from invoicing.adapters.smtp import SmtpMailer
from invoicing.commands import app
from invoicing.deliver_invoice import deliver_next
from runtime.postgres import create_pool
from runtime.settings import Settings
from subscriptions.commands import add_tenant
from subscriptions.domain.tenant import Tenant
from tests.invoicing.life.test_life_commands import use
from tests.invoicing.scene import at
from tests.standins.smtp_server import SmtpStandIn


@pytest.mark.integration
def test_a_document_before_it_is_one_and_after_its_files_are_gone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("METERBOOK_HOME", str(settings.home))
    tenant_id = f"docs-{uuid4().hex[:10]}"
    asyncio.run(apply_files(settings, shipped_files()))
    tenant = Tenant(tenant_id, "株式会社クラウド", "billing@example.com", "JP", "USD", "1 Road\nTown")
    asyncio.run(add_tenant(settings, tenant, "lite", overrides={}, started_at=at("2025-10-01")))
    use(settings, tenant_id, "1000", 1)

    def ask(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    preview = tmp_path / "preview.pdf"
    arguments = ["preview", "--tenant", tenant_id, "--at", "2025-10-20T00:00:00Z", "--pdf", str(preview)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    text = PdfReader(io.BytesIO(preview.read_bytes())).pages[0].extract_text()
    assert ("株式会社クラウド" in text, "NOT AN INVOICE" in text.upper()) == (True, True)

    (invoice,) = ask("now", "--tenant", tenant_id, "--period", "2025-10")
    number = invoice["number"]
    first = ask("render", number)
    assert {one["outcome"] for one in first} == {"made"}
    assert {one["outcome"] for one in ask("render", invoice["invoice_id"])} == {"kept"}
    pdf = next(one for one in first if one["media_type"] == "application/pdf")
    Path(pdf["location"]).write_bytes(b"damaged")
    again = {one["media_type"]: one for one in ask("render", number)}
    assert again["application/pdf"] == {**pdf, "outcome": "same_bytes"}
    assert hashlib.sha256(Path(pdf["location"]).read_bytes()).hexdigest() == pdf["sha256"]

    refused = CliRunner().invoke(app, ["resend", number])
    assert isinstance(refused.exception, MeterbookError)
    assert "mail_off" in str(refused.exception)
    sent = asyncio.run(_resent(settings, monkeypatch, number, ask_in_thread=ask))
    assert [(one["to"], one["again"]) for one in sent] == [("billing@example.com", "sent"), ("x@b.example", "sent")]
    assert len({one["message_id"] for one in sent}) == 2


async def _resent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, number: str, *, ask_in_thread: Any
) -> list[dict[str, str]]:
    """Ask by command for two mails, each twice, and carry them to a server."""
    server = SmtpStandIn()
    await server.start()
    monkeypatch.setenv("METERBOOK_SMTP_URL", server.url)
    try:
        wishes = (("--key", "a"), ("--key", "b", "--to", "x@b.example"))
        for wish in (*wishes, *wishes):
            assert (await asyncio.to_thread(ask_in_thread, "resend", number, *wish))["status"] == "pending"
        async with create_pool(settings, max_size=2) as pool:
            while await deliver_next(
                deliveries=PostgresDocuments(pool),
                documents=open_documents(settings),
                mailer=SmtpMailer(server.url),
                clock=SystemClock(),
            ):
                continue
        states = [await asyncio.to_thread(ask_in_thread, "resend", number, *wish) for wish in wishes]
        return [
            {"to": state["address"], "again": state["status"], "message_id": message["message_id"]}
            for state, message in zip(states, server.messages, strict=True)
        ]
    finally:
        await server.stop()
