"""Alert rules and scraping against the code: metrics, labels and values that a rule waits for must exist."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.dashboard_check import DASHBOARDS, panels_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
SCRAPED = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
PACKAGES = ("alerts", "api", "invoicing", "metering", "payments", "rating", "runtime", "streams", "subscriptions")
# What Prometheus or the scrape settings add.
ADDED = {"job", "service", "instance", "le"}


@functools.cache
def sources() -> list[ast.Module]:
    """Every module of the code, parsed."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [ast.parse(path.read_text()) for path in paths]


@functools.cache
def literals() -> frozenset[str]:
    """Every text that stands in the code."""
    found = (node for module in sources() for node in ast.walk(module))
    return frozenset(node.value for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str))


@functools.cache
def metrics_of_the_code() -> dict[str, set[str]]:
    """Series names with their labels, from every Counter, Gauge and Histogram in the code."""
    found: dict[str, set[str]] = {}
    for module in sources():
        for call in ast.walk(module):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args):
                continue
            kind, name = call.func.id, call.args[0]
            if kind not in ("Counter", "Gauge", "Histogram") or not isinstance(name, ast.Constant):
                continue
            labels = set(ast.literal_eval(call.args[2])) if len(call.args) > 2 else set()
            suffixes = ("_bucket", "_sum", "_count") if kind == "Histogram" else ("",)
            found |= {f"{name.value}{suffix}": labels for suffix in suffixes}
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def shown() -> list[tuple[str, str]]:
    """Title and expression of every panel over Prometheus."""
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")]
    panels = [panel for dashboard in dashboards for panel in panels_of(dashboard)]
    return [
        (panel["title"], target["expr"])
        for panel in panels
        if panel["datasource"]["type"] == "prometheus"
        for target in panel["targets"]
    ]


def check_expression(what: str, expression: str) -> None:
    """Metrics, labels and values that an expression names must be the code's."""
    metrics = metrics_of_the_code()
    used = set(re.findall(r"\b(?:meterbook|billing)_\w+", expression))
    assert used or "up{" in expression
    assert used <= set(metrics), f"no such metric: {used - set(metrics)}"
    labels = set().union(*(metrics[name] for name in used)) | ADDED
    for name, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', expression):
        assert name in labels, f"{what}: nothing has the label {name}"
        if name not in ADDED and name != "status":
            assert set(value.split("|")) <= literals(), f"{what}: nobody reports {name}{operator}{value}"
    for names in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {name.strip() for name in names.split(",")} <= labels


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_waits_for_what_the_code_reports(rule):
    check_expression(rule["alert"], rule["expr"])


@pytest.mark.parametrize(("panel", "expression"), shown())
def test_a_panel_over_prometheus_shows_what_the_code_reports(panel, expression):
    check_expression(panel, expression)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_tells_a_person_what_it_means(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 40
    by = {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for name in names.split(",")}
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert told <= by, "a label that the expression sums away stays empty in the message"
    assert f"`{rule['alert']}`" in (ROOT / "docs" / "operations.md").read_text(), "operators find nothing about it"


def test_every_service_is_scraped_and_missed_when_gone():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    image = compose["x-meterbook"]["image"]
    own = {name for name, service in compose["services"].items() if service["image"] == image} - {"migrate"}
    scrapes = {job["job_name"]: job for job in yaml.safe_load(SCRAPED.read_text())["scrape_configs"]}
    (discovery,) = scrapes["meterbook"]["dns_sd_configs"]
    assert set(discovery["names"]) == own
    assert str(discovery["port"]) == compose["x-environment"]["METERBOOK_METRICS_PORT"]
    down = next(rule for rule in rules() if rule["alert"] == "MeterbookServiceDown")
    assert set(re.findall(r'absent\(up\{job="meterbook", service="([\w-]+)"\}\)', down["expr"])) == own


def test_the_rule_file_is_the_one_that_is_mounted():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["prometheus"]["volumes"])
    folder = next(target for source, target in mounts.items() if source == "./deploy/prometheus")
    assert yaml.safe_load(SCRAPED.read_text())["rule_files"] == [f"{folder}/{RULES.name}"]
    assert f"--config.file={folder}/{SCRAPED.name}" in compose["services"]["prometheus"]["command"]
