"""Tokens, from spans of the real instrumentations of a model's client.

They are in the extra `providers`. Each patches the client for good, so each gets a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from tapps_otel import ModelUsage, Usage, history

INSTRUMENTATIONS = {
    "OpenLLMetry": "opentelemetry.instrumentation.openai",
    "OpenInference": "openinference.instrumentation.openai",
}
PROGRAM = """
import sys
from importlib import import_module

import openai
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tapps_otel import JsonlSpanExporter, configure, step, workflow

_, address, *instrumentations = sys.argv
configure(log_dir="logs")
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(JsonlSpanExporter()))
trace.set_tracer_provider(provider)
for name in instrumentations:
    import_module(name).OpenAIInstrumentor().instrument()
client = openai.OpenAI(api_key="none", base_url=address)

@step
def ask(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model="large", messages=messages)
    return answer.choices[0].message.content

@workflow
def ask_twice() -> None:
    ask("one")
    ask("two")

ask_twice.options(workflow_id="r")()
provider.shutdown()
"""
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "large-2026",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
}


class Model(BaseHTTPRequestHandler):
    """Answers whatever it is asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def model() -> Iterator[str]:
    """The address of a model's service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None and find_spec("openai") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("names", [["OpenLLMetry"], ["OpenInference"], [*INSTRUMENTATIONS]])
def test_tokens_of_a_real_librarys_spans_are_counted_once(
    names: list[str], model: str, tmp_path: Path
) -> None:
    """Also with two instrumentations, whose spans of one call are inside each other."""
    modules = [INSTRUMENTATIONS[name] for name in names]
    if not all(map(is_installed, modules)):
        pytest.skip(f"needs {' and '.join(names)}: install the extra 'providers'")
    command = [sys.executable, "-c", PROGRAM, model, *modules]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found = history("r", log_dir=tmp_path / "logs")

    expected = Usage(2, 200, 20, {"large-2026": ModelUsage(2, 200, 20)})
    assert found.usage == expected
    assert [step.usage.calls for step in found.steps] == [1, 1]
