"""Rendering processes: shut in, without secrets, replaced when they hang or die; the same bytes as anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import msgspec
import pytest

from invoicing.adapters import render_workers
from invoicing.adapters.render_child import LENGTH, Ready
from invoicing.adapters.render_workers import RenderWorkers
from invoicing.render_document import render_document
from invoicing.render_invoice import RenderingFailedError
from tests.invoicing.documents.samples import ARABIC, snapshot

pytestmark = pytest.mark.slow

TRIES = """
import json, os, socket, subprocess, sys
from pathlib import Path
from invoicing.adapters.sandbox import confine, limit_resources

readable, secret, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
held = [Path(sys.prefix), Path(sys.base_prefix), readable]
limit_resources(1 << 30)
stands = confine(held)

def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    except MemoryError:
        return "MemoryError"
    return "done"

def write():
    with (readable / "new").open("w") as file:
        file.write("x")

print(json.dumps({
    "files": stands.files, "network": stands.network,
    "read what is allowed": tried(lambda: (readable / "font").read_bytes()),
    "read a secret": tried(secret.read_bytes),
    "read the password file": tried(Path("/etc/passwd").read_bytes),
    "read another's environment": tried(Path("/proc/1/environ").read_bytes),
    "write": tried(write),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", port), timeout=2)),
    "send a datagram": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "a local socket": tried(lambda: socket.socket(socket.AF_UNIX)),
    "start a program": tried(lambda: os.execv("/bin/true", ["true"])),
    "take memory": tried(lambda: bytearray(2 << 30)),
}))
"""


def test_a_confined_process_reaches_no_network_no_other_files_and_no_program(tmp_path: Path) -> None:
    readable = tmp_path / "readable"
    readable.mkdir()
    (readable / "font").write_bytes(b"glyphs")
    secret = tmp_path / "secret"
    secret.write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", TRIES, str(readable), str(secret), port], capture_output=True, check=True, timeout=60
        )
    found = json.loads(done.stdout)
    assert found.pop("read what is allowed") == "done"
    assert found.pop("take memory") == "MemoryError"
    outside = {"connect", "send a datagram", "a local socket", "start a program"}
    fences = {"files": found.keys() - outside - {"files", "network"}, "network": outside}
    for fence, tries in fences.items():
        # Kernels without Landlock, and containers that forbid seccomp, are told apart by what the process says itself.
        if found[fence]:
            assert {found[one] for one in tries} == {"PermissionError"}, found
        else:
            warnings.warn(f"this kernel gives a process no fence around {fence}: not tested here", stacklevel=1)


async def test_a_worker_renders_the_same_bytes_and_answers_faults_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("METERBOOK_STRIPE_API_KEY", "sk_live_secret")
    workers = RenderWorkers(1)
    try:
        shown = snapshot("shared", "pt", name=ARABIC, country="BR")
        assert await workers.render(shown) == render_document(shown)
        (child,) = workers._idle
        environment = Path(f"/proc/{child._process.pid}/environ").read_bytes()
        assert b"METERBOOK_STRIPE_API_KEY" not in environment
        assert b"PYTHONPATH" in environment
        with pytest.raises(RenderingFailedError, match="KeyError"):
            await workers.render({"format": 3})
        with pytest.raises(RenderingFailedError, match="UndefinedError"):
            await workers.render(
                {**shown, "seller": {**shown["seller"], "tax_id": None} | {"name": "x"}, "plan": {"id": "x"}}
            )
        assert workers._idle == [child], "a document's fault is not the process's"
        child._process.kill()
        with pytest.raises(RenderingFailedError, match="died"):
            await workers.render(shown)
        assert workers._idle == []
    finally:
        await workers.close()
    assert child._process.returncode is not None


async def test_a_process_that_hangs_is_ended_and_its_folder_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = msgspec.msgpack.encode(Ready(files=True, network=True))
    says = f"import sys, time; sys.stdout.buffer.write({LENGTH.pack(len(ready)) + ready!r}); sys.stdout.flush()"
    hang = [sys.executable, "-c", f"{says}; time.sleep(600)"]
    real = asyncio.create_subprocess_exec
    folders = []

    async def start(*_: str, env: dict[str, str], **streams: int) -> asyncio.subprocess.Process:
        folders.append(env["TMPDIR"])
        return await real(*hang, env=env, **streams)  # type: ignore[arg-type]

    monkeypatch.setattr(render_workers.asyncio, "create_subprocess_exec", start)
    workers = RenderWorkers(1, timeout_seconds=0.2)
    with pytest.raises(RenderingFailedError, match="longer than"):
        await workers.render(snapshot())
    assert [os.path.exists(folder) for folder in folders] == [False]
    await workers.close()
