"""Settings: every fault at once and in words, lists, secrets, URLs, and the embedded stack where nothing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidInputError
from runtime.settings import InvalidSettingsError, Settings, load_settings, mask_password


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("METERBOOK_")]:
        monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"METERBOOK_{name.upper()}", value)
    return load_settings()


def test_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == Path(".meterbook")
    assert settings.alert_thresholds_percent == (80, 100)
    assert settings.stripe_api_key is None
    assert load_settings(home=tmp_path).documents == tmp_path / "documents"


def test_every_fault_is_told_at_once_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettingsError) as refused:
        load(
            monkeypatch,
            kafka_url="somewhere",
            clickhouse_url="clickhouse://x",
            redis_url="http://x",
            postgres_url="mysql://x",
            smtp_url="mail.example.com",
            stripe_api_base="stripe",
            usage_partitions="0",
            micro_batch_ms="soon",
            alert_thresholds_percent="80,0",
            log_level="LOUD",
            api_port="70000",
        )
    paths = [fault.path for fault in refused.value.faults]
    assert sorted(paths) == sorted(
        f"METERBOOK_{name}"
        for name in (
            "KAFKA_URL", "CLICKHOUSE_URL", "REDIS_URL", "POSTGRES_URL", "SMTP_URL", "STRIPE_API_BASE",
            "USAGE_PARTITIONS", "MICRO_BATCH_MS", "ALERT_THRESHOLDS_PERCENT", "LOG_LEVEL", "API_PORT",
        )
    )  # fmt: skip
    assert {fault.code for fault in refused.value.faults} == {"invalid_setting"}
    assert all(fault.reason and "Value error" not in fault.reason for fault in refused.value.faults)
    assert isinstance(refused.value, InvalidInputError)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("alert_thresholds_percent", "100, 50,80,80", (50, 80, 100)),
        ("alert_email_to", "a@example.com, b@example.com", ("a@example.com", "b@example.com")),
        ("alert_email_to", "", ()),
        ("log_level", "warning", "WARNING"),
        ("kafka_url", "kafka://a:9092,b:9093", "kafka://a:9092,b:9093"),
        ("home", "/srv/meterbook", Path("/srv/meterbook")),
        ("metrics_port", "9100", 9100),
    ],
)
def test_values_are_read_from_text(monkeypatch: pytest.MonkeyPatch, name: str, value: str, found: Any) -> None:
    assert getattr(load(monkeypatch, **{name: value}), name) == found


@pytest.mark.parametrize("value", ["kafka://", "a", "a:", ":9092", "a:b", "a:1,b", "kafka://a"])
def test_kafka_wants_hosts_with_ports(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(InvalidSettingsError, match="METERBOOK_KAFKA_URL"):
        load(monkeypatch, kafka_url=value)


def test_secrets_are_hidden_wherever_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        stripe_api_key="sk_live_hidden",
        stripe_webhook_secrets="whsec_hidden_1,whsec_hidden_2",
        slack_webhook_url="https://hooks.example.com/hidden",
    )
    assert "hidden" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert settings.stripe_api_key is not None
    assert settings.stripe_api_key.get_secret_value() == "sk_live_hidden"
    assert [secret.get_secret_value() for secret in settings.stripe_webhook_secrets] == [
        "whsec_hidden_1",
        "whsec_hidden_2",
    ]


def test_secrets_may_lie_in_files(tmp_path: Path) -> None:
    (tmp_path / "meterbook_stripe_api_key").write_text("sk_from_file\n")
    settings = load_settings(_secrets_dir=tmp_path)
    assert settings.stripe_api_key is not None
    assert settings.stripe_api_key.get_secret_value() == "sk_from_file"


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().log_level = "DEBUG"


# Engines


def write_state(home: Path, **urls: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "stack.json").write_text(json.dumps({"engines": {name: {"url": url} for name, url in urls.items()}}))


def test_engines_that_are_not_set_are_those_of_the_embedded_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(tmp_path, kafka="127.0.0.1:1", redis="redis://127.0.0.1:2/0", postgres="postgresql://u@127.0.0.1:3/d")
    settings = load(
        monkeypatch, home=str(tmp_path), redis_url="redis://elsewhere:6379/1", clickhouse_url="http://c:8123"
    )
    assert settings.kafka_bootstrap == "127.0.0.1:1"
    assert settings.redis == "redis://elsewhere:6379/1"
    assert settings.clickhouse == "http://c:8123"
    assert settings.postgres == "postgresql://u@127.0.0.1:3/d"


def test_the_scheme_of_kafka_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, kafka_url="kafka://a:1,b:2").kafka_bootstrap == "a:1,b:2"


@pytest.mark.parametrize("engine", ["kafka", "clickhouse", "redis", "postgres"])
def test_without_a_stack_and_without_a_url_it_says_what_to_do(tmp_path: Path, engine: str) -> None:
    settings = load_settings(home=tmp_path / "nothing here")
    with pytest.raises(InvalidSettingsError) as refused:
        getattr(settings, "kafka_bootstrap" if engine == "kafka" else engine)
    [fault] = refused.value.faults
    assert fault.code == "engine_not_set"
    assert fault.path == f"METERBOOK_{engine.upper()}_URL"
    assert f"no {engine} to talk to: run `meterbook up` first, or set METERBOOK_{engine.upper()}_URL" in str(fault)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://u:s3@cret@h:1/d", "postgresql://u:***@h:1/d"),
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("http://h:8123/d?x=1", "http://h:8123/d?x=1"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_password(url) == shown


def test_a_refused_address_does_not_repeat_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERBOOK_POSTGRES_URL", "u:s3cret@h")
    with pytest.raises(InvalidSettingsError) as refused:
        load_settings()
    assert "s3cret" not in str(refused.value)
