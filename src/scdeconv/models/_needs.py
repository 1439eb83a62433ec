"""Check of the data that a method needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data import keys
from scdeconv.pp import paired_donors

from ._registry import records

if TYPE_CHECKING:
    from mudata import MuData

    from ._record import Method

# what a method may need besides pairs, in words
WORDS = {
    "profiles": "a reference (cells or profiles)",
    "cells": "cells",
    "simulated": "simulated bulk, or a reference (cells or profiles) to simulate from",
}


def methods_without_reference() -> list[str]:
    """Return the methods that need bulk with measured fractions and nothing else, the baseline last."""
    found = [key for key, record in records().items() if set(record.needs) == {"pairs"}]
    return sorted(found, key=lambda key: (key == keys.BASELINE, key))


def missing_needs(mdata: MuData, record: Method, train_on: str | None = None) -> list[str]:
    """Return what the data lack for a method, of ``"pairs"``, ``"profiles"``, ``"cells"`` and ``"simulated"``.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    record
        Record of the method.
    train_on
        ``"pairs"`` or ``"simulated"``, if the method has this argument. Default: what the record needs.
    """
    available = {
        "pairs": len(paired_donors(mdata)) >= record.fewest_pairs,
        "profiles": keys.PROFILES in mdata.mod,
        "cells": keys.CELLS in mdata.mod,
        "simulated": bool({keys.SIMULATED, keys.PROFILES} & set(mdata.mod)),
    }
    return [need for need in record.needed(train_on) if not available[need]]


def check_needs(mdata: MuData, record: Method, train_on: str | None = None, *, count_pairs: bool = True) -> None:
    """Refuse data without the pairs, profiles, cells or simulated bulk that a method needs.

    Parameters
    ----------
    mdata, record, train_on
        As for :func:`missing_needs`.
    count_pairs
        Whether to check the number of paired donors.

    Raises
    ------
    KeyError
        If there is no bulk.
    ValueError
        If the data lack something. The message names what they have and the methods that they allow.
    """
    if keys.BULK not in mdata.mod:
        msg = f"Expected modality {keys.BULK!r} in mdata, found {sorted(mdata.mod)}. Create mdata with pp.pair."
        raise KeyError(msg)
    missing = [need for need in missing_needs(mdata, record, train_on) if count_pairs or need != "pairs"]
    if not missing:
        return
    n_pairs, reference = len(paired_donors(mdata)), [need for need in missing if need != "pairs"]
    wanted, found = [WORDS[need] for need in reference], []
    if "pairs" in missing:
        wanted.insert(0, f"at least {record.fewest_pairs} paired donors")
        found.append(str(n_pairs))
    if reference:
        only = "profiles only" if keys.PROFILES in mdata.mod else "no cells and no profiles, only bulk"
        found.append(f"{only} (modalities {sorted(mdata.mod)})")
    advice = "Use a method without pairs, such as method='nnls'."
    if keys.PROFILES not in mdata.mod:
        usable = [key for key in methods_without_reference() if n_pairs >= records()[key].fewest_pairs]
        others = f", or use a method that needs no reference: {', '.join(map(repr, usable))}" if usable else ""
        advice = f"Pass cells= or profiles= to pp.pair{others}."
        if not reference:
            advice = f"Add donors with measured fractions{others}."
    elif "cells" in missing:
        advice = "Create mdata with pp.pair(cells, bulk), or use a method that needs profiles only, such as 'nnls'."
    msg = f"Expected {' and '.join(wanted)} for method {record.key!r}, found {' and '.join(found)}. {advice}"
    raise ValueError(msg)
