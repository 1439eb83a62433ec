"""The methods there are, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from scdeconv import models
from scdeconv._stats.markers import GENES_PER_TYPE


@dataclass(frozen=True)
class Method:
    """A method: where its class is, what it needs and where it comes from."""

    name: str
    class_name: str
    learns_from: Literal["pairs", "simulated", "profiles", "cells"]
    kind: str
    reference: str
    fraction_kind: Literal["cell", "rna"] = "cell"
    stochastic: bool = False
    # methods with a rule of their own for genes are not given a selection that the user did not make
    selects_genes: bool = False
    genes_per_type: int = GENES_PER_TYPE

    def load_class(self) -> Any:
        """Import the class of the method, which may take seconds where torch is needed."""
        return getattr(models, self.class_name)


METHODS = {
    method.name: method
    for method in (
        Method(
            "simplednn", "SimpleDNN", "pairs", "network", "SimpleDNN paper (2025)", stochastic=True, genes_per_type=150
        ),
        Method(
            "scaden",
            "Scaden",
            "simulated",
            "network",
            "Menden et al. 2020",
            stochastic=True,
            selects_genes=True,
        ),
        Method(
            "calibrated_nnls",
            "CalibratedNNLS",
            "profiles",
            "linear",
            "this library; weights after MuSiC, DWLS",
            genes_per_type=150,
        ),
        Method("ridge", "Ridge", "pairs", "linear", "this library", genes_per_type=150),
        Method(
            "simulation_ridge",
            "SimulationRidge",
            "pairs",
            "linear",
            "this library",
            stochastic=True,
            genes_per_type=150,
        ),
        Method("bisque", "Bisque", "pairs", "linear", "Jew et al. 2020"),
        Method(
            "ensemble",
            "WeightedEnsemble",
            "pairs",
            "ensemble",
            "this library",
            stochastic=True,
            genes_per_type=150,
        ),
        Method("music", "MuSiC", "cells", "linear", "Wang et al. 2019", selects_genes=True),
        Method("robust_nnls", "RobustNNLS", "profiles", "linear", "this library; after DWLS", genes_per_type=100),
        Method(
            "bayesprism",
            "BayesPrism",
            "profiles",
            "linear",
            "Chu et al. 2022; fixed point: Hu & Chikina 2024",
            fraction_kind="rna",
            selects_genes=True,
        ),
        Method("nnls", "NNLS", "profiles", "linear", "Lawson & Hanson 1974"),
        Method("dwls", "DWLS", "profiles", "linear", "Tsoucas et al. 2019; options after Rectangle"),
        Method(
            "nonnegative_ridge", "NonNegativeRidge", "profiles", "linear", "Hoerl & Kennard 1970; centre: this library"
        ),
        Method("robust_regression", "RobustRegression", "profiles", "linear", "Huber 1964"),
        Method("cibersort", "CIBERSORT", "profiles", "linear", "Newman et al. 2015", fraction_kind="rna"),
        Method("cibersortx", "CIBERSORTx", "profiles", "linear", "Newman et al. 2019", fraction_kind="rna"),
        Method("bseqsc", "BSEQsc", "cells", "linear", "Baron et al. 2016"),
        Method("mean_composition", "MeanComposition", "pairs", "baseline", "baseline"),
    )
}


def get_method(name: str) -> Method:
    """Return the method's record; raise ``ValueError`` with the known names for an unknown one."""
    if name not in METHODS:
        msg = f"Expected a method out of {sorted(METHODS)}, found {name!r}. See scdeconv.tl.methods()."
        raise ValueError(msg)
    return METHODS[name]


def methods() -> pd.DataFrame:
    """List the methods that :func:`scdeconv.tl.train` knows.

    Returns
    -------
    One row per method: what it learns from (pairs, simulated bulk, the reference's profiles or its cells), its kind, whether
    the fractions are shares of cells or of RNA, whether they depend on the seed, and the source.

    Examples
    --------
    >>> import scdeconv
    >>> "simplednn" in scdeconv.tl.methods().index
    True
    """
    columns = ["learns_from", "kind", "fraction_kind", "stochastic", "reference"]
    return pd.DataFrame(
        [[getattr(method, column) for column in columns] for method in METHODS.values()],
        index=pd.Index(METHODS, name="method"),
        columns=columns,
    )
