"""How a process is named in its telemetry, with an SDK and without one."""

from __future__ import annotations

import os
import sys

import pytest

from tapps_otel.otel.process.plugins import process_resource
from tapps_otel.otel.resource import of_process, program


def test_the_resource_names_program_host_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/build.py"])
    made = process_resource(None).attributes

    assert made["service.name"] == "build"
    assert {"host.name", "process.pid", "telemetry.sdk.name"} <= made.keys()


def test_the_environments_resource_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=over-there,team=red")
    made = process_resource(None).attributes

    assert [made[name] for name in ("service.name", "host.name", "team")] == [
        "shop",
        "over-there",
        "red",
    ]


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/srv/build.py"], "build"),
        (["/usr/bin/tapps-otel", "run"], "tapps-otel"),
        (["/lib/tool/__main__.py"], "tool"),
        (["-c"], "tapps_otel"),
        ([""], "tapps_otel"),
        ([], "tapps_otel"),
    ],
)
def test_the_service_is_named_after_the_program(
    argv: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)

    assert program() == name


def test_a_run_without_an_sdk_has_a_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/build.py"])
    before = of_process()
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=x, team=a%2Cb,odd,=none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")

    assert before["service.name"] == "build"
    assert before["process.pid"] == os.getpid()
    assert of_process() == {**before, "service.name": "nightly", "team": "a,b"}
