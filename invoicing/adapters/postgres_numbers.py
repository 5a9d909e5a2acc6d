"""The numbers that series gave out and that documents bear, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.postgres import Pool

# One statement sees one instant: a document that is issued meanwhile is in both or in neither.
_NUMBERS = (
    "SELECT series AS name, next_number FROM invoice_series"
    " UNION ALL SELECT number, NULL FROM invoices WHERE number IS NOT NULL"
)


class PostgresNumbers:
    """`NumberRegister` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def numbers(self) -> tuple[Mapping[str, int], list[str]]:
        """Return what every series gives out next, and every document's number, as of one instant."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_NUMBERS)).fetchall()
        following = {row["name"]: int(row["next_number"]) for row in rows if row["next_number"] is not None}
        return following, [row["name"] for row in rows if row["next_number"] is None]
