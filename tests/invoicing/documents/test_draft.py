"""What is not issued can be seen as a PDF that says on every page that it is no invoice; nothing of it is kept."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
from pypdf import PdfReader

from core.errors import InvalidInputError, NotFoundError
from invoicing.document_words import load_words
from invoicing.domain.document import LANGUAGES
from invoicing.draft_document import draft_snapshot, preview_snapshot
from invoicing.preview_invoice import Wish, preview_invoice
from invoicing.render_document import render_document
from tests.invoicing.life.stage import Stage, used_in_october
from tests.invoicing.scene import at
from tests.invoicing.story import SMALL, base, plan

pytestmark = pytest.mark.slow

LARGE = plan("large", base("100.00"))


def stage_with_draft() -> Stage:
    stage = Stage()
    stage.terms = replace(stage.terms, grace_hours=48)
    stage.subscribe(SMALL, LARGE)
    used_in_october(stage, 350)
    return stage


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_draft_in_its_grace_is_marked_on_every_page_and_asks_for_nothing(language: str) -> None:
    stage = stage_with_draft()
    buyers = stage.books.state.buyers
    buyers["acme"] = replace(buyers["acme"], language=language)
    await stage.grant("5.00", "2026-10-01")
    assert await stage.bill_at("2026-11-01", "2026-10") == []
    (draft,) = stage.books.state.issued.standings.values()
    held = copy.deepcopy((stage.books.state.issued.standings, stage.books.state.series))
    shown = await draft_snapshot(draft.invoice_id, books=stage.books, terms=stage.terms)
    assert (shown["total"], shown["credits_applied"], shown["amount_due"]) == ("55.00", "5.00", "50.00")
    assert (shown["invoice"]["invoice_id"], shown["plan"]["id"]) == (draft.invoice_id, SMALL.plan_id)
    rendered = render_document(shown, "draft")
    assert rendered.e_invoice is None
    reader = PdfReader(io.BytesIO(rendered.pdf))
    assert (list(reader.attachments), len(reader.pages)) == ([], 2)
    words = load_words(language)
    for page in reader.pages:
        text = page.extract_text().replace("\n", " ").lower()
        assert words.text("draft").lower() in text
        assert words.text("not_an_invoice").lower() in text
        assert "mb-" not in text
        assert "iban" not in text
    assert "50.00" in reader.pages[0].extract_text().replace(",", ".")
    assert (stage.books.state.issued.standings, stage.books.state.series) == held, "nothing is stored"
    assert await draft_snapshot(draft.invoice_id, books=stage.books, terms=stage.terms) == shown


async def test_only_drafts_are_shown_as_drafts() -> None:
    stage = stage_with_draft()
    await stage.bill_at("2026-11-01", "2026-10")
    (invoice,) = (await stage.finalize(is_early=True)).issued
    for reference in (invoice.number, invoice.draft.invoice_id):
        with pytest.raises(InvalidInputError) as refused:
            await draft_snapshot(reference, books=stage.books, terms=stage.terms)
        assert refused.value.faults[0].code == "not_a_draft"
    with pytest.raises(NotFoundError):
        await draft_snapshot("inv_unknown", books=stage.books, terms=stage.terms)


async def test_a_preview_as_a_document_shows_what_the_preview_says() -> None:
    stage, when = stage_with_draft(), at("2026-10-20")
    for wish, named in ((None, SMALL), (Wish(plan_id="large"), LARGE)):
        expected = await preview_invoice(
            "acme", when, books=stage.books, usage=stage.usage, wish=wish, rules=stage.terms.tax_rules
        )
        shown = await preview_snapshot("acme", when, books=stage.books, usage=stage.usage, terms=stage.terms, wish=wish)
        assert (shown["total"], shown["amount_due"]) == (f"{expected.total:.2f}", f"{expected.amount_due:.2f}")
        assert sum(len(group["lines"]) for group in shown["groups"]) == len(expected.lines)
        assert shown["plan"]["id"] == named.plan_id
    text = PdfReader(io.BytesIO(render_document(shown, "draft").pdf)).pages[0].extract_text()
    assert "not an invoice" in text.lower()


async def test_a_difference_that_gives_back_is_shown_as_a_draft_too() -> None:
    stage = stage_with_draft()
    stage.terms = replace(stage.terms, grace_hours=0)
    (invoice,) = await stage.bill_at("2026-11-02", "2026-10")
    stage.terms = replace(stage.terms, grace_hours=48)
    used_in_october(stage, 200)
    assert await stage.bill_at("2026-11-03", "2026-10") == []
    draft = next(one for one in stage.books.state.issued.standings.values() if one.status == "draft")
    shown = await draft_snapshot(draft.invoice_id, books=stage.books, terms=stage.terms)
    assert (shown["kind"], shown["total"]) == ("credit_note", "-15.00")
    assert shown["corrects"] == [{"number": invoice.number, "issued_at": None}]
    text = PdfReader(io.BytesIO(render_document(shown, "draft").pdf)).pages[0].extract_text()
    assert "not an invoice" in text.lower()
    assert "15.00" in text
