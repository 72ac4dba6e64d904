"""Steps and workflows that are methods of a class."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tapps_otel import step, workflow
from tapps_otel.errors import WorkflowInputError


@dataclass
class Greeter:
    greeting: str

    @step
    def join(self, name: str) -> str:
        return f"{self.greeting}, {name}"

    @workflow
    def greet(self: Greeter, name: str) -> str:
        """Its annotation lets ``self`` be stored among the inputs."""
        return self.join(name)

    @workflow
    def leave(self, name: str) -> str:
        return name

    @workflow
    async def greet_later(self: Greeter, name: str) -> str:
        return self.join(name)


def test_a_workflow_method_gets_its_object() -> None:
    assert Greeter("Hello").greet("Ada") == "Hello, Ada"


async def test_an_async_workflow_method_gets_its_object() -> None:
    assert await Greeter("Hello").greet_later("Ada") == "Hello, Ada"


def test_the_object_is_an_input_of_the_run() -> None:
    named = Greeter.greet.options(workflow_id="r")

    assert named(Greeter("Hello"), "Ada") == "Hello, Ada"
    assert Greeter.greet.resume("r") == "Hello, Ada"


def test_an_object_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(WorkflowInputError, match=r"\$\.self"):
        Greeter("Hello").leave("Ada")


def test_the_attribute_of_the_class_is_the_decorated_function() -> None:
    assert Greeter.greet.name == "greet"
    assert Greeter.join(Greeter("Hi"), "Bo") == "Hi, Bo"
