"""A real Jaeger on loopback that receives spans over gRPC, stores them and answers queries."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from otlp_collector import listens
from ports import free_ports
from stack import PROGRAMS

STORAGES = {
    "memory": "memory: {max_traces: 1000}",
    "badger": "badger: {ephemeral: false, directories: {keys: KEYS, values: VALUES}}",
}
CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {level: none}, logs: {level: warn}}
extensions:
  jaeger_storage: {backends: {kept: {STORAGE}}}
  jaeger_query:
    storage: {traces: kept}
    enable_tracing: false
    base_path: /traces
    http: {endpoint: "127.0.0.1:HTTP"}
    grpc: {endpoint: "127.0.0.1:GRPC"}
receivers:
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:OTLP"}}}
exporters:
  jaeger_storage_exporter: {trace_storage: kept}
"""


@dataclass
class Jaeger:
    """A running Jaeger.

    :ivar otlp: the address that receives spans
    :ivar query: the address of its query API, with a path prefix as behind a proxy
    """

    otlp: str
    query: str


@contextmanager
def running(folder: Path, storage: str) -> Iterator[Jaeger]:
    """Run Jaeger with this kind of storage."""
    output = folder / "output"
    for _ in range(5):
        ports = dict(zip(("HTTP", "GRPC", "OTLP"), free_ports(3), strict=True))
        text = CONFIG.replace("STORAGE", STORAGES[storage])
        for name, port in ports.items():
            text = text.replace(f":{name}", f":{port}")
        for name in ("KEYS", "VALUES"):
            text = text.replace(name, str(folder / name.lower()))
        config = folder / "config.yaml"
        config.write_text(text, "utf-8")
        with output.open("wb") as out:
            process = subprocess.Popen(
                [str(PROGRAMS["jaeger"]), "--config", str(config)],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            if listens(process, *ports.values()):
                yield Jaeger(
                    f"http://127.0.0.1:{ports['OTLP']}", f"http://127.0.0.1:{ports['HTTP']}/traces"
                )
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail(f"Jaeger does not start:\n{output.read_text()}")
