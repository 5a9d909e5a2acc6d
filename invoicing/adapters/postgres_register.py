"""Invoices as a whole in PostgreSQL: lists and facts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from core.calendar import Calendar
from core.period import format_instant, parse_month
from invoicing.domain.which_periods import periods_ending_in
from invoicing.ports import InvoicedFact, ListedInvoice, ToInvoice
from rating.domain.cycle import Cycle, Interval, calendar_cycle
from rating.rate_timeline import period_name
from runtime.postgres import Pool

# Wide: months of other zones begin and end up to a day apart. A subscription whose last change was put down only now
# may owe something for periods before its end, or have something coming.
_TENANTS = (
    "SELECT tenant_id, parked_reason, time_zone, billing_anchor_day, started_at, billing_interval, anchor,"
    " CASE WHEN EXISTS (SELECT FROM subscription_phases p WHERE p.subscription_id = s.subscription_id)"
    " THEN (SELECT nullif(max(coalesce(ends_at, 'infinity')), 'infinity') FROM subscription_phases p"
    " WHERE p.subscription_id = s.subscription_id) ELSE ended_at END AS ended_at,"
    " (SELECT max(c.recorded_at) FROM subscription_changes c WHERE c.subscription_id = s.subscription_id) AS changed_at"
    " FROM subscriptions AS s JOIN tenants USING (tenant_id)"
    " WHERE started_at < %(end)s AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) ORDER BY tenant_id"
)
_INVOICES = (
    "SELECT invoices.invoice_id, number, invoices.tenant_id, coalesce(plan_id, '') AS plan_id, period_start, sequence,"
    " status, invoices.currency, total, credits_applied, amount_paid, issued_at, due_at, paid_at, location AS document,"
    " month, invoices.kind, amount_due"
    " FROM invoices LEFT JOIN subscriptions USING (subscription_id)"
    " JOIN tenants ON tenants.tenant_id = invoices.tenant_id"
    " LEFT JOIN invoice_documents AS d ON d.invoice_id = invoices.invoice_id AND d.media_type = 'application/pdf'"
    " CROSS JOIN LATERAL ("
    " SELECT to_char((period_end - interval '1 minute') AT TIME ZONE time_zone, 'YYYY-MM') AS month)"
    " WHERE number IS NOT NULL AND (%(month)s::text IS NULL OR month = %(month)s)"
    " AND (%(tenant)s::text IS NULL OR invoices.tenant_id = %(tenant)s) ORDER BY number"
)
# Lines are summed by plan version, charge, meter and billing period: that is the grain dashboards keep. What was taken
# off a charge lowers its amount; a quantity it has none. One-time items are of no plan and settle their tenant's month.
_FACTS = (
    "SELECT invoice.tenant_id, coalesce(settles, invoice.period_start) AS settled, invoice.invoice_id, charge_id,"
    " coalesce(evidence -> 'plan' ->> 'id', subscription.plan_id, '') AS plan_id,"
    " coalesce(evidence -> 'plan' ->> 'version', subscription.plan_version::text, '0') AS plan_version, status,"
    " coalesce(meter_id, '') AS meter_id,"
    " sum(line.quantity) FILTER (WHERE line.kind NOT IN ('coupon', 'discount', 'maximum', 'true_up')) AS quantity,"
    " sum(line.amount) AS amount, invoice.currency, issued_at, sequence, time_zone, billing_anchor_day,"
    " coalesce(billing_interval, 'month') AS billing_interval, anchor, coalesce(started_at, issued_at) AS started_at"
    " FROM invoices AS invoice JOIN tenants ON tenants.tenant_id = invoice.tenant_id"
    " JOIN invoice_lines AS line ON line.invoice_id = invoice.invoice_id"
    " LEFT JOIN subscriptions AS subscription"
    " ON subscription.subscription_id = coalesce(line.subscription_id, invoice.subscription_id)"
    " WHERE invoice.invoice_id = %s AND number IS NOT NULL"
    " GROUP BY invoice.invoice_id, subscription.subscription_id, tenants.tenant_id, settled, 5, 6, charge_id, meter_id"
    " ORDER BY settled, charge_id, meter_id"
)
# More than any sequence of a billing period.
VOIDED = 1_000_000


class PostgresRegister:
    """`InvoiceRegister` and `InvoicedLines` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def tenants_to_invoice(self, month: str, tenant_id: str | None) -> list[ToInvoice]:
        """Return the tenants with a subscription in the month of their own calendar, by id."""
        widest = parse_month(month)
        rows = await self._rows(_TENANTS, {"end": widest.end + timedelta(days=1), "tenant": tenant_id})
        found: dict[str, ToInvoice] = {}
        for row in rows:
            calendar = Calendar(row["time_zone"], row["billing_anchor_day"])
            until = max((at for at in (row["ended_at"], row["changed_at"]) if at is not None), default=None)
            ends = None if row["ended_at"] is None else until
            for period in periods_ending_in(_cycle_of(row, calendar), calendar.period(month)):
                if row["started_at"] < calendar.period(month).end and (ends is None or ends > period.start):
                    found[row["tenant_id"]] = ToInvoice(row["tenant_id"], row["parked_reason"], calendar)
        return list(found.values())

    async def invoices(self, month: str | None, tenant_id: str | None) -> list[ListedInvoice]:
        """Return finalized invoices by number; those of a month (`2026-10`) whose billing period ends in it."""
        rows = await self._rows(_INVOICES, {"month": month, "tenant": tenant_id})
        return [ListedInvoice(**row) for row in rows]

    async def unpark(self, tenant_id: str) -> bool:
        """Let a parked account be invoiced again; tells whether it was parked."""
        async with self._pool.connection() as connection:
            changed = await connection.execute(
                "UPDATE tenants SET parked_reason = NULL, parked_at = NULL"
                " WHERE tenant_id = %s AND parked_reason IS NOT NULL",
                (tenant_id,),
            )
            return changed.rowcount == 1

    async def consolidate(self, tenant_id: str, *, is_on: bool) -> bool:
        """Put a tenant's subscriptions on one invoice, or on one each; tells whether there is such a tenant."""
        async with self._pool.connection() as connection:
            query = "UPDATE tenants SET consolidated_invoices = %s WHERE tenant_id = %s"
            return (await connection.execute(query, (is_on, tenant_id))).rowcount == 1

    async def parked(self) -> list[tuple[str, str, str]]:
        """Return the parked accounts with since when and why, the longest first."""
        query = "SELECT tenant_id, parked_at, parked_reason FROM tenants WHERE parked_at IS NOT NULL ORDER BY parked_at"
        rows = await self._rows(query, ())
        return [(row["tenant_id"], format_instant(row["parked_at"]), row["parked_reason"]) for row in rows]

    async def facts(self, invoice_id: str) -> list[InvoicedFact]:
        """Return an invoice's lines summed by charge and meter; empty for an unknown invoice."""
        return [_fact(row) for row in await self._rows(_FACTS, (invoice_id,))]

    async def _rows(self, query: str, arguments: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(query.encode(), arguments)).fetchall()


def _cycle_of(row: Mapping[str, Any], calendar: Calendar) -> Cycle:
    interval = Interval(row["billing_interval"])
    if row["anchor"] is None:
        return calendar_cycle(interval, calendar, row["started_at"])
    return Cycle(interval, row["anchor"], calendar.time_zone)


def _fact(row: dict[str, Any]) -> InvoicedFact:
    cycle = _cycle_of(row, Calendar(row.pop("time_zone"), row.pop("billing_anchor_day")))
    for name in ("billing_interval", "anchor", "started_at"):
        del row[name]
    row["period"] = period_name(cycle, cycle.period_at(row.pop("settled")))
    row["quantity"] = row["quantity"] or Decimal(0)
    if row.pop("status") == "void":
        # Counts as never billed: a newer version of the same rows, whichever of both announcements is read last.
        row |= {"quantity": Decimal(0), "amount": Decimal(0), "sequence": row["sequence"] + VOIDED}
    row["holding"] = f"{row['plan_id']}@{row.pop('plan_version')}"
    return InvoicedFact(**row)
