"""Whether an account may use anything at all: what its standing for dunning means for its features. Pure.

The words of a standing are dunning's (docs/dunning.md); who has paid, or was never late, is `current`.
"""

from __future__ import annotations

from core.errors import ConflictError

CURRENT = "current"
_SHUT_OUT = frozenset({"suspended", "collected"})
_PAST_DUE = "past_due"
# Why a feature may not be used, for programs.
SUSPENDED_CODE = "account_suspended"
PAST_DUE_CODE = "account_past_due"
LIMIT_CODE = "limit_reached"
NOT_GIVEN_CODE = "not_given"


class AccountSuspendedError(ConflictError):
    """The account is suspended until what it owes is paid."""

    code = SUSPENDED_CODE


class AccountPastDueError(ConflictError):
    """The account is past due, and nothing more may be used until what it owes is paid."""

    code = PAST_DUE_CODE


def find_refusal(account: str, *, past_due_is_refused: bool) -> str | None:
    """Return the code of why an account of this standing may use nothing, None if it may."""
    if account in _SHUT_OUT:
        return SUSPENDED_CODE
    return PAST_DUE_CODE if account == _PAST_DUE and past_due_is_refused else None


def check_access(account: str, *, past_due_is_refused: bool) -> None:
    """Raise `AccountSuspendedError` or `AccountPastDueError` if an account of this standing may use nothing."""
    refusal = find_refusal(account, past_due_is_refused=past_due_is_refused)
    if refusal is not None:
        raise AccountSuspendedError if refusal == SUSPENDED_CODE else AccountPastDueError
