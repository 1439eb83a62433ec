"""Texts of the plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdeconv._data.keys import UNS
from scdeconv._data.training_samples import training_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


def fraction_label(adata: AnnData, key: str, *, rescaled: bool = False) -> str:
    """Return the axis label of the fractions: of cells or RNA, of all types or of the measured types."""
    kind = adata.uns.get(UNS, {}).get(key, {}).get("fraction_kind", "cell")
    label = "RNA fraction" if kind == "rna" else "cell fraction"
    return f"{label} of measured types" if rescaled else label


def fit_note(adata: AnnData, key: str, samples: pd.Index) -> str:
    """Return a note for the titles if samples have the fit of a model that was trained on them; else an empty text."""
    n_fitted = len(training_samples(adata, key, samples, "in_sample"))
    if not n_fitted:
        return ""
    return "in-sample fit,\nnot an estimate" + (
        f"\n({n_fitted} of {len(samples)} samples)" if n_fitted < len(samples) else ""
    )


def signed(value: float, digits: int = 3, *, plus: bool = True) -> str:
    """Return a rounded number with a minus sign of typography; zero has no sign."""
    text = f"{value:{'+' if plus else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def chosen_types(cell_types: Sequence[str] | None, table: pd.DataFrame, where: str) -> list[str]:
    """Return the cell types to draw: the argument, or all columns of the table."""
    columns = list(map(str, table.columns))
    unknown = [name for name in cell_types or () if name not in columns]
    if unknown:
        msg = f"Expected columns {unknown} in {where}, found {columns}. Use these cell_types."
        raise KeyError(msg)
    return columns if cell_types is None else list(dict.fromkeys(cell_types))


def refuse_missing_columns(adata: AnnData, names: Sequence[str], argument: str) -> None:
    """Raise an error if columns of ``obs`` are missing or repeated."""
    missing = [name for name in names if name not in adata.obs]
    if missing:
        found = missing[0] if len(missing) == 1 else missing
        msg = f"Expected {argument} to be columns {list(adata.obs)} of adata.obs, found {found!r}. Correct it."
        raise KeyError(msg)
    repeated = [name for name in names if list(adata.obs).count(name) > 1]
    if repeated:
        msg = f"Expected one column {repeated[0]!r} in adata.obs, found several. Rename or remove the others."
        raise ValueError(msg)
