"""The real stack: the collector and the Jaeger that ``collector/stack.sh build`` makes.

They run on free loopback ports with the project's own configurations. What arrived is asked over
Jaeger's query interface, and read from what the collector writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from capabilities import CAPABILITIES, Capability
from otlp_collector import PATIENCE, free_ports

ROOT = Path(__file__).parents[1]
COLLECTOR = ROOT / "collector"
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
    """What ``found`` gives, as soon as it is something."""
    until = time.monotonic() + patience
    while not (value := found()):
        if time.monotonic() > until:
            pytest.fail(f"this did not come within {patience} s: {what}; there is {value!r:.2000}")
        time.sleep(0.05)
    return value


def clean_environment(**more: str) -> dict[str, str]:
    """This process's, without the addresses of a stack that a person may have running."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("TAPPS_STACK_")
    } | more


# ---------------------------------------------------------------- the parts


@dataclass
class Part:
    """A program of the stack.

    :ivar health: a URL that answers 200 when it is ready
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
        """End it, and wait until it has ended."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        """As a crash would."""
        self.stop(signal.SIGKILL)

    def said(self) -> str:
        """All that it wrote, in all its lives."""
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

    :ivar folder: what it keeps
    :ivar logs: the folder whose audit logs are read
    :ivar addresses: of each, by the names of the variables in the configurations
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
            [str(PROGRAMS["collector"]), "--config", str(COLLECTOR / "config.yaml")],
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
        """What the configurations read."""
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
        """Jaeger and the collector."""
        (self.folder / "data" / "jaeger").mkdir(parents=True, exist_ok=True)
        self.jaeger.start()
        self.collector.start()

    def start_prometheus(self) -> None:
        """Prometheus too, with the project's configuration at this stack's addresses."""
        text = (COLLECTOR / "prometheus.yml").read_text("utf-8")
        text = text.replace("collector:8889", self.addresses["SPAN_METRICS"])
        text = re.sub(r"(scrape_interval|scrape_timeout): \ds", r"\1: 1s", text)
        (self.folder / "prometheus.yml").write_text(text, "utf-8")
        self.prometheus.start()

    def end(self) -> None:
        """Leave nothing running."""
        for part in (self.collector, self.jaeger, self.prometheus):
            if part.process is not None and part.process.poll() is None:
                part.kill()

    def otlp(self, protocol: str = "grpc") -> str:
        """Where programs send spans."""
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
        """A JSON answer of Jaeger's query interface; ``None`` for what it does not know."""
        answer = requests.get(self.jaeger_url + path, params=query, timeout=10)
        return None if answer.status_code == 404 else answer.json()

    def spans(self, trace_id: str, wanted: Collection[str] = ()) -> list[Span]:
        """The spans of a trace, by the older interface, as soon as these are there.

        :param wanted: span ids; without any it is enough that there is one
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
        """The spans of a trace by the interface of version 3: OTLP as JSON, as Jaeger keeps it."""
        answer = self.ask(f"/api/v3/traces/{trace_id}", rawTraces="true")
        return [
            span
            for of_resource in answer["result"]["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope.get("spans", ())
        ]

    def own_metric(self, name: str) -> float:
        """A number that the collector tells about itself, summed up."""
        text = requests.get(
            f"http://{self.addresses['COLLECTOR_METRICS']}/metrics", timeout=10
        ).text
        values = re.findall(rf"^{name}(?:_total)?(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    def log_records(self, number: int, workflow_id: str | None = None) -> list[Record]:
        """What the collector made of the audit logs, as soon as there are so many records."""

        def found() -> list[Record] | None:
            records = [one for one in self._records() if workflow_id in {None, one.run}]
            return records if len(records) >= number else None

        return wait_for(found, f"{number} log records of {workflow_id or 'all runs'}")

    def _records(self) -> Iterator[Record]:
        for path in sorted((self.folder / "data" / "logs").glob("audit*.json")):
            for line in path.read_text("utf-8").splitlines(keepends=True):
                if not line.endswith("\n"):  # it is being written
                    continue
                for of_resource in json.loads(line)["resourceLogs"]:
                    for of_scope in of_resource["scopeLogs"]:
                        yield from map(Record, of_scope["logRecords"])


@contextmanager
def stack_up(folder: Path, logs: Path, **variables: str) -> Iterator[Stack]:
    """A stack of one's own, collector and Jaeger started."""
    stack = Stack(folder, logs, variables)
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


# ---------------------------------------------------------------- what arrived


class Span:
    """A span as Jaeger's older interface tells it."""

    def __init__(self, found: dict[str, Any], trace: dict[str, Any]) -> None:
        self.name: str = found["operationName"]
        self.span_id: str = found["spanID"]
        self.parent: str | None = next(
            (one["spanID"] for one in found["references"] if one["refType"] == "CHILD_OF"), None
        )
        self.links = [one["spanID"] for one in found["references"] if one["refType"] != "CHILD_OF"]
        self.tags = _tags(found["tags"])
        self.events = [_tags(one["fields"]) for one in found["logs"]]
        self.warnings: list[str] = found["warnings"] or []
        self.service: str = trace["processes"][found["processID"]]["serviceName"]


def _tags(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: one["value"] for one in found}


class Record:
    """A line of an audit log as an OpenTelemetry log record.

    :ivar attributes: by name, each as its type and its value: ``("intValue", "7")``
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


# ---------------------------------------------------------------- checking compose files


def compose_model(path: Path, *overrides: Path) -> dict[str, Any]:
    """A compose file after the check of its schema, every variable filled in.

    :param overrides: files that change it, in their order

    The check is that of the reference implementation, built where the stack's programs are.
    """
    checker = DIR / "bin" / "compose-go"
    if not checker.exists():
        checker.parent.mkdir(parents=True, exist_ok=True)
        module = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
        env = clean_environment(GOBIN=str(checker.parent), GOWORK="off", CGO_ENABLED="0")
        built = subprocess.run(
            ["go", "install", module], env=env, capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr
        (checker.parent / "cmd").replace(checker)
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
