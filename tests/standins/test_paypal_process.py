"""The PayPal stand-in as a process of its own: its settings are Meterbook's, its orders can be approved by hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.clock import SystemClock
from payments.adapters.paypal_certificates import load_roots
from payments.adapters.paypal_provider import create_paypal_provider
from runtime.settings import load_settings
from tests.payments.paypal.conftest import METHOD, payment_of
from tests.standins.process import CHECKOUT, call_control

pytestmark = pytest.mark.slow


def test_its_settings_suffice_to_be_paid(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.standins.paypal_process", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment)
    try:
        file, deadline = tmp_path / "paypal.env", time.monotonic() + 60
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lines = file.read_text().splitlines()
        found: dict[str, Any] = {
            name.removeprefix("METERBOOK_").lower(): value for name, _, value in (line.partition("=") for line in lines)
        }
        settings = load_settings(**found)
        assert settings.paypal_ca_file is not None
        assert len(load_roots(settings.paypal_ca_file)) == 1

        async def pay() -> list[dict[str, Any]]:
            provider = create_paypal_provider(settings, SystemClock())
            outcome = await provider.charge(payment_of("by-hand"), METHOD, "Invoice MB-1")
            control = f"{settings.paypal_api_base}/_control"
            await asyncio.to_thread(call_control, f"{control}/orders/{outcome.reference}/approve", {})
            await provider.capture(payment_of("by-hand", reference=outcome.reference))
            await provider.close()
            ledger: list[dict[str, Any]] = (await asyncio.to_thread(call_control, f"{control}/ledger"))["captures"]
            return ledger

        assert [taken["amount"] for taken in asyncio.run(pay())] == ["125.40"]
    finally:
        process.terminate()
        assert process.wait(20) == 0
