"""Mean platform shifts of public data sets, a prior for other data sets of the same protocols."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import pandas as pd

from scdeconv._data.checks import checked
from scdeconv._data.checks.arguments.rules import choice

# the table has short decimals; a smaller variance of the true shifts would be rounding
MIN_SHIFT_VARIANCE = 0.01
CELLS, BULK = ("10x 3'", "10x 3' nuclei"), ("poly-A",)


@checked(cells=choice(CELLS), bulk=choice(BULK))
def platform_shift_prior(
    cells: Literal["10x 3'", "10x 3' nuclei"] = "10x 3'", bulk: Literal["poly-A"] = "poly-A"
) -> pd.DataFrame:
    """Return the mean shift of each gene between single cells and bulk in public data sets.

    The shift of a gene is its log expression in bulk (TPM) minus that in single cells of the same composition, with
    median 0 over genes. :class:`scdeconv.models.RobustNNLS` uses it as the expected shift.

    Parameters
    ----------
    cells
        Protocol of the single cells: whole cells with reads from the 3' end (10x, Drop-seq, CEL-seq2), or nuclei.
    bulk
        Protocol of the bulk.

    Returns
    -------
    DataFrame with one row per gene (symbol): ``gene_id`` (Ensembl), ``log_length`` (log ratio of counts to TPM in bulk,
    the effect of the gene's length), ``mean`` (mean log shift), ``variance`` (variance between data sets), ``n_sets``
    (effective number of data sets; one of the other protocol counts a quarter) and ``expected`` (mean, shrunk to 0 by
    the variance between data sets).

    Notes
    -----
    Data sets: blood (Finotello et al. 2019, Hoek et al. 2015, cells of Hao et al. 2021), cell lines (Tian et al. 2019,
    Holik et al. 2017), ovarian tumours (Hippen et al. 2023), retina (Guo et al. 2025). Only means over samples are in
    the table. It is made by ``benchmarks/platform_shifts.py``.

    Examples
    --------
    >>> import scdeconv
    >>> prior = scdeconv.datasets.platform_shift_prior(cells="10x 3'", bulk="poly-A")
    >>> bool(prior.loc["MALAT1", "mean"] < prior.loc["CD4", "mean"])
    True
    """
    return select_shifts(_read_table(), cells)


@cache
def _read_table() -> pd.DataFrame:
    with files("scdeconv.datasets").joinpath("platform_shifts.csv.gz").open("rb") as file:
        return pd.read_csv(file, index_col="gene", compression="gzip", keep_default_na=False, na_values=[""])


def select_shifts(table: pd.DataFrame, cells: str) -> pd.DataFrame:
    """Return the rows and columns of a protocol of the cells, with the expected shift of a further data set.

    Parameters
    ----------
    table
        Table of all protocols, as in the package.
    cells
        As for :func:`platform_shift_prior`.
    """
    columns = {f"{cells}|{name}": name for name in ("mean", "variance", "n_sets")}
    found = table[["gene_id", "log_length", *columns]].rename(columns=columns)
    known = found.dropna(subset="mean")
    error = known["variance"] / known["n_sets"]
    # method of moments
    variance = max(float((known["mean"] ** 2).mean() - error.mean()), MIN_SHIFT_VARIANCE)
    return found.assign(expected=known["mean"] * variance / (variance + error))
