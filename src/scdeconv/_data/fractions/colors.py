"""Colours of cell types and groups in ``uns["<key>_colors"]``, lists as in scanpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scdeconv._data import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence


def stored_colors(uns: Mapping[str, Any], key: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the colours of ``uns[f"{key}_colors"]`` by name; empty if there are none.

    A list has the order of `names`, or, if :func:`store_colors` wrote it, the order of the columns at that time.
    """
    stored = uns.get(f"{key}_colors", {})
    if isinstance(stored, Mapping):
        return {str(name): color for name, color in stored.items()}
    written = written_names(uns, key)
    return dict(zip(map(str, names if written is None else written), stored, strict=False))


def written_names(uns: Mapping[str, Any], key: str) -> list[str] | None:
    """Return the names of the list ``uns[f"{key}_colors"]`` if :func:`store_colors` wrote it, else None."""
    record = uns.get(keys.UNS, {}).get(keys.COLORS, {}).get(key)
    if record is None or list(map(str, record["colors"])) != list(map(str, uns.get(f"{key}_colors", ()))):
        return None
    return list(map(str, record["names"]))


def store_colors(uns: MutableMapping[str, Any], key: str, colors: Mapping[str, str]) -> None:
    """Write the colours as the list ``uns[f"{key}_colors"]``, and its names in a record: columns may be reordered."""
    record = {"names": list(colors), "colors": list(colors.values())}
    records = dict(uns.get(keys.UNS, {}))
    records[keys.COLORS] = {**records.get(keys.COLORS, {}), key: record}
    uns[keys.UNS] = records
    uns[f"{key}_colors"] = list(colors.values())


def written_colors(uns: Mapping[str, Any], written_for: Iterable[str]) -> dict[str, str]:
    """Return the colours by name that :func:`store_colors` wrote for some keys; the first key counts."""
    found: dict[str, str] = {}
    for key in written_for:
        if written_names(uns, key) is not None:
            found = {**stored_colors(uns, key, ()), **found}
    return found
