"""The pytest plugin, as a project that has the package installed gets it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

pytest_plugins = "pytester"

TEST = """
    import sys

    from tapps_otel import last_run, step, workflow
    from tapps_otel.testing import assert_resumes, crash_at

    @step
    def double(number: int) -> int:
        return 2 * number

    @workflow
    def total(numbers: list[int]) -> int:
        return sum(double(number) for number in numbers)

    def test_a_run(runs):
        assert total.options(workflow_id="r")([1, 2]) == 6
        assert [run.workflow_id for run in runs] == ["r"]

    def test_the_same_id_again(runs):
        assert list(runs) == []
        with crash_at("step_finish"):
            total.options(workflow_id="r")([1])
        assert total.options(workflow_id="r")([1]) == 2

    def test_it_resumes():
        assert assert_resumes(total, [1]) == 2

    def test_no_spans_were_made(runs):
        total([1])
        assert "opentelemetry.sdk" not in sys.modules
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(test_total=TEST)
    return pytester


@pytest.mark.parametrize("workers", [0, 2])
def test_fixture_and_helpers_work_alone_and_in_workers(
    project: pytest.Pytester, workers: int
) -> None:
    done = project.runpytest_subprocess("-p", "no:cacheprovider", f"-n{workers}")

    done.assert_outcomes(passed=4)
    assert not list(project.path.rglob("events/*.jsonl"))  # no log in the project


def test_the_plugin_imports_nothing_unless_it_is_asked(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_of_it_is_loaded():
            heavy = {"opentelemetry", "pydantic", "tapps_otel.settings", "tapps_otel.log"}
            assert not heavy & sys.modules.keys()
            assert "tapps_otel.testing.pytest_plugin" in sys.modules
        """
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", "-n0")

    done.assert_outcomes(passed=1)


def test_the_fixtures_of_the_plugin_are_listed(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider", "-n0")

    done.stdout.fnmatch_lines(["runs*pytest_plugin.py*", "*folder of its own*"])
