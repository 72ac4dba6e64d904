"""The real stack: the collector and the Jaeger that ``collector/stack.sh build`` makes.

They run on free loopback ports with the project's own configurations. What arrived is read through
Jaeger's query interface, and from the files that the collector writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
import yaml

from capabilities import CAPABILITIES, Capability
from otlp_collector import PATIENCE
from ports import free_ports

ROOT = Path(__file__).parents[1]
COLLECTOR = ROOT / "collector"
COMPOSE = ROOT / "docker-compose.yml"
DIR = Path(os.environ.get("TAPPS_STACK_DIR") or ROOT / ".stack")
PROGRAMS = {name: DIR / "bin" / name for name in ("collector", "jaeger")}

T = TypeVar("T")


def _run(*command: Path | str) -> bool:
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def stack_built() -> bool:
    return all(path.exists() and _run(path, "--version") for path in PROGRAMS.values())


def prometheus_there() -> bool:
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


HAS_GO = shutil.which("go") is not None
CAPABILITIES.setdefault(
    "stack",
    Capability(stack_built, "run collector/stack.sh build (it needs Go)", installable=HAS_GO),
)
CAPABILITIES.setdefault(
    "full device",
    Capability(Path("/dev/full").is_char_device, "run on Linux", installable=False),
)
CAPABILITIES.setdefault(
    "go", Capability(lambda: HAS_GO, "install Go (go.dev/dl)", installable=False)
)
CAPABILITIES.setdefault(
    "prometheus",
    Capability(
        prometheus_there,
        "install it (apt-get install prometheus)",
        installable=shutil.which("apt-get") is not None,
    ),
)


def wait_for(found: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Wait until ``found`` returns something true, and return it."""
    until = time.monotonic() + patience
    while not (value := found()):
        if time.monotonic() > until:
            pytest.fail(f"not within {patience} s: {what}; the last result is {value!r:.2000}")
        time.sleep(0.05)
    return value


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment, without the addresses of a stack that may be running already."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("TAPPS_STACK_")
    } | more


# ---------------------------------------------------------------- the parts


def collector_arguments() -> list[str]:
    """The arguments in ``docker-compose.yml``, with the configuration file of this repository."""
    command = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["collector"]["command"]
    return [argument.replace("/etc/otelcol/", f"{COLLECTOR}/") for argument in command]


@dataclass
class Part:
    """A program of the stack.

    :ivar health: a URL that returns 200 when it is ready
    """

    command: list[str]
    env: dict[str, str]
    health: str
    output: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.output.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: self._ended() or self._healthy(), f"{self.command[0]} becomes healthy")
        assert not self._ended(), self.output.read_text()[-4000:]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, and wait until it has exited."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.stop(signal.SIGKILL)

    def said(self) -> str:
        """All its output, since it was first started."""
        return self.output.read_text("utf-8", "replace")

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _healthy(self) -> bool:
        try:
            return requests.get(self.health, timeout=2).status_code == 200
        except requests.RequestException:
            return False


@dataclass
class Stack:
    """A collector, its Jaeger, and Prometheus where a test starts it; none runs at first.

    :ivar folder: its data and output
    :ivar logs: the folder whose audit logs are read
    :ivar addresses: all addresses, by the names of the variables in the configurations
    """

    folder: Path
    logs: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = (
            "OTLP_GRPC", "OTLP_HTTP", "SPAN_METRICS", "COLLECTOR_HEALTH", "JAEGER_OTLP",
            "JAEGER_HTTP", "JAEGER_GRPC", "JAEGER_HEALTH", "PROMETHEUS", "COLLECTOR_METRICS",
        )  # fmt: skip
        self.addresses = {
            name: f"127.0.0.1:{port}"
            for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        env = self.environment()
        self.collector = Part(
            [str(PROGRAMS["collector"]), *collector_arguments()],
            env,
            f"http://{self.addresses['COLLECTOR_HEALTH']}/",
            self.folder / "collector.log",
        )
        self.jaeger = Part(
            [str(PROGRAMS["jaeger"]), "--config", str(COLLECTOR / "jaeger.yaml")],
            env,
            f"http://{self.addresses['JAEGER_HEALTH']}/status",
            self.folder / "jaeger.log",
        )
        self.prometheus = Part(
            [
                "prometheus",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data/prometheus",
                f"--web.listen-address={self.addresses['PROMETHEUS']}",
            ],
            env,
            f"http://{self.addresses['PROMETHEUS']}/-/ready",
            self.folder / "prometheus.log",
        )

    def environment(self) -> dict[str, str]:
        """The variables that the configurations use."""
        return clean_environment(
            TAPPS_OTEL_LOG_DIR=str(self.logs),
            TAPPS_STACK_DATA=str(self.folder / "data"),
            TAPPS_STACK_COLLECTOR_METRICS_PORT=self.addresses["COLLECTOR_METRICS"].split(":")[1],
            TAPPS_STACK_JAEGER_UI_CONFIG=str(COLLECTOR / "jaeger-ui.json"),
            TAPPS_STACK_METRICS_INTERVAL="200ms",
            **{f"TAPPS_STACK_{name}": address for name, address in self.addresses.items()},
            **self.variables,
        )

    def start(self) -> None:
        """Start Jaeger and the collector."""
        (self.folder / "data" / "jaeger").mkdir(parents=True, exist_ok=True)
        self.jaeger.start()
        self.collector.start()

    def start_prometheus(self) -> None:
        """Start Prometheus, with the project's configuration and this stack's addresses."""
        text = (COLLECTOR / "prometheus.yml").read_text("utf-8")
        text = text.replace("collector:8889", self.addresses["SPAN_METRICS"])
        text = text.replace("collector:8888", self.addresses["COLLECTOR_METRICS"])
        text = re.sub(r"(scrape_interval|scrape_timeout): \ds", r"\1: 1s", text)
        (self.folder / "prometheus.yml").write_text(text, "utf-8")
        self.prometheus.start()

    def end(self) -> None:
        """Kill what is still running."""
        for part in (self.collector, self.jaeger, self.prometheus):
            if part.process is not None and part.process.poll() is None:
                part.kill()

    def otlp(self, protocol: str = "grpc") -> str:
        """The endpoint to which programs send spans."""
        name = "OTLP_GRPC" if protocol == "grpc" else "OTLP_HTTP"
        return f"http://{self.addresses[name]}"

    def env(self, protocol: str = "grpc") -> dict[str, str]:
        """The standard variables that send a program's spans here."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp(protocol),
        }

    # -- what arrived

    @property
    def jaeger_url(self) -> str:
        return f"http://{self.addresses['JAEGER_HTTP']}"

    def ask(self, path: str, **query: str) -> Any:
        """Get JSON from Jaeger's query interface; ``None`` if it does not have it."""
        answer = requests.get(self.jaeger_url + path, params=query, timeout=10)
        return None if answer.status_code == 404 else answer.json()

    def spans(self, trace_id: str, wanted: Collection[str] = ()) -> list[Span]:
        """Wait for the spans of a trace, and read them through the older interface.

        :param wanted: the span ids to wait for; by default any span is enough
        """

        def found() -> list[Span] | None:
            answer = self.ask(f"/api/traces/{trace_id}")
            spans = (
                [Span(one, answer["data"][0]) for one in answer["data"][0]["spans"]]
                if answer
                else []
            )
            return spans if {span.span_id for span in spans} >= set(wanted) else None

        return wait_for(found, f"{wanted} of {trace_id} in Jaeger")

    def raw_spans(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace, read through interface version 3: OTLP as JSON."""
        answer = self.ask(f"/api/v3/traces/{trace_id}", rawTraces="true")
        return [
            span
            for of_resource in answer["result"]["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope.get("spans", ())
        ]

    def own_metric(self, name: str) -> float:
        """One of the collector's own metrics, summed over its labels."""
        text = requests.get(
            f"http://{self.addresses['COLLECTOR_METRICS']}/metrics", timeout=10
        ).text
        values = re.findall(rf"^{name}(?:_total)?(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    def log_records(self, number: int, workflow_id: str | None = None) -> list[Record]:
        """Wait until the collector has written this number of log records, and return all."""
        folder = self.folder / "data" / "logs"

        def found() -> list[Record] | None:
            records = [one for one in written_records(folder) if workflow_id in {None, one.run}]
            return records if len(records) >= number else None

        return wait_for(found, f"{number} log records of {workflow_id or 'all runs'}")


@contextmanager
def stack_up(folder: Path, logs: Path, **variables: str) -> Iterator[Stack]:
    """Run a collector and a Jaeger for one test or session."""
    stack = Stack(folder, logs, variables)
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


# ---------------------------------------------------------------- what arrived


class Span:
    """A span as Jaeger's older interface returns it."""

    def __init__(self, found: dict[str, Any], trace: dict[str, Any]) -> None:
        self.name: str = found["operationName"]
        self.span_id: str = found["spanID"]
        self.parent: str | None = next(
            (one["spanID"] for one in found["references"] if one["refType"] == "CHILD_OF"), None
        )
        self.links = [one["spanID"] for one in found["references"] if one["refType"] != "CHILD_OF"]
        self.duration: int = found["duration"]  # microseconds
        self.tags = _tags(found["tags"])
        self.events = [_tags(one["fields"]) for one in found["logs"]]
        self.warnings: list[str] = found["warnings"] or []
        self.service: str = trace["processes"][found["processID"]]["serviceName"]


def _tags(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: one["value"] for one in found}


class Record:
    """A line of an audit log as an OpenTelemetry log record.

    :ivar attributes: by name, each with its type and value: ``("intValue", "7")``
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.body: str = found["body"]["stringValue"]
        self.time_ns = int(found.get("timeUnixNano", 0))
        self.severity: str = found.get("severityText", "")
        self.trace_id: str = found.get("traceId", "")
        self.span_id: str = found.get("spanId", "")
        self.attributes: dict[str, tuple[str, Any]] = {
            one["key"]: next(iter(one["value"].items())) for one in found["attributes"]
        }
        self.run: str = self.attributes["tapps.workflow.id"][1]
        self.seq = int(self.attributes["tapps.seq"][1])


def written_records(folder: Path) -> Iterator[Record]:
    """Read the log records that the file exporter wrote into a folder."""
    for batch in _batches(folder):
        for of_resource in batch["resourceLogs"]:
            for of_scope in of_resource["scopeLogs"]:
                yield from map(Record, of_scope["logRecords"])


def _batches(folder: Path) -> Iterator[dict[str, Any]]:
    """Read what the file exporter wrote, as ``collector/README.md`` says.

    A batch is a line, but a kill while it is written leaves a part of it, and the next batch
    follows on the same line. Only a batch starts like that: inside strings quotes are escaped.
    """
    start = '{"resourceLogs":'
    for path in sorted(folder.glob("audit*.json")):
        _, *batches = path.read_text("utf-8", "replace").split(start)
        for batch in batches:
            with suppress(json.JSONDecodeError):  # incomplete: torn, or still being written
                yield json.loads(start + batch)


# ---------------------------------------------------------------- checking compose files


def compose_model(path: Path, *overrides: Path) -> dict[str, Any]:
    """A compose file, checked against its schema, with every variable replaced.

    :param overrides: files that override it, in order

    The checker is the reference implementation; it is built into the stack's folder.
    """
    checker = DIR / "bin" / "compose-go"
    if not checker.exists():
        checker.parent.mkdir(parents=True, exist_ok=True)
        module = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
        with tempfile.TemporaryDirectory(dir=checker.parent) as own:  # others may build it, too
            env = clean_environment(GOBIN=own, GOWORK="off", CGO_ENABLED="0")
            built = subprocess.run(
                ["go", "install", module], env=env, capture_output=True, text=True, check=False
            )
            assert built.returncode == 0, built.stderr
            Path(own, "cmd").replace(checker)
    done = subprocess.run(
        [checker, "-format", "json", path, *overrides],
        env=clean_environment(),
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model: dict[str, Any] = json.loads(done.stdout)
    return model
