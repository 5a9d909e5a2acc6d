"""What a catalogue file may say, and how a wrong one is refused: file, line, path and reason, all faults at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalogues.load_catalogue import CatalogueFile, load_catalogue, read_files, shipped_files
from core.errors import Fault, InvalidInputError
from core.meters import AGGREGATIONS, Filter, Meter

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
CPU = Meter("cpu", "vCPU-hour", "compute.cpu", "sum", "vcpu_hours")


def faults_of(*texts: str | bytes) -> list[Fault]:
    files = [
        CatalogueFile(f"file{number}.yaml", text if isinstance(text, bytes) else text.encode())
        for number, text in enumerate(texts, 1)
    ]
    with pytest.raises(InvalidInputError) as refused:
        load_catalogue(files, [CPU])
    return refused.value.faults


def meter(rest: str) -> str:
    return f"meters: {{m: {{unit: x, event_type: t, {rest}}}}}"


def gives(what: str) -> str:
    """Return a plan that gives something of three features, one of each kind."""
    features = "features: {on: {kind: boolean}, level: {kind: static}, much: {kind: metered, meter: cpu}}"
    return f"{features}\nplans: {{p: {{name: A, currency: USD, features: {{{what}}}}}}}"


FILTER = "file1.yaml:1: meters.m.filters[0]"


def filtered(one: str) -> str:
    return meter(f"aggregation: count, filters: [{one}]")


def test_the_shipped_catalogues_have_all_tiers_plans_and_meters() -> None:
    catalogue = load_catalogue(shipped_files())
    by_catalogue: dict[str, list[str]] = {}
    for name, plan in catalogue.plans:
        by_catalogue.setdefault(name, []).append(plan.plan_id)
    assert by_catalogue == {
        "tiers": ["zero", "zero_pay_per_execution", "shared", "lite", "enterprise", "airgapped"],
        "plans": [
            "free",
            "starter_monthly",
            "starter_yearly",
            "professional_monthly",
            "professional_yearly",
            "enterprise_monthly",
            "enterprise_yearly",
        ],
        "services": ["services"],
    }
    assert [(one.catalogue, one.version, one.effective_from) for one in catalogue.editions] == [
        ("meters", 1, None),
        ("tiers", 1, JANUARY),
        ("plans", 1, JANUARY),
        ("services", 1, JANUARY),
    ]
    meters = {meter.meter_id: meter for meter in catalogue.meters}
    assert meters["agent_executions"] == Meter(
        "agent_executions", "execution", "agent.execution", "count", None, ("agent_type",)
    )
    assert {meter_id for meter_id, meter in meters.items() if meter.event_type == "llm.completion"} == {
        "llm_input_tokens",
        "llm_output_tokens",
    }


def test_a_digest_depends_on_content_not_on_order_or_comments() -> None:
    one = 'plans: {p: {name: P, currency: USD, charges: [{id: a, name: A, model: flat, flat_amount: "1"}]}}'
    two = """# the same
plans:
  p:
    charges:
      - {flat_amount: "1", model: flat, name: A, id: a}
    currency: USD
    name: P
"""
    first, second = (load_catalogue([CatalogueFile("x.yaml", text.encode())]).plans[0][1] for text in (one, two))
    assert first.digest == second.digest
    assert len(first.digest) == 64
    changed = load_catalogue([CatalogueFile("x.yaml", one.replace('"1"', '"2"').encode())]).plans[0][1]
    assert changed.digest != first.digest


WRONG = """\
catalogue: wrong
plans:
  lite:
    name: Lite
    currency: XXX
    colour: red
    charge_sets: [nope]
    charges:
      - {id: a, name: A, meter: nometer, model: per_unit, unit_amount: 0.1}
      - {id: b, name: B, meter: cpu, model: per_unit, unit_amount: "-1"}
      - id: c
        name: C
        meter: cpu
        model: graduated
        tiers:
          - {up_to: 10, unit_amount: "1"}
          - {up_to: 5, unit_amount: "1.0000000000001"}
      - {id: d, name: D, meter: cpu, model: perunit}
      - {id: e, name: E, meter: cpu, model: per_unit, unit_amount: "1"}
      - {id: e, name: E, meter: cpu, model: per_unit, unit_amount: "1"}
"""


def test_all_faults_of_a_file_are_reported_at_once_with_file_line_and_path() -> None:
    found = {(fault.code, fault.path) for fault in faults_of(WRONG)}
    assert found == {
        ("unknown_currency", "file1.yaml:5: plans.lite.currency"),
        ("unknown_field", "file1.yaml:6: plans.lite.colour"),
        ("unknown_charge_set", "file1.yaml:7: plans.lite.charge_sets[0]"),
        ("unknown_meter", "file1.yaml:9: plans.lite.charges[0].meter"),
        ("float_amount", "file1.yaml:9: plans.lite.charges[0].unit_amount"),
        ("negative_amount", "file1.yaml:10: plans.lite.charges[1].unit_amount"),
        ("tier_hole", "file1.yaml:17: plans.lite.charges[2].tiers[1].up_to"),
        ("tier_overlap", "file1.yaml:17: plans.lite.charges[2].tiers[1].up_to"),
        ("too_many_digits", "file1.yaml:17: plans.lite.charges[2].tiers[1].unit_amount"),
        ("unknown_price_model", "file1.yaml:18: plans.lite.charges[3].model"),
        ("duplicate_id", "file1.yaml:20: plans.lite.charges[5].id"),
    }


def test_faults_of_all_files_are_reported_at_once() -> None:
    found = faults_of("plans: {p: {currency: USD}}", "meters: {m: {unit: x, event_type: t, aggregation: median}}")
    assert [(fault.code, fault.path) for fault in found] == [
        ("unknown_aggregation", "file2.yaml:1: meters.m.aggregation"),
        ("missing_field", "file1.yaml:1: plans.p.name"),
    ]


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("plans: [1\nmeters: 2", "invalid_yaml", "file1.yaml:2"),
        ("plans:\n\tlite: 1", "invalid_yaml", "file1.yaml:2"),
        ("", "invalid_yaml", "file1.yaml"),
        ("a: 1\n---\nb: 2", "invalid_yaml", "file1.yaml:2"),
        ("meters: {}\nmeters: {}", "duplicate_key", "file1.yaml:2: meters"),
        ("plans:\n  p: {name: A, name: B}", "duplicate_key", "file1.yaml:2: plans.p.name"),
        ("a: &x [1, 2]\nb: [*x, *x]", "invalid_yaml", "file1.yaml:1"),
        ("plans: " + "[" * 50_000, "invalid_yaml", "file1.yaml:1"),
        (b"\xff\xfe\x00", "invalid_yaml", "file1.yaml"),
        ("plans: \x00", "invalid_yaml", "file1.yaml"),
        ("plans: !!python/object/apply:os.system [ls]", "invalid_yaml", "file1.yaml:1"),
        ("plans: !!int abc", "invalid_yaml", "file1.yaml"),
        (b"#" * 1_048_577, "too_large", "file1.yaml"),
        ("? [a, b]\n: 1", "invalid_yaml", "file1.yaml:1: "),
        ("just text", "invalid_type", "file1.yaml:1"),
        ("plans: {1: {}}", "invalid_name", "file1.yaml:1: plans"),
        ("plans: {Lite: {name: A, currency: USD}}", "invalid_name", "file1.yaml:1: plans.Lite"),
        ("price_plans: {}", "unknown_field", "file1.yaml:1: price_plans"),
        ("plans: {p: {name: A, currency: USD, charges: nothing}}", "invalid_type", "file1.yaml:1: plans.p.charges"),
        ("plans: {p: {name: A, currency: USD, limits: {nometer: {quantity: 1}}}}", "unknown_meter",
         "file1.yaml:1: plans.p.limits.nometer"),
        ("charge_sets: {s: [{id: a, name: A, meter: cpu, model: per_unit}]}", "missing_field",
         "file1.yaml:1: charge_sets.s[0].unit_amount"),
        ("meters: {m: {unit: x, event_type: t, aggregation: sum}}", "missing_field",
         "file1.yaml:1: meters.m.value_property"),
        ("meters: {m: {unit: x, event_type: t, aggregation: count, value_property: v}}", "unknown_field",
         "file1.yaml:1: meters.m.value_property"),
        (meter("aggregation: max"), "missing_field", "file1.yaml:1: meters.m.value_property"),
        (meter("aggregation: time_weighted, value_property: v"), "missing_field", "file1.yaml:1: meters.m.weight_per"),
        (meter("aggregation: time_weighted, value_property: v, weight_per: day"), "unknown_weight",
         "file1.yaml:1: meters.m.weight_per"),
        (meter("aggregation: sum, value_property: v, weight_per: hour"), "unknown_field",
         "file1.yaml:1: meters.m.weight_per"),
        (meter("aggregation: count, allowed_lateness_seconds: -1"), "invalid_number",
         "file1.yaml:1: meters.m.allowed_lateness_seconds"),
        (meter("aggregation: count, allowed_lateness_seconds: true"), "invalid_number",
         "file1.yaml:1: meters.m.allowed_lateness_seconds"),
        (meter("aggregation: count, allowed_lateness_seconds: 3024001"), "invalid_number",
         "file1.yaml:1: meters.m.allowed_lateness_seconds"),
        (filtered("{property: a, operator: like, values: [b]}"), "unknown_operator", f"{FILTER}.operator"),
        (filtered("{operator: exists}"), "missing_field", f"{FILTER}.property"),
        (filtered("{property: a, operator: exists, values: [b]}"), "unexpected_value", f"{FILTER}.values"),
        (filtered("{property: a, operator: missing, values: [b]}"), "unexpected_value", f"{FILTER}.values"),
        (filtered("{property: a, operator: eq}"), "one_value_expected", f"{FILTER}.values"),
        (filtered("{property: a, operator: ne, values: [b, c]}"), "one_value_expected", f"{FILTER}.values"),
        (filtered("{property: a, operator: gt, values: [1, 2]}"), "one_value_expected", f"{FILTER}.values"),
        (filtered("{property: a, operator: lte, values: [ten]}"), "invalid_number", f"{FILTER}.values[0]"),
        (filtered("{property: a, operator: gte, values: [NaN]}"), "invalid_number", f"{FILTER}.values[0]"),
        (filtered("{property: a, operator: lt, values: [0.5]}"), "float_amount", f"{FILTER}.values[0]"),
        (filtered("{property: a, operator: in, values: []}"), "missing_value", f"{FILTER}.values"),
        (filtered("{property: a, operator: not_in, values: [b, b]}"), "duplicate_id", f"{FILTER}.values[1]"),
        (filtered("{property: a, operator: in, values: [{}]}"), "invalid_text", f"{FILTER}.values[0]"),
        (filtered("{property: a, operator: exists, negate: true}"), "unknown_field", f"{FILTER}.negate"),
        (filtered("exists"), "invalid_type", f"{FILTER}"),
        ("meters: {m: {unit: x, event_type: t, aggregation: count, dimensions: [a, a]}}", "duplicate_id",
         "file1.yaml:1: meters.m.dimensions[1]"),
        ("plans: {p: {name: A, currency: USD, charges: [{id: a, name: A, model: flat, flat_amount: .inf}]}}",
         "float_amount", "file1.yaml:1: plans.p.charges[0].flat_amount"),
        ('plans: {p: {name: "\\ud800", currency: USD}}', "invalid_text", "file1.yaml:1: plans.p.name"),
        ("version: 0", "invalid_number", "file1.yaml:1: version"),
        ('version: "1"', "invalid_number", "file1.yaml:1: version"),
        ("version: 1.5", "invalid_number", "file1.yaml:1: version"),
        ("effective_from: 2026-02-30", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2026-W07-1", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2026-01-01T00:00", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2026-01-01T00:00:01Z", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2026-01-01T24:30Z", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2026-01-01T00:00+25:00", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 1999-12-31", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 2200-01-01", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: 20260101", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: null", "invalid_date", "file1.yaml:1: effective_from"),
        ("effective_from: [2026]", "invalid_date", "file1.yaml:1: effective_from"),
        ("features: {Sso: {kind: boolean}}", "invalid_name", "file1.yaml:1: features.Sso"),
        ("features: {sso: {}}", "invalid_choice", "file1.yaml:1: features.sso.kind"),
        ("features: {sso: {kind: yes}}", "invalid_choice", "file1.yaml:1: features.sso.kind"),
        ("features: {sso: {kind: boolean, meter: cpu}}", "unknown_field", "file1.yaml:1: features.sso.meter"),
        ("features: {sso: {kind: metered}}", "missing_field", "file1.yaml:1: features.sso.meter"),
        ("features: {sso: {kind: metered, meter: nometer}}", "unknown_meter", "file1.yaml:1: features.sso.meter"),
        ("features: {sso: boolean}", "invalid_type", "file1.yaml:1: features.sso"),
        (gives("sso: true"), "unknown_feature", "file1.yaml:2: plans.p.features.sso"),
        (gives("on: 1"), "invalid_type", "file1.yaml:2: plans.p.features.on"),
        (gives("level: null"), "missing_value", "file1.yaml:2: plans.p.features.level"),
        (gives("level: 0.5"), "float_amount", "file1.yaml:2: plans.p.features.level"),
        (gives("level: {deep: [{er: 0.5}]}"), "float_amount", "file1.yaml:2: plans.p.features.level"),
        (gives("level: 9007199254740993"), "invalid_number", "file1.yaml:2: plans.p.features.level"),
        (gives('level: "\\0"'), "invalid_text", "file1.yaml:2: plans.p.features.level"),
        (gives('level: {"\\ud800": 1}'), "invalid_text", "file1.yaml:2: plans.p.features.level"),
        (gives(f'level: {"x" * 2_000}'), "too_large", "file1.yaml:2: plans.p.features.level"),
        (gives("much: 5"), "invalid_type", "file1.yaml:2: plans.p.features.much"),
        (gives("much: {limit: 0.5}"), "float_amount", "file1.yaml:2: plans.p.features.much.limit"),
        (gives("much: {limit: -1}"), "negative_amount", "file1.yaml:2: plans.p.features.much.limit"),
        (gives("much: {hard: true}"), "invalid_limit", "file1.yaml:2: plans.p.features.much.hard"),
        (gives("much: {limit: 5, period: day}"), "invalid_choice", "file1.yaml:2: plans.p.features.much.period"),
        (gives("much: {limit: 5, period: rolling:745h}"), "invalid_period",
         "file1.yaml:2: plans.p.features.much.rolling_hours"),
        (gives("much: {limit: 5, soft: true}"), "unknown_field", "file1.yaml:2: plans.p.features.much.soft"),
        ("plans: {p: {name: A, currency: USD, features: [on]}}", "invalid_type", "file1.yaml:1: plans.p.features"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(text: str | bytes, code: str, place: str) -> None:
    assert (code, place) in [(fault.code, fault.path) for fault in faults_of(text)]


def test_scalars_are_read_as_written() -> None:
    text = "meters: {m: {unit: no, event_type: 2026-10-01, aggregation: count, dimensions: [on, 1:30]}}"
    meter = load_catalogue([CatalogueFile("x.yaml", text.encode())]).meters[0]
    assert meter == Meter("m", "no", "2026-10-01", "count", None, ("on", "1:30"))


def test_a_meter_may_say_everything_that_a_meter_knows() -> None:
    text = """
meters:
  stored:
    unit: GB-month
    event_type: disk.resized
    aggregation: time_weighted
    weight_per: month
    value_property: gb
    dimensions: [class]
    allowed_lateness_seconds: 0
    filters:
      - {property: region, operator: in, values: [eu, "1.50", 7, true]}
      - {property: gb, operator: lt, values: ["-0.5"]}
      - {property: test, operator: missing}
"""
    assert load_catalogue([CatalogueFile("x.yaml", text.encode())]).meters == (
        Meter(
            "stored", "GB-month", "disk.resized", "time_weighted", "gb", ("class",),
            (
                Filter("region", "in", ("eu", "1.50", "7", "true")),
                Filter("gb", "lt", ("-0.5",)),
                Filter("test", "missing"),
            ),
            "month", 0,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("aggregation", sorted({*AGGREGATIONS} - {"count", "time_weighted"}))
def test_every_aggregation_over_a_value_is_known(aggregation: str) -> None:
    text = meter(f"aggregation: {aggregation}, value_property: v")
    [found] = load_catalogue([CatalogueFile("x.yaml", text.encode())]).meters
    assert (found.aggregation, found.weight_per) == (aggregation, None)
    assert found.allowed_lateness_seconds == 3600


def test_the_same_plan_in_two_files_is_refused() -> None:
    plan = "plans: {p: {name: A, currency: USD}}"
    assert [(fault.code, fault.path) for fault in faults_of(plan, plan)] == [("duplicate_id", "file2.yaml:1: plans.p")]


def test_a_plans_own_charge_takes_precedence_over_its_set() -> None:
    text = """
charge_sets: {s: [{id: cpu, name: Set, meter: cpu, model: per_unit, unit_amount: "1"}]}
plans:
  p:
    {name: P, currency: USD, charge_sets: [s],
     charges: [{id: cpu, name: Own, meter: cpu, model: per_unit, unit_amount: "2"}]}
"""
    plan = load_catalogue([CatalogueFile("x.yaml", text.encode())], [CPU]).plans[0][1]
    assert [charge.name for charge in plan.charges] == ["Own"]


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_files([tmp_path / "absent.yaml", tmp_path])
    assert [fault.code for fault in refused.value.faults] == ["unreadable_file", "unreadable_file"]


def test_a_file_says_its_version_and_from_when_its_plans_are_sold() -> None:
    text = "catalogue: c\nversion: 7\neffective_from: {}"
    for date, instant in (
        ("2026-10-01", datetime(2026, 10, 1, tzinfo=UTC)),
        ("2026-10-01T02:30+02:00", datetime(2026, 10, 1, 0, 30, tzinfo=UTC)),
        ("2026-10-01T02:30:00Z", datetime(2026, 10, 1, 2, 30, tzinfo=UTC)),
    ):
        [edition] = load_catalogue([CatalogueFile("x.yaml", text.format(date).encode())]).editions
        assert (edition.catalogue, edition.version, edition.effective_from) == ("c", 7, instant)


def test_an_editions_digest_is_of_all_but_its_name_and_version() -> None:
    texts = [
        "catalogue: a\nversion: 1\neffective_from: 2026-01-01\nfeatures: {x: {kind: boolean}}",
        "features: {x: {kind: boolean}}\neffective_from: 2026-01-01\nversion: 2\ncatalogue: b",
        "effective_from: 2026-01-02\nfeatures: {x: {kind: boolean}}",
        "effective_from: 2026-01-01\nfeatures: {y: {kind: boolean}}",
    ]
    digests = [load_catalogue([CatalogueFile("x.yaml", text.encode())]).editions[0].digest for text in texts]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_what_a_plan_gives_is_read_beside_its_prices_and_is_no_part_of_them() -> None:
    text = gives('on: true, level: [eu, {a: 1}], much: {limit: "5", hard: true, period: rolling:24h}')
    catalogue = load_catalogue([CatalogueFile("x.yaml", text.encode())], [CPU])
    given = {one.feature.feature_id: one for one in catalogue.given["p"]}
    assert (given["on"].value, given["level"].value) == (True, ["eu", {"a": 1}])
    assert (given["much"].limit, given["much"].hard, given["much"].rolling_hours) == (5, True, 24)
    [(_, plan)] = catalogue.plans
    assert "features" not in plan.document


def test_a_plan_may_give_features_that_are_known_already() -> None:
    known = load_catalogue(shipped_files()).features
    text = "plans: {p: {name: A, currency: USD, features: {basic: true}}}"
    assert load_catalogue([CatalogueFile("x.yaml", text.encode())], [CPU], known).given["p"][0].value is True


@pytest.mark.parametrize(
    ("one", "two", "path"),
    [
        (gives("on: true"), gives("on: false"), "file2.yaml:1: features.on"),
        ("catalogue: c", "catalogue: c", "file2.yaml:1: catalogue"),
        (meter("aggregation: count"), meter("aggregation: count"), "file2.yaml:1: meters.m"),
    ],
)
def test_the_same_thing_in_two_files_is_refused(one: str, two: str, path: str) -> None:
    assert ("duplicate_id", path) in [(fault.code, fault.path) for fault in faults_of(one, two)]
