"""``collector/scale-out``: spans through Kafka into Jaeger, while each program is killed.

The broker is one in memory (``tests/kafka``). Elasticsearch, OpenSearch, Cassandra and ClickHouse
are not run: Jaeger itself checks the files for them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

import tapps_otel
from capabilities import CAPABILITIES, Capability, need
from commands import child
from ports import free_ports
from stack import COLLECTOR, DIR, HAS_GO, PROGRAMS, Part, Span, Stack, wait_for

pytestmark = pytest.mark.stack

KAFKA = DIR / "bin" / "kafka"
CAPABILITIES.setdefault(
    "kafka",
    Capability(KAFKA.exists, f"run (cd tests/kafka && go build -o {KAFKA} .)", installable=HAS_GO),
)
SCALE_OUT = COLLECTOR / "scale-out"
TOPIC = "spans"
FLOW = """
from tapps_otel import step, workflow

@step
def one(n: int, fails: bool) -> int:
    if fails:
        raise ValueError(n)
    return n

@workflow
def flow(n: int, fails: bool = False) -> int:
    return sum(one(i, fails) for i in range(n))
"""
STEPS = 20


class ScaleOut(Stack):
    """A broker, an edge collector, an ingesting collector and Jaeger; none runs at first."""

    def __init__(self, folder: Path, *more: Path, **variables: str) -> None:
        self.port, *ports = free_ports(5)
        address = f"127.0.0.1:{self.port}"
        super().__init__(
            folder,
            folder / "no-logs",
            {"TAPPS_KAFKA_BROKERS": address, "TAPPS_KAFKA_TOPIC": TOPIC, **variables},
        )
        (folder / "data" / "jaeger").mkdir(parents=True)
        self.edge = self._part("edge", ports[:2], SCALE_OUT / "kafka-edge.yaml")
        self.ingest = self._part("ingest", ports[2:], SCALE_OUT / "kafka-ingest.yaml", *more)
        self._kafka: subprocess.Popen[str] | None = None

    def _part(self, name: str, ports: list[int], *configs: Path) -> Part:
        health, metrics = ports
        env = {
            **self.environment(),
            "TAPPS_STACK_DATA": str(self.folder / name),
            "TAPPS_STACK_COLLECTOR_HEALTH": f"127.0.0.1:{health}",
            "TAPPS_STACK_COLLECTOR_METRICS_PORT": str(metrics),
        }
        files = [argument for config in configs for argument in ("--config", str(config))]
        return Part(
            [str(PROGRAMS["collector"]), *files],
            env,
            f"http://127.0.0.1:{health}/",
            self.folder / f"{name}.log",
        )

    def start_kafka(self) -> None:
        """Start the broker, and wait until it listens."""
        self._kafka = subprocess.Popen(
            [str(KAFKA), str(self.port), "3", TOPIC], stdout=subprocess.PIPE, text=True
        )
        assert self._kafka.stdout is not None
        assert self._kafka.stdout.readline().startswith("ready")

    def start(self) -> None:
        self.start_kafka()
        for part in (self.jaeger, self.edge, self.ingest):
            part.start()

    def end(self) -> None:
        for part in (self.edge, self.ingest):
            if part.process is not None and part.process.poll() is None:
                part.kill()
        if self._kafka is not None:
            self._kafka.kill()
            self._kafka.communicate()
        super().end()


@pytest.fixture
def scale_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScaleOut]:
    need("stack")
    need("kafka")
    made = ScaleOut(tmp_path_factory.mktemp("scale-out"))
    yield made
    made.end()


def run(run_id: str, stack: Stack, *, fails: bool = False) -> set[str]:
    """Run the workflow, and return the ids of its spans by its log."""
    Path("flow.py").write_text(FLOW, "utf-8")
    done = child(
        "run", "flow.py:flow", "--id", run_id, "--input",
        f'{{"n": {STEPS}, "fails": {str(fails).lower()}}}', "--quiet", **stack.env(),
    )  # fmt: skip
    assert done.code == (1 if fails else 0)
    starts = {"workflow_start", "step_start"}
    return {str(e.span_id) for e in tapps_otel.events(run_id) if e.event_type in starts}


def trace_id(run_id: str) -> str:
    return str(next(iter(tapps_otel.events(run_id))).trace_id)


def own(spans: list[Span]) -> list[str]:
    """The ids of what is no marker of a start, each as often as Jaeger has it."""
    return sorted(span.span_id for span in spans if "tapps.marker" not in span.tags)


def failing_for_s(part: Part) -> float:
    """For how long a collector has failed to pass on what it has, by its own log."""
    lines = [line for line in part.said().splitlines() if "Exporting failed" in line]
    times = [datetime.fromisoformat(line.split()[0]) for line in lines]
    return (times[-1] - times[0]).total_seconds() if times else 0


def test_each_span_arrives_once_whatever_is_killed(scale_out: ScaleOut) -> None:
    scale_out.edge.start()  # no broker yet: the spans are in its queue
    first = run("first", scale_out)
    scale_out.edge.kill()
    scale_out.start_kafka()
    scale_out.edge.start()
    scale_out.ingest.start()  # no Jaeger yet: it has read the spans, and cannot pass them on
    wait_for(lambda: failing_for_s(scale_out.ingest) > 2, "a mark would have been committed")
    scale_out.ingest.kill()
    scale_out.jaeger.start()
    scale_out.ingest.start()
    assert own(scale_out.spans(trace_id("first"), first)) == sorted(first)

    scale_out.jaeger.kill()
    second = run("second", scale_out)
    scale_out.jaeger.start()
    for run_id, wanted in (("first", first), ("second", second)):
        spans = scale_out.spans(trace_id(run_id), wanted)
        assert own(spans) == sorted(wanted)
        assert [span.warnings for span in spans if span.warnings] == []
        assert child("verify", run_id, "--against", scale_out.jaeger_url).code == 0


def test_failed_runs_are_kept_and_a_share_of_the_others(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    need("stack")
    need("kafka")
    stack = ScaleOut(
        tmp_path_factory.mktemp("sampled"),
        SCALE_OUT / "tail-sampling.yaml",
        TAPPS_SAMPLING_WAIT="1s",
        TAPPS_SAMPLING_PERCENT="0",
    )
    try:
        stack.start()
        run("good", stack)
        failed = run("bad", stack, fails=True)
        assert own(stack.spans(trace_id("bad"), failed)) == sorted(failed)
        # The other trace came before it, and was decided before it.
        assert stack.ask(f"/api/traces/{trace_id('good')}") is None
    finally:
        stack.end()


@pytest.mark.parametrize("path", sorted(SCALE_OUT.glob("jaeger-*.yaml")), ids=lambda p: p.stem)
def test_jaeger_takes_the_files_of_other_stores(path: Path) -> None:
    need("stack")
    done = subprocess.run(
        [PROGRAMS["jaeger"], "validate", "--config", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
