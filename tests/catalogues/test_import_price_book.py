"""Foreign tables of prices: what becomes of each entry, what cannot be said, what is refused and where."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from catalogues.apply_catalogue import apply_catalogue
from catalogues.commands import app
from catalogues.domain.edition import Catalogue
from catalogues.import_price_book import PriceFormat, import_price_book
from catalogues.load_catalogue import CatalogueFile, load_catalogue, shipped_files
from catalogues.price_books.sheet import Selection
from catalogues.price_books.write_book import Book
from core.errors import InvalidInputError
from tests.catalogues.memory import MemoryCatalogueStore, MemoryUsage
from tests.catalogues.price_books import (
    GENAI,
    LITELLM,
    NOON,
    book_of,
    genai,
    left_out,
    litellm,
    plan_of,
    price,
    refused,
)

BASIC = {"litellm_provider": "acme", "input_cost_per_token": "0.000001", "output_cost_per_token": 4e-06}
LONG = {
    **BASIC,
    "input_cost_per_token_above_200k_tokens": "0.000002",
    "input_cost_per_token_batches": "0.0000005",
    "input_cost_per_token_flex": "0.0000004",
    "input_cost_per_token_above_200k_tokens_batches": "0.0000011",
    "output_cost_per_token_batches": "0.000002",
}


def test_tokens_without_a_price_of_their_own_cost_what_the_next_wider_kind_does() -> None:
    book = book_of(litellm(one=BASIC, two={**BASIC, "cache_read_input_token_cost": "0.0000001"}))
    assert price(book, "llm_input_tokens", model="one") == "1"
    assert price(book, "llm_cached_input_tokens", model="one") == "1"
    assert price(book, "llm_cached_input_tokens", model="two") == "0.1"
    assert price(book, "llm_cached_input_audio_tokens", model="two") == "0.1"
    assert price(book, "llm_reasoning_tokens", model="one") == "4"
    assert price(book, "llm_input_tokens", model="three") is None


def test_a_kind_between_two_wider_ones_has_no_price() -> None:
    both = {**BASIC, "cache_read_input_token_cost": 1e-07, "input_cost_per_audio_token": 2e-06}
    book = book_of(litellm(one=both, two=BASIC))
    assert left_out(book) == [("ambiguous_price", "models.one (llm_cached_input_audio_tokens)")]
    assert price(book, "llm_cached_input_audio_tokens", model="one") is None
    assert price(book, "llm_cached_input_audio_tokens", model="two") == "1"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "1"),
        ({"context": "above_200000"}, "2"),
        ({"service_tier": "batch"}, "0.5"),
        ({"service_tier": "flex"}, "0.4"),
        ({"context": "above_200000", "service_tier": "batch"}, "1.1"),
        # The table has no price for both: the longer request decides.
        ({"context": "above_200000", "service_tier": "flex"}, "2"),
        # Nor any for a priority of its own.
        ({"service_tier": "priority"}, "1"),
    ],
)
def test_context_and_service_tier_are_dimensions(data: dict[str, str], expected: str) -> None:
    assert price(book_of(litellm(one=LONG, two=BASIC)), "llm_input_tokens", model="one", **data) == expected


def test_a_meter_is_split_only_by_what_some_price_depends_on() -> None:
    meters = {
        meter.meter_id: meter
        for meter in load_catalogue([CatalogueFile("b", book_of(litellm(one=LONG)).content)]).meters
    }
    assert meters["llm_input_tokens"].dimensions == ("model", "context", "service_tier")
    assert meters["llm_output_tokens"].dimensions == ("model", "service_tier")


def test_meters_are_those_that_ship_where_the_model_decides_alone() -> None:
    from tests.rating.plans import METERS

    found = load_catalogue([CatalogueFile("b", book_of(litellm(one=BASIC)).content)]).meters
    shipped = {"llm_input_tokens", "llm_output_tokens"}
    assert [meter for meter in found if meter.meter_id in shipped] == [METERS[name] for name in sorted(shipped)]


async def test_a_book_is_applied_beside_the_catalogue_that_ships() -> None:
    """The meters of tokens are in use there, split by model alone, and a meter in use does not change."""
    store, usage = MemoryCatalogueStore(), MemoryUsage()
    await apply_catalogue(load_catalogue(shipped_files()), store=store, usage=usage, now=NOON)
    table = litellm(one=LONG)
    with pytest.raises(InvalidInputError, match="meter_in_use"):
        await apply_catalogue(load(book_of(table)), store=store, usage=usage, now=NOON)
    book = import_price_book(table, LITELLM, by_model=True)
    assert left_out(book) == [("by_model_only", "models.one")]
    assert price(book, "llm_input_tokens", model="one") == "1"
    applied = await apply_catalogue(load(book), store=store, usage=usage, now=NOON)
    assert dict(applied.plans) == {"llm_prices": 1}
    assert not {"llm_input_tokens", "llm_output_tokens"} & set(applied.meters)


def load(book: Book) -> Catalogue:
    return load_catalogue([CatalogueFile("book.yaml", book.content)])


def test_ranges_of_a_request_are_contexts() -> None:
    ranges: list[dict[str, Any]] = [
        {"range": [0, "32000.0"], "input_cost_per_token": 1e-06},
        {"range": [32000, 128000.0], "input_cost_per_token": 2e-06, "cache_read_input_token_cost": 1e-06},
    ]
    book = book_of(litellm(one={"tiered_pricing": ranges}))
    assert price(book, "llm_input_tokens", model="one") == "1"
    assert price(book, "llm_input_tokens", model="one", context="above_32000") == "2"
    assert price(book, "llm_cached_input_tokens", model="one") == "1"
    assert price(book, "llm_cached_input_tokens", model="one", context="above_32000") == "1"
    ranges[1]["range"] = [33000, 128000]
    assert refused(litellm(one={"tiered_pricing": ranges})) == [("tier_hole", "models.one.tiered_pricing[1].range")]


def test_a_provider_that_counts_the_bound_itself_has_another_name_for_it() -> None:
    book = book_of(litellm(grok={**LONG, "litellm_provider": "xai"}))
    assert price(book, "llm_input_tokens", model="grok", context="from_200000") == "2"


def test_searches_cost_by_their_size_only_where_sizes_differ() -> None:
    sizes = {"search_context_size_low": 0.01, "search_context_size_high": 0.03}
    same = dict.fromkeys(sizes, 0.02)
    book = book_of(
        litellm(
            one={**BASIC, "search_context_cost_per_query": sizes}, two={**BASIC, "search_context_cost_per_query": same}
        )
    )
    assert price(book, "llm_web_searches", model="one", search_context="high") == "30000"  # a million × 0.03
    assert price(book, "llm_web_searches", model="one") is None
    assert price(book, "llm_web_searches", model="two") == "20000"


def test_other_units_have_meters_of_their_own() -> None:
    units = {
        "input_cost_per_second": 0.0001,
        "input_cost_per_character": 1.5e-05,
        "input_cost_per_query": 0.002,
        "output_cost_per_image": 0.04,
        "code_interpreter_cost_per_session": 0.03,
    }
    book = book_of(litellm(one=units))
    amounts = {charge.charge_id: price(book, charge.charge_id, model="one") for charge in plan_of(book).charges}
    assert amounts == {
        "llm_queries": "2000",
        "llm_code_sessions": "30000",
        "llm_input_characters": "15",
        "llm_input_audio_seconds": "100",
        "llm_output_images": "40000",
    }


def test_what_a_book_cannot_say_is_listed_in_it() -> None:
    odd = {**BASIC, "output_cost_per_pixel": 1e-08, "max_tokens": 1, "supports_vision": True}
    speech = {"mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001}
    fine = {"input_cost_per_token": "0.0000000000000000001"}
    two_names = {**BASIC, "cache_read_input_token_cost": 1e-07, "input_cost_per_token_cache_hit": 2e-07}
    nothing = {"max_tokens": 1}
    book = book_of(litellm(odd=odd, speech=speech, fine=fine, two__names=two_names, nothing=nothing))
    assert left_out(book) == [
        ("unknown_price", "models.odd.output_cost_per_pixel"),
        ("priced_twice", "models.speech.output_cost_per_second"),
        ("too_many_digits", "models.fine"),
        ("contradiction", "models.two-names.input_cost_per_token_cache_hit"),
        ("no_price", "models.nothing"),
    ]
    assert book.models == 2
    for one in book.unexpressed:
        assert f"#   {one}\n" in book.content.decode()


def test_a_repeated_output_price_follows_output_into_its_service_tiers() -> None:
    book = book_of(litellm(one={**LONG, "output_cost_per_reasoning_token": 4e-06}))
    assert price(book, "llm_reasoning_tokens", model="one", service_tier="batch") == "2"


TIMED: list[dict[str, Any]] = [
    {"prices": {"input_mtok": 2, "output_mtok": 10}},
    {"constraint": {"start_date": "2026-09-01"}, "prices": {"input_mtok": 3, "output_mtok": 10}},
]
HOURS: list[dict[str, Any]] = [
    {"prices": {"input_mtok": 0.135}},
    {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 0.55}},
]


@pytest.mark.parametrize(
    ("model", "at", "expected"),
    [
        ("dated", "2026-08-31T23:45:00Z", "2"),
        ("dated", "2026-09-01T00:00:00Z", "3"),
        ("hours", "2026-08-31T00:15:00Z", "0.135"),
        ("hours", "2026-08-31T00:30:00Z", "0.55"),
        ("hours", "2026-08-31T16:30:00Z", "0.135"),
        ("plain", "2026-08-31T16:30:00Z", "7"),
    ],
)
def test_prices_that_change_with_time(model: str, at: str, expected: str) -> None:
    table = genai(
        {"id": "dated", "prices": TIMED}, {"id": "hours", "prices": HOURS}, {"id": "plain", "prices": {"input_mtok": 7}}
    )
    book = book_of(table, GENAI)
    assert book.unexpressed == ()
    assert price(book, "llm_input_tokens", datetime.fromisoformat(at), model=model) == expected
    # The output price stays, so it needs no times.
    by_id = {charge.charge_id: charge.price.model for charge in plan_of(book).charges}
    assert (by_id["llm_input_tokens"], by_id["llm_output_tokens"]) == ("scheduled_matrix", "matrix")


@pytest.mark.parametrize(
    ("prices", "code", "path"),
    [
        ([*HOURS, TIMED[1]], "mixed_schedule", "(llm_input_tokens)"),
        ([TIMED[1]], "no_price", "(llm_input_tokens)"),
        ([HOURS[0], {**HOURS[1], "constraint": {"weekday": "mon"}}], "unknown_constraint", ".prices[1].constraint"),
        (
            [HOURS[0], {**HOURS[1], "constraint": {"start_time": "00:31:00Z", "end_time": "16:30:00Z"}}],
            "odd_hours",
            "(llm_input_tokens)",
        ),
        ({"input_mtok": 1, "input_mpages": 2}, "unknown_price", ".prices.input_mpages"),
    ],
)
def test_times_that_cannot_be_said_are_listed(prices: Any, code: str, path: str) -> None:
    book = book_of(genai({"id": "odd", "prices": prices}, {"id": "plain", "prices": {"input_mtok": 7}}), GENAI)
    assert any(one == code and place.endswith(path) for one, place in left_out(book))


def test_a_cliff_of_a_request_is_a_context() -> None:
    tiers = {"base": 3, "tiers": [{"start": 200000, "price": 6}]}
    book = book_of(genai({"id": "one", "prices": {"input_mtok": tiers, "output_mtok": 5}}), GENAI)
    assert price(book, "llm_input_tokens", model="one", context="above_200000") == "6"
    assert price(book, "llm_cached_input_tokens", model="one", context="above_200000") == "6"
    assert price(book, "llm_input_tokens", model="one") == "3"


NAMES = genai(
    {"id": "big", "match": {"or": [{"starts_with": "BIG"}, {"equals": "huge"}]}, "prices": {"input_mtok": 1}},
    {"id": "big-two", "match": {"and": [{"contains": "two"}, {"regex": "^b.g"}]}, "prices": {"input_mtok": 2}},
    {"id": "other", "match": {"ends_with": "-x"}, "prices": {"input_mtok": 3}},
)


def test_models_go_by_their_ids_and_the_names_their_rules_list() -> None:
    book = book_of(NAMES, GENAI)
    assert [price(book, "llm_input_tokens", model=name) for name in ("big", "huge", "big-two")] == ["1", "1", "2"]
    assert {code for code, _ in left_out(book)} == {"name_pattern"}
    assert len(book.unexpressed) == 3


def test_names_given_find_the_first_rule_that_takes_them() -> None:
    book = book_of(NAMES, GENAI, Selection(models=("Bigger", "big-two-2026", "a-x", "HUGE")))
    # big-two-2026 begins with "big", and that rule stands first.
    expected = {"Bigger": "1", "big-two-2026": "1", "a-x": "3", "HUGE": "1"}
    assert {name: price(book, "llm_input_tokens", model=name) for name in expected} == expected
    assert book.unexpressed == ()
    assert refused(NAMES, GENAI, Selection(models=("small",))) == [("unknown_model", "models")]
    assert refused(NAMES, GENAI, Selection(providers=("nobody",))) == [("unknown_provider", "providers")]


def test_one_name_of_two_providers_is_left_out_unless_the_prices_agree() -> None:
    one, two = (
        json.loads(
            genai(
                {"id": "m", "prices": {"input_mtok": amount}}, {"id": "n", "prices": {"input_mtok": 5}}, provider=name
            )
        )[0]
        for name, amount in (("a", 1), ("b", 2))
    )
    book = book_of(json.dumps([one, two]).encode(), GENAI)
    assert left_out(book) == [("ambiguous_model", "providers[0].models[0]")]
    assert price(book, "llm_input_tokens", model="m") is None
    assert price(book, "llm_input_tokens", model="n") == "5"
    chosen = book_of(json.dumps([one, two]).encode(), GENAI, Selection(providers=("b",)))
    assert price(chosen, "llm_input_tokens", model="m") == "2"


def test_litellm_names_may_stand_behind_their_provider() -> None:
    table = json.dumps(
        {"acme/big": BASIC, "zeta/small": BASIC, "acme/small": BASIC, "sample_spec": {"input_cost_per_token": "x"}}
    ).encode()
    assert price(book_of(table, selection=Selection(models=("big",))), "llm_input_tokens", model="big") == "1"
    assert refused(table, selection=Selection(models=("small",))) == [("ambiguous_model", "models")]
    assert refused(table, selection=Selection(models=("none",))) == [("unknown_model", "models")]
    assert refused(table, selection=Selection(providers=("none",))) == [("unknown_provider", "models")]


@pytest.mark.parametrize(
    ("table", "price_format", "faults"),
    [
        (b"", LITELLM, [("invalid_json", "")]),
        (b"[NaN]", LITELLM, [("invalid_json", "")]),
        (b"\xff", GENAI, [("invalid_json", "")]),
        (b"[" * 100_000, GENAI, [("invalid_json", "")]),
        (b"\x1f\x8b\x08nothing", GENAI, [("invalid_gzip", "")]),
        (b'{"a": {}, "a": {}}', LITELLM, [("duplicate_key", "")]),
        (b"7", LITELLM, [("invalid_type", "models")]),
        (b"{}", LITELLM, [("nothing_selected", "")]),
        (b"[]", GENAI, [("nothing_selected", "")]),
        (b"{}", GENAI, [("invalid_type", "providers")]),
        (b'{"one": 1}', LITELLM, [("invalid_type", "models.one")]),
        (litellm(one={"input_cost_per_token": -1}), LITELLM, [("negative_amount", "models.one.input_cost_per_token")]),
        (
            litellm(one={"input_cost_per_token": "1e400000"}),
            LITELLM,
            [("invalid_amount", "models.one.input_cost_per_token")],
        ),
        (litellm(one={"input_cost_per_token": True}), LITELLM, [("invalid_amount", "models.one.input_cost_per_token")]),
        (litellm(one={"tiered_pricing": 1}), LITELLM, [("invalid_type", "models.one.tiered_pricing")]),
        (
            litellm(one={"input_cost_per_token": "?"}, two={"output_cost_per_token": []}),
            LITELLM,
            [
                ("invalid_amount", "models.one.input_cost_per_token"),
                ("invalid_amount", "models.two.output_cost_per_token"),
            ],
        ),
        (b'[{"models": []}]', GENAI, [("invalid_text", "providers[0].id")]),
        (b'[{"id": "a"}]', GENAI, [("invalid_type", "providers[0].models")]),
        (genai({"id": "m", "prices": 7}), GENAI, [("invalid_type", "providers[0].models[0].prices")]),
        (
            genai({"id": "m", "prices": {"input_mtok": {"base": 1, "tiers": [{"start": -1, "price": 2}]}}}),
            GENAI,
            [("invalid_tier", "providers[0].models[0].prices.input_mtok.tiers[0].start")],
        ),
        (
            genai({"id": "m", "prices": {"input_mtok": 1}, "match": {"regex": "("}}),
            GENAI,
            [("invalid_rule", "providers[0].models[0].match.regex")],
        ),
        (
            genai({"id": "m", "prices": {"input_mtok": 1}, "match": {"like": "m"}}),
            GENAI,
            [("invalid_rule", "providers[0].models[0].match.like")],
        ),
    ],
)
def test_a_table_that_is_malformed_is_refused_with_every_fault(
    table: bytes, price_format: PriceFormat, faults: list[tuple[str, str]]
) -> None:
    assert refused(table, price_format) == faults


def test_a_book_larger_than_a_catalogue_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalogues.import_price_book.MAX_BYTES", len(book_of(litellm(one=BASIC)).content))
    assert refused(litellm(one=BASIC, two=BASIC)) == [("too_large", "")]


def test_the_same_table_gives_the_same_bytes_packed_or_not_and_in_any_order() -> None:
    table = litellm(one=LONG, two=BASIC)
    book = book_of(table)
    assert book_of(table).content == book.content == book_of(gzip.compress(table)).content
    turned = book_of(litellm(two=dict(reversed(BASIC.items())), one=LONG)).content
    assert turned.split(b"catalogue:")[1] == book.content.split(b"catalogue:")[1]


@pytest.mark.parametrize("name", ["no", "null", "~", "a: b", 'quote"d', "#x", "- x", "µ-llm", "1e3", "0x1F", " x"])
def test_any_name_comes_through(name: str) -> None:
    table = json.dumps({name: BASIC, "plain": BASIC}).encode()
    assert price(book_of(table), "llm_input_tokens", model=name) == "1"


@pytest.mark.parametrize("name", ["*", "", " ", "a\nb", "x" * 201])
def test_a_name_that_no_cell_could_have_is_refused(name: str) -> None:
    assert refused(json.dumps({name: BASIC}).encode()) == [("invalid_text", f"models.{name[:60]!r}")]
    assert refused(genai({"id": name, "prices": {"input_mtok": 1}, "match": {"contains": "a"}}), GENAI) == [
        ("invalid_text", "providers[0].models[0].id")
    ]
    assert refused(NAMES, GENAI, Selection(models=(name,)))[0] == ("invalid_text", "--model")


def test_the_command_writes_lists_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    table, output = tmp_path / "table.json", tmp_path / "book.yaml"
    table.write_bytes(litellm(one=BASIC, odd={**BASIC, "output_cost_per_pixel": 1e-08}))
    base = ["import-prices", str(table), "--format", "litellm", "--output", str(output)]
    strict = CliRunner().invoke(app, [*base, "--strict"])
    assert (strict.exit_code, output.exists()) == (3, False)
    assert "left out: models.odd.output_cost_per_pixel" in strict.stderr
    first = CliRunner().invoke(app, base)
    assert (first.exit_code, "written" in first.stdout) == (0, True)
    again = CliRunner().invoke(app, [*base, "--json"])
    document = json.loads(again.stdout)
    assert (document["result"], document["models"]) == ("unchanged", 2)
    assert [one["code"] for one in document["left_out"]] == ["unknown_price"]
    plain_book = CliRunner().invoke(app, [*base, "--by-model-only"])
    assert (plain_book.exit_code, "unchanged" in plain_book.stdout) == (0, True)
    one = CliRunner().invoke(app, [*base, "--model", "one", "--strict", "--plan-id", "tokens"])
    assert one.exit_code == 0
    assert CliRunner().invoke(app, ["validate", str(output)]).exit_code == 0
    assert plan_of(Book(output.read_bytes(), 1, 1, ())).plan_id == "tokens"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["book.yaml", "table.json"]
    for arguments in (["--plan-id", "No Name"], ["--model", "none"], ["--output", str(tmp_path / "no" / "book")]):
        assert isinstance(CliRunner().invoke(app, [*base, *arguments]).exception, InvalidInputError)
