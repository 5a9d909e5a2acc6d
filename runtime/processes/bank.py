"""The bank desk put together, for the command and the API: payments keep it, the seller's accounts are invoicing's."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from core.bank_account import BankAccount
from core.clock import Clock
from invoicing.adapters.seller_file import load_seller
from payments.bank.clerk import BankClerk
from payments.bank.commands import create_app as create_bank_app
from runtime.postgres import Pool
from runtime.settings import Settings


def load_accounts(settings: Settings) -> Sequence[BankAccount]:
    """Return the seller's accounts."""
    return load_seller(settings).bank_accounts


def create_app() -> typer.Typer:
    """Return the command with the seller's accounts."""
    return create_bank_app(load_accounts)


def open_clerk(settings: Settings, pool: Pool, clock: Clock) -> BankClerk:
    """Return the clerk with the seller's accounts, which are read when a statement comes."""
    return BankClerk(
        pool,
        lambda: load_accounts(settings),
        tolerances=settings.wire_fee_tolerance,
        is_exact_confirmed=settings.wire_confirm_exact,
        clock=clock,
    )
