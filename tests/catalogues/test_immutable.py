"""What was sold or agreed cannot be changed: not by the product, and not by SQL either."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.errors import IntegrityConstraintViolation

from catalogues.commands import apply_files
from catalogues.load_catalogue import CatalogueFile
from runtime.settings import Settings

pytestmark = pytest.mark.integration


class Book:
    """A catalogue and a contract of this test's own, and statements about them."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        self.connection, self.name = connection, name

    def run(self, statement: str) -> int:
        """Run a statement on its own; `%(me)s` is the name of plan, catalogue, feature, tenant and contract."""
        with self.connection.transaction():
            return self.connection.execute(statement.encode(), {"me": self.name}).rowcount

    def must_refuse(self, statement: str, match: str) -> None:
        with pytest.raises(IntegrityConstraintViolation, match=match):
            self.run(statement)

    def invoice(self, start: str, end: str, issued: str, status: str = "finalized") -> None:
        with self.connection.transaction():
            self.connection.execute(
                "INSERT INTO subscriptions (subscription_id, tenant_id, plan_id, plan_version, started_at)"
                " VALUES (%(me)s, %(me)s, %(me)s, 1, '2026-01-01') ON CONFLICT DO NOTHING",
                {"me": self.name},
            )
            self.connection.execute(
                "INSERT INTO invoices (invoice_id, tenant_id, subscription_id, period_start, period_end, sequence,"
                " status, number, currency, subtotal, total, issued_at, due_at, snapshot, snapshot_sha256,"
                " engine_version) VALUES (%(id)s, %(me)s, %(me)s, %(start)s, %(end)s, 1, %(status)s, %(id)s, 'USD', 1,"
                " 1, %(issued)s, %(issued)s, '{}', '', '1')",
                {"me": self.name, "id": uuid4().hex, "start": start, "end": end, "issued": issued, "status": status},
            )


@pytest.fixture
async def book(settings: Settings) -> Any:
    name = f"t{uuid4().hex[:10]}"
    text = f"""
catalogue: {name}
features: {{{name}: {{kind: boolean}}}}
plans: {{{name}: {{name: P, currency: USD, features: {{{name}: true}}, charges: [
  {{id: a, name: A, model: flat, flat_amount: "1"}}]}}}}
"""
    await apply_files(settings, [CatalogueFile("x.yaml", text.encode())])
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        book = Book(connection, name)
        book.run(
            "INSERT INTO tenants (tenant_id, name, email, country, currency, created_at)"
            " VALUES (%(me)s, 'T', 't@example.com', 'US', 'USD', now())"
        )
        book.run(
            "INSERT INTO contracts (contract_id, version, tenant_id, plan_id, valid_from, valid_until, document,"
            " digest, overrides, created_at)"
            " VALUES (%(me)s, 1, %(me)s, %(me)s, '2026-01-01', '2027-01-01', '{}', '', '{}', now())"
        )
        yield book


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE plan_versions SET document = '{}' WHERE plan_id = %(me)s",
        "UPDATE plan_versions SET effective_from = '2020-01-01' WHERE plan_id = %(me)s",
        "UPDATE plan_versions SET version = 2 WHERE plan_id = %(me)s",
        "DELETE FROM plan_versions WHERE plan_id = %(me)s",
        "UPDATE catalogue_editions SET digest = '' WHERE catalogue = %(me)s",
        "DELETE FROM catalogue_editions WHERE catalogue = %(me)s",
        "UPDATE entitlements SET value = 'false' WHERE plan_id = %(me)s",
        "DELETE FROM entitlements WHERE plan_id = %(me)s",
    ],
)
def test_what_a_catalogue_stored_never_changes(book: Book, statement: str) -> None:
    book.must_refuse(statement, "never changes once stored")


def test_what_is_given_to_a_plan_by_hand_may_change(book: Book) -> None:
    book.run(
        "INSERT INTO entitlements (entitlement_id, feature_id, plan_id, value, created_at)"
        " VALUES (%(me)s, %(me)s, %(me)s, 'true', now())"
    )
    assert book.run("UPDATE entitlements SET value = 'false' WHERE entitlement_id = %(me)s") == 1
    assert book.run("DELETE FROM entitlements WHERE entitlement_id = %(me)s") == 1


@pytest.mark.parametrize(
    "change",
    [
        """overrides = '{"charges": []}'""",
        "document = '[]'",
        "valid_from = '2025-01-01'",
        "valid_until = '2028-01-01'",
        "valid_until = NULL",
        "convention = 'days'",
        "net_days = 90",
        "plan_id = 'other'",
        "version = 2",
        "withdrawn_at = now(), valid_until = '2026-06-01'",
    ],
)
def test_a_contracts_terms_never_change(book: Book, change: str) -> None:
    book.must_refuse(
        f"UPDATE contracts SET {change} WHERE contract_id = %(me)s", "never changes but for an earlier end"
    )


def test_a_contract_is_never_deleted_and_never_comes_back(book: Book) -> None:
    book.must_refuse("DELETE FROM contracts WHERE contract_id = %(me)s", "cannot be deleted")
    assert book.run("UPDATE contracts SET withdrawn_at = now() WHERE contract_id = %(me)s") == 1
    book.must_refuse("UPDATE contracts SET withdrawn_at = NULL WHERE contract_id = %(me)s", "never changes")


def test_what_was_invoiced_under_a_contract_stays_under_it(book: Book) -> None:
    end = "UPDATE contracts SET valid_until = '{}', shortened_at = now() WHERE contract_id = %(me)s"
    book.invoice("2026-09-01", "2026-10-01", "2026-10-02")
    book.invoice("2026-11-01", "2026-12-01", "2026-12-02", "void")
    book.must_refuse(end.format("2026-09-30"), "was invoiced beyond")
    book.must_refuse("UPDATE contracts SET withdrawn_at = now() WHERE contract_id = %(me)s", "was invoiced beyond")
    assert book.run(end.format("2026-10-01")) == 1, "from the end of what was invoiced on it may end"


def test_an_invoice_in_the_middle_of_its_period_fixes_what_is_past(book: Book) -> None:
    end = "UPDATE contracts SET valid_until = '{}', shortened_at = now() WHERE contract_id = %(me)s"
    book.invoice("2026-10-01", "2026-11-01", "2026-10-15")
    book.must_refuse(end.format("2026-10-14"), "was invoiced beyond")
    assert book.run(end.format("2026-10-20")) == 1


def test_what_came_after_a_contract_does_not_hold_it(book: Book) -> None:
    book.invoice("2027-02-01", "2027-03-01", "2027-03-02")
    assert book.run("UPDATE contracts SET valid_until = '2026-03-01' WHERE contract_id = %(me)s") == 1
