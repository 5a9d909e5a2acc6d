"""The double-entry ledger of money: a library that the causes of entries call in their own transaction.

`domain/` says what an entry is and which postings an invoice, a settlement or a refund makes, pure; `ports.py` is what
causes see of it, `adapters/` memory and PostgreSQL; `check_ledger.py` proves it against the books it follows.
"""
