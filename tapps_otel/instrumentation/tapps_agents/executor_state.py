"""What is known of each of their executor objects, beside it: nothing is put onto theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tapps_otel.instrumentation.execution import Carrying
    from tapps_otel.instrumentation.tapps_agents.definition import Loaded
    from tapps_otel.run.external_run import ExternalRun

__all__ = ["Bond", "bond_of"]


@dataclass(slots=True)
class Bond:
    """What is known of an executor.

    :ivar loaded: the workflow that it loaded last
    :ivar fresh: the state that its ``start()`` made and no run has taken yet
    :ivar kept: the state that was prepared from a log: ``start()`` leaves it where it is
    :ivar prepared: the run that goes with ``kept``, opened already
    :ivar carrying: what it carries out at this moment
    :ivar by_hand: the run that is driven by hand, call by call
    :ivar driven: the state that is driven so
    """

    loaded: Loaded | None = None
    fresh: Any = None
    kept: Any = None
    prepared: ExternalRun | None = None
    carrying: Carrying | None = None
    by_hand: ExternalRun | None = None
    driven: Any = None


_bonds: WeakKeyDictionary[Any, Bond] = WeakKeyDictionary()


def bond_of(executor: Any) -> Bond:
    """What is known of this executor; made when first asked for."""
    bond = _bonds.get(executor)
    if bond is None:
        bond = _bonds.setdefault(executor, Bond())
    return bond
