"""Setting a provider up once in a process, where there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tapps_otel.otel.process.fork_lock import ForkLock
from tapps_otel.otel.process.shutdown import ExitFlush, Outlet
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tapps_otel.settings_model import Settings

__all__ = ["ProviderSetup", "make_each"]

ProviderT = TypeVar("ProviderT")
OutletT = TypeVar("OutletT", bound=Outlet)
T = TypeVar("T")


class ProviderSetup(ABC, Generic[ProviderT, OutletT]):
    """Sets one kind of provider up. A provider that exists is never replaced.

    :ivar built: the process's provider, if it was built here
    :ivar outlets: what was made here to send what the provider makes
    """

    def __init__(self) -> None:
        self.built: ProviderT | None = None
        self.outlets: list[OutletT] = []
        self._tried = False
        self._lock = ForkLock(self._reset)

    def _reset(self) -> None:
        self._tried = False

    def ensure(self, settings: Settings) -> ProviderT | None:
        """Return the process's provider; build one if that is asked for.

        ``None`` if nothing asks for one, or if it cannot be built: then a warning is logged once.
        """
        with self._lock:
            provider = self._existing()
            if provider is not None or self._tried or not self._wanted(settings):
                return provider
            self._tried = True
            return self._build(settings)

    @abstractmethod
    def _existing(self) -> ProviderT | None:
        """Return the provider that the process has."""

    @abstractmethod
    def _wanted(self, settings: Settings) -> bool:
        """Whether a setting or a variable asks for one."""

    @abstractmethod
    def _build(self, settings: Settings) -> ProviderT | None:
        """Build a provider and install it; ``None`` if that is impossible."""

    @abstractmethod
    def _set(self, provider: ProviderT) -> None:
        """Make it the process's provider, unless there is one by now."""

    def _install(
        self, provider: Any, outlets: list[OutletT], settings: Settings
    ) -> ProviderT | None:
        """Install a provider, and flush it at exit; return the process's."""
        self._set(provider)
        installed = self._existing()
        if installed is provider:
            self.built, self.outlets = installed, outlets
            ExitFlush(provider, outlets, settings.shutdown_timeout).register()
        else:  # the program was faster
            provider.shutdown()
        return installed


def make_each(names: Iterable[str], make: Callable[[str], T], what: str) -> list[T]:
    """Make something for each name; log a warning for one that cannot be made.

    :param what: is made, for the warning
    """
    made = []
    for name in names:
        try:
            made.append(make(name))
        except Exception as error:  # noqa: BLE001 - a bad variable or a missing package
            warn_once(f"{what} {name}", error)
    return made
