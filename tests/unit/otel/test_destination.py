"""Where spans are sent: arguments before settings before the standard variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import FLOW, Cli, child
from tapps_otel.errors import SettingsError
from tapps_otel.otel.transport.destination import destination
from tapps_otel.settings_model import Settings

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
ENDPOINT, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


@pytest.mark.parametrize(
    ("env", "endpoint", "secure"),
    [
        ({ENDPOINT: "http://box:4317"}, "box:4317", False),
        ({ENDPOINT: "https://box:4317"}, "box:4317", True),
        ({ENDPOINT: "box:4317"}, "box:4317", True),
        ({ENDPOINT: "box:4317", "OTEL_EXPORTER_OTLP_INSECURE": "true"}, "box:4317", False),
        (
            {ENDPOINT: "http://box:4318", **HTTP},
            "http://box:4318/v1/traces",
            False,
        ),
        (
            {ENDPOINT: "https://box/otlp/", **HTTP},
            "https://box/otlp/v1/traces",
            True,
        ),
        ({ENDPOINT: "http://box:4318/v1/traces", **HTTP}, "http://box:4318/v1/traces", False),
        ({ENDPOINT: "http://box/in/v1/traces/", **HTTP}, "http://box/in/v1/traces", False),
        ({ENDPOINT: "http://box/in?key=1", **HTTP}, "http://box/in/v1/traces?key=1", False),
        ({TRACES: "http://box/in", **HTTP}, "http://box/in", False),
        ({TRACES: "http://a:1", ENDPOINT: "http://b:2"}, "a:1", False),
    ],
)
def test_the_standard_variables_name_the_destination(
    env: dict[str, str], endpoint: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = destination(Settings())

    assert found is not None
    assert (found.endpoint, found.secure) == (endpoint, secure)


def test_without_a_setting_there_is_none_or_the_local_default() -> None:
    local = destination(Settings(), local=True)

    assert destination(Settings()) is None
    assert local is not None
    assert local.name == "grpc://localhost:4317"


def test_settings_win_over_variables_and_arguments_over_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://variable:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=of%20all,x=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=mine")
    by_variable = destination(Settings())
    by_setting = destination(Settings(otlp_endpoint="http://s:4318", otlp_headers={"a": "b"}))
    by_argument = destination(Settings(otlp_endpoint="http://s:1"), endpoint="http://given:4318")

    assert by_variable is not None
    assert by_setting is not None
    assert by_argument is not None
    assert by_variable.headers == (("api-key", "mine"),)
    assert by_setting.headers == (("a", "b"),)
    assert by_setting.name == "http://s:4318/v1/traces"  # HTTP, by its port
    assert by_argument.name == "http://given:4318/v1/traces"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (PROTOCOL, "carrier/pigeon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
    ],
)
def test_an_invalid_variable_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://box:4317")
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=value):
        destination(Settings())


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("http://user:secret@collector:4318/v1/traces?token=t", "grpc://collector:4318"),
        ("collector:4317", "grpc://collector:4317"),
    ],
)
def test_a_destination_is_named_without_secrets(
    endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    found = destination(Settings())

    assert found is not None
    assert found.name == name
    assert "secret" not in found.address + repr(found)


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("https://box/v1/traces", "https://box/v1/traces"),
        ("http://box:4318", "http://box:4318/v1/traces"),
        ("https://box", "grpc://box"),
    ],
)
def test_the_protocol_of_an_address_is_guessed(endpoint: str, name: str) -> None:
    found = destination(Settings(), endpoint=endpoint)

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("asked", ["http", "HTTP", "http/proto"])
def test_the_protocols_that_there_are_are_named(
    asked: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv(PROTOCOL, asked)
    Path("flow.py").write_text(FLOW, "utf-8")
    live = child("run", "flow.py:small", "--id", "r")
    sent, known = cli("send", "r"), cli("doctor")

    assert live.code == 0
    assert "OTEL_EXPORTER_OTLP_PROTOCOL can be grpc or http/protobuf" in live.err
    assert "use 'grpc' or 'http/protobuf'" in sent.err
    assert "use 'grpc' or 'http/protobuf'" in known.out
