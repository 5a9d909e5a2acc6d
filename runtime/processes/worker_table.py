"""Which workers there are. Modules are imported only when their worker starts, so that each process loads its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from core.errors import Fault, InvalidInputError
from runtime.processes.consumers import Runner
from runtime.settings import Settings

AppFactory = Callable[[Settings], Any]


def _stream(module: str) -> Callable[[], AppFactory]:
    def load() -> AppFactory:
        factory: AppFactory = importlib.import_module(module).create_app
        return factory

    return load


# Faust workers: one app per process.
STREAM_WORKERS: dict[str, Callable[[], AppFactory]] = {
    "meter": _stream("streams.agents.meter"),
    "quota": _stream("streams.agents.quota"),
    "warehouse": _stream("streams.agents.warehouse"),
}

# Billing consumers: any number of them share a process. Name -> (module, function).
CONSUMERS: dict[str, tuple[str, str]] = {
    "alerts": ("alerts.consumer", "run"),
    "spend-alerts": ("alerts.spend_consumer", "run"),
    "anomalies": ("alerts.anomaly_worker", "run"),
    "webhooks-out": ("runtime.webhooks_out.worker", "run"),
    "invoicing": ("invoicing.consumer", "run"),
    "settlements": ("invoicing.consumer", "run_settlements"),
    "invoiced-facts": ("invoicing.consumer", "run_invoiced_facts"),
    "vat-numbers": ("invoicing.vat_worker", "run"),
    "drafts": ("invoicing.consumer", "run_drafts"),
    "renderer": ("invoicing.renderer", "run"),
    "outbox": ("runtime.processes.consumers", "run_outbox"),
    "payments": ("payments.consumer", "run"),
    "webhooks": ("payments.consumer", "run_inbox"),
    "payment-upkeep": ("payments.upkeep_worker", "run"),
    "dunning": ("payments.dunning.worker", "run"),
    "overdue": ("invoicing.overdue_worker", "run"),
    "paypal": ("payments.paypal_worker", "run"),
    "rating": ("rating.consumer", "run"),
    "reconcile": ("runtime.processes.reconcile", "run"),
    "credits": ("subscriptions.credit_worker", "run"),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "billing": (
        "invoicing",
        "settlements",
        "invoiced-facts",
        "outbox",
        "payments",
        "webhooks",
        "payment-upkeep",
        "paypal",
        "dunning",
        "overdue",
        "credits",
        "vat-numbers",
        "drafts",
    ),
}


def load_consumers(names: Sequence[str]) -> list[tuple[str, Runner]]:
    """Return the named consumers; `billing` stands for the quick ones together.

    Raises `InvalidInputError` (`unknown_worker`) naming every unknown one.
    """
    wanted = [single for name in names for single in GROUPS.get(name, (name,))]
    faults = []
    for name in wanted:
        if name in STREAM_WORKERS:
            faults.append(Fault("not_alone", f"{name} is a stream worker and needs a process of its own", name))
        elif name not in CONSUMERS:
            known = ", ".join([*STREAM_WORKERS, *GROUPS, *CONSUMERS])
            faults.append(Fault("unknown_worker", f"no such worker; there are {known}", name))
    if faults:
        raise InvalidInputError(faults)
    return [(name, getattr(importlib.import_module(CONSUMERS[name][0]), CONSUMERS[name][1])) for name in wanted]
