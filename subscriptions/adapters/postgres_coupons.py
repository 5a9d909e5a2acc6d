"""Coupons and their redemptions in PostgreSQL. That a limit is not passed holds by constraint, whoever writes."""

from __future__ import annotations

from datetime import datetime

from rating.adapters.postgres_redemptions import (
    COUPON_COLUMNS,
    REDEMPTION_COLUMNS,
    read_coupon_row,
    read_redemption_row,
)
from rating.domain.coupon import Coupon, Redemption
from subscriptions.adapters.postgres_holders import PostgresSaleFacts
from subscriptions.coupon_ports import OfferedCoupon

_COUPONS = f"SELECT {COUPON_COLUMNS}, redeemed, created_at FROM coupons AS coupon"  # noqa: S608
_REDEMPTIONS = (
    f"SELECT {COUPON_COLUMNS}, {REDEMPTION_COLUMNS} FROM coupon_redemptions AS redemption"  # noqa: S608
    " JOIN coupons AS coupon ON coupon.coupon_id = redemption.coupon_id AND coupon.version = coupon_version"
    " WHERE (%(coupon_id)s::text IS NULL OR redemption.coupon_id = %(coupon_id)s)"
    " AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)"
    " AND (%(subscription_id)s::text IS NULL OR subscription_id = %(subscription_id)s)"
    " ORDER BY redeemed_at, redemption_id"
)


class PostgresCouponStore(PostgresSaleFacts):
    """A `CouponStore` on the caller's connection and transaction."""

    async def newest_coupon(self, coupon_id: str, *, lock: bool = False) -> OfferedCoupon | None:
        """Return a coupon's newest version, None if there is none; `lock` lets others redeem it only afterwards."""
        query = _COUPONS + " WHERE coupon_id = %s ORDER BY version DESC LIMIT 1"
        rows = await self._rows(query + (" FOR NO KEY UPDATE" if lock else ""), coupon_id)
        return _offered(rows[0]) if rows else None

    async def coupons(self, coupon_id: str | None = None) -> list[OfferedCoupon]:
        """Return all versions of all coupons, or of one, by id and version."""
        query = _COUPONS + " WHERE %s::text IS NULL OR coupon_id = %s ORDER BY coupon_id, version"
        return [_offered(row) for row in await self._rows(query, coupon_id, coupon_id)]

    async def add_coupon(self, coupon: Coupon, now: datetime) -> bool:
        """Store a new version unless there is one of this number; tells whether it was new."""
        row = {
            "coupon_id": coupon.coupon_id,
            "version": coupon.version,
            "name": coupon.name,
            "percent_off": coupon.percent_off,
            "amount_off": coupon.amount_off,
            "currency": coupon.currency,
            "duration": coupon.duration.value,
            "periods": coupon.periods,
            "valid_from": coupon.valid_from,
            "valid_until": coupon.valid_until,
            "max_redemptions": coupon.max_redemptions,
            "max_per_tenant": coupon.max_per_tenant,
            "automatic": coupon.automatic,
            "plans": sorted(coupon.plans),
            "meters": sorted(coupon.meters),
            "charges": sorted(coupon.charges),
            "minimum_amount": coupon.minimum_amount,
            "priority": coupon.priority,
            "exclusive": coupon.exclusive,
            "created_at": now,
        }
        places = ", ".join(f"%({name})s" for name in row)
        added = await self._connection.execute(
            f"INSERT INTO coupons ({', '.join(row)}) VALUES ({places}) ON CONFLICT DO NOTHING".encode(),  # noqa: S608
            row,
        )
        return added.rowcount == 1

    async def set_archived(self, coupon: Coupon, now: datetime) -> None:
        """Note that a version is archived."""
        await self._connection.execute(
            "UPDATE coupons SET archived_at = %s WHERE coupon_id = %s AND version = %s",
            (now, coupon.coupon_id, coupon.version),
        )

    async def redemptions(
        self, *, coupon_id: str | None = None, tenant_id: str | None = None, subscription_id: str | None = None
    ) -> list[Redemption]:
        """Return redemptions, removed ones too, by when they were redeemed; automatic coupons have none."""
        wanted = {"coupon_id": coupon_id, "tenant_id": tenant_id, "subscription_id": subscription_id}
        found = await (await self._connection.execute(_REDEMPTIONS.encode(), wanted)).fetchall()
        return [read_redemption_row(row) for row in found]

    async def add_redemption(self, redemption: Redemption) -> None:
        """Store a redemption and count it."""
        await self._connection.execute(
            "INSERT INTO coupon_redemptions"
            " (redemption_id, coupon_id, coupon_version, tenant_id, subscription_id, redeemed_at, starts_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                redemption.redemption_id,
                redemption.coupon.coupon_id,
                redemption.coupon.version,
                redemption.tenant_id,
                redemption.subscription_id,
                redemption.redeemed_at,
                redemption.starts_at,
            ),
        )

    async def set_removed(self, redemption: Redemption, now: datetime) -> None:
        """Note that a redemption is removed."""
        await self._connection.execute(
            "UPDATE coupon_redemptions SET removed_at = greatest(redeemed_at, %s) WHERE redemption_id = %s",
            (now, redemption.redemption_id),
        )


def _offered(row: dict[str, object]) -> OfferedCoupon:
    redeemed, created_at = row.pop("redeemed"), row.pop("created_at")
    return OfferedCoupon(read_coupon_row(row), redeemed, created_at)  # type: ignore[arg-type]
