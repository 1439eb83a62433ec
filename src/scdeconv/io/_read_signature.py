"""Reader of signatures in text and Excel files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import Problems, check_cell_type_names, check_expression, check_names, checked, examples
from scdeconv._data.gene_names import strip_versions
from scdeconv._data.warnings import warn
from scdeconv._stats.markers import condition_number, marker_ratio
from scdeconv.io._tables import Choice, read_fields, sort_out, to_table

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

# sum of a profile in TPM or CPM
PER_MILLION = 1e6
# condition number at which a bulk error of 1 % can become a fraction error of 100 %
MAX_CONDITION_NUMBER = 100


@checked()
def read_signature(
    path: str | os.PathLike[str],
    *,
    cell_sizes: Mapping[str, float] | None = None,
    header: bool | None = None,
    drop: str | Sequence[str] | None = None,
    annotation: str | Sequence[str] | None = None,
) -> AnnData:
    r"""Read a signature from a text or Excel file, for example LM22 or the output of CIBERSORTx.

    The file has one header row and one column of names; it is read like the tables of :func:`read_bulk`. The gene axis
    is detected by gene names; otherwise the longer axis is read as genes. Columns that describe genes are kept in
    ``var``, totals are left out, and a printed line says so.

    Parameters
    ----------
    path
        File with expression on a linear scale and in the same unit for all types: TPM, CPM or normalised intensities.
    cell_sizes
        RNA per cell of each type, in counts (mean UMIs). Default: the same for all types. Fractions are then in the
        unit of the file. For TPM or CPM, these are shares of RNA instead of cells
        (:func:`scdeconv.tl.convert_fractions`).
    header
        Whether the first line has the names of the columns. Default: detect it.
    drop
        Columns or rows to leave out.
    annotation
        Columns to keep in ``var`` instead of reading them as cell types. If ``drop`` or ``annotation`` is passed, even
        as an empty list, all other columns of numbers are read as cell types.

    Returns
    -------
    AnnData, cell types × genes, as from :func:`scdeconv.pp.signature`

    - ``X``: the values of the file. With ``cell_sizes``, they are multiplied by size / 1e6 (TPM to counts per cell);
    - ``obs["cell_type"]``, ``obs["cell_size_umi"]`` and ``obs["total"]``: type and cell size, 1e6 if not given;
    - ``var["marker_of"]``, ``var["score"]``: the type with the highest expression and its log2 ratio to the second;
    - ``var``: other columns of the file, such as ``gene_name``;
    - ``uns["scdeconv"]["signature"]``: file name, number of genes, condition number.

    Raises
    ------
    ValueError
        If the file or the sizes have errors; all are listed: rows of different length, repeated genes or types,
        non-numeric fields, missing, negative or log-transformed values, columns that look like something else than cell
        types.
    FileNotFoundError
        If the file does not exist.

    Warns
    -----
    UserWarning
        If cell types are so similar that fractions depend on small errors of bulk (condition number above 100).

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import scdeconv
    >>> path = Path(mkdtemp(), "signature.csv")
    >>> _ = path.write_text("gene,B,T\nMS4A1,310.5,2\nCD3E,1,120\nCD19,40,0\n")
    >>> signature = scdeconv.pp.read_signature(path, cell_sizes={"B": 4000, "T": 3000})
    >>> float(signature.to_df().loc["T", "CD3E"]), list(signature.var["marker_of"])
    (0.36, ['B', 'T', 'B'])
    """
    path = Path(path)
    problems = Problems(f"{path} cannot be read as a signature")
    choice = Choice.of(drop, annotation)
    fields = read_fields(path, problems, header=header)
    table = None if fields is None else to_table(fields, None, choice, problems, longer_is_genes=True, missing=True)
    problems.raise_if_any()
    assert table is not None
    choice.report_unknown(problems)
    sort_out(table, choice, problems, "cell types")
    if min(table.values.shape) < 2:
        problems.add(
            f"Expected a table of at least 2 genes and 2 cell types with their names in {path}, found "
            f"{table.values.shape[1]} genes and {table.values.shape[0]} cell types. Separate the columns by tabs, commas "
            "or semicolons."
        )
        problems.raise_if_any()
    if table.notes:
        print("; ".join([f"read_signature: {path.name}", *table.notes]))

    profiles, cell_types = table.values.astype(float), table.obs.index
    genes = strip_versions(table.var.index)
    check_names(problems, pd.Index([]), genes, "the signature")
    check_cell_type_names(problems, cell_types, "the signature")
    adata = make_adata(obs=pd.DataFrame(index=cell_types), var=pd.DataFrame(index=genes))
    # shares of RNA are at most 1: small values do not indicate a log scale
    check_expression(problems, adata, profiles, "the signature", may_be_small=bool(np.nanmax(profiles) <= 1))
    size = pd.Series(PER_MILLION if cell_sizes is None else dict(cell_sizes), index=cell_types.unique(), dtype=float)
    unknown = list(size.index[~((size > 0) & np.isfinite(size))])
    if unknown:
        problems.add(
            f"Expected a positive cell size of every type, found none for {examples(unknown)}. cell_sizes has "
            f"{examples(cell_sizes or {})}. Add the missing types with the names of the file."
        )
    problems.raise_if_any()

    # an additional gene makes all sums equal, so that marker_ratio compares values in the unit of the file
    rest = profiles.sum(axis=1, keepdims=True).max() - profiles.sum(axis=1, keepdims=True)
    kinds, score = (found[:-1] for found in marker_ratio(np.hstack([profiles, rest])))
    return make_signature(
        profiles * size.to_numpy()[:, None] / PER_MILLION,
        pd.DataFrame({keys.CELL_SIZE: size}),
        table.var.set_axis(genes, axis=0).assign(marker_of=kinds, score=score),
        {"criterion": "file", "file": path.name, "cell_sizes": cell_sizes is not None},
    )


def make_signature(profiles: np.ndarray, obs: pd.DataFrame, var: pd.DataFrame, record: dict[str, Any]) -> AnnData:
    """Return a signature; ``obs`` has cell sizes indexed by type, and ``var["marker_of"]`` has cell-type codes."""
    size = obs[keys.CELL_SIZE].to_numpy(dtype=float)
    # the total is over all genes
    obs = obs.assign(cell_type=obs.index, total=size)
    var = var.assign(marker_of=pd.Categorical.from_codes(var["marker_of"].to_numpy(), obs.index))
    condition = condition_number(profiles / size[:, None])
    if condition > MAX_CONDITION_NUMBER:
        warn(
            f"Expected a condition number of the signature of at most {MAX_CONDITION_NUMBER}, found {condition:.3g}: a "
            f"bulk error of 1 % can become a fraction error of {condition:.3g} %. Merge similar cell types or choose "
            "other genes."
        )
    signature = make_adata(profiles, obs=obs, var=var)
    signature.uns[keys.UNS] = {"signature": {**record, "n_genes": len(var), "condition_number": condition}}
    return signature
