"""Random workflows as plans: trees of calls, and what must become of them.

A plan is interpreted twice: here, without the library, and by :mod:`plan_runs`, with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hypothesis import strategies as st

NAMES = ("a", "b", "c")
HOUR = 3600

# The answers that fit a kind of question, as JSON values, and one that does not.
RIGHT: dict[str, list[Any]] = {"flag": [True, False], "number": [0, -1, 7], "word": ["yes", "no"]}
WRONG: dict[str, Any] = {"flag": "true", "number": "7", "word": "perhaps"}
TYPES: dict[str, Any] = {"flag": bool, "number": int, "word": Literal["yes", "no"]}


# ---------------------------------------------------------------- plans


@dataclass(frozen=True)
class Named:
    """A step, by its name and the value that no other step is given."""

    name: str
    value: str

    @property
    def label(self) -> str:
        return f"{self.name}{self.value}"


@dataclass(frozen=True)
class Call(Named):
    """A step without steps inside.

    :ivar fails: how often it fails before it succeeds; more than ``retries`` fails the run
    """

    is_async: bool = False
    fails: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Handled(Named):
    """A step that always fails, in ``try``; then another branch."""

    inside: Seq  # steps that it encloses, before it fails
    otherwise: Seq
    retries: int = 0


@dataclass(frozen=True)
class Nest(Named):
    """A step that encloses steps.

    :ivar fails: how often it fails by itself after they are done
    :ivar hangs: how often it hangs after that until its own ``timeout=`` (in async plans)
    """

    inside: Seq
    fails: int = 0
    hangs: int = 0


@dataclass(frozen=True)
class Fence(Named):
    """A step that hangs inside ``asyncio.timeout``; then another branch."""

    otherwise: Seq


@dataclass(frozen=True)
class Ask(Named):
    """A pause.

    :ivar kind: of its answers, a key of :data:`RIGHT`; ``None`` for a timer
    :ivar is_timed: whether it waits for an hour only, then gives ``None``; a timer is
    """

    kind: str | None
    is_timed: bool = False
    is_async: bool = False

    @property
    def question(self) -> str | None:
        return f"{self.label}?" if self.kind else None


@dataclass(frozen=True)
class Run:
    """A run with an id of its own: the plan itself, or a run that one of its steps calls."""

    value: str
    inside: Seq
    is_async: bool

    @property
    def workflow_id(self) -> str:
        return f"run-{self.value}"


@dataclass(frozen=True)
class Together:
    """Branches at the same time: gathered tasks, or threads."""

    branches: tuple[Seq, ...]


@dataclass(frozen=True)
class Again:
    """The same calls once more: equal in name and inputs."""

    what: Call
    times: int


Node = Call | Handled | Nest | Fence | Ask | Run | Together | Again
Seq = tuple[Node, ...]


def parts(node: Node) -> Iterator[Seq]:
    """The nodes that a node has in it, as sequences."""
    if isinstance(node, Together):
        yield from node.branches
    if isinstance(node, Again):
        yield (node.what,)
    if isinstance(node, Handled | Nest | Run):
        yield node.inside
    if isinstance(node, Handled | Fence):
        yield node.otherwise


def all_of(node: Node) -> Iterator[Node]:
    """A node and all that are in it."""
    yield node
    for seq in parts(node):
        for one in seq:
            yield from all_of(one)


def numbered(plan: Run, prefix: str) -> Run:
    """Give every node of a plan a value of its own, so that a result names its node.

    :param prefix: of all values, and the value of the plan itself
    """
    count = 0

    def number(seq: Seq) -> Seq:
        return tuple(node(one) for one in seq)

    def node(one: Node) -> Node:
        nonlocal count
        if isinstance(one, Together):
            return Together(tuple(number(branch) for branch in one.branches))
        if isinstance(one, Again):
            what = node(one.what)
            assert isinstance(what, Call)
            return Again(what, one.times)
        count += 1
        one = replace(one, value=f"{prefix}.{count}")
        if isinstance(one, Handled | Nest | Run):
            one = replace(one, inside=number(one.inside))
        if isinstance(one, Handled | Fence):
            one = replace(one, otherwise=number(one.otherwise))
        return one

    return replace(plan, value=prefix, inside=number(plan.inside))


def plans(*, is_async: bool, waits: bool = False) -> st.SearchStrategy[Run]:
    """Plans.

    :param waits: whether they have pauses and child runs, and then no steps that hang, which
        would need time
    """
    names = st.sampled_from(NAMES)
    no_value = st.just("")
    small = st.integers(0, 1)
    asyncs = st.booleans() if is_async else st.just(False)
    calls = st.builds(
        Call,
        names,
        no_value,
        is_async=asyncs,
        fails=st.sampled_from([0, 0, 0, 1]),
        retries=st.sampled_from([0, 1, 1]),
    )
    leaves: st.SearchStrategy[Node] = calls | st.builds(Again, calls, st.just(2))
    if waits:
        kinds = st.sampled_from(sorted(RIGHT))
        leaves |= st.builds(Ask, names, no_value, kinds, st.booleans(), asyncs)
        leaves |= st.builds(Ask, names, no_value, st.none(), st.just(True), asyncs)

    def extend(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        seqs = st.lists(inner, min_size=1, max_size=3).map(tuple)
        hangs = small if is_async and not waits else st.just(0)
        found: st.SearchStrategy[Node] = (
            st.builds(Handled, names, no_value, seqs | st.just(()), seqs, small)
            | st.builds(Nest, names, no_value, seqs, fails=small, hangs=hangs)
            | st.lists(seqs, min_size=2, max_size=3).map(lambda them: Together(tuple(them)))
        )
        if is_async:
            found |= st.builds(Fence, names, no_value, seqs)
        if waits:
            found |= st.builds(Run, no_value, seqs, st.just(is_async))
        return found

    nodes = st.recursive(leaves, extend, max_leaves=5)
    seqs = st.lists(nodes, min_size=1, max_size=3).map(tuple)
    return seqs.map(lambda seq: numbered(Run("", seq, is_async), "0"))


# ---------------------------------------------------------------- what must be

# The answers that were given, by run and by the value of the pause.
Answers = Mapping[tuple[str, str], Any]


def expected(seq: Seq, answers: Answers, workflow_id: str) -> list[Any]:
    """The result of a part of a plan, without running it.

    :param workflow_id: of the run that the part is in
    """
    return [_expected(node, answers, workflow_id) for node in seq]


def _expected(node: Node, answers: Answers, workflow_id: str) -> Any:  # noqa: PLR0911 - see Node
    def all_in(seq: Seq) -> list[Any]:
        return expected(seq, answers, workflow_id)

    if isinstance(node, Call):
        return node.label
    if isinstance(node, Again):
        return [node.what.label] * node.times
    if isinstance(node, Ask):
        given = workflow_id, node.value
        return answers.get(given) if node.is_timed else answers[given]
    if isinstance(node, Run):
        return expected(node.inside, answers, node.workflow_id)
    if isinstance(node, Nest):
        return [node.label, all_in(node.inside)]
    if isinstance(node, Together):
        return [all_in(branch) for branch in node.branches]
    return [f"not {node.label}", all_in(node.otherwise)]


@dataclass
class Due:
    """How often each step must finish in the log of one run, at least and at most.

    :ivar stray: failures out of nowhere; a step that fails by one does its inside anew
    """

    stray: int = 0
    least: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def add(self, seq: Seq, tries: int = 1) -> Due:
        for node in seq:
            self._node(node, tries)
        return self

    def _node(self, node: Node, tries: int) -> None:
        if isinstance(node, Again):
            for _ in range(node.times):
                self._node(node.what, tries)
        elif isinstance(node, Together):
            for branch in node.branches:
                self.add(branch, tries)
        elif isinstance(node, Call | Ask):
            self._one(node.label, tries)
        elif isinstance(node, Run):
            self._one(node.workflow_id, tries)
        elif isinstance(node, Nest):
            self._one(node.label, tries)
            self.add(node.inside, tries * (node.fails + self.stray + 1))
        else:
            if isinstance(node, Handled):
                # Fails by itself at its end, in every try, and in every execution that sees
                # neither it nor its end handled; how often is not ours to say here.
                self.add(node.inside, 1000)
            self.add(node.otherwise, tries)

    def _one(self, what: str, tries: int) -> None:
        self.least[what] += 1
        self.most[what] += tries


def steady(seq: Seq) -> Counter[str]:
    """Steps without steps inside that finish once each, whatever fails: their labels, counted.

    Not those inside steps that fail by themselves, which begin anew.
    """
    found: Counter[str] = Counter()
    for node in seq:
        if isinstance(node, Call):
            found[node.label] += 1
        elif isinstance(node, Again):
            found[node.what.label] += node.times
        elif isinstance(node, Handled | Fence):
            found += steady(node.otherwise)
        elif isinstance(node, Together) or (isinstance(node, Nest) and not node.fails + node.hangs):
            for part in parts(node):
                found += steady(part)
    return found


def resumes_at_most(plan: Run) -> int:
    """A bound for the executions that a run may need: one for each failure in its plan.

    And some more for time-outs: on a busy machine a step may be late that does not hang.
    """
    return 10 + str(plan).count("fails=1")
