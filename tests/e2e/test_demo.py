"""The demo, with a collector to send its trace to."""

from __future__ import annotations

import re

from commands import child
from otlp_collector import Collector, once


def test_the_demos_trace_is_at_the_collector(collector: Collector) -> None:
    done = child("demo", **collector.env())
    trace = re.search(r"The trace at your collector is ([0-9a-f]{32})", done.out)
    spans = once(collector.spans(5))  # of the second process, at least
    second = [span for span in spans if span.attributes["tapps.execution"] == 2]

    assert (done.code, done.err) == (0, "")
    assert trace is not None
    assert "not sent" not in done.out
    assert {span.trace_id for span in spans} == {trace[1]}
    assert sorted(span.name for span in second) == [
        "step compare",
        "step compare",
        "step group",
        "step render",
        "workflow survey",
    ]
    (run,) = [span for span in second if span.name == "workflow survey"]
    assert len(run.links) == 2  # to the two steps that were cut short
