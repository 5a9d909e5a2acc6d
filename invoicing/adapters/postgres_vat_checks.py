"""What VIES said, in PostgreSQL: every answer for ever, the last one on the tenant."""

from __future__ import annotations

from datetime import datetime

from core.tax_places import EU_MEMBER_STATES, TREATED_AS
from invoicing.tax_ports import VatAnswer
from runtime.postgres import Pool

_DUE = (
    "SELECT tenant_id, vat_number FROM tenants WHERE vat_number <> '' AND country = ANY(%(countries)s)"
    " AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)"
    " AND (%(before)s::timestamptz IS NULL OR vat_checked_at IS NULL OR vat_checked_at < %(before)s)"
    " ORDER BY vat_checked_at NULLS FIRST, tenant_id LIMIT %(limit)s"
)
_KEEP = (
    "INSERT INTO vat_checks (tenant_id, vat_number, checked_at, valid, consultation, requester, name, address)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)
# An answer about an older question never takes the place of a newer one.
_MAKE_PRESENT = (
    "UPDATE tenants SET vat_valid = %s, vat_checked_at = %s WHERE tenant_id = %s AND vat_number = %s"
    " AND (vat_checked_at IS NULL OR vat_checked_at <= %s)"
)


class PostgresVatChecks:
    """`VatChecks` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(
        self, *, before: datetime | None = None, tenant_id: str | None = None, limit: int = 1_000
    ) -> list[tuple[str, str]]:
        """Return tenants of the Union with their numbers, those never asked about first.

        With `before` only those not asked about since, without it all.
        """
        asked = {
            "countries": sorted(EU_MEMBER_STATES | TREATED_AS.keys()),
            "tenant": tenant_id,
            "before": before,
            "limit": limit,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_DUE, asked)).fetchall()
        return [(row["tenant_id"], row["vat_number"]) for row in rows]

    async def record(self, tenant_id: str, answer: VatAnswer) -> bool:
        """Keep the answer and make it the tenant's present one; false if the tenant has another number by now."""
        at = answer.checked_at
        async with self._pool.connection() as connection, connection.transaction():
            changed = await connection.execute(_MAKE_PRESENT, (answer.valid, at, tenant_id, answer.vat_number, at))
            await connection.execute(
                _KEEP,
                (
                    tenant_id,
                    answer.vat_number,
                    at,
                    answer.valid,
                    answer.consultation,
                    answer.requester,
                    answer.name,
                    answer.address,
                ),
            )
            return changed.rowcount == 1
