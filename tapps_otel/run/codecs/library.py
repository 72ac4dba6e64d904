"""Codecs of classes that are not of JSON and not their fields: of the standard library, and more.

Whatever else pydantic can write and read goes through pydantic, and is compared afterwards.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.run.codecs.codec import Codec, Fit
from tapps_otel.run.codecs.native import NotStorableError, class_name
from tapps_otel.run.codecs.registry import RegisteredCodec

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["PydanticCodec", "adapter", "builtin_codec"]


# ---------------------------------------------------------------- by a codec of their own


class DatetimeCodec(Codec):
    """For datetimes and times: with the name of their zone, which pydantic makes an offset."""

    kinds = frozenset({"string", "object"})

    def __init__(self, cls: type[datetime | time]) -> None:
        self._class = cls
        self.label = class_name(cls)

    def encode(self, value: Any) -> Any:
        if type(value) is not self._class:
            raise NotStorableError(f"{class_name(type(value))} does not match its annotation")
        zone: Any = value.tzinfo
        named = class_name(type(zone)) == "zoneinfo.ZoneInfo"
        label = _label(zone) if type(zone) is timezone else None
        if not named and not value.fold and label is None:
            return value.isoformat()
        data: dict[str, Any] = {"at": value.replace(tzinfo=None, fold=0).isoformat()}
        if named:
            if zone.key is None:
                raise NotStorableError("a time zone without a name does not exist in JSON")
            data["zone"] = zone.key
        elif zone is not None:
            data["at"] = value.replace(fold=0).isoformat()
        if label is not None:
            data["label"] = label
        if value.fold:
            data["fold"] = 1
        return data

    def decode(self, data: Any) -> Any:
        if type(data) is str:
            return self._class.fromisoformat(data)
        value = self._class.fromisoformat(data["at"])
        if "zone" in data:
            value = value.replace(tzinfo=_zone(data["zone"]))
        if "label" in data:
            offset = value.utcoffset() or timedelta()
            value = value.replace(tzinfo=timezone(offset, data["label"]))
        return value.replace(fold=data.get("fold", 0))

    def fit(self, value: Any) -> Fit:
        return Fit.EXACT if type(value) is self._class else Fit.NONE


def _label(zone: timezone) -> str | None:
    """The name that was given to a fixed offset, if it is not the one that all have."""
    label = zone.tzname(None)
    return None if label == timezone(zone.utcoffset(None)).tzname(None) else label


def _zone(key: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(key)


def _pattern_form(value: re.Pattern[Any]) -> Any:
    plain = value.flags == re.compile(value.pattern).flags
    pattern = value.pattern if isinstance(value.pattern, str) else {"bytes": _b64(value.pattern)}
    return pattern if plain else {"pattern": pattern, "flags": int(value.flags)}


def _pattern(data: Any) -> re.Pattern[Any]:
    flags = 0
    if type(data) is dict and "pattern" in data:
        data, flags = data["pattern"], data["flags"]
    if type(data) is dict:
        return re.compile(binascii.a2b_base64(data["bytes"]), flags & ~re.UNICODE)
    return re.compile(data, flags)


def _bytes_form(value: bytes | bytearray) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": _b64(value)}


def _bytes(data: Any) -> bytes:
    return binascii.a2b_base64(data["base64"]) if type(data) is dict else data.encode()


def _b64(value: bytes | bytearray) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _array_form(value: Any) -> Any:
    import io

    import numpy as np

    if value.dtype.hasobject:
        raise NotStorableError(f"a numpy array of {value.dtype} holds Python objects")
    out = io.BytesIO()
    np.save(out, value, allow_pickle=False)
    return {"npy": _b64(out.getvalue())}


def _array(data: Any) -> Any:
    import io

    import numpy as np

    return np.load(io.BytesIO(binascii.a2b_base64(data["npy"])), allow_pickle=False)


def _frame_form(value: Any) -> Any:
    if class_name(type(value)).startswith("polars."):
        import io

        out = io.BytesIO()
        value.write_ipc(out)
        return {"arrow": _b64(out.getvalue())}
    pa = _pyarrow()
    table = pa.Table.from_pandas(value)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"arrow": _b64(sink.getvalue().to_pybytes())}


def _pandas(data: Any) -> Any:
    pa = _pyarrow()
    with pa.ipc.open_stream(binascii.a2b_base64(data["arrow"])) as reader:
        return reader.read_all().to_pandas()


def _polars(data: Any) -> Any:
    import io

    import polars as pl

    return pl.read_ipc(io.BytesIO(binascii.a2b_base64(data["arrow"])))


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise NotStorableError("a pandas frame is written by pyarrow: install pyarrow") from None
    return pa


_STRING: Final = frozenset({"string"})
_ARRAY: Final = frozenset({"array"})
_OBJECT: Final = frozenset({"object"})
_EITHER: Final = frozenset({"string", "object"})
# By name, so that nothing is imported for what a program does not use.
_BUILTIN: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], frozenset[str]]]] = {
    "bytes": (_bytes_form, _bytes, _EITHER),
    "bytearray": (_bytes_form, lambda data: bytearray(_bytes(data)), _EITHER),
    "complex": (
        lambda value: [value.real, value.imag],
        lambda data: complex(*data),
        frozenset({"array"}),
    ),
    "re.Pattern": (_pattern_form, _pattern, _EITHER),
    "zoneinfo.ZoneInfo": (lambda value: value.key, _zone, _STRING),
    "numpy.ndarray": (_array_form, _array, _OBJECT),
    "pandas.DataFrame": (_frame_form, _pandas, _OBJECT),
    "pandas.core.frame.DataFrame": (_frame_form, _pandas, _OBJECT),
    "polars.DataFrame": (_frame_form, _polars, _OBJECT),
    "polars.dataframe.frame.DataFrame": (_frame_form, _polars, _OBJECT),
}


def builtin_codec(cls: type) -> Codec | None:
    """The codec of a class that is known here; ``None`` for any other."""
    if cls is datetime or cls is time:
        return DatetimeCodec(cls)
    found = _BUILTIN.get(class_name(cls))
    return (
        None
        if found is None
        else RegisteredCodec(cls, found[0], found[1], class_name(cls), found[2])
    )


# ---------------------------------------------------------------- pydantic's

_WRITES_STRINGS: Final = frozenset(
    {"datetime.date", "datetime.timedelta", "decimal.Decimal", "uuid.UUID", "pathlib.Path",
     "pathlib.PurePath", "pathlib.PosixPath", "ipaddress.IPv4Address", "ipaddress.IPv6Address"}
)  # fmt: skip


class PydanticCodec(Codec):
    """Whatever pydantic makes of an annotation."""

    def __init__(self, annotation: Any) -> None:
        self._annotation, self._adapter = annotation, None
        self.label = class_name(annotation) if isinstance(annotation, type) else repr(annotation)
        self._unfit: str | None = None
        if self.label in _WRITES_STRINGS:
            self.kinds = _STRING
        try:
            self._adapter = adapter(annotation)
        except Exception as error:  # noqa: BLE001 - pydantic has many, and calls into annotations
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self._unfit = f"{self.label} cannot be serialized as JSON: {first:.200}"

    def encode(self, value: Any) -> Any:
        if self._adapter is None:
            raise NotStorableError(str(self._unfit))
        try:
            data = self._adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
        except (TypeError, ValueError) as error:
            raise NotStorableError(_first_line(error)) from None
        return json.loads(data)

    def decode(self, data: Any) -> Any:
        if self._adapter is None:
            raise ValueError(self._unfit)
        return self._adapter.validate_json(json.dumps(data))

    def fit(self, value: Any) -> Fit:
        kind = self._annotation
        if isinstance(kind, type):
            if type(value) is kind:
                return Fit.EXACT
            return Fit.SUBCLASS if isinstance(value, kind) else Fit.NONE
        try:
            self.encode(value)
        except NotStorableError:
            return Fit.NONE
        return Fit.SUBCLASS

    def unfit(self) -> str | None:
        return self._unfit


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "UnexpectedValue" in line), lines[0] if lines else "")
    return f"it does not match its annotation: {told}" if "UnexpectedValue" in told else told


_adapters: dict[Any, Any] = {}


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """Pydantic's adapter of an annotation, made once."""
    from pydantic import TypeAdapter  # heavy, and plain JSON never needs it

    try:
        return _adapters[annotation]  # type: ignore[no-any-return]
    except KeyError:
        found = _adapters[annotation] = TypeAdapter(annotation)
        return found
    except TypeError:  # an annotation that cannot be a key
        return TypeAdapter(annotation)
