"""The command ``diff``, and the function."""

from __future__ import annotations

import json

import pytest

from commands import LOGS, Cli, on_terminal
from tapps_otel import diff
from tapps_otel.errors import RunNotFoundError
from terminals import C_LOCALE, displayed


@pytest.fixture
def pair(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a", "-i", "[2, 3]")
    cli("run", "flow.py:small", "--id", "b", "-i", "[5, 3]")
    cli("run", "flow.py:small", "--id", "again", "-i", "[2, 3]")


@pytest.mark.usefixtures("pair")
def test_what_differs_is_shown(cli: Cli) -> None:
    done = cli("diff", "a", "b")

    assert (done.code, done.err) == (1, "")
    assert "inputs    $.number  2 -> 5\nresult    $  7 -> 13\n" in done.out
    assert "first divergence\n  ~ double  step 1 of 1\n    other inputs" in done.out
    assert "    result $  4 -> 10\n" in done.out


@pytest.mark.usefixtures("pair")
def test_equal_runs_are_told_by_the_exit_code(cli: Cli) -> None:
    done = cli("diff", "a", "again")

    assert (done.code, done.err) == (0, "")
    assert "they differ in nothing but time" in done.out


@pytest.mark.usefixtures("pair")
def test_json_has_what_the_function_returns(cli: Cli) -> None:
    done = cli("diff", "a", "b", "--json")
    found = diff("a", "b")

    assert done.code == 1
    assert found.first is not None
    assert json.loads(done.out)["equal"] is False
    assert json.loads(done.out)["steps"][0]["differs"] == [*found.first.differs]
    assert found.differs == ("inputs", "result")


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.exhaustive
def test_it_fits_the_terminal(columns: int) -> None:
    lines = displayed("diff", "a", "b", columns=columns)

    assert lines[0] == "runs      a -> b"
    assert "first divergence" in lines
    assert "  ~ double  step 1 of 1" in lines


@pytest.mark.usefixtures("pair")
def test_it_is_readable_in_the_c_locale() -> None:
    assert on_terminal("diff", "a", "b", columns=100, **C_LOCALE).isascii()


@pytest.mark.usefixtures("pair")
def test_a_damaged_log_is_compared_up_to_the_damage(cli: Cli) -> None:
    path = LOGS / "b.jsonl"
    *lines, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, b"junk\njunk\n"]))
    done = cli("diff", "a", "b")

    assert done.code == 1
    assert "status    completed -> damaged" in done.out
    assert "damaged   b is compared up to the damage of its log" in done.out
    assert "damaged at byte " in done.err


def test_a_missing_run_is_an_error(cli: Cli) -> None:
    assert cli("diff", "nobody", "nobody").code == 3
    with pytest.raises(RunNotFoundError):
        diff("nobody", "nobody")
