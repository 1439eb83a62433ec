"""Result of the comparison of groups: sentences and table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scdeconv._data.keys import COMPARED, UNS

from .numbers import number, p_value
from .tables import Cell, Grid, Row

if TYPE_CHECKING:
    from anndata import AnnData

    from .citations import Citations

# false discovery rate up to which a type is named and highlighted
MAX_FALSE_DISCOVERY_RATE = 0.05
# what the weights of the samples are from
WEIGHTS = {
    "intervals": ", weighted by the width of the prediction intervals,",
    "measured_variance": ", weighted by the sampling variance of the measured fractions,",
}


def find_comparison(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Return the record of :func:`scdeconv.tl.compare_fractions`; None if this estimate was not compared."""
    record = adata.uns.get(UNS, {}).get(COMPARED)
    return record if record is not None and record["key"] == key else None


def finding(record: dict[str, Any]) -> str:
    """Return which cell types differ."""
    table = record["table"]
    found = table[table["q_value"] <= MAX_FALSE_DISCOVERY_RATE].sort_values("p_value")
    compared = f"Compared by {record['group']}{_sizes(record)}"
    if found.empty:
        return f"{compared}: no cell type differs at a false discovery rate of {MAX_FALSE_DISCOVERY_RATE:.0%}."
    columns = (found[name] for name in ("cell_type", "contrast", "ratio"))
    named = [f"{name} ({contrast}, ratio {number(ratio)})" for name, contrast, ratio in zip(*columns, strict=True)]
    return (
        f"{compared}: at a false discovery rate of {MAX_FALSE_DISCOVERY_RATE:.0%}, {len(named)} of {len(table)} comparisons "
        f"differ: {'; '.join(named)}."
    )


def comparison_grid(record: dict[str, Any]) -> Grid:
    """Return the table of the effects; those below the false discovery rate are highlighted."""
    table = record["table"].sort_values("p_value")
    rows = [_row(row) for row in table.to_dict("records")]
    columns = ["ratio", "change in percentage points", "p", "false discovery rate"]
    return Grid(f"Change with {record['group']}", "cell type", ["contrast"], columns, rows)


def _row(values: dict[str, Any]) -> Row:
    cells = [
        Cell(str(values["contrast"])),
        *(
            Cell(number(values[name]), f"{number(values[f'{name}_lower'])} to {number(values[f'{name}_upper'])}")
            for name in ("ratio", "points")
        ),
        *(Cell(p_value(values[name])) for name in ("p_value", "q_value")),
    ]
    return Row(str(values["cell_type"]), cells, values["q_value"] <= MAX_FALSE_DISCOVERY_RATE)


def comparison_methods(record: dict[str, Any], citations: Citations) -> str:
    """Return the sentences for the methods section of a paper."""
    covariates = ", ".join(map(str, record["covariates"]))
    donors = f" Samples of a donor: {record['donors']}." if "paired_by" in record else ""
    return (
        f"The composition was compared by {record['group']}{_sizes(record)}"
        f"{f', adjusted for {covariates}' if covariates else ''}, on log-ratios of each cell type to types that do not "
        f"change{citations.cite('Aitchison1982')}, by generalised least squares{WEIGHTS.get(record['errors'], '')} with "
        f"standard errors that are robust against unequal variances{citations.cite('Pustejovsky2018')}.{donors} False "
        f"discovery rates were computed over the cell types{citations.cite('Benjamini1995')}."
    )


def _sizes(record: dict[str, Any]) -> str:
    """Return the number of samples in each group, or of all if the variable is continuous."""
    sizes = ", ".join(f"{size} {level}" for level, size in zip(record["groups"], record["group_sizes"], strict=True))
    return f" ({sizes})" if sizes else f" ({record['n_samples']} samples)"
