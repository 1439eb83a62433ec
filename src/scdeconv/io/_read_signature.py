"""Signatures that come as text files."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.genes import strip_versions
from scdeconv._data.validation import Problems, check_cell_type_names, check_expression, check_names, examples
from scdeconv._data.warnings import warn
from scdeconv._stats.markers import condition_number, marker_ratio

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from anndata import AnnData

# the total of a cell, in counts, that columns per million amount to
MILLION = 1e6
# beyond, an error of 1 % of the bulk, about the least there is, may become one of 100 % of the fractions
LARGEST_CONDITION = 100


def read_rows(path: Path) -> list[list[str]]:
    """Return the fields of a text file, gzipped or not, split at tabs, else at the commoner of comma and semicolon."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        msg = f"Expected a table as text (UTF-8) in {path}, found other bytes. Export it as CSV."
        raise ValueError(msg) from None
    header = next((line for line in lines if line.strip()), "")
    # names of cell types have commas ("T cells, CD4") and never tabs
    separator = "\t" if "\t" in header else max(",;", key=header.count)
    rows = [row for row in csv.reader(lines, delimiter=separator) if any(field.strip() for field in row)]
    if len(rows) > 1 and len(rows[0]) == len(rows[1]) - 1:
        # R's write.table leaves out the corner
        rows[0].insert(0, "")
    return [[field.strip() for field in row] for row in rows]


def read_signature(path: str | os.PathLike[str], *, cell_sizes: Mapping[str, float] | None = None) -> AnnData:
    r"""Read a signature from a text file: LM22, the output of CIBERSORTx, a table of your own.

    One row of names and one column of names, the numbers between; separated by tabs, commas or semicolons, gzipped or
    not. Genes are many: whichever of rows and columns are more are the genes.

    Parameters
    ----------
    path
        File with expression on a linear scale, in a unit that is the same for all types: TPM, CPM, normalised
        intensities.
    cell_sizes
        RNA per cell of each type, in counts (mean UMIs). Without them every cell is taken to hold the same: the
        fractions are then in the unit of the file, which for TPM or CPM are shares of RNA, not of cells
        (:func:`scdeconv.tl.convert_fractions`).

    Returns
    -------
    AnnData, cell types × genes, as from :func:`scdeconv.pp.signature`

    - ``X``: the values of the file, with ``cell_sizes`` times size / 1e6, so that TPM become counts per cell;
    - ``obs["cell_type"]``, ``obs["cell_size_umi"]`` and ``obs["total"]``: the sizes, one million where not given;
    - ``var["marker_of"]``, ``var["score"]``: the type that expresses a gene most, and log2 of its lead on the second;
    - ``uns["scdeconv"]["signature"]``: name of the file, number of genes, condition number.

    Raises
    ------
    ValueError
        One report of everything wrong in the file or the sizes: rows of different length, repeated genes or types,
        fields that are no numbers, missing, negative or log-transformed values.

    Warns
    -----
    UserWarning
        Where cell types resemble each other so much that fractions depend on small errors of the bulk.

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
    rows = read_rows(Path(path))
    problems = Problems(f"{path} cannot be read as a signature")
    uneven = [row[0] for row in rows if len(row) != len(rows[0])]
    if len(rows) < 3 or len(rows[0]) < 3:
        problems.add(
            f"Expected a table of at least 2 genes and 2 cell types with their names, found {len(rows)} rows and "
            f"{len(rows[0]) if rows else 0} columns. Separate the columns by tabs, commas or semicolons."
        )
    elif uneven:
        problems.add(
            f"Expected {len(rows[0])} fields in every row, found {len(uneven)} rows with more or fewer: "
            f"{examples(uneven)}. Quote names that contain the separator."
        )
    problems.raise_if_any()

    text = pd.DataFrame([row[1:] for row in rows[1:]], [row[0] for row in rows[1:]], rows[0][1:])
    if len(text) >= text.shape[1]:
        text = text.T
    fields = text.to_numpy().ravel()
    values = pd.to_numeric(pd.Series(fields), errors="coerce").to_numpy(dtype=float)
    wrong = fields[np.isnan(values) & ~np.isin([field.lower() for field in fields], ["", "na", "nan"])]
    profiles, cell_types, genes = values.reshape(text.shape), text.index, strip_versions(text.columns)
    check_names(problems, pd.Index([]), genes, "the signature")
    check_cell_type_names(problems, cell_types, "the signature")
    if len(wrong):
        problems.add(
            f"Expected numbers between the names, found {len(wrong)} fields with something else: {examples(wrong)}. "
            "Remove other columns than the cell types, and write decimals with a point."
        )
    else:
        table = make_adata(obs=pd.DataFrame(index=cell_types), var=pd.DataFrame(index=genes))
        # shares of RNA are small, too, and never above 1
        check_expression(problems, table, profiles, "the signature", may_be_small=bool(np.nanmax(profiles) <= 1))
    size = pd.Series(MILLION if cell_sizes is None else dict(cell_sizes), index=cell_types.unique(), dtype=float)
    unknown = list(size.index[~((size > 0) & np.isfinite(size))])
    if unknown:
        problems.add(
            f"Expected a positive cell size of every type, found none for {examples(unknown)}; cell_sizes has "
            f"{examples(cell_sizes or {})}. Add them, named as in the file."
        )
    problems.raise_if_any()

    # a gene for the rest makes the types' sums equal: they compare in the unit of the file, not as shares of few genes
    rest = profiles.sum(axis=1, keepdims=True).max() - profiles.sum(axis=1, keepdims=True)
    kinds, score = (found[:-1] for found in marker_ratio(np.hstack([profiles, rest])))
    return make_signature(
        profiles * size.to_numpy()[:, None] / MILLION,
        pd.DataFrame({keys.CELL_SIZE: size}),
        pd.DataFrame({"marker_of": kinds, "score": score}, index=genes),
        {"criterion": "file", "file": Path(path).name, "cell_sizes": cell_sizes is not None},
    )


def make_signature(profiles: np.ndarray, obs: pd.DataFrame, var: pd.DataFrame, record: dict[str, Any]) -> AnnData:
    """Put together a signature; ``obs`` is indexed by type, with the cell sizes, ``var["marker_of"]`` holds codes."""
    size = obs[keys.CELL_SIZE].to_numpy(dtype=float)
    # total over all genes, not over the markers
    obs = obs.assign(cell_type=obs.index, total=size)
    var = var.assign(marker_of=pd.Categorical.from_codes(var["marker_of"].to_numpy(), obs.index))
    condition = condition_number(profiles / size[:, None])
    if condition > LARGEST_CONDITION:
        warn(
            f"The condition number of the signature is {condition:.3g}: an error of 1 % of the bulk may become one of "
            f"{condition:.3g} % of the fractions. Merge cell types that resemble each other, or choose other genes."
        )
    signature = make_adata(profiles, obs=obs, var=var)
    signature.uns[keys.UNS] = {"signature": {**record, "n_genes": len(var), "condition_number": condition}}
    return signature
