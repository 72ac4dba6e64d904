"""The arguments of a call, as hooks see them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapps_otel.instrumentation.method_call import MethodCall


class Executor:
    def none(self) -> None: ...

    def plain(self, a: Any, b: Any = 2, c: Any = None) -> None: ...

    def only_by_name(self, a: Any, *, b: Any = 2) -> None: ...

    def only_by_place(self, a: Any, /, b: Any = 2) -> None: ...

    def any_number(self, a: Any, *b: Any, **c: Any) -> None: ...


METHODS = [value for name, value in vars(Executor).items() if not name.startswith("__")]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
@settings(max_examples=200, deadline=None)
@given(
    args=st.lists(st.integers(), max_size=4).map(tuple),
    kwargs=st.dictionaries(st.sampled_from("abcd"), st.integers()),
)
def test_arguments_are_bound_as_inspect_binds_them(
    method: Callable[..., None], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    executor = Executor()
    call = MethodCall.bind(method.__get__(executor), executor, args, kwargs)
    try:
        expected = inspect.signature(method).bind(executor, *args, **kwargs)
    except TypeError:
        assert call.arguments == {}
    else:
        expected.apply_defaults()
        assert [*call.arguments.items()] == [*expected.arguments.items()][1:]
    assert call.executor is executor
