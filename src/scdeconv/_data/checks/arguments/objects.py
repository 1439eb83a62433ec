"""Rules of arguments that are objects: AnnData, MuData, models, tables, plots."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scdeconv._data import keys

from .describe import describe, is_model
from .rules import Rule, either, wrong_type, wrong_value

if TYPE_CHECKING:
    from scdeconv._data.checks.problems import Problems
    from scdeconv._data.labels import Annotated

# matplotlib.axes.Axes is not imported here: it takes half a second
AXES_METHODS = ("get_window_extent", "plot")


def instance(expected: str, is_one: Callable[[Any], bool], advice: str) -> Rule:
    """Refuse objects of another kind."""

    def accept(value: Any) -> Any:
        if not is_one(value):
            wrong_type(advice)
        return value

    return Rule(expected, accept)


def annotated(expected: str, modality: str, origin: str = "") -> Rule:
    """Refuse all but AnnData, and propose a modality of a MuData or a reader; ``origin``: function that makes it."""

    def accept(value: Any) -> AnnData:
        if isinstance(value, AnnData):
            return _with_records(value)
        if isinstance(value, MuData) and value.mod:
            wrong_type(f"Pass one modality: mdata[{modality if modality in value.mod else next(iter(value.mod))!r}].")
        if isinstance(value, pd.DataFrame):
            wrong_type("Convert expression with anndata.AnnData(table); of results, pass the AnnData that holds them.")
        if isinstance(value, (str, os.PathLike)):
            wrong_type("Read the file with anndata.read_h5ad, scdeconv.read_bulk or scdeconv.io.read_signature.")
        wrong_type(origin or "Pass samples or cells as rows and genes as columns.")

    return Rule(expected, accept)


def _with_records(value: Annotated) -> Annotated:
    """Return an object whose ``uns["scdeconv"]`` has the records of scdeconv only; refuse others."""
    records = value.uns.get(keys.UNS, {})
    is_mapping = isinstance(records, Mapping)
    wrong = [name for name, record in records.items() if not _is_record(name, record)] if is_mapping else []
    if wrong or not is_mapping:
        where = f"uns[{keys.UNS!r}]" + (f"[{wrong[0]!r}]" if wrong else "")
        found = describe(records[wrong[0]] if wrong else records)
        wrong_value(f"Its {where} must be a dictionary that scdeconv wrote, found {found}. Delete it.")
    return value


def _is_record(name: str, record: Any) -> bool:
    return isinstance(record, str if name == keys.VALUES else Mapping)


def _accept_samples(value: Any) -> AnnData:
    if isinstance(value, MuData) and keys.BULK in value.mod:
        return _with_records(value[keys.BULK])
    return SAMPLES_ONLY.accept(value)


def _accept_paired(value: Any) -> MuData:
    if isinstance(value, MuData):
        bulk = value.mod.get(keys.BULK)
        if bulk is None or keys.DONOR not in bulk.obs or keys.MEASURED not in bulk.obsm:
            wrong_value("Make it from cells and bulk: mdata = scdeconv.pp.pair(cells, bulk).")
        _with_records(bulk)
        return _with_records(value)
    if isinstance(value, (str, os.PathLike)):
        wrong_type("Read a file with mudata.read_h5mu, or make it with scdeconv.pp.pair(cells, bulk).")
    wrong_type("Make it from cells and bulk first: mdata = scdeconv.pp.pair(cells, bulk).")


def _is_deconvolution_model(value: Any) -> bool:
    return is_model(value) and hasattr(value, "estimate")


def _accept_method(value: Any) -> Any:
    if isinstance(value, (str, type)) or _is_deconvolution_model(value):
        return value
    wrong_type("Pass one of scdeconv.tl.methods(), such as 'nnls'.")


def _accept_numbers(value: Any) -> Any:
    if isinstance(value, (AnnData, MuData)):
        wrong_type(f"Pass one of its tables, such as adata.obsm[{keys.FRACTIONS!r}].")
    if isinstance(value, (str, bytes, os.PathLike, Mapping)) or value is None or is_model(value):
        wrong_type("Pass a DataFrame or an array.")
    try:
        np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        wrong_type("Keep only the columns of numbers, and rows of equal length.")
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, (Collection, np.ndarray)) and not isinstance(value, str)


def _accept_history(value: Any) -> Any:
    if not isinstance(value, Mapping):
        wrong_type("Pass model.history." if is_model(value) else "Pass model.history of a method with epochs.")
    if any(str(name).endswith("_loss") and not isinstance(curve, pd.DataFrame) for name, curve in value.items()):
        wrong_type("Each loss must be a DataFrame with one column, indexed by epoch.")
    return value


SAMPLES_ONLY = annotated("an AnnData of bulk samples", keys.BULK)
SAMPLES = Rule(f"{SAMPLES_ONLY.expected}, or a MuData of scdeconv.pp.pair", _accept_samples)
CELLS = annotated("an AnnData of cells", keys.CELLS)
ANY_CELLS = either(instance("a MuData", lambda value: isinstance(value, MuData), ""), CELLS)
PROFILES = annotated("an AnnData of cell types × genes", keys.PROFILES, "Make it with scdeconv.pp.signature.")
PSEUDOBULK = annotated("an AnnData of donors × genes", keys.PSEUDOBULK)
REFERENCE = annotated("an AnnData of cells or cell types × genes", keys.CELLS)
PAIRED = Rule("a MuData of scdeconv.pp.pair", _accept_paired)
FRACTIONS = instance(
    "a DataFrame of fractions, an AnnData or a MuData of scdeconv.pp.pair",
    lambda value: isinstance(value, (pd.DataFrame, AnnData)) or (isinstance(value, MuData) and keys.BULK in value.mod),
    "Pass fractions, or bulk samples with fractions in obsm.",
)
ROWS = either(SAMPLES_ONLY, PAIRED)
MODEL = instance(
    "a trained model",
    _is_deconvolution_model,
    "Pass the model that scdeconv.tl.train returns, or load a saved one: scdeconv.load_model(path).",
)
METHOD = Rule("the name, class or instance of a method", _accept_method)
NUMBERS = Rule("a table of numbers", _accept_numbers)
CALIBRATION = instance(
    "a calibration", lambda value: hasattr(value, "draw_bulk"), "Pass the result of scdeconv.pp.calibrate(mdata)."
)
CONSTRAINTS = instance(
    "constraints of scdeconv.pp.constraints",
    lambda value: hasattr(value, "must_link") and hasattr(value, "cannot_link"),
    "Make them with scdeconv.pp.constraints(cells, ...).",
)
TUNING = instance("the result of scdeconv.tl.tune", lambda value: hasattr(value, "trials"), "Pass it, not its model.")
HISTORY = Rule("a mapping of losses by name", _accept_history)
FRAME = instance(
    "a DataFrame",
    lambda value: isinstance(value, pd.DataFrame),
    "Pass the table that scdeconv.tl.benchmark returns.",
)
KNOWN = instance(
    "a DataFrame of samples × cell types",
    lambda value: isinstance(value, pd.DataFrame),
    "Pass a DataFrame with sample names as index, cell types as columns, and NaN for unknown fractions.",
)
GENERATOR = instance(
    "a NumPy random generator",
    lambda value: isinstance(value, np.random.Generator),
    "Pass numpy.random.default_rng(seed).",
)
MAPPING = instance("a dictionary", lambda value: isinstance(value, Mapping), "Pass a dictionary.")
LABELS = instance(
    "a Series or list of labels",
    lambda value: isinstance(value, (pd.Series, pd.Index, pd.Categorical, list, tuple, np.ndarray)),
    "Pass one label for each cell.",
)
PAIRS = instance(
    "a DataFrame or a dictionary of pairs",
    lambda value: (
        isinstance(value, pd.DataFrame) or (isinstance(value, Mapping) and all(map(_is_list, value.values())))
    ),
    "Pass {'must_link': [(cell, cell), ...], 'cannot_link': [...]}.",
)
NAMES = instance(
    "a path, a column, a table or a dictionary",
    lambda value: isinstance(value, (str, os.PathLike, pd.Series, pd.DataFrame, Mapping)),
    "Pass one of them.",
)


def _is_axes(value: Any) -> bool:
    return all(hasattr(value, name) for name in AXES_METHODS)


AXES = instance("matplotlib axes", _is_axes, "Make axes with matplotlib.pyplot.subplots(), or omit the argument.")
MANY_AXES = instance(
    "an array or list of matplotlib axes",
    lambda value: (
        isinstance(value, (np.ndarray, list, tuple)) and all(map(_is_axes, np.ravel(np.array(value, object))))
    ),
    "Make axes with matplotlib.pyplot.subplots(), or omit the argument.",
)


def check_order(problems: Problems, inputs: Mapping[str, AnnData], cell_type_key: str) -> None:
    """Report bulk and cells that are exchanged: only the longer ``bulk`` has the column with the cell types."""
    cells, bulk = inputs.get("cells"), inputs.get("bulk")
    if cells is None or bulk is None or cell_type_key in cells.obs or cell_type_key not in bulk.obs:
        return
    if bulk.n_obs > cells.n_obs:
        problems.add(
            f"Expected cells with obs[{cell_type_key!r}] and bulk without, found {cells.n_obs} cells without and "
            f"{bulk.n_obs} bulk samples with this column. Exchange them: pair(cells, bulk)."
        )
