"""Performance goals: ratios of numbers that were measured in one round, and their targets."""

from __future__ import annotations

from .stats import Goal, Ref


def ref(text: str) -> Ref:
    """``case metric``."""
    case, metric = text.split()
    return Ref(case, metric)


GOALS: tuple[Goal, ...] = (
    Goal("DBOS's step / write + fdatasync", ref("dbos.step step_us"), ref("dbos.step floor_us")),
    Goal(
        "LangGraph's step / write + fdatasync",
        ref("langgraph.step step_us"),
        ref("langgraph.step floor_us"),
    ),
    Goal(
        "tapps-agents' event log / write + fdatasync",
        ref("tapps.step step_us"),
        ref("tapps.step floor_us"),
    ),
    Goal("Eliot's action / os.write", ref("eliot.action step_us"), ref("eliot.action floor_us")),
    Goal(
        "durable step / write + fdatasync of its bytes",
        ref("own.step step_us"),
        ref("own.step floor_us"),
        target=1.2,
        floor=0.8,
    ),
    Goal(
        "step in file and PostgreSQL / write + fdatasync of its bytes",
        ref("own.postgres step_us"),
        ref("own.postgres floor_us"),
        target=1.8,
        floor=0.8,
    ),
    Goal(
        "DBOS's step in PostgreSQL / ours",
        ref("dbos.postgres step_us"),
        ref("own.postgres step_us"),
        target=5,
        at_most=False,
    ),
    Goal(
        "step in a pool of processes, side by side / write + fdatasync of its bytes",
        ref("own.pool step_us"),
        ref("own.pool floor_us"),
        target=1.0,
    ),
    Goal(
        "step in a pool, one after another / a bare call and a durable step here",
        ref("own.pool turn_us"),
        ref("own.pool bare_and_local_us"),
        target=2,
    ),
    *(
        Goal(
            f"step in {name}, side by side / a bare call",
            ref(f"own.{engine} step_us"),
            ref(f"own.{engine} bare_us"),
            target=1.25,
        )
        for engine, name in (("dask", "Dask"), ("ray", "Ray"))
    ),
    Goal(
        "resume on another machine / where the log is",
        ref("own.postgres_resume first_new_step_ms"),
        ref("own.postgres_resume local_ms"),
        target=2.5,
    ),
    Goal(
        "durable step of one of 8 threads / write + fdatasync of its bytes",
        ref("own.threads step_us"),
        ref("own.threads floor_us"),
        target=0.6,
    ),
    Goal(
        "durable async step in a gather / write + fdatasync of its bytes",
        ref("own.gather step_us"),
        ref("own.gather floor_us"),
        target=0.5,
    ),
    Goal(
        "longest gap of the loop in a gather of durable steps / of steps without sync",
        ref("own.gather gap_ms"),
        ref("own.gather gap_os_ms"),
        target=2,
    ),
    Goal(
        "durable async step, one after another / write + fdatasync of its bytes",
        ref("own.task step_us"),
        ref("own.task floor_us"),
    ),
    Goal(
        "durable step with redaction / without",
        ref("own.redaction step_us"),
        ref("own.redaction bare_us"),
        target=1.05,
    ),
    Goal(
        "DBOS's step / durable step",
        ref("dbos.step step_us"),
        ref("own.step step_us"),
        target=10,
        at_most=False,
    ),
    Goal(
        "LangGraph's step / durable step",
        ref("langgraph.step step_us"),
        ref("own.step step_us"),
        target=5,
        at_most=False,
    ),
    *(
        Goal(
            f"{name}'s step / ours, {how}",
            ref(f"{peer}.{option} step_us"),
            ref(f"own.{option} step_us"),
            target=target,
            at_most=False,
        )
        for peer, name, target in (("dbos", "DBOS", 15), ("langgraph", "LangGraph", 8))
        for option, how in (("threads", "of 8 threads"), ("gather", "in a gather"))
    ),
    Goal(
        "tapps-agents' event log / durable step",
        ref("tapps.step step_us"),
        ref("own.step step_us"),
        target=3,
        at_most=False,
    ),
    Goal(
        "unsynced step / Eliot's action",
        ref("own.step_os step_us"),
        ref("eliot.action step_us"),
        target=1.6,
    ),
    Goal(
        "what a span adds / the SDK's own child span",
        ref("own.span step_us"),
        ref("own.span sdk_us"),
        less=ref("own.span bare_us"),
        target=1.4,
    ),
    Goal(
        "capture of a library's span / its OTLP encoding",
        ref("own.capture capture_us"),
        ref("own.capture encode_us"),
        target=1.3,
    ),
    Goal(
        "what a library's span costs more from its start / its capture by the exporter",
        ref("own.capture process_us"),
        ref("own.capture capture_us"),
        less=ref("own.capture capture_us"),
        target=2,
    ),
    Goal(
        "what a span costs that is a step by rules, unsynced",
        ref("own.agents rules_us"),
        less=ref("own.agents sdk_us"),
        target=200,
    ),
    Goal(
        "what a step of OpenAI Agents costs, unsynced",
        ref("own.agents agents_us"),
        target=200,
    ),
    Goal(
        "resume / orjson.loads of the same file",
        ref("own.resume first_new_step_ms"),
        ref("floor.orjson_resume read_ms"),
        target=4,
    ),
    Goal(
        "resume / Burr's",
        ref("own.resume first_new_step_ms"),
        ref("burr.resume first_new_step_ms"),
        target=1,
    ),
    Goal(
        "DBOS's resume / ours",
        ref("dbos.resume first_new_step_ms"),
        ref("own.resume first_new_step_ms"),
        target=25,
        at_most=False,
    ),
    Goal("bytes of an event without payload", ref("own.step bytes_per_event"), target=490),
    Goal("memory of a long run, for each step", ref("own.memory rss_bytes_per_step")),
    Goal("fold: events a second", ref("own.fold fold_per_s"), target=400e3, at_most=False),
    Goal("check: events a second", ref("own.check check_per_s"), target=350e3, at_most=False),
    Goal(
        "check: peak memory, ten times the events",
        ref("own.check peak_rss_mb"),
        ref("own.check_small peak_rss_mb"),
        target=1.05,
    ),
    Goal(
        "check / orjson.loads of the same lines (rates)",
        ref("own.check check_per_s"),
        ref("floor.orjson lines_per_s"),
    ),
    Goal("last step of a run of any size", ref("own.last_step last_step_ms"), target=1),
    Goal(
        "the last 20 runs / scandir + stat of the same folder",
        ref("own.list list_ms"),
        ref("own.list scan_ms"),
        target=1.3,
    ),
    Goal(
        "tapps-otel list --last 20 / --help, scandir + stat",
        ref("own.list_command command_ms"),
        ref("own.list_command floor_ms"),
        target=2,
    ),
    Goal(
        "tapps-otel show of 1 000 steps / --help, check of the log",
        ref("own.show command_ms"),
        ref("own.show floor_ms"),
        target=2,
    ),
    Goal("page of 10 000 steps", ref("own.page page_ms"), target=2_000),
    Goal("page / its history", ref("own.page page_ms"), ref("own.page history_ms")),
    Goal("diff / the histories of both runs", ref("own.diff diff_ms"), ref("own.diff history_ms")),
    Goal("watch of an idle run, of a core", ref("own.watch idle_percent"), target=3),
    Goal(
        "import tapps_otel / opentelemetry.trace + pydantic",
        ref("own.import wall_ms"),
        ref("floor.import wall_ms"),
        target=1.3,
    ),
    Goal(
        "import of step and workflow / opentelemetry.trace + pydantic",
        ref("own.import_names wall_ms"),
        ref("floor.import wall_ms"),
        target=1.3,
    ),
    Goal(
        "send: spans a second / their bare OTLP encoding",
        ref("own.send send_per_s"),
        ref("own.send encode_per_s"),
        target=0.7,
        at_most=False,
    ),
    Goal(
        "send: peak memory, ten times the events",
        ref("own.send_large peak_rss_mb"),
        ref("own.send peak_rss_mb"),
        target=1.05,
    ),
    Goal(
        "what watching adds to an engine's step / what its own event log costs",
        ref("own.engine added_us"),
        ref("own.engine event_log_us"),
        target=1,
    ),
    Goal(
        "an engine's step with its log bridged / as it comes",
        ref("own.engine bridged_us"),
        ref("own.engine bare_us"),
        target=1,
    ),
    Goal(
        "what our log adds to a node of LangGraph / its sync checkpoint in SQLite",
        ref("own.langgraph added_us"),
        ref("own.langgraph checkpoint_us"),
        target=0.5,
    ),
    Goal(
        "the same, unsynced",
        ref("own.langgraph added_unsynced_us"),
        ref("own.langgraph checkpoint_us"),
        target=0.2,
    ),
    Goal(
        "import tapps_otel.instrumentation / the interpreter alone, on top of it",
        ref("own.import_executors wall_ms"),
        less=ref("floor.python wall_ms"),
        target=50,
    ),
    Goal("tapps-otel --help", ref("own.help wall_ms"), target=300),
)
