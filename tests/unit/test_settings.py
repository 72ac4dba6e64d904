"""Settings: their keywords, where their values come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from tapps_otel import settings
from tapps_otel.errors import SettingsError
from tapps_otel.settings import configure
from tapps_otel.settings_model import Settings
from tapps_otel.settings_types import DEFAULT_LOG_DIR, Redaction, SettingsDict


def test_configure_takes_the_fields_of_settings_in_their_order() -> None:
    assert list(SettingsDict.__annotations__) == list(Settings.model_fields)


# What configure() accepts beyond the type that a setting has in the end.
CONVERTED: dict[str, set[Any]] = {"log_dir": {str}, "aliases": set(), "otlp_headers": set()}
MANY = {
    "aliases",
    "encryption_keys",
    "otlp_headers",
    "trust",
}  # any sequence or mapping becomes the field's own type


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_keyword_of_configure_has_the_type_of_its_field(name: str) -> None:
    accepted, kept = get_type_hints(SettingsDict)[name], get_type_hints(Settings)[name]

    if name in MANY:
        assert set(_leaves(kept)) <= set(_leaves(accepted))
    else:
        assert set(_members(accepted)) == set(_members(kept)) | CONVERTED.get(name, set())


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, the values of a Literal, else the type itself."""
    return tuple(leaf for one in get_args(hint) for leaf in _members(one)) or (hint,)


def _leaves(hint: Any) -> tuple[Any, ...]:
    return tuple(one for one in _members(hint) if one is not Ellipsis)


def test_without_anything_given_the_defaults_hold() -> None:
    found = settings.current()

    assert found == Settings()
    assert (found.log_dir, found.durability, found.announce) == (
        DEFAULT_LOG_DIR,
        "commit",
        "workflow",
    )


def test_the_defaults_are_valid() -> None:
    defaults = settings.current()  # they are not checked, because that takes time

    assert (
        configure(**{name: getattr(defaults, name) for name in Settings.model_fields}) == defaults
    )


def test_a_setting_may_be_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_REDACT", '{"keys": ["pin"]}')
    monkeypatch.setenv("TAPPS_OTEL_OTLP_HEADERS", '{"x-key": "v"}')
    monkeypatch.setenv("tapps_otel_strict", "yes")
    found = settings.current()

    assert found.redact == Redaction(keys=("pin",))
    assert (found.otlp_headers, found.strict) == ({"x-key": "v"}, True)


@pytest.mark.parametrize(
    "address", ["host=h password=hunter22", "password=hunter22", "mysql://me:hunter22@h/x"]
)
def test_a_password_in_a_refused_address_is_not_shown(address: str) -> None:
    with pytest.raises(SettingsError) as refused:
        configure(store=address)

    assert "postgresql://HOST/NAME" in str(refused.value)
    assert "hunter22" not in str(refused.value)


def test_a_store_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_STORE_WAIT", "0")

    with pytest.raises(SettingsError, match="store_wait"):
        settings.current()


def test_json_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_REDACT", '{"keys": ')

    with pytest.raises(SettingsError, match="setting 'redact"):
        settings.current()


def test_configure_takes_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_DURABILITY", "always")
    monkeypatch.setenv("TAPPS_OTEL_BUFFER_EVENTS", "7")

    assert settings.current().durability == "always"
    assert configure(durability="os").durability == "os"
    assert settings.current().durability == "os"
    assert settings.current().buffer_events == 7


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_DURABILITY", "")

    assert settings.current().durability == "commit"


def test_a_later_call_of_configure_keeps_what_an_earlier_one_set() -> None:
    configure(log_dir="logs")
    configure(spans=False)

    assert (settings.current().log_dir, settings.current().spans) == (Path("logs"), False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"durability": "never"},
            "setting 'durability' (TAPPS_OTEL_DURABILITY in the environment): Input should be",
        ),
        ({"durability": "never"}, "'commit', 'always' or 'os', got 'never'"),
        ({"buffer_events": -1}, "greater than or equal to 0, got -1"),
        ({"shutdown_timeout": float("inf")}, "finite number, got inf"),
        ({"jaeger_url": "javascript:alert(1)"}, "TAPPS_OTEL_JAEGER_URL"),
        ({"jaeger_url": "http://user@jaeger:16686"}, "TAPPS_OTEL_JAEGER_URL"),
        ({"aliases": ("cicd/9",)}, "setting 'aliases.0' (TAPPS_OTEL_ALIASES in the environment)"),
        ({"durabilty": "os"}, "setting 'durabilty'"),
    ],
)
def test_an_invalid_value_is_refused_with_its_setting_and_nothing_changes(
    given: dict[str, Any], said: str
) -> None:
    configure(buffer_events=3)

    with pytest.raises(SettingsError) as caught:
        configure(**given)
    assert said in str(caught.value)
    assert settings.current() == Settings(buffer_events=3)


def test_every_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_SPANS", "maybe")
    monkeypatch.setenv("TAPPS_OTEL_ANNOUNCE", "loudly")

    with pytest.raises(SettingsError, match=r"'spans'.*; .*'announce'"):
        settings.current()
    monkeypatch.setenv("TAPPS_OTEL_SPANS", "0")
    monkeypatch.setenv("TAPPS_OTEL_ANNOUNCE", "steps")
    assert (settings.current().spans, settings.current().announce) == (False, "steps")


def test_a_long_invalid_value_is_shown_in_part() -> None:
    with pytest.raises(SettingsError) as caught:
        configure(service_name=["x" * 500])  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300
