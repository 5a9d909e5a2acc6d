"""Wire payments: bank statements come in, a person says which entry pays which invoice (docs/wire.md).

`domain/` reads statements and proposes, pure; `import_statement.py`, `confirm_match.py`, `reject_entry.py` and
`take_back.py` are what may be done; `adapters/` keeps it in PostgreSQL.
"""
