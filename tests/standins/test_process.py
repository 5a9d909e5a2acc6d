"""The process of stand-ins: its state file, its end, and that it never outlives whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stripe

from tests.standins import process
from tests.standins.process import CHECKOUT, StandinsError, start_standins

pytestmark = pytest.mark.slow


def test_starts_writes_its_addresses_and_ends_cleanly(tmp_path: Path) -> None:
    standins = start_standins("http://127.0.0.1:9/webhooks/stripe", tmp_path / "run")
    state = json.loads(standins.state_file.read_text())
    assert state["stripe"]["url"] == standins.stripe_url
    assert state["slack"]["url"].startswith("http://127.0.0.1:")
    assert state["smtp"]["url"] == standins.settings()["METERBOOK_SMTP_URL"]
    assert standins.webhooks()["urls"] == ["http://127.0.0.1:9/webhooks/stripe"]
    assert list(standins.state_file.parent.glob("*.part")) == []
    assert standins.stop() == 0
    assert standins.stop() == 0
    assert not standins.state_file.exists()
    assert standins.log_file.read_text() == ""


def test_ids_of_two_runs_differ(tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        standins = start_standins(None, tmp_path / name)
        client = stripe.StripeClient(standins.stripe_api_key, base_addresses={"api": standins.stripe_url})
        ids.add(client.v1.customers.create({}).id)
        standins.reset()
        ids.add(client.v1.customers.create({}).id)
        standins.stop()
    assert len(ids) == 4


def test_stops_although_a_request_hangs_and_a_webhook_is_retried(tmp_path: Path) -> None:
    standins = start_standins("http://127.0.0.1:9/webhooks/stripe", tmp_path)
    standins.fail_stripe("hang_after", seconds=600)
    body = "amount=500&currency=usd&payment_method=pm_card_visa&confirm=true&off_session=true"
    hung = subprocess.Popen(
        [sys.executable, "-c", _POST, f"{standins.stripe_url}/v1/payment_intents", standins.stripe_api_key, body],
        stderr=subprocess.DEVNULL,
    )
    while not standins.ledger():
        time.sleep(0.01)
    assert standins.stop() == 0
    assert hung.wait(10) != 0


_POST = """
import sys, urllib.request
url, key, body = sys.argv[1:]
urllib.request.urlopen(urllib.request.Request(url, body.encode(), {"Authorization": "Bearer " + key}), timeout=60)
"""

_STARTER = """
import os, sys
from pathlib import Path
from tests.standins.process import start_standins
print(start_standins(None, Path(sys.argv[1])).pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_ends_by_itself_when_its_starter_is_killed(tmp_path: Path) -> None:
    starter = subprocess.run(
        [sys.executable, "-c", _STARTER, str(tmp_path)], cwd=CHECKOUT, capture_output=True, timeout=60, check=False
    )
    pid = int(starter.stdout)
    deadline = time.monotonic() + 20
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    outlived = _is_running(pid)
    if outlived:
        os.kill(pid, signal.SIGTERM)
    assert not outlived


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that has ended may wait for a parent to collect it.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_a_failed_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A checkout whose tests lack the stand-ins; it comes before the real one on the new process's path.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").touch()
    monkeypatch.setattr(process, "CHECKOUT", tmp_path)
    with pytest.raises(StandinsError, match=r"tests\.standins"):
        start_standins(None, tmp_path / "run")
