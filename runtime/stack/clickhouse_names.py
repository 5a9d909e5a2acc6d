"""Names that ClickHouse's launcher and its server process share."""

from __future__ import annotations

DATABASE = "meterbook"
# Password of the user `default`; none when it is not set.
PASSWORD_VARIABLE = "METERBOOK_CLICKHOUSE_PASSWORD"  # noqa: S105 - the variable's name
