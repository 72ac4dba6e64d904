"""What the log could not keep of failures, as reports list it."""

from __future__ import annotations

from typing import Any

from histories import Story, started
from tapps_otel.report.lost_parts import lost_lines, lost_parts

GONE = "_io.TextIOWrapper is not a JSON value"


def failed(**error: Any) -> Story:
    story = started()
    story.start("fetch")
    story.fail("fetch", error={"type": "Refused", "message": "no", **error})
    return story


def lost(**error: Any) -> dict[str, str]:
    return lost_parts(failed(**error).record("fetch"))


def test_what_is_lost_is_named_by_its_place_in_the_exception() -> None:
    inner = {"type": "OSError", "message": "", "lost": {"file": GONE}}
    response = {"$class": "httpx.Response", "$value": {"lost": {"content": "not read"}}}

    assert lost(
        lost={"args": GONE, "__context__": "too deep"},
        cause=inner,
        exceptions=[{"same": 1}, {**inner, "context": inner}],
        attributes={"response": response, "others": [{"$error": inner}]},
    ) == {
        "args": GONE,
        "__context__": "too deep",
        "__cause__.file": GONE,
        "exceptions[1].file": GONE,
        "exceptions[1].__context__.file": GONE,
        "response.content": "not read",
        "others[0].file": GONE,
    }


def test_a_value_of_the_user_is_no_list_of_losses() -> None:
    assert lost(args=[{"lost": {"keys": "in the park"}}], attributes={"lost": {"a": "b"}}) == {}


def test_a_failure_that_was_overcome_has_lost_nothing() -> None:
    story = failed(lost={"file": GONE})
    story.step("fetch")

    assert lost_parts(story.record("fetch")) == {}
    assert lost_lines(story.history) == []


def test_lost_parts_are_listed_with_their_meaning() -> None:
    first, meaning = [
        line.text for line in lost_lines(failed(lost={"fi\x1b[2Jle": "\u202e"}).history)
    ]

    assert first == r"lost  fi\x1b[2Jle  of fetch  \u202e"
    assert "FailureDetailError" in meaning


def test_a_log_may_hold_anything() -> None:
    assert lost(lost=[1], cause="x", exceptions={"a": 1}, attributes=None) == {}
