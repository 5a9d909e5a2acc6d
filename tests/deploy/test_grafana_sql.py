"""Macros and variables as grafana-clickhouse-datasource expands them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.grafana_sql import ALL, QueryContext, UnknownMacroError, expand, used_variables

FIRST, LAST = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 1, 6, tzinfo=UTC)
VARIABLES = {"tenant": ("acme", "o'neil"), "meter": ("cpu",), "every": (ALL,)}


def expanded(sql: str, interval_s: int = 60) -> str:
    return expand(sql, QueryContext(FIRST, LAST, interval_s, VARIABLES))


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("$__timeFilter(at)", "at >= toDateTime(1790812800) AND at <= toDateTime(1790834400)"),
        ("$__timeInterval(at)", "toStartOfInterval(toDateTime(at), INTERVAL 60 second)"),
        ("$__dateFilter(day)", "day >= toDate('2026-10-01') AND day <= toDate('2026-10-01')"),
        ("$__fromTime, $__toTime", "toDateTime(1790812800), toDateTime(1790834400)"),
        ("count() / $__interval_s", "count() / 60"),
        ("$__timeInterval(toDateTime(at, 'UTC'))",
         "toStartOfInterval(toDateTime(toDateTime(at, 'UTC')), INTERVAL 60 second)"),
        ("$__timeInterval($__fromTime)", "toStartOfInterval(toDateTime(toDateTime(1790812800)), INTERVAL 60 second)"),
        ("tenant IN (${tenant:singlequote})", "tenant IN ('acme','o\\'neil')"),
        ("'${meter}' = '$meter'", "'cpu' = 'cpu'"),
        ("$__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)", "tenant IN ('acme','o\\'neil')"),
        ("$__conditionalAll(tenant IN (${every:singlequote}), $every) AND 2", "1=1 AND 2"),
        ("$__conditionalAll(x = f(a), $every) AND $__conditionalAll(y IN (1), ${meter})", "1=1 AND y IN (1)"),
    ],
)  # fmt: skip
def test_what_grafana_would_send(sql: str, sent: str):
    assert expanded(sql) == sent


def test_an_interval_is_never_shorter_than_a_second():
    assert expanded("$__interval_s", interval_s=0) == "1"


@pytest.mark.parametrize(
    "sql",
    ["$__timeFilter()", "$__timeFilter(a, b)", "$__nonsense(at)", "${city}", "$city", "${tenant}",
     "${tenant:fancy}", "$__timeFilter(at", "$__conditionalAll(1)", "$__conditionalAll(1, 2)"],
)  # fmt: skip
def test_what_grafana_would_not_understand_is_refused(sql: str):
    with pytest.raises(UnknownMacroError):
        expanded(sql)


def test_the_variables_a_title_mentions():
    assert used_variables("${meter} of $tenant, $__interval_s") == {"meter", "tenant"}
