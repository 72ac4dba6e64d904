"""``@workflow``: plain functions, sync or async, as runs."""

from __future__ import annotations

import functools
import sys
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from msgspec import UNSET

from tapps_otel.errors import RunConflictError, StepResultError
from tapps_otel.run.import_path import load_object, module_stem, origin_of
from tapps_otel.run.introspection import (
    check_callable,
    definition_of,
    is_async,
    mark_async,
    name_of,
    signature_of,
)
from tapps_otel.run.pickling import PickledByName
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step import Step
from tapps_otel.run.step_spec import refuse_coroutine, shown_cause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tapps_otel.run.lookup import StoredRun
    from tapps_otel.run.policy import OnDivergence
    from tapps_otel.run.recorder import RunRecorder

__all__ = ["Workflow", "find_workflow", "workflow"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class Workflow(PickledByName, Generic[P, R]):
    """A function whose calls are runs; made by :func:`workflow`.

    Called inside a run it is a step of that run; with an id, it is a run of its own as well.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        on_divergence: OnDivergence = "fail",
        ignore: tuple[str, ...] = (),
        workflow_id: str | None = None,
        log_dir: Path | str | None = None,
    ) -> None:
        if on_divergence not in {"fail", "rerun"}:
            msg = f"on_divergence={on_divergence!r}: expected 'fail' or 'rerun'"
            raise ValueError(msg)
        check_callable(fn, "@workflow")
        self._fn, self._ignore = fn, ignore
        self._async = is_async(fn)
        self._workflow_id, self._log_dir = workflow_id, log_dir
        self.name = name or name_of(fn).rpartition(".")[2]
        self.on_divergence = on_divergence
        self.signature = signature_of(fn, ignore)
        functools.update_wrapper(self, fn)
        if self._async:
            mark_async(self)

    def options(
        self, *, workflow_id: str | None = None, log_dir: Path | str | None = None
    ) -> Workflow[P, R]:
        """A copy of the workflow with an id for its run, or with another folder for its log.

        A run of that id that does not exist starts; one that was interrupted or failed is resumed;
        one that has completed returns its stored result. So it is inside another run, too: a child
        run, which is a step of the run that calls it, and has its log beside that one's.
        """
        return Workflow(
            self._fn,
            name=self.name,
            on_divergence=self.on_divergence,
            ignore=self._ignore,
            workflow_id=self._workflow_id if workflow_id is None else workflow_id,
            log_dir=self._log_dir if log_dir is None else log_dir,
        )

    def _remake(self, original: Workflow[P, R]) -> Callable[[], Workflow[P, R]]:
        return functools.partial(
            original.options, workflow_id=self._workflow_id, log_dir=self._log_dir
        )

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Workflow[P, R]: ...
    @overload
    def __get__(
        self: Workflow[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> Callable[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the workflow; a coroutine, if the function is one.

        :raises RunBusyError: another process executes this run
        :raises RunConflictError: the id belongs to another workflow, or to other inputs
        :raises RunPausedError: the run waits for an answer
        :raises RunRecursionError: the run is called inside itself
        :raises WorkflowInputError: the inputs cannot be stored
        :raises RefusalError: to continue might do something twice
        :raises LogDamagedError: the run's log was changed
        """
        return cast("R", self._call(args, kwargs))

    def resume(self, workflow_id: str, *, answer: Any = UNSET, step: str | None = None) -> R:
        """Resume a run of this workflow, with the inputs that it began with.

        What ``ignore=`` leaves out of the log has its default: where there is none, call the
        workflow with it under the run's id.

        :param answer: to a question of the run, written before it is resumed, as
            :func:`tapps_otel.answer` does
        :param step: id of the pause that is answered; needed where the run asks several questions
        :raises RunNotFoundError: there is no such run
        :raises RunConflictError: it is a run of another workflow, or asks no such question
        :raises AnswerError: the answer does not fit the question
        :raises WorkflowInputError: an input is not in the log and has no default
        :raises ValueError: an answer is given inside another run
        """
        if answer is not UNSET:
            self._answer(workflow_id, answer, step)
        if _is_inside_a_run():
            body = functools.partial(self._run_stored, workflow_id)
            return self._child_run(workflow_id, body)()
        with self._look_up(workflow_id) as found:
            return self.resume_found(found)

    def _answer(self, workflow_id: str, answer: Any, step: str | None) -> None:
        """Answer a question of a run of this workflow, if it could be resumed."""
        from tapps_otel.run import answering  # heavy: not before the first run

        if _is_inside_a_run():
            msg = "resume(answer=) is not for use in a run: call answer() in a step, then resume()"
            raise ValueError(msg)
        with self._look_up(workflow_id) as found:
            self._stored_call(found)
            answering.answer(found.name, answer, step=step, log_dir=found.store.folder)

    def _look_up(self, workflow_id: str) -> StoredRun:
        from tapps_otel.run.lookup import look_up  # heavy: not before the first run

        return look_up(workflow_id, self._folder())

    def resume_found(self, found: StoredRun) -> R:
        """Resume a run that was looked up.

        :raises RunConflictError: it is a run of another workflow
        """
        named, call = self._stored_call(found)
        return cast("R", named._call(*call))  # noqa: SLF001 - another self

    def _run_stored(self, workflow_id: str) -> Any:
        """Resume a run as a child run; its log is looked at by the step that calls it."""
        with self._look_up(workflow_id) as found:
            named, call = self._stored_call(found)
            return named._run(*call)  # noqa: SLF001 - another self

    def _stored_call(self, found: StoredRun) -> tuple[Workflow[P, R], _Call]:
        """The call that a run began with, and the workflow under the run's id.

        :raises RunConflictError: it is a run of another workflow
        """
        from tapps_otel.run.opening import check_name  # heavy: not before the first run

        check_name(found.history, self.name)
        inputs = found.inputs
        args, kwargs = self.signature.call_with(inputs)
        named = self.options(workflow_id=found.name, log_dir=found.store.folder)
        return named, (args, kwargs, _StoredCall(inputs, found))

    def _call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None = None
    ) -> Any:
        """Call it: as a run, as a step of the current run, or plainly when switched off."""
        if self._async:
            return self._call_async(args, kwargs, stored)
        if _is_inside_a_run():
            return self._step_here(stored)(*args, **kwargs)
        if not _is_enabled():
            return self._fn(*args, **kwargs)
        return self._run_sync(args, kwargs, stored)

    async def _call_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None
    ) -> Any:
        if _is_inside_a_run():
            return await cast("Awaitable[Any]", self._step_here(stored)(*args, **kwargs))
        if not _is_enabled():
            return await cast("Awaitable[Any]", self._fn(*args, **kwargs))
        return await self._run_async(args, kwargs, stored)

    def _step_here(self, stored: _StoredCall | None) -> Callable[..., R]:
        """The step that it is in the current run."""
        if self._workflow_id is None:
            return self._as_step
        return self._child_run(
            self._workflow_id, lambda *args, **kwargs: self._run(args, kwargs, stored)
        )

    @functools.cached_property
    def _as_step(self) -> Step[P, R]:
        return Step(self._fn, name=self.name, ignore=self._ignore)

    def _child_run(self, workflow_id: str, body: Callable[..., R]) -> Step[..., R]:
        from tapps_otel.run.child_run import child_run  # not before the first run in another one

        return child_run(
            self._fn,
            body,
            name=self.name,
            ignore=self._ignore,
            workflow_id=workflow_id,
            log_dir=self._log_dir,
        )

    def _folder(self) -> Path | str | None:
        """The folder of its runs' logs; ``None``: that of the settings."""
        if self._log_dir is not None or current_scope.get() is None:
            return self._log_dir
        from tapps_otel.run.child_run import log_dir_here

        return log_dir_here()

    def _open(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None
    ) -> RunRecorder:
        from tapps_otel.run.opening import open_run  # heavy: not before the first run

        self.signature.check_result()
        definition = definition_of(self._fn)
        known = {"module": module_stem(self._fn)}
        if definition is not None:
            known["definition"] = definition
        return open_run(
            self.name,
            workflow_id=self._workflow_id,
            inputs=self.signature.inputs_json(args, kwargs) if stored is None else stored.inputs,
            log_dir=self._folder(),
            about=origin_of(self, self._names(), self._is_called_by) | known,
            module=self._fn.__module__,
            on_divergence=self.on_divergence,
            found=None if stored is None else stored.found,
            match=self.signature.inputs_match,
        )

    def _names(self) -> Iterator[str]:
        """The names that it may have in its module: its function's, and those it was given."""
        yield str(getattr(self, "__qualname__", ""))
        module = sys.modules.get(self.__module__)
        for name, found in list(vars(module).items()) if module else ():
            if isinstance(found, Workflow) and found._fn is self._fn:  # noqa: SLF001 - another self
                yield name

    def _is_called_by(self, found: object) -> bool:
        """Whether an object is this workflow, or a decorator above it."""
        inner = _workflow_in(found)
        return inner is not None and inner.name == self.name

    def _run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None
    ) -> Any:
        """Execute the run; a coroutine, if the function is one."""
        return (self._run_async if self._async else self._run_sync)(args, kwargs, stored)

    def _run_sync(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None
    ) -> Any:
        run = self._open(args, kwargs, stored)
        raised: BaseException | None = None
        try:
            if run.done:
                return self.signature.result_from_json(run.result_json)
            run.enter_root()
            try:
                result = self._fn(*args, **kwargs)
            except BaseException as error:
                run.leave()
                raised = run.ending.fail(error)
                if raised is error:
                    raise
                raise raised from shown_cause(raised, error)
            run.leave()
            run.ending.complete(lambda: self._result_json(result))
        finally:  # Ctrl-C may come between any two of these
            raised = None  # its traceback has this frame: a cycle, with the user's objects
            run.close()
        return result

    async def _run_async(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], stored: _StoredCall | None
    ) -> Any:
        fn = cast("Callable[..., Awaitable[Any]]", self._fn)
        run = self._open(args, kwargs, stored)
        raised: BaseException | None = None
        try:
            if run.done:
                return self.signature.result_from_json(run.result_json)
            run.enter_root()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                run.leave()
                raised = await run.ending.fail_async(error)
                if raised is error:
                    raise
                raise raised from shown_cause(raised, error)
            run.leave()
            await run.ending.complete_async(lambda: self._result_json(result))
        finally:  # Ctrl-C may come between any two of these
            raised = None  # its traceback has this frame: a cycle, with the user's objects
            run.close()
        return result

    def _result_json(self, result: object) -> bytes:
        try:
            return self.signature.result_json(result)
        except StepResultError:
            refuse_coroutine(result, f"workflow {self.name!r}")
            raise

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


class _StoredCall(NamedTuple):
    """A call whose arguments came from a log.

    :ivar inputs: as JSON
    :ivar found: the run
    """

    inputs: bytes
    found: StoredRun


_Call = tuple[tuple[Any, ...], dict[str, Any], _StoredCall]


def _is_enabled() -> bool:
    from tapps_otel import settings  # heavy: not before the first run

    return settings.current().enabled


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    on_divergence: OnDivergence = "fail",
    ignore: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    on_divergence: OnDivergence = "fail",
    ignore: tuple[str, ...] = (),
) -> Any:
    """Make a function, sync or async, a workflow: its calls are runs, each with a log and a trace.

    :param name: in the log, instead of the function's
    :param on_divergence: for a step that is called in the place of an earlier one, with other
        inputs: ``fail`` refuses to run it, ``rerun`` runs it as a new step
    :param ignore: parameters that are neither logged nor compared (a token, a connection): every
        call gives them again
    :raises TypeError: an unknown name in ``ignore``
    """

    def decorate(fn: Callable[P, R]) -> Workflow[P, R]:
        return Workflow(fn, name=name, on_divergence=on_divergence, ignore=ignore)

    return decorate if fn is None else decorate(fn)


def _is_inside_a_run() -> bool:
    """Whether the code that calls this belongs to a run of this process."""
    scope = current_scope.get()
    return scope is not None and scope.run.encloses_workflows


def find_workflow(path: str, workflow_id: str | None = None) -> Workflow[..., Any]:
    """Import the workflow ``package.module:name`` or ``file.py:name``.

    :param workflow_id: of the run that needs it, for messages
    :raises RunConflictError: it cannot be imported, or is not a workflow; the message says why
    """
    of_run = "" if workflow_id is None else f"run {workflow_id!r}: "
    module_name, _, name = path.rpartition(":")
    if not module_name:
        msg = f"{of_run}{path!r} is not MODULE:FUNCTION, as flow.py:main or package.flow:main"
        raise RunConflictError(msg)
    try:
        found: Any = load_object(path)
    except (Exception, SystemExit) as error:  # a program that runs, and exits, when it is imported
        msg = (
            f"{of_run}cannot import {name!r} from {module_name!r}: {type(error).__name__}: {error}"
        )
        if isinstance(error, ModuleNotFoundError):
            msg += ". Is it on the path (PYTHONPATH, or the current directory)?"
        if workflow_id is not None:
            msg += (
                f". If the workflow is elsewhere now: `tapps-otel resume {workflow_id} "
                "FILE.py:FUNCTION`"
            )
        raise RunConflictError(msg) from error
    flow = _workflow_in(found)
    if flow is None:
        msg = f"{of_run}{path} is a {type(found).__name__}, not a function with @workflow"
        raise RunConflictError(msg)
    return flow


def _workflow_in(found: Any) -> Workflow[..., Any] | None:
    """The workflow that an object is, or that it calls, as a decorator above ``@workflow`` does."""
    while not isinstance(found, Workflow):
        if not hasattr(found, "__wrapped__"):
            return None
        found = found.__wrapped__
    return found
