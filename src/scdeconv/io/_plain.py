"""Conversion of fitted state to plain values and named arrays and back, with types from the dataclasses."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from scdeconv._data.checks import examples

ARRAY = "array"
CLASS = "class"
DAMAGED_FILES = "The files were changed or are damaged. Save the model again."
PLAIN_TYPES = (str, bool, int, float, type(None))


class Arrays:
    """Arrays of a file; each array can be taken once.

    Parameters
    ----------
    arrays
        Arrays by name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._unread = dict(arrays)

    def take(self, array: Any, name: str) -> np.ndarray:
        """Return an array; its name must equal ``name``, the name of its value."""
        if array != name or array not in self._unread:
            msg = f"Expected the array {name!r} for {name}, found {array!r}. {DAMAGED_FILES}"
            raise ValueError(msg)
        return self._unread.pop(name)

    def refuse_rest(self) -> None:
        """Raise ``ValueError`` if arrays were not taken."""
        if self._unread:
            msg = f"Expected only arrays of the model, found others: {examples(sorted(self._unread))}. {DAMAGED_FILES}"
            raise ValueError(msg)


def to_plain(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a JSON-compatible value and add its arrays to ``arrays``; array names start with ``name``.

    Raises
    ------
    TypeError
        If a value is not an array, plain value, list, mapping or dataclass of these.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN_TYPES):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OV":
        arrays[name] = value
        return {ARRAY: name}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {
            field.name: to_plain(getattr(value, field.name), f"{name}.{field.name}", arrays) for field in fields(value)
        }
        return {CLASS: type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, f"{name}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [to_plain(item, f"{name}.{number}", arrays) for number, item in enumerate(value)]
    found = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    msg = (
        f"Expected arrays of numbers or text and plain values in {name}, found {found}. "
        "Convert the value before saving."
    )
    raise TypeError(msg)


def from_plain(plain: Any, kind: Any, name: str, arrays: Arrays) -> Any:
    """Return a value of type ``kind`` from the result of :func:`to_plain`.

    Raises
    ------
    ValueError
        If the plain value does not match the type.
    """
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if plain is None and type(None) in options:
        return None
    if isinstance(plain, dict):
        if set(plain) == {ARRAY} and np.ndarray in options:
            return arrays.take(plain[ARRAY], name)
        for option in options:
            if is_dataclass(option) and plain.get(CLASS) == getattr(option, "__name__", None):
                return _dataclass_from_plain(plain, option, name, arrays)
        mappings = [option for option in options if get_origin(option) is dict]
        if mappings:
            item = get_args(mappings[0])[1]
            return {key: from_plain(value, item, f"{name}.{key}", arrays) for key, value in plain.items()}
    if isinstance(plain, list):
        for option in options:
            if get_origin(option) in (list, tuple):
                found = [from_plain(value, get_args(option)[0], f"{name}.{n}", arrays) for n, value in enumerate(plain)]
                return found if get_origin(option) is list else tuple(found)
    # JSON does not distinguish whole floats from integers
    if isinstance(plain, PLAIN_TYPES) and any(option is Any or _fits(plain, option) for option in options):
        return plain
    msg = f"Expected {kind} for {name}, found {_shown(plain)}. {DAMAGED_FILES}"
    raise ValueError(msg)


def _fits(plain: Any, option: Any) -> bool:
    if option is float:
        return isinstance(plain, (int, float)) and not isinstance(plain, bool)
    if option is int:
        return isinstance(plain, int) and not isinstance(plain, bool)
    return isinstance(option, type) and isinstance(plain, option)


def _shown(plain: Any) -> str:
    return f"fields {sorted(plain)}" if isinstance(plain, dict) else repr(plain)[:60]


def _dataclass_from_plain(plain: dict[str, Any], cls: Any, name: str, arrays: Arrays) -> Any:
    expected = {field.name for field in fields(cls)}
    # fields with a default may be newer than the file
    optional = {field.name for field in fields(cls) if field.default is not MISSING}
    found = set(plain) - {CLASS}
    if not expected - optional <= found <= expected:
        msg = f"Expected the fields {sorted(expected)} in {name}, found {sorted(found)}. Train the model again."
        raise ValueError(msg)
    kinds = get_type_hints(cls)
    return cls(**{field: from_plain(plain[field], kinds[field], f"{name}.{field}", arrays) for field in found})
