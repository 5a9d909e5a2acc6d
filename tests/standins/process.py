"""Starts the stand-ins as one process and steers them; for the demo and for end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0


class StandinsError(RuntimeError):
    """The stand-ins did not start; the message holds what they said."""


@dataclass
class Standins:
    """Running stand-ins: their addresses, and the control calls as methods."""

    stripe_url: str
    stripe_api_key: str
    stripe_webhook_secret: str
    stripe_control: str
    slack_url: str
    slack_control: str
    smtp_url: str
    smtp_control: str
    state_file: Path
    log_file: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id of the stand-ins."""
        return self._process.pid

    def settings(self) -> dict[str, str]:
        """Return the environment variables that point Meterbook at the stand-ins."""
        return {
            "METERBOOK_STRIPE_API_BASE": self.stripe_url,
            "METERBOOK_STRIPE_API_KEY": self.stripe_api_key,
            "METERBOOK_STRIPE_WEBHOOK_SECRETS": self.stripe_webhook_secret,
            "METERBOOK_SLACK_WEBHOOK_URL": self.slack_url,
            "METERBOOK_SMTP_URL": self.smtp_url,
        }

    def stop(self) -> int:
        """End the process and return its exit code; calling again is harmless."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.state_file.unlink(missing_ok=True)
        return code

    def set_webhooks(self, **settings: Any) -> dict[str, Any]:
        """Change webhook settings, such as `url=`, `timing=`, `copies=`, `reverse=` (WebhookSettings)."""
        return call_control(f"{self.stripe_control}/webhooks", settings)

    def webhooks(self) -> dict[str, Any]:
        """Return the webhook settings and how many events are held or under way."""
        return call_control(f"{self.stripe_control}/webhooks")

    def release_webhooks(self, *, reverse: bool = False) -> int:
        """Send what is held; returns how many events."""
        released: int = call_control(f"{self.stripe_control}/webhooks/release", {"reverse": reverse})["released"]
        return released

    def resend_event(self, event: str) -> None:
        """Send one event again, however old."""
        call_control(f"{self.stripe_control}/webhooks/resend", {"event": event})

    def fail_stripe(self, kind: str, count: int = 1, **details: Any) -> None:
        """Let the next `count` API requests that suit `method=` and `path=` go wrong (stripe_server.FAULT_KINDS)."""
        call_control(f"{self.stripe_control}/faults", {"kind": kind, "count": count, **details})

    def fail_slack(self, kind: str, count: int = 1, **details: Any) -> None:
        """Let the next `count` posts go wrong (slack_server.FAULT_KINDS)."""
        call_control(f"{self.slack_control}/faults", {"kind": kind, "count": count, **details})

    def fail_smtp(self, kind: str = "refuse", count: int = 1, **details: Any) -> None:
        """Let the next `count` mails go wrong; `code=451 | 550`, `stage=mail | rcpt | data`."""
        call_control(f"{self.smtp_control}/faults", {"kind": kind, "count": count, **details})

    def ledger(self) -> list[dict[str, Any]]:
        """Return every successful charge, oldest first."""
        charges: list[dict[str, Any]] = call_control(f"{self.stripe_control}/ledger")["charges"]
        return charges

    def deliveries(self) -> list[dict[str, Any]]:
        """Return every attempt to deliver a webhook, oldest first."""
        deliveries: list[dict[str, Any]] = call_control(f"{self.stripe_control}/deliveries")["deliveries"]
        return deliveries

    def stripe_requests(self) -> list[dict[str, Any]]:
        """Return every request the API got, oldest first."""
        requests: list[dict[str, Any]] = call_control(f"{self.stripe_control}/requests")["requests"]
        return requests

    def authenticate(self, payment_intent: str, *, success: bool = True) -> dict[str, Any]:
        """Pass or fail 3-D Secure as the customer; returns the PaymentIntent."""
        body = {"result": "success" if success else "failure"}
        return call_control(f"{self.stripe_control}/payment_intents/{payment_intent}/authenticate", body)

    def settle_debit(self, payment_intent: str) -> dict[str, Any]:
        """Let the bank speak about a debit in process, as its test account says; returns the PaymentIntent."""
        return call_control(f"{self.stripe_control}/payment_intents/{payment_intent}/settle", {})

    def open_dispute(self, payment_intent: str, kind: str = "chargeback") -> dict[str, Any]:
        """Let the payer's bank dispute a payment: `chargeback` or `inquiry`; returns the Dispute."""
        return call_control(f"{self.stripe_control}/payment_intents/{payment_intent}/dispute", {"kind": kind})

    def move_dispute(self, dispute: str, status: str) -> dict[str, Any]:
        """Move a dispute on: `under_review`, `won`, `lost`, `warning_closed`; returns it."""
        return call_control(f"{self.stripe_control}/disputes/{dispute}", {"status": status})

    def move_refund(self, refund: str) -> dict[str, Any]:
        """Let the payer's bank speak about a refund, as its test card says; returns it."""
        return call_control(f"{self.stripe_control}/refunds/{refund}/move", {})

    def complete_setup(self, setup_intent: str, method: str) -> dict[str, Any]:
        """Fill Stripe's form in as the payer; returns the SetupIntent."""
        return call_control(f"{self.stripe_control}/setup_intents/{setup_intent}/complete", {"method": method})

    def products(self) -> dict[str, list[dict[str, Any]]]:
        """Return every product and price at Stripe."""
        return call_control(f"{self.stripe_control}/products")

    def change_card(self, payment_method: str, card: str) -> None:
        """Let an attached payment method behave like another test card from now on."""
        call_control(f"{self.stripe_control}/payment_methods/{payment_method}", {"card": card})

    def expire_idempotency_keys(self) -> None:
        """Drop all kept results, as Stripe may after 24 hours."""
        call_control(f"{self.stripe_control}/idempotency_keys/expire", {})

    def slack_messages(self) -> list[dict[str, Any]]:
        """Return the messages posted to the incoming webhook, oldest first."""
        messages: list[dict[str, Any]] = call_control(f"{self.slack_control}/messages")["messages"]
        return messages

    def mails(self) -> list[dict[str, Any]]:
        """Return the mails taken, oldest first."""
        messages: list[dict[str, Any]] = call_control(f"{self.smtp_control}/messages")["messages"]
        return messages

    def reset(self) -> None:
        """Forget everything in all three; webhook settings return to those at the start."""
        for control in (self.stripe_control, self.slack_control, self.smtp_control):
            call_control(f"{control}/reset", {})


def start_standins(webhook_url: str | None, folder: Path) -> Standins:
    """Start the stand-ins on free loopback ports; `folder` gets their state file and log.

    They end with `stop()`, or by themselves when the starting process is gone. Raises StandinsError if they do not
    listen within half a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file, log_file = folder / "standins.json", folder / "standins.log"
    state_file.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "tests.standins",
        "--state-file",
        str(state_file.resolve()),
        "--until-stdin-closes",
    ]
    if webhook_url:
        command += ["--webhook-url", webhook_url]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
    state = _wait_for_state(process, state_file, log_file)
    stripe, slack, smtp = state["stripe"], state["slack"], state["smtp"]
    return Standins(
        stripe_url=stripe["url"],
        stripe_api_key=stripe["api_key"],
        stripe_webhook_secret=stripe["webhook_secret"],
        stripe_control=stripe["control"],
        slack_url=slack["url"],
        slack_control=slack["control"],
        smtp_url=smtp["url"],
        smtp_control=smtp["control"],
        state_file=state_file,
        log_file=log_file,
        _process=process,
    )


def _wait_for_state(process: subprocess.Popen[bytes], state_file: Path, log_file: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not state_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            said = log_file.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise StandinsError(f"the stand-ins did not start (exit {process.returncode}):\n{said}")
        time.sleep(0.02)
    state: dict[str, Any] = json.loads(state_file.read_text(encoding="utf-8"))
    return state


def call_control(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET a control URL, or POST the body to it; raises urllib.error.HTTPError for a refusal."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
