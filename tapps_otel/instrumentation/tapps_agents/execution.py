"""One carrying out of a workflow by tapps-agents: how its run is found, and where it ends.

Their id is final only after ``_initialize_execution`` (``execute()`` starts anew a run that
``start()`` had made), and in Cursor mode another executor carries the workflow out than the one
that was called: so the run is opened on the way, not at the call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.execution import (
    Carrying,
    carried_here,
    is_enabled,
    open_run,
)
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.instrumentation.spec import Seen
from tapps_otel.instrumentation.tapps_agents.adapter import READING
from tapps_otel.instrumentation.tapps_agents.executor_state import Bond, bond_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tapps_otel.run.external_run import ExternalRun

__all__ = ["TappsCarrying", "by_hand", "carry", "end_by_hand", "here"]


class TappsCarrying(Carrying):
    """A call of ``execute()``, or of Cursor's ``run()``.

    :ivar seen: that call
    :ivar executor: the one whose state it is about: in Cursor mode, not the one that was called
    """

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen.executor)
        self.seen = seen
        self.names: frozenset[str] = frozenset()  # of variables that the log knows of

    @property
    def in_cursor_mode(self) -> bool:
        """Whether Cursor's executor carries it out."""
        return type(self.executor).__name__ == "CursorWorkflowExecutor"

    def begin_on(self, executor: Any, *, failed: bool) -> None:
        """Open the run, now that its executor has made its state, or failed to.

        :param failed: what it has made then is a run that failed at its start
        """
        self.opened = True  # also where that fails: what a step carries out is not this run
        with guarded("this run goes on without a log"):
            called, self.executor, state = self.executor, executor, executor.state
            bond = bond_of(executor)
            if bond.loaded is None:  # Cursor's was given the workflow of the one that was called
                bond.loaded = bond_of(called).loaded
            if bond.prepared is not None and state is bond.kept:
                self.take(bond.prepared)
                bond.prepared = None
            elif state is not None and (not failed or state is bond.fresh):
                self._open(bond, state)
            bond.fresh = None
            bond.carrying = bond_of(called).carrying = self

    def _open(self, bond: Bond, state: Any) -> None:
        driven = bond.by_hand if bond.driven is state else None
        bond.by_hand = bond.driven = None
        if driven is not None and driven.reacquire_log():
            self.take(driven)
        elif bond.fresh is state or state.status == "running":
            seen = Seen(self.executor, self.seen.arguments)
            self.open(partial(open_run, READING, seen))
        # else it was loaded, and is over: nothing will be carried out


def here() -> TappsCarrying | None:
    """What the code that asks is carried out by, if that is of tapps-agents."""
    carrying = carried_here()
    return carrying if isinstance(carrying, TappsCarrying) else None


async def carry(call: Callable[[], Awaitable[Any]], seen: Seen) -> Any:
    """Carry a workflow out, and tell how it ended."""
    with TappsCarrying(seen) as carrying:
        try:
            state = await call()
        except BaseException as error:
            await carrying.end_by_async(error)
            raise
        finally:
            for executor in (seen.executor, carrying.executor):
                bond = bond_of(executor)
                bond.carrying = bond.kept = None
        await carrying.end_async(READING, Seen(carrying.executor, seen.arguments, state))
        return state


# -- driven by hand


def by_hand(executor: Any, tell: Callable[[ExternalRun], None]) -> None:
    """Tell a run of a call that nobody's ``execute()`` made; the lease is held meanwhile.

    The run begins with the first such call, and ends when its state says so.
    """
    if not is_enabled():
        return
    with guarded("a call by hand goes on without a log"):
        bond, state = bond_of(executor), executor.state
        run = bond.by_hand if bond.driven is state else None
        if run is None or not run.reacquire_log():
            run = open_run(READING, Seen(executor, {}))
            bond.by_hand, bond.driven, bond.fresh = run, state, None
        try:
            tell(run)
            if state.status != "running":
                run.end(state.status, state.error)
                bond.by_hand = bond.driven = None
        finally:
            run.release_log()


def end_by_hand(executor: Any, status: str) -> None:
    """End the run that is driven by hand, if there is one: its executor begins another."""
    bond = bond_of(executor)
    run, bond.by_hand, bond.driven = bond.by_hand, None, None
    if run is not None:
        with guarded("the end of a run"):
            if run.reacquire_log():
                run.end(status)
