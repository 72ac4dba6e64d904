"""Logs of earlier releases are read, verified and resumed as they were then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from formats import encrypted
from formats.samples import CALLED, LOGS, RUNS, describe, resumed, samples
from tapps_otel import configure, verify
from tapps_otel.errors import EncryptionKeyError

CASES = [
    pytest.param(sample, run, id=f"{sample.name}-{run}") for sample in samples() for run in RUNS
]


@pytest.fixture
def copy(sample: Path, tmp_path: Path) -> Path:
    """A copy of a sample: what is kept is never written to."""
    folder = shutil.copytree(sample, tmp_path / "sample")
    for path in (folder, *folder.rglob("*")):  # as a checkout may not have left them
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def expected(sample: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sample / "expected.json").read_text("utf-8"))
    return found


def test_there_are_samples() -> None:
    assert samples()


@pytest.mark.parametrize(("sample", "run"), CASES)
def test_it_is_read_and_verified_as_then(sample: Path, run: str, copy: Path) -> None:
    assert describe(copy / LOGS, run) == expected(sample)["read"][run]


@pytest.mark.parametrize(("sample", "run"), CASES)
def test_it_is_resumed_as_then(sample: Path, run: str, copy: Path) -> None:
    """The same steps run again, and no other; the result is the same."""
    assert resumed(copy, run) == expected(sample)["resumed"][run]


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_a_called_run_is_read_as_then(sample: Path, copy: Path) -> None:
    assert describe(copy / LOGS, CALLED) == expected(sample)["read"][CALLED]


@pytest.mark.parametrize(
    "sample", sorted(encrypted.HERE.glob("*-encrypted")), ids=lambda one: one.name
)
def test_an_encrypted_run_is_verified_without_its_key_and_resumed_with_it(
    sample: Path, copy: Path
) -> None:
    assert verify(encrypted.RUN, log_dir=copy / LOGS).ok
    flow = encrypted.flow.options(workflow_id=encrypted.RUN, log_dir=copy / LOGS)
    with pytest.raises(EncryptionKeyError):
        flow(encrypted.INPUT)

    configure(encryption_keys=encrypted.KEYS)
    encrypted.ran.clear()

    assert flow(encrypted.INPUT) == encrypted.RESULT
    assert encrypted.ran == []
