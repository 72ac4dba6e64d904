"""The page of a run: data that stays data, of bounded size, in a frame with a strict policy."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from histories import AT
from tapps_otel import clock
from tapps_otel.log.event import raw_json
from tapps_otel.past.timeline import LogState
from tapps_otel.report.page.content import Recording, content
from tapps_otel.report.page.render import render
from timelines import SECOND, TimedStory, crashed_and_resumed

EVIL = "</script><script>alert(1)</script><!--\x1b[2J\u202e\u2028\ud800&lt;\x00"


class Parts(HTMLParser):
    """The elements of a page, and the text inside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"} and data.strip():
            self.texts.append((self.tags[-1][0], data))

    @property
    def data(self) -> dict[str, Any]:
        _, data, _ = (text for tag, text in self.texts if tag == "script")
        loaded: dict[str, Any] = json.loads(data)
        return loaded


def made(story: TimedStory, **options: Any) -> dict[str, Any]:
    recording = Recording()
    for one in story.events:
        recording.see(one)
    timeline = story.timeline(log=LogState("r.jsonl", 1, "ab"))
    return content(timeline, story.history, recording, **options)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in strings(one)]
    if isinstance(value, list):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def hostile() -> TimedStory:
    story = TimedStory()
    story.execution(workflow={"name": EVIL}, process={EVIL: EVIL}, inputs=raw_json({EVIL: EVIL}))
    story.start(EVIL, agent=EVIL, action=EVIL, key=EVIL, inputs=raw_json([EVIL]))
    error = {"type": EVIL, "message": EVIL, "stack": f"{EVIL}\n{EVIL}"}
    story.fail(EVIL, EVIL, error=error, reason=EVIL, artifacts=[{"path": EVIL, "bytes": [EVIL]}])
    story.add("annotation", name=EVIL, attributes={EVIL: EVIL})
    story.add(EVIL)
    story.add("span", name=EVIL, span_id=EVIL, otel={"attributes": {EVIL: EVIL}})
    story.end(EVIL, error=error)
    return story


def test_the_content_has_what_the_timeline_has() -> None:
    page = made(crashed_and_resumed(), jaeger="http://localhost:16686/trace/ab")

    assert [one["killed"] for one in page["executions"]] == [True, False]
    assert page["downtimes"] == [[4000.0, 6000.0, 1, "interrupted"]]
    assert [(step["id"], step.get("kept")) for step in page["steps"]] == [
        ("scan", True),
        ("draft", None),
        ("check", True),
    ]
    assert [one["status"] for one in page["steps"][1]["attempts"]] == ["interrupted", "completed"]
    assert page["steps"][1]["attempts"][0]["critical"] == [[2000.0, 4000.0]]
    assert [row[0] for row in page["events"]] == [*range(1, 13)]
    assert page["events"][1][1:5] == [0.0, "step_start", 0, 1]
    assert ["killed", "draft after 2.00 s"] in [[a, b[:18]] for a, b, _ in page["facts"]]
    assert page["log"]["seq"] == 1
    assert page["jaeger"] == "http://localhost:16686/trace/ab"


def test_data_can_be_no_markup() -> None:
    page = render(made(hostile()))
    parts = Parts(page)

    assert [tag for tag, _ in parts.tags].count("script") == 3
    assert page.count("<!--") == 0
    assert "alert(1)" in json.dumps(parts.data)
    assert all(tag in {"script", "style"} for tag, _ in parts.texts)
    assert not [
        name for _, attributes in parts.tags for name in attributes if name.startswith("on")
    ]
    assert not [attributes for _, attributes in parts.tags if "src" in attributes]


def test_text_is_safe_to_show() -> None:
    assert all(line.isprintable() for text in strings(made(hostile())) for line in text.split("\n"))


def test_the_policy_names_these_styles_and_these_scripts() -> None:
    parts = Parts(render(made(crashed_and_resumed())))
    (policy,) = (one["content"] for tag, one in parts.tags if tag == "meta" and "http-equiv" in one)
    styles = [text for tag, text in parts.texts if tag == "style"]
    common, _, own = [text for tag, text in parts.texts if tag == "script"]

    assert policy is not None
    assert "default-src 'none'" in policy
    for name, texts in (("style", styles), ("script", [common, own])):
        digests = [b64encode(sha256(text.encode()).digest()).decode() for text in texts]
        allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
        assert f"{name}-src {allowed};" in policy
    assert "unsafe" not in policy


def test_a_run_of_a_thousand_steps_is_less_than_a_megabyte() -> None:
    story = TimedStory()
    story.execution(workflow={"name": "article"})
    for number in range(1000):
        step_id = f"draft#{number + 2}"
        story.at(number).start(step_id, agent="writer", inputs=raw_json(["x" * 500]))
        error = {"type": "ValueError", "message": "no", "stack": "at\n" * 2000}
        story.fail(step_id, error=error) if number % 9 == 0 else story.finish(step_id, "y" * 5000)
    page = made(story)

    assert len(render(page).encode()) < 1_000_000
    long = page["steps"][1]["result"]
    assert re.search(r"^\"y+ \.\.\. \(5002 bytes in the log\)$", long)
    assert page["steps"][0]["attempts"][0]["error"]["stack"].startswith("...\n")


def test_a_value_is_whole_if_there_is_room() -> None:
    story = TimedStory()
    story.execution(inputs=raw_json({"n": 10**40}))
    story.start("draft")
    story.finish("draft", "y" * 60_000)
    story.start("none")
    story.finish("none", None, result_blob="ab" * 32)
    page = made(story)

    assert page["inputs"] == f'{{"n":{10**40}}}'
    assert page["steps"][0]["result"] == '"' + "y" * 60_000 + '"'


def test_captured_spans_belong_to_the_step_that_they_are_inside() -> None:
    story = TimedStory()
    story.execution()
    story.start("draft", span_id="0a" * 8)
    at = {"timestamp": clock.timestamp(AT + SECOND), "duration_ns": SECOND // 2}
    story.add("span", name="GET", span_id="0b" * 8, parent_span_id="0a" * 8, **at)
    story.add("span", name="connect", span_id="0c" * 8, parent_span_id="0b" * 8, **at)
    story.add("span", name="loose", span_id="0d" * 8, parent_span_id="0e" * 8, **at)
    story.add("span", name="circle", span_id="0f" * 8, parent_span_id="0f" * 8, **at)
    page = made(story)

    assert [(one[0], one[1]) for one in page["spans"]] == [
        (0, "GET"),
        (0, "connect"),
        (None, "loose"),
        (None, "circle"),
    ]
    assert page["spans"][0][2:4] == [500.0, 1000.0]
    assert len(page["events"]) == 2


@given(st.text(st.characters()))
def test_any_name_is_rendered(text: str) -> None:
    story = TimedStory()
    story.execution(workflow={"name": text})
    story.start(text)
    story.finish(text)

    assert Parts(render(made(story))).data["steps"][0]["attempts"]


def test_an_empty_run_has_a_page() -> None:
    assert Parts(render(made(TimedStory()))).data["steps"] == []
