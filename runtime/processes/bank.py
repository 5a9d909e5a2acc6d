"""`meterbook bank` put together: payments keep the desk, the seller's accounts are invoicing's."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from core.bank_account import BankAccount
from invoicing.adapters.seller_file import load_seller
from payments.bank.commands import create_app as create_bank_app
from runtime.settings import Settings


def load_accounts(settings: Settings) -> Sequence[BankAccount]:
    """Return the seller's accounts."""
    return load_seller(settings).bank_accounts


def create_app() -> typer.Typer:
    """Return the command with the seller's accounts."""
    return create_bank_app(load_accounts)
