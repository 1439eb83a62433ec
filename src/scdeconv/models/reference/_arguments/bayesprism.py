"""Argument checks of BayesPrism: cell states, and genes that BayesPrism recommends to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.checks import examples
from scdeconv._data.gene_names import is_ensembl

if TYPE_CHECKING:
    from mudata import MuData

# excludes S6 kinases (RPS6K*) and RPS19BP*, which are not ribosomal proteins
NOISY_GENES = (
    r"^(?:M?RP[LS](?!6K|19BP)(?:P?\d|A)|MT[-.]|MALAT1$|XIST$|TSIX$"
    r"|(?:RPS4Y[12]|DDX3Y|UTY|USP9Y|KDM5D|EIF1AY|ZFY|TMSB4Y|NLGN4Y|TXLNGY|PRKY|SRY|AMELY|PCDH11Y|BCORP1)$|TTTY\d)"
)


def is_noisy(symbols: pd.Index) -> np.ndarray:
    """Return a mask of ribosomal, mitochondrial and sex-specific (XIST, TSIX, Y chromosome) genes, and MALAT1."""
    if is_ensembl(symbols):
        msg = (
            f"Expected gene symbols with drop_ribosomal=True, found Ensembl identifiers: {examples(symbols)}. "
            "Set var_names to symbols before pp.pair, or use drop_ribosomal=False and remove these genes before "
            "pp.pair."
        )
        raise ValueError(msg)
    return np.asarray(symbols.str.match(f"(?i){NOISY_GENES}"), dtype=bool)


def check_states(mdata: MuData, key: str) -> None:
    """Raise ``ValueError`` if cell states are missing or belong to more than one cell type."""
    obs = mdata[keys.CELLS].obs if keys.CELLS in mdata.mod else pd.DataFrame()
    if key not in obs or obs[key].isna().any():
        found = f"{obs[key].isna().sum()} cells without state" if key in obs else f"columns {list(obs)}"
        msg = (
            f"Expected the state of every cell in mdata['sc'].obs[{key!r}], found {found}. Add the states before "
            "pp.pair."
        )
        raise ValueError(msg)
    n_types = obs.groupby(obs[key].astype(str))[keys.CELL_TYPE].nunique()
    shared = n_types.index[n_types > 1]
    if len(shared):
        msg = (
            f"Expected each cell state in one cell type, found {len(shared)} states in several: {examples(shared)}. "
            "Add the cell type to the state name, such as 'T cycling' and 'B cycling'."
        )
        raise ValueError(msg)
