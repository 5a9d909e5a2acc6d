"""Documents per second and core: HTML, e-invoice in both syntaxes, PDF/A-3b, in one rendering process and in two.

Run by hand: `python -m benchmarks.documents [--documents N]`. Processor time is the renderer's own (its children's), so
what else a machine does matters less; still a busy machine makes every document dearer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from pathlib import Path

from invoicing.adapters import pdf
from invoicing.adapters.render_workers import RenderWorkers
from invoicing.render_document import make_e_invoice, render_document
from tests.invoicing.documents.samples import many_lines, snapshot


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=40)
    count = parser.parse_args().documents
    print(json.dumps({"load before": os.getloadavg()[0]}))
    print(json.dumps({"document": "bare page (a table of 12 lines, no design)", **bare_page(count)}), flush=True)
    for name, shown in (
        ("one page", {**snapshot(), "annex": {"digest": "0" * 64, "tables": []}}),
        ("one page and annex", snapshot()),
        ("200 lines and annex", snapshot(groups=many_lines(200))),
    ):
        documents = max(3, count // 10) if "200" in name else count
        print(json.dumps({"document": name, **in_process(shown, documents)}), flush=True)
    for processes in (1, 2):
        print(json.dumps(asyncio.run(in_workers(processes, count))), flush=True)


def bare_page(documents: int) -> dict[str, object]:
    """Render the least that could be called an invoice, with the same fonts: what the library itself costs."""
    from weasyprint import HTML

    rows = "".join(f"<tr><td>Line {number}</td><td>{number}</td><td>0.05</td></tr>" for number in range(12))
    page = f"<h1>Invoice</h1><p>Acme</p><table>{rows}</table><p>Total 1.00</p>"
    render_document(snapshot())
    style, fetcher = pdf._style(), pdf._bundled_fetcher()
    began = time.process_time()
    for _ in range(documents):
        HTML(string=page, base_url="asset:", url_fetcher=fetcher).write_pdf(
            font_config=style.fonts, stylesheets=[style.sheet], pdf_variant=pdf.PDF_VARIANT, pdf_identifier=b"x" * 16
        )
    spent = (time.process_time() - began) / documents
    return {"ms of processor": round(spent * 1000), "documents/s per core": round(1 / spent, 2)}


def in_process(shown: dict[str, object], documents: int) -> dict[str, object]:
    """Render in this process, after one to warm up; processor time of each part."""
    render_document(shown)
    began = time.process_time()
    for _ in range(documents):
        make_e_invoice(shown)
    e_invoice = (time.process_time() - began) / documents
    began, wall = time.process_time(), time.perf_counter()
    for number in range(documents):
        rendered = render_document({**shown, "reason": str(number)})
    spent, passed = (time.process_time() - began) / documents, (time.perf_counter() - wall) / documents
    return {
        "ms of processor": round(spent * 1000),
        "of it e-invoices": round(e_invoice * 1000, 1),
        "documents/s per core": round(1 / spent, 2),
        "documents/s seen": round(1 / passed, 2),
        "kB": round(len(rendered.pdf) / 1000, 1),
    }


async def in_workers(processes: int, documents: int) -> dict[str, object]:
    """Render through the product's processes."""
    workers = RenderWorkers(processes)
    await asyncio.gather(*(workers.render(snapshot()) for _ in range(processes)))
    pids = [child._process.pid for child in workers._idle]
    before, wall = sum(map(_seconds, pids)), time.perf_counter()
    await asyncio.gather(*(workers.render({**snapshot(), "reason": str(number)}) for number in range(documents)))
    passed, spent = time.perf_counter() - wall, sum(map(_seconds, pids)) - before
    memory = max(_memory_mb(pid) for pid in pids)
    await workers.close()
    return {
        "processes": processes,
        "documents/s per core": round(documents / spent, 2),
        "documents/s seen": round(documents / passed, 2),
        "MB of a process": memory,
    }


def _seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1_000_000


if __name__ == "__main__":
    main()
