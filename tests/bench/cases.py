"""What is measured: the list of cases, and the sizes and files that they need."""

from __future__ import annotations

from dataclasses import dataclass

from .envs import OWN


@dataclass(frozen=True)
class Size:
    """How many steps (events, runs, repetitions): in a full run, and with ``--quick``."""

    full: int
    quick: int


@dataclass(frozen=True)
class Fixture:
    """Files that are made once and measured many times; ``copied`` if measuring changes them."""

    name: str
    module: str
    env: str
    size: Size
    option: str = ""
    copied: bool = True


@dataclass(frozen=True)
class Case:
    """One measured thing: a module of ``systems`` run by an environment's Python."""

    name: str
    section: str
    what: str
    module: str
    size: Size
    env: str = OWN
    option: str = ""
    fixture: Fixture | None = None
    needs: tuple[str, ...] = ()


STEPS = Size(1_000, 200)
FEW_STEPS = Size(300, 100)
FAST_STEPS = Size(10_000, 1_000)
RESUMED = Size(10_000, 1_000)
EVENTS = Size(1_000_000, 20_000)
FEW_EVENTS = Size(100_000, 2_000)
FILES = Size(100_000, 5_000)
RUNS = Size(100_000, 2_000)
MANY_STEPS = Size(100_000, 10_000)
GOES = Size(7, 3)
SHOWN = Size(2_002, 402)  # events of 1 000 steps
PAGE = Size(20_002, 2_002)  # events of 10 000 steps
PAIR = Size(100_002, 4_002)  # events of 50 000 steps
SECONDS = Size(10, 2)


def _resume(name: str, env: str) -> Fixture:
    return Fixture(f"{name}-crashed", f"{name}_steps", env, RESUMED, option="resume")


LOG = Fixture("own-log", "made_logs", OWN, EVENTS, copied=False)
CRASHED_RUN = Fixture("own-crashed", "own_resume", OWN, RESUMED)
SMALL_LOG = Fixture("own-small-log", "made_logs", OWN, FEW_EVENTS, copied=False)
RUNS_FOLDER = Fixture("own-runs", "made_logs", OWN, RUNS, option="runs", copied=False)

FLOORS = (
    Case(
        "floor.write", "disk", "os.write of 1 KiB, with and without fdatasync", "floor_write", STEPS
    ),
    Case(
        "floor.scan",
        "list",
        "scandir + stat of a folder of plain files",
        "scan_folder",
        FILES,
        fixture=Fixture("plain-files", "scan_folder", OWN, FILES, copied=False),
    ),
    Case(
        "floor.import",
        "start",
        "import opentelemetry.trace and pydantic",
        "spawn",
        GOES,
        option="-c 'import opentelemetry.trace, pydantic'",
        needs=("opentelemetry", "pydantic"),
    ),
    Case(
        "floor.orjson",
        "read",
        "orjson.loads of every line, nothing kept",
        "read_orjson",
        EVENTS,
        env="orjson",
        fixture=LOG,
    ),
    Case(
        "floor.orjson_resume",
        "resume",
        "orjson.loads of every line of the log that own.resume resumes",
        "read_orjson",
        RESUMED,
        env="orjson",
        fixture=CRASHED_RUN,
    ),
    Case("floor.python", "start", "the interpreter alone", "spawn", GOES, option="-c pass"),
    Case(
        "otel.span",
        "span",
        "OpenTelemetry SDK: current child span, two events",
        "otel_span",
        FAST_STEPS,
        needs=("opentelemetry.sdk",),
    ),
)

PEERS = (
    Case("dbos.step", "durable", "DBOS, SQLite as it comes", "dbos_steps", STEPS, env="dbos"),
    Case(
        "dbos.postgres",
        "postgres",
        "DBOS with PostgreSQL",
        "dbos_steps",
        STEPS,
        env="dbos",
        option="postgres",
    ),
    Case(
        "langgraph.step",
        "durable",
        "LangGraph, SQLite, sync",
        "langgraph_steps",
        STEPS,
        env="langgraph",
    ),
    *(
        Case(f"{peer}.{option}", "durable", what, f"{peer}_together", STEPS, peer, option)
        for peer, option, what in (
            ("dbos", "threads", "DBOS, a step of one of 8 threads"),
            ("dbos", "gather", "DBOS, an async step, all of them in one gather"),
            ("langgraph", "threads", "LangGraph, a node of one of 8 threads"),
            ("langgraph", "gather", "LangGraph, an async node, all of them in one turn"),
        )
    ),
    Case(
        "tapps.step",
        "durable",
        "tapps-agents' event log",
        "tapps_event_log",
        STEPS,
        env="tapps-agents",
    ),
    Case(
        "eliot.action",
        "unsynced",
        "Eliot, an action to its file",
        "eliot_actions",
        FAST_STEPS,
        env="eliot",
    ),
    Case("burr.step", "unsynced", "Burr, tracked", "burr_steps", STEPS, env="burr"),
    Case(
        "dbos.resume",
        "resume",
        "DBOS, from entering the workflow again; from launch",
        "dbos_steps",
        RESUMED,
        env="dbos",
        option="resume",
        fixture=_resume("dbos", "dbos"),
    ),
    Case(
        "burr.resume",
        "resume",
        "Burr, from its tracker's log",
        "burr_steps",
        RESUMED,
        env="burr",
        option="resume",
        fixture=_resume("burr", "burr"),
    ),
)

OWN_CASES = (
    Case("own.step", "durable", "a step", "own_steps", STEPS, option="commit"),
    Case(
        "own.threads",
        "durable",
        "a step of one of 8 threads",
        "own_together",
        STEPS,
        option="threads",
    ),
    Case(
        "own.gather",
        "durable",
        "an async step, all of them in one gather",
        "own_together",
        STEPS,
        option="gather",
    ),
    Case(
        "own.task",
        "durable",
        "an async step, one after another",
        "own_together",
        STEPS,
        option="task",
    ),
    Case("own.step_os", "unsynced", "a step without sync", "own_steps", FAST_STEPS, option="os"),
    Case(
        "own.redaction",
        "durable",
        "a step with redaction and without, in turns; also with its inputs logged",
        "own_redaction",
        STEPS,
    ),
    Case(
        "own.span",
        "span",
        "a step without sync, with the SDK's span and without",
        "own_span",
        FAST_STEPS,
        needs=("opentelemetry.sdk",),
    ),
    Case(
        "own.capture",
        "span",
        "a library's span into the log, and its bare OTLP encoding",
        "own_capture",
        FAST_STEPS,
        needs=("opentelemetry.sdk",),
    ),
    Case(
        "own.agents",
        "span",
        "an agent's tool call, unsynced: by rules over spans, by the tracing of OpenAI Agents",
        "own_agents",
        FAST_STEPS,
        needs=("opentelemetry.sdk",),
    ),
    Case(
        "own.resume",
        "resume",
        "from the call to the first new step",
        "own_resume",
        RESUMED,
        fixture=CRASHED_RUN,
    ),
    Case(
        "own.postgres",
        "postgres",
        "a step, synced in the file and in PostgreSQL",
        "own_postgres",
        STEPS,
        needs=("psycopg",),
    ),
    Case(
        "own.postgres_resume",
        "postgres",
        "from the call to the first new step: on another machine, and where the log is",
        "own_postgres",
        RESUMED,
        option="resume",
        needs=("psycopg",),
    ),
    Case(
        "own.pool",
        "remote",
        "a step in a pool of 2 processes, and a bare call: side by side, one after another",
        "own_remote",
        STEPS,
        option="pool",
    ),
    Case(
        "own.dask",
        "remote",
        "the same in Dask",
        "own_remote",
        FEW_STEPS,
        env="engines",
        option="dask",
    ),
    Case("own.ray", "remote", "the same in Ray", "own_remote", STEPS, env="engines", option="ray"),
    Case(
        "own.memory",
        "memory",
        "what a long run holds for each step",
        "own_steps",
        MANY_STEPS,
        option="memory",
    ),
    Case(
        "own.list",
        "list",
        "the last 20 runs of a folder",
        "own_list",
        RUNS,
        fixture=RUNS_FOLDER,
    ),
    Case(
        "own.list_command",
        "list",
        "tapps-otel list --last 20, and --help with scandir + stat of the folder",
        "own_commands",
        GOES,
        option="list",
        fixture=RUNS_FOLDER,
    ),
    Case(
        "own.show",
        "view",
        "tapps-otel show of 1 000 steps, and --help with a check of the log",
        "own_commands",
        GOES,
        option="show",
        fixture=Fixture("own-shown-log", "made_logs", OWN, SHOWN, copied=False),
    ),
    Case(
        "own.page",
        "view",
        "the page of 10 000 steps, and their history",
        "own_views",
        PAGE,
        option="page",
        fixture=Fixture("own-page-log", "made_logs", OWN, PAGE, copied=False),
    ),
    Case(
        "own.diff",
        "view",
        "the difference of two runs of 50 000 steps, and their histories",
        "own_views",
        PAIR,
        option="diff",
        fixture=Fixture("own-pair", "made_logs", OWN, PAIR, option="pair", copied=False),
    ),
    Case("own.watch", "view", "tapps-otel watch of an idle run", "own_watch", SECONDS),
    Case(
        "own.last_step",
        "read",
        "the last step, from the log's end",
        "own_read",
        EVENTS,
        option="last_step",
        fixture=LOG,
    ),
    Case(
        "own.import",
        "start",
        "import tapps_otel",
        "spawn",
        GOES,
        option="-c 'import tapps_otel'",
    ),
    Case(
        "own.import_names",
        "start",
        "from tapps_otel import step, workflow",
        "spawn",
        GOES,
        option="-c 'from tapps_otel import step, workflow'",
    ),
    Case(
        "own.send",
        "send",
        "spans from a log, all but the network, and their bare encoding",
        "own_send",
        FEW_EVENTS,
        fixture=SMALL_LOG,
    ),
    Case(
        "own.send_large",
        "send",
        "the same of a log of ten times the events",
        "own_send",
        EVENTS,
        option="memory",
        fixture=LOG,
    ),
    Case(
        "own.engine",
        "executor",
        "a step of tapps-agents' engine: as it comes, without its event log, watched, bridged",
        "tapps_engine",
        STEPS,
        env="tapps-engine",
    ),
    Case(
        "own.langgraph",
        "executor",
        "a node of LangGraph: bare, with its SQLite checkpointer in sync, and with our log",
        "langgraph_watched",
        STEPS,
        env="langgraph-watched",
    ),
    Case(
        "own.import_executors",
        "start",
        "import tapps_otel.instrumentation",
        "spawn",
        GOES,
        option="-c 'import tapps_otel.instrumentation'",
    ),
    Case("own.help", "start", "tapps-otel --help", "spawn", GOES, option="-m tapps_otel --help"),
    Case("own.check", "read", "check of a log", "own_read", EVENTS, option="check", fixture=LOG),
    Case(
        "own.check_small",
        "read",
        "check of a log of a tenth",
        "own_read",
        FEW_EVENTS,
        option="check",
        fixture=SMALL_LOG,
    ),
    Case(
        "own.fold", "read", "fold of decoded events", "own_read", EVENTS, option="fold", fixture=LOG
    ),
    Case(
        "own.history",
        "read",
        "a history from its file",
        "own_read",
        EVENTS,
        option="history",
        fixture=LOG,
    ),
)

CASES: tuple[Case, ...] = (*FLOORS, *PEERS, *OWN_CASES)


def chosen(only: list[str]) -> list[Case]:
    """The cases whose name begins with, or whose section is, one of these words (none: all)."""
    return [
        c for c in CASES if not only or any(c.name.startswith(w) or c.section == w for w in only)
    ]
