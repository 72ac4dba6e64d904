"""``@workflow``: plain functions, sync or async, as runs."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from tapps_otel.run.introspection import is_async, name_of, signature_of
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step import Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tapps_otel.run.recorder import Run

__all__ = ["Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A function whose calls are runs; made by :func:`workflow`.

    Called inside a run, it is a step of that run.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        on_divergence: str = "fail",
        workflow_id: str | None = None,
        log_dir: Path | str | None = None,
    ) -> None:
        if on_divergence not in {"fail", "rerun"}:
            msg = f"on_divergence={on_divergence!r}: it is 'fail' or 'rerun'"
            raise ValueError(msg)
        self._fn = fn
        self._async = is_async(fn)
        self._workflow_id, self._log_dir = workflow_id, log_dir
        self.name = name or name_of(fn)
        self.on_divergence = on_divergence
        self.signature = signature_of(fn, ())
        functools.update_wrapper(self, fn)
        if self._async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def options(
        self, *, workflow_id: str | None = None, log_dir: Path | str | None = None
    ) -> Workflow[P, R]:
        """The same workflow under a name of the caller's choice, or with its log elsewhere.

        A named run that is not there starts; one that was interrupted or failed goes on; one that
        completed gives its stored result.
        """
        return Workflow(
            self._fn,
            name=self.name,
            on_divergence=self.on_divergence,
            workflow_id=self._workflow_id if workflow_id is None else workflow_id,
            log_dir=self._log_dir if log_dir is None else log_dir,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Carry the workflow out; a coroutine, where the function is one.

        :raises RunBusyError: another process carries this run on
        :raises RunConflictError: the id belongs to another workflow, or to other inputs
        :raises RunPausedError: the run waits for an answer
        :raises WorkflowInputError: the inputs cannot be stored
        :raises RefusalError: going on might do something twice
        :raises LogDamagedError: the run's log was changed
        """
        return cast("R", self._carry_out(args, kwargs))

    def resume(self, workflow_id: str) -> R:
        """Go on with a run of this workflow, with the inputs that it began with.

        :raises RunNotFoundError: there is no such run
        :raises RunConflictError: it is a run of another workflow
        """
        from tapps_otel.run.opening import stored_inputs

        inputs = stored_inputs(self.name, workflow_id, self._log_dir)
        args, kwargs = self.signature.call_with(inputs)
        named = self.options(workflow_id=workflow_id)
        return cast("R", named._carry_out(args, kwargs, inputs))  # noqa: SLF001 - another self

    def _carry_out(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None = None
    ) -> Any:
        """Call it: as a run, as a step of the run around it, or plainly with the switch off.

        :param inputs: the arguments as the log has them, if they come from there
        """
        if self._async:
            return self._carry_out_async(args, kwargs, inputs)
        if _is_inside_a_run():
            return self._as_step(*args, **kwargs)
        if not _is_enabled():
            return self._fn(*args, **kwargs)
        return self._run_sync(args, kwargs, inputs)

    async def _carry_out_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None
    ) -> Any:
        if _is_inside_a_run():
            return await cast("Awaitable[Any]", self._as_step(*args, **kwargs))
        if not _is_enabled():
            return await cast("Awaitable[Any]", self._fn(*args, **kwargs))
        return await self._run_async(args, kwargs, inputs)

    @functools.cached_property
    def _as_step(self) -> Step[P, R]:
        return Step(self._fn, name=self.name)

    def _open(self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None) -> Run:
        from tapps_otel.run.opening import open_run

        self.signature.check_result()

        return open_run(
            self.name,
            workflow_id=self._workflow_id,
            inputs=self.signature.inputs_json(args, kwargs) if inputs is None else inputs,
            log_dir=self._log_dir,
            fn=self._fn,
            on_divergence=self.on_divergence,
        )

    def _run_sync(self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None) -> Any:
        run = self._open(args, kwargs, inputs)
        if run.done:
            return self.signature.result_from_json(run.result_json)
        try:
            run.enter_root()
            try:
                result = self._fn(*args, **kwargs)
            except BaseException as error:
                run.leave()
                raised = run.fail(error)
                if raised is error:
                    raise
                raise raised from error
            run.leave()
            run.complete(lambda: self.signature.result_json(result))
        finally:  # Ctrl-C may come between any two of these
            run.close()
        return result

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: bytes | None
    ) -> Any:
        fn = cast("Callable[..., Awaitable[Any]]", self._fn)
        run = self._open(args, kwargs, inputs)
        if run.done:
            return self.signature.result_from_json(run.result_json)
        try:
            run.enter_root()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                run.leave()
                raised = await run.fail_async(error)
                if raised is error:
                    raise
                raise raised from error
            run.leave()
            await run.complete_async(lambda: self.signature.result_json(result))
        finally:  # Ctrl-C may come between any two of these
            run.close()
        return result

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


def _is_enabled() -> bool:
    from tapps_otel import settings  # heavy: not before the first run

    return settings.current().enabled


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, on_divergence: str = "fail"
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    on_divergence: str = "fail",
) -> Any:
    """Make a function, sync or async, a workflow: its calls are runs, each with a log and a trace.

    :param name: in the log, in place of the function's
    :param on_divergence: what a step does that comes the same way as before with other inputs:
        ``fail`` refuses, ``rerun`` runs it as a new step
    """

    def decorate(fn: Callable[P, R]) -> Workflow[P, R]:
        return Workflow(fn, name=name, on_divergence=on_divergence)

    return decorate if fn is None else decorate(fn)


def _is_inside_a_run() -> bool:
    """Whether a run of this process is being carried out here."""
    scope = current_scope.get()
    return scope is not None and not scope.run.detached
