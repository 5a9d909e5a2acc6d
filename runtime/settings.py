"""One settings object, prefix `METERBOOK_`. Owns which engines are used and checks every value, all faults at once.

An engine's URL that is not set means the embedded stack's: its addresses are read from the state file that
`meterbook up` keeps in `METERBOOK_HOME`.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import Fault, InvalidInputError

STATE_FILE = "stack.json"
ENGINES = ("kafka", "clickhouse", "redis", "postgres")


class InvalidSettingsError(InvalidInputError):
    """The settings do not make sense."""

    code = "invalid_settings"


def _check_url(name: str, value: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.hostname:
        # The value itself may hold a password.
        raise ValueError(f"expected {' or '.join(scheme + '://host:port' for scheme in schemes)}")
    return value


def _check_secure(value: str) -> str:
    """Take https, and plain http only to this machine itself: tests listen there."""
    parts = urlsplit(value)
    is_here = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not parts.hostname or parts.username is not None or not (parts.scheme == "https" or is_here):
        raise ValueError("expected https://host/…")
    return value


def mask_password(url: str) -> str:
    """Return the URL with its password, if it has one, as `***`."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))


class Settings(BaseSettings):
    """All settings with their defaults; read from the environment (`METERBOOK_…`) and from files in `/run/secrets`."""

    model_config = SettingsConfigDict(env_prefix="METERBOOK_", extra="ignore", validate_default=True, frozen=True)

    # Engines
    home: Path = Path(".meterbook")
    kafka_url: str | None = None
    clickhouse_url: str | None = None
    redis_url: str | None = None
    postgres_url: str | None = None

    # Ingest
    event_max_bytes: int = Field(65_536, ge=1_024, le=900_000)
    event_max_ahead_seconds: int = Field(300, ge=0, le=86_400)
    event_max_age_days: int = Field(35, ge=1, le=40_000)
    batch_max_events: int = Field(1_000, ge=1, le=10_000)
    input_forms_file: Path | None = None

    # Stream
    usage_partitions: int = Field(4, ge=1, le=512)
    micro_batch_ms: int = Field(200, ge=10, le=5_000)
    micro_batch_events: int = Field(20_000, ge=1, le=200_000)
    dedupe_horizon_days: int = Field(35, ge=1, le=400)
    # Identities kept in memory per source partition; older ones are on disk below `state_dir`.
    identities_in_memory: int = Field(200_000, ge=1_000, le=50_000_000)
    state_dir: Path | None = None
    original_wait_seconds: int = Field(30, ge=1, le=3_600)
    alert_thresholds_percent: Annotated[tuple[int, ...], NoDecode] = (80, 100)
    reconcile_seconds: int = Field(60, ge=1, le=86_400)
    registry_refresh_seconds: int = Field(5, ge=1, le=600)

    # HTTP API
    api_host: str = "127.0.0.1"
    api_port: int = Field(8080, ge=1, le=65_535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=1, le=65_535)

    # Alerts
    slack_webhook_url: SecretStr | None = None
    smtp_url: str | None = None
    alert_email_from: str = "Meterbook <alerts@meterbook.invalid>"
    alert_email_to: Annotated[tuple[str, ...], NoDecode] = ()
    # Outgoing webhooks go to public addresses over https only, unless private ones are allowed on purpose.
    webhook_allow_private: bool = False
    webhook_ports: Annotated[tuple[int, ...], NoDecode] = (443,)

    # Invoices
    documents_dir: Path | None = None
    # `s3://bucket/prefix` instead of the folder; another S3's endpoint than Amazon's; keys, else the environment's.
    documents_url: str | None = None
    documents_endpoint: str | None = None
    documents_region: str = "us-east-1"
    documents_access_key: str | None = None
    documents_secret_key: SecretStr | None = None
    # Finalized invoices and credit notes go to the tenant by e-mail, from the seller's address.
    invoice_email: bool = False
    render_processes: int = Field(1, ge=1, le=64)
    seller_file: Path | None = None
    invoice_due_days: int = Field(15, ge=0, le=180)
    # How long an invoice stays a draft, so that late usage is on it.
    invoice_grace_hours: int = Field(0, ge=0, le=720)
    # Tax tables that take the place of the shipped ones of the same name, and the ECB's file of exchange rates.
    tax_tables_dir: Path | None = None
    exchange_rates_file: Path | None = None
    # The Commission's register of VAT numbers, and an outside service that says how lines are taxed.
    vies_url: str = "https://ec.europa.eu/taxation_customs/vies/rest-api"
    tax_service_url: str | None = None
    tax_service_token: SecretStr | None = None

    # Payments
    stripe_api_key: SecretStr | None = None
    # A key that may keep customers and their methods and charge nobody, for the API; without it the one above.
    stripe_methods_key: SecretStr | None = None
    stripe_api_base: str = "https://api.stripe.com"
    stripe_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    # Where a payer's browser ends up after 3-D Secure or approval, and how long a payment waits for its payer.
    payment_return_url: str | None = None
    payment_action_hours: int = Field(72, ge=1, le=720)
    # What bank fees may take of a transfer for a person to let us bear them, by currency: EUR:10,USD:25.
    wire_fee_tolerance: Annotated[dict[str, Decimal], NoDecode] = Field(default_factory=dict)
    # Whether an entry that names its invoices and pays them to the cent confirms itself; otherwise a person does.
    wire_confirm_exact: bool = False
    # Schedules of dunning in place of the shipped ones (docs/dunning.md).
    dunning_file: Path | None = None
    # Whether an account that is past due may go on, or only from when it is suspended on may not.
    past_due_access: Literal["allowed", "refused"] = "allowed"
    payment_email_from: str = "Meterbook <billing@meterbook.invalid>"
    paypal_client_id: str | None = Field(None, min_length=1, max_length=200)
    paypal_client_secret: SecretStr | None = None
    paypal_api_base: str = "https://api-m.paypal.com"
    # How long PayPal takes an approval: 3 hours, or the 24, 48 or 72 that an account manager can set.
    paypal_approval_hours: int = Field(3, ge=1, le=72)
    paypal_webhook_ids: Annotated[tuple[str, ...], NoDecode] = ()
    # Only below these is a webhook's certificate believed to be PayPal's.
    paypal_cert_prefixes: Annotated[tuple[str, ...], NoDecode] = (
        "https://api.paypal.com/v1/notifications/certs/",
        "https://api-m.paypal.com/v1/notifications/certs/",
        "https://api.sandbox.paypal.com/v1/notifications/certs/",
        "https://api-m.sandbox.paypal.com/v1/notifications/certs/",
    )
    # Certificate authorities in place of Mozilla's list.
    paypal_ca_file: Path | None = None

    log_level: str = "INFO"
    log_json: bool = True

    @field_validator(
        "alert_thresholds_percent",
        "alert_email_to",
        "stripe_webhook_secrets",
        "webhook_ports",
        "paypal_webhook_ids",
        "paypal_cert_prefixes",
        mode="before",
    )
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("alert_thresholds_percent")
    @classmethod
    def _check_thresholds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(percent < 1 or percent > 1_000 for percent in value):
            raise ValueError("expected percentages from 1 to 1000, such as 80,100")
        return tuple(sorted(set(value)))

    @field_validator("wire_fee_tolerance", mode="before")
    @classmethod
    def _read_tolerances(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = {}
        for part in value.split(","):
            currency, _, amount = part.strip().partition(":")
            if not re.fullmatch(r"[A-Z]{3}", currency) or not re.fullmatch(r"\d{1,6}(\.\d{1,4})?", amount):
                raise ValueError("expected amounts by currency, such as EUR:10,USD:25")
            found[currency] = amount
        return found

    @field_validator("kafka_url")
    @classmethod
    def _check_kafka(cls, value: str | None) -> str | None:
        if value is not None:
            for part in value.removeprefix("kafka://").split(","):
                host, _, port = part.rpartition(":")
                if not host or not port.isdigit():
                    raise ValueError("expected host:port[,host:port]")
        return value

    @field_validator("clickhouse_url")
    @classmethod
    def _check_clickhouse(cls, value: str | None) -> str | None:
        return value and _check_url("clickhouse_url", value, ("http", "https"))

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, value: str | None) -> str | None:
        return value and _check_url("redis_url", value, ("redis", "rediss", "redis+cluster", "rediss+cluster"))

    @field_validator("postgres_url")
    @classmethod
    def _check_postgres(cls, value: str | None) -> str | None:
        return value and _check_url("postgres_url", value, ("postgresql", "postgres"))

    @field_validator("documents_url")
    @classmethod
    def _check_documents_url(cls, value: str | None) -> str | None:
        return value and _check_url("documents_url", value, ("s3",))

    @field_validator("documents_endpoint")
    @classmethod
    def _check_documents_endpoint(cls, value: str | None) -> str | None:
        return value and _check_url("documents_endpoint", value, ("http", "https"))

    @field_validator("smtp_url")
    @classmethod
    def _check_smtp(cls, value: str | None) -> str | None:
        return value and _check_url("smtp_url", value, ("smtp", "smtps"))

    @field_validator("payment_return_url")
    @classmethod
    def _check_return_url(cls, value: str | None) -> str | None:
        return value and _check_url("payment_return_url", value, ("http", "https"))

    @field_validator("vies_url", "tax_service_url")
    @classmethod
    def _check_tax_urls(cls, value: str | None) -> str | None:
        return value and _check_url("tax", value, ("http", "https"))

    @field_validator("stripe_api_base")
    @classmethod
    def _check_stripe(cls, value: str) -> str:
        return _check_url("stripe_api_base", value, ("http", "https"))

    @field_validator("paypal_api_base")
    @classmethod
    def _check_paypal(cls, value: str) -> str:
        return _check_secure(value)

    @field_validator("paypal_webhook_ids")
    @classmethod
    def _check_webhook_ids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.isascii() and name.isalnum() and len(name) <= 50 for name in value):
            raise ValueError("expected webhook ids of letters and digits, such as 1JE4291016473214C")
        return value

    @field_validator("paypal_cert_prefixes")
    @classmethod
    def _check_cert_prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            _check_secure(prefix)
            if not prefix.endswith("/") or urlsplit(prefix).path == "/":
                raise ValueError("expected addresses with a path that ends with a slash")
        return value

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("expected DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @property
    def kafka_bootstrap(self) -> str:
        """Kafka's bootstrap servers as `host:port[,host:port]`."""
        return self._engine("kafka", self.kafka_url).removeprefix("kafka://")

    @property
    def clickhouse(self) -> str:
        """ClickHouse's HTTP URL, `http://user:password@host:port/database`."""
        return self._engine("clickhouse", self.clickhouse_url)

    @property
    def redis(self) -> str:
        """Redis' URL."""
        return self._engine("redis", self.redis_url)

    @property
    def postgres(self) -> str:
        """PostgreSQL's URL (libpq form)."""
        return self._engine("postgres", self.postgres_url)

    @property
    def state(self) -> Path:
        """Folder of what workers keep to restart quickly; it can be deleted while none runs."""
        return self.state_dir or self.home / "state"

    @property
    def documents(self) -> Path:
        """Folder of rendered invoices."""
        return self.documents_dir or self.home / "documents"

    def _engine(self, engine: str, given: str | None) -> str:
        if given is not None:
            return given
        url = read_stack_urls(self.home).get(engine)
        if url is None:
            raise InvalidSettingsError(
                [
                    Fault(
                        "engine_not_set",
                        f"no {engine} to talk to: run `meterbook up` first, or set METERBOOK_{engine.upper()}_URL",
                        f"METERBOOK_{engine.upper()}_URL",
                    )
                ]
            )
        return url


def read_stack_urls(home: Path) -> dict[str, str]:
    """Return the embedded stack's URLs by engine from its state file; empty when none was started in `home`."""
    try:
        state = json.loads((home / STATE_FILE).read_text())
    except FileNotFoundError:
        return {}
    return {engine: part["url"] for engine, part in state["engines"].items()}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; raises `InvalidSettingsError` naming every variable that is wrong."""
    secrets = Path("/run/secrets")
    if secrets.is_dir():
        overrides.setdefault("_secrets_dir", secrets)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = [
            Fault(
                "invalid_setting",
                str(fault["msg"]).removeprefix("Value error, "),
                "METERBOOK_" + "_".join(str(part) for part in fault["loc"]).upper(),
            )
            for fault in error.errors()
        ]
        raise InvalidSettingsError(faults) from None
