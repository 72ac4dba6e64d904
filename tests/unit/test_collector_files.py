"""The stack's files: the programs themselves accept them, and they say what belongs together."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from capabilities import need
from stack import (
    COLLECTOR,
    COMPOSE,
    PROGRAMS,
    ROOT,
    clean_environment,
    collector_arguments,
    compose_model,
)

CONFIGS = {name: (COLLECTOR / name).read_text("utf-8") for name in ("config.yaml", "jaeger.yaml")}

GATES = "--feature-gates=stanza.synchronousLogEmitter"


def read(name: str) -> Any:
    return yaml.safe_load((COLLECTOR / name).read_text("utf-8"))


def validate(program: str, config: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAMS[program], "validate", "--config", config],
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---------------------------------------------------------------- configurations


@pytest.mark.stack
@pytest.mark.parametrize(
    ("program", "config"), [("collector", "config.yaml"), ("jaeger", "jaeger.yaml")]
)
def test_a_program_accepts_its_configuration_without_any_variable(
    program: str, config: str
) -> None:
    need("stack")
    done = validate(program, COLLECTOR / config)

    assert done.returncode == 0, done.stderr


@pytest.mark.stack
@pytest.mark.parametrize(
    ("program", "config", "variable", "said"),
    [
        ("collector", "config.yaml", "TAPPS_STACK_MEMORY_MIB", "limit_mib"),
        ("collector", "config.yaml", "TAPPS_STACK_METRICS_INTERVAL", "metrics_flush_interval"),
        ("collector", "config.yaml", "TAPPS_STACK_LOGS", 'exporter "nonsense"'),
        ("jaeger", "jaeger.yaml", "TAPPS_STACK_JAEGER_TTL", "badger.ttl.spans"),
    ],
)
def test_a_variable_that_cannot_be_is_refused_before_anything_starts(
    program: str, config: str, variable: str, said: str
) -> None:
    need("stack")
    done = validate(program, COLLECTOR / config, **{variable: "nonsense"})

    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.stack
def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    need("stack")
    broken = tmp_path / "config.yaml"
    broken.write_text(CONFIGS["config.yaml"].replace("queue_size:", "queue_sise:"))
    done = validate("collector", broken)

    assert done.returncode == 1
    assert "queue_sise" in done.stderr


def test_prometheus_accepts_its_configuration() -> None:
    need("prometheus")
    done = subprocess.run(
        ["promtool", "check", "config", COLLECTOR / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.stack
def test_the_collector_has_exactly_the_components_that_it_uses() -> None:
    need("stack")
    done = subprocess.run(
        [PROGRAMS["collector"], "components"], capture_output=True, text=True, check=True
    )
    built = yaml.safe_load(done.stdout)
    scale_out = ("kafka-edge", "kafka-ingest", "tail-sampling")
    configs = [read("config.yaml"), *(read(f"scale-out/{name}.yaml") for name in scale_out)]
    kinds = ("receivers", "processors", "exporters", "connectors", "extensions")

    assert {kind: {one["name"] for one in built[kind]} for kind in kinds} == {
        kind: {name.partition("/")[0] for one in configs for name in one.get(kind, ())}
        for kind in kinds
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_address_is_on_loopback_unless_it_is_set(name: str) -> None:
    addresses = re.findall(r"(\$\{env:\w+:-)?(?:http://)?([\w.]+):\d{4,5}\b", CONFIGS[name])

    assert addresses
    assert all(variable and host == "127.0.0.1" for variable, host in addresses)


def test_what_waits_for_a_backend_is_never_given_up() -> None:
    config = read("config.yaml")
    senders = [config["exporters"][name] for name in ("otlp_grpc/jaeger", "otlp_http/logs")]

    for sender in [*senders, config["receivers"]["file_log"]]:
        assert sender["retry_on_failure"]["enabled"]
        assert sender["retry_on_failure"]["max_elapsed_time"] == "0s"
    for sender in senders:
        assert sender["sending_queue"]["storage"] == "file_storage/queue"


def test_the_collector_has_the_same_feature_gates_with_and_without_docker() -> None:
    option, gates = GATES.split("=")
    script = (COLLECTOR / "stack.sh").read_text("utf-8")
    readme = (COLLECTOR / "README.md").read_text("utf-8")

    assert [one for one in collector_arguments() if option in one] == [GATES]
    assert re.findall(rf"{option}=(\S+)", script) == [gates]
    assert GATES in CONFIGS["config.yaml"]
    assert GATES in readme


def test_no_label_of_a_span_metric_is_an_id() -> None:
    metrics = read("config.yaml")["connectors"]["span_metrics"]

    assert {one["name"] for one in metrics["dimensions"]} == {
        "tapps.workflow.name", "tapps.step.name", "tapps.status",
    }  # fmt: skip
    assert metrics["resource_metrics_key_attributes"] == ["service.name"]
    assert metrics["aggregation_cardinality_limit"] == 10_000  # as README.md says


def test_every_variable_is_in_the_readme() -> None:
    said = (COLLECTOR / "README.md").read_text("utf-8")
    used = {name for text in CONFIGS.values() for name in re.findall(r"\$\{env:(\w+)", text)}
    used |= set(re.findall(r"\$\{(TAPPS_\w+)", COMPOSE.read_text("utf-8")))

    assert {name for name in used if f"`{name}`" not in said} == set()


def test_the_links_of_jaegers_pages_name_attributes_that_spans_have() -> None:
    from tapps_otel.names import ATTR

    known = {value for name, value in vars(ATTR).items() if not name.startswith("_")}
    patterns = json.loads((COLLECTOR / "jaeger-ui.json").read_text("utf-8"))["linkPatterns"]

    assert [one["url"].partition("?")[0] for one in patterns] == ["/trace/#{trace.traceID}"] * 2
    for one in patterns:
        assert set(re.findall(r"#\{([^}]+)\}", one["url"] + one["text"])) <= known | {
            "trace.traceID"
        }
        assert one["key"] in known


# ---------------------------------------------------------------- versions


def test_images_are_those_versions_that_are_built_and_tested() -> None:
    script = (COLLECTOR / "stack.sh").read_text("utf-8")
    collector = read("builder.yaml")["dist"]["version"]
    (jaeger,) = re.findall(r"^JAEGER_VERSION=(\S+)", script, re.MULTILINE)
    text = COMPOSE.read_text("utf-8")

    assert f"opentelemetry-collector-contrib:{collector}}}" in text
    assert f"jaegertracing/jaeger:{jaeger}}}" in text


# ---------------------------------------------------------------- docker-compose.yml


@pytest.fixture(scope="module")
def model() -> dict[str, Any]:
    """After the check of its schema, with every variable at its default."""
    need("go")
    return compose_model(COMPOSE)


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return found


LONG_RUNNING = sorted(set(services()) - {"owners"})


def test_it_is_a_compose_file(model: dict[str, Any]) -> None:
    assert set(model["services"]) == set(services())


def test_a_mistake_in_it_would_be_seen(tmp_path: Path) -> None:
    need("go")
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("ports:", "prots:", 1))

    with pytest.raises(AssertionError, match="prots"):
        compose_model(broken)


@pytest.mark.parametrize("name", services())
def test_no_image_floats(name: str) -> None:
    (default,) = re.findall(r"^\$\{TAPPS_\w+_IMAGE:-(.+)\}$", services()[name]["image"])

    assert re.fullmatch(r"[\w.-]+/[\w.-]+:v?\d+\.\d+\.\d+", default)


@pytest.mark.parametrize("name", services())
def test_whatever_it_depends_on_is_there_and_can_come_to_be_so(name: str) -> None:
    known = services()
    for other, how in known[name].get("depends_on", {}).items():
        assert other in known
        if how["condition"] == "service_healthy":
            assert "healthcheck" in known[other]
        if how["condition"] == "service_completed_successfully":
            assert known[other]["restart"] == "no"


@pytest.mark.parametrize("name", services())
def test_every_volume_is_declared_and_every_configuration_is_there(name: str) -> None:
    declared = yaml.safe_load(COMPOSE.read_text("utf-8"))["volumes"]
    for volume in services()[name].get("volumes", ()):
        if volume["type"] == "volume":
            assert volume["source"] in declared
        elif volume["source"].startswith("./collector/"):
            assert (ROOT / volume["source"]).is_file()
            assert volume["read_only"]
        else:  # the audit logs: never written to, and never made by Docker, as root
            assert volume["read_only"]
            assert volume["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_services_are_bounded_unprivileged_and_on_loopback(
    model: dict[str, Any], name: str
) -> None:
    service = model["services"][name]

    assert service["user"].split(":")[0] != "0"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_service_is_asked_for_its_health(name: str) -> None:
    known = services()
    # The collector's image has nothing to ask with: another service asks it.
    asked = known[f"{name}-health"] if f"{name}-health" in known else known[name]

    assert asked["healthcheck"]["test"][:2] == ["CMD", "wget"]


def test_the_programs_find_each_other(model: dict[str, Any]) -> None:
    """Addresses inside the stack's network name services, and ports that those listen on."""
    collector, jaeger = (model["services"][name]["environment"] for name in ("collector", "jaeger"))
    targets = [
        target
        for job in read("prometheus.yml")["scrape_configs"]
        for one in job["static_configs"]
        for target in one["targets"]
    ]
    (own_metrics,) = re.findall(r"COLLECTOR_METRICS_PORT:-(\d+)", CONFIGS["config.yaml"])

    assert collector["TAPPS_STACK_JAEGER_OTLP"] == jaeger["TAPPS_STACK_JAEGER_OTLP"].replace(
        "0.0.0.0", "jaeger"
    )
    assert jaeger["TAPPS_STACK_PROMETHEUS"] == "prometheus:9090"
    assert targets == [
        collector["TAPPS_STACK_SPAN_METRICS"].replace("0.0.0.0", "collector"),
        f"collector:{own_metrics}",
    ]


@pytest.mark.parametrize(
    ("name", "config"), [("collector", "config.yaml"), ("jaeger", "jaeger.yaml")]
)
def test_what_a_person_sets_for_the_stack_reaches_the_container(name: str, config: str) -> None:
    """Every variable of a configuration but addresses, which are the container's own."""
    read_there = dict(re.findall(r"\$\{env:(TAPPS_STACK_\w+):-([^}]*)\}", CONFIGS[config]))
    settable = {
        variable: default
        for variable, default in read_there.items()
        if not re.search(r"127\.0\.0\.1(:\d+)?$|^\d{4}$", default)
        and variable not in {"TAPPS_STACK_DATA", "TAPPS_STACK_JAEGER_UI_CONFIG"}  # volumes
        and variable != "TAPPS_STACK_JAEGER_UI"  # the image has its pages inside
    }
    given = services()[name]["environment"]

    assert settable
    assert {variable: given.get(variable) for variable in settable} == {
        variable: f"${{{variable}:-{default}}}" for variable, default in settable.items()
    }


@pytest.mark.parametrize("name", services())
def test_no_variable_means_one_thing_on_the_host_and_another_in_the_container(name: str) -> None:
    """podman-compose takes a service's own variables before those of the host."""
    service = services()[name]
    own = service.get("environment", {})
    asked = {key: value for key, value in service.items() if key != "environment"}
    of_the_host = set(re.findall(r"\$\{(\w+)", json.dumps(asked)))

    assert of_the_host & own.keys() == set()


def test_the_readmes_line_makes_the_collector_the_user_who_typed_it(tmp_path: Path) -> None:
    said = (COLLECTOR / "README.md").read_text("utf-8")
    (line,) = re.findall(r"^printf .*$", said, re.MULTILINE)
    assert line in (ROOT / "README.md").read_text("utf-8")
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    given = dict(one.split("=") for one in (tmp_path / ".env").read_text().split())

    assert services()["collector"]["user"] == "${TAPPS_UID:-1000}:${TAPPS_GID:-1000}"
    assert given == {"TAPPS_UID": str(os.getuid()), "TAPPS_GID": str(os.getgid())}


def test_the_readmes_override_gives_a_label_to_every_file_of_the_host(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    (text,) = re.findall(
        r"```yaml\n(.*?)```", (COLLECTOR / "README.md").read_text("utf-8"), re.DOTALL
    )
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(text)

    made = compose_model(COMPOSE, override)

    for name, service in model["services"].items():
        mounts = {one["target"]: one for one in made["services"][name].get("volumes", ())}
        assert set(mounts) == {one["target"] for one in service.get("volumes", ())}
        for before in service.get("volumes", ()):
            now = mounts[before["target"]]
            assert now["source"] == before["source"]
            if now["type"] == "bind":
                assert (now["read_only"], now["bind"]["selinux"]) == (True, "z")


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_published_ports_lead_to_addresses_that_are_listened_on(
    model: dict[str, Any], name: str
) -> None:
    service = model["services"][name]
    assert {port["target"] for port in service.get("ports", ())} <= _listened(service, name)


def _listened(service: dict[str, Any], name: str) -> set[int]:
    if name in {"prometheus", "grafana"}:
        return {9090 if name == "prometheus" else 3000}  # their defaults
    values = (service.get("environment") or {}).values()
    return {int(str(v).rpartition(":")[2]) for v in values if str(v).startswith("0.0.0.0:")}


# ---------------------------------------------------------------- dashboards


def test_the_dashboard_uses_the_metrics_that_there_are_and_all_of_them() -> None:
    from tapps_otel.otel.metrics.instruments import METRICS

    dashboard = json.loads((COLLECTOR / "grafana" / "runs.json").read_text("utf-8"))
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    used = set(re.findall(r"\btapps_\w+?(?=_total|_seconds_(?:bucket|count))", " ".join(queries)))

    assert used == {metric.name.replace(".", "_") for metric in METRICS}


def test_each_panel_asks_the_data_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((COLLECTOR / "grafana" / "datasources.yaml").read_text("utf-8"))[
        "datasources"
    ]
    dashboard = json.loads((COLLECTOR / "grafana" / "runs.json").read_text("utf-8"))
    wanted = {"type": source["type"], "uid": source["uid"]}

    assert source["url"] == "http://prometheus:9090"
    for panel in dashboard["panels"]:
        assert all(one["datasource"] == wanted for one in panel.get("targets", ()))
    assert [one["id"] for one in dashboard["panels"]] == [*range(1, len(dashboard["panels"]) + 1)]
