"""Design matrix of the tests of groups: columns of ``obs`` with their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import examples, nearest
from scdeconv._data.labels import as_categorical, as_labels, is_continuous, is_missing, spellings_of_one_label
from scdeconv._data.warnings import warn
from scdeconv._stats.rounding import deviations_from_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdeconv._data.checks import Problems

# a column is collinear if less than this share of its norm is left beside the others (set by hand)
RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Design:
    """Design matrix: an intercept, the tested columns of the group, then the covariates.

    Parameters
    ----------
    matrix
        Samples × columns. Continuous variables have mean 0 and standard deviation 1, because rounding errors must not depend
        on their units. A categorical variable has one column for each level except the first, the reference.
    contrasts
        Names of the tested columns: ``"patient - control"`` for a level against the reference, or the name of a
        continuous variable.
    groups
        Group of each sample; None if the tested variable is continuous.
    unit
        Standard deviation of the tested variable if it is continuous, else 1. Effects are divided by it.
    """

    matrix: np.ndarray
    contrasts: list[str]
    groups: pd.Categorical | None
    unit: float

    @property
    def tested(self) -> np.ndarray:
        """Return the numbers of the tested columns."""
        return np.arange(1, 1 + len(self.contrasts))


def make_design(problems: Problems, obs: pd.DataFrame, group: str, covariates: Sequence[str]) -> Design | None:
    """Return the design matrix of a group and covariates; None if there are problems.

    Numbers are continuous; text, categories, True and False are categorical. The reference of a categorical variable is
    its first category (of text: in alphabetical order).

    Parameters
    ----------
    problems
        Collects the messages: missing columns and values, groups of one sample, constant or collinear variables.
    obs
        Samples × variables.
    group
        Column to test.
    covariates
        Columns of the other variables.
    """
    before = len(problems.messages)
    repeated = [column for column in dict.fromkeys(covariates) if [group, *covariates].count(column) > 1]
    if repeated:
        problems.add(
            f"Expected different columns in group and covariates, found {examples(repeated)} more than once. Remove the "
            "repeated names from covariates."
        )
    columns = {
        variable: _columns_of(problems, obs, variable, is_group=variable == group)
        for variable in dict.fromkeys([group, *covariates])
    }
    if len(problems.messages) == before:
        _report_collinear(problems, columns)
    if len(problems.messages) > before:
        return None
    matrix = np.hstack([np.ones((len(obs), 1)), *columns.values()])
    if is_continuous(obs[group]):
        return Design(matrix, [group], None, float(_deviations(obs[group]).std()))
    groups = as_categorical(obs[group])
    return Design(matrix, [f"{level} - {groups.categories[0]}" for level in groups.categories[1:]], groups, 1.0)


def _deviations(values: pd.Series) -> np.ndarray:
    """Return numbers less their mean; 0 if they differ by rounding errors only."""
    return deviations_from_mean(values.to_numpy(dtype=float))


def check_complete(problems: Problems, obs: pd.DataFrame, column: str) -> bool:
    """Return whether a column of ``obs`` is there once, without missing and infinite values; report it if not.

    Warn of labels that are probably two spellings of one.
    """
    if column not in obs:
        problems.add(
            f"Expected {column!r} in adata.obs, found columns {sorted(map(str, obs.columns))[:30]}. "
            f"{nearest(column, [str(known) for known in obs.columns]) or 'Add the column.'}"
        )
        return False
    values = obs[column]
    if isinstance(values, pd.DataFrame):
        problems.add(
            f"Expected one column {column!r} in adata.obs, found {values.shape[1]}. Rename or remove the others."
        )
        return False
    if is_continuous(values):
        missing, words = ~np.isfinite(values.to_numpy(dtype=float, na_value=np.nan)), []
    else:
        labels = as_labels(values)
        missing = is_missing(labels)
        words = list(labels[missing].dropna().unique())
        _warn_of_spellings(list(labels[~missing].unique()), column)
    if missing.any():
        as_group = f"If {examples(words)} is a group, rename it. " if words else ""
        problems.add(
            f"Expected a value of adata.obs[{column!r}] for every sample, found {int(missing.sum())} of {len(obs)} without: "
            f"{examples(obs.index[missing])}. {as_group}Fill them in, or remove these samples."
        )
    return not missing.any()


def _warn_of_spellings(labels: Sequence[str], column: str) -> None:
    """Warn of labels that differ only in case, spaces, dots, dashes, underscores or leading zeros."""
    groups = spellings_of_one_label(labels)
    if groups:
        found = "; ".join(" and ".join(map(repr, group)) for group in groups[:3])
        warn(
            f"Expected one spelling of each value of adata.obs[{column!r}], found several: {found}. They are different values here. "
            "Give them the same name if they mean the same."
        )


def _columns_of(problems: Problems, obs: pd.DataFrame, variable: str, *, is_group: bool) -> np.ndarray:
    """Return the columns of one variable in the design matrix; report a variable that cannot be used."""
    nothing = np.empty((len(obs), 0))
    if not check_complete(problems, obs, variable):
        return nothing
    values = obs[variable]
    if is_continuous(values):
        number = _deviations(values)
        if not number.any():
            problems.add(_constant(obs, variable, f"{values.iloc[0]:g}"))
            return nothing
        return (number / number.std())[:, None]
    levels = as_categorical(values)
    sizes = levels.value_counts()
    if len(sizes) < 2:
        problems.add(_constant(obs, variable, repr(str(levels.categories[0]))))
    small = [f"{level} (1 sample)" for level, size in sizes.items() if size < 2]
    if small and is_group and len(sizes) > 1:
        are_numbers = pd.to_numeric(pd.Series(levels.categories), errors="coerce").notna().all()
        advice = "Convert numbers that are stored as text with .astype(float). " if are_numbers else ""
        if values.dtype.kind in "mM":
            advice = "Convert dates to numbers, such as days since the first. "
        problems.add(
            f"Expected at least 2 samples in every group of adata.obs[{variable!r}], found {len(small)} of {len(sizes)} groups "
            f"with one: {examples(small)}. {advice}Merge groups, or remove these samples."
        )
    return np.eye(len(sizes))[levels.codes][:, 1:]


def _constant(obs: pd.DataFrame, variable: str, value: str) -> str:
    return (
        f"Expected different values in adata.obs[{variable!r}], found {value} in all {len(obs)} samples. Use another column, or "
        "add samples."
    )


def _report_collinear(problems: Problems, columns: dict[str, np.ndarray]) -> None:
    """Report variables that are linear combinations of others, and too few samples for the columns (samples × columns)."""
    sizes = {variable: part.shape[1] for variable, part in columns.items()}
    n_samples, n_columns = len(next(iter(columns.values()))), 1 + sum(sizes.values())
    if n_samples <= n_columns:
        of_variables = ", ".join(f"{size} of {variable!r}" for variable, size in sizes.items())
        problems.add(
            f"Expected more samples than columns of the design, found {n_samples} samples and {n_columns} columns (1 of the "
            f"intercept, {of_variables}). Convert dates and numbers that are stored as text to numbers, remove covariates, or "
            "add samples."
        )
        return
    basis, others = np.ones((n_samples, 1)) / np.sqrt(n_samples), list[str]()
    for variable, part in columns.items():
        centred = part - part.mean(axis=0)
        scaled = centred / np.linalg.norm(centred, axis=0)
        directions, lengths, _ = np.linalg.svd(scaled - basis @ (basis.T @ scaled), full_matrices=False)
        if lengths.min() < RANK_TOLERANCE:
            problems.add(
                f"Expected independent variables, found that {variable!r} follows from {examples(others, n=10)}: their effects "
                "cannot be told apart. Remove one of them, or add samples in which they differ."
            )
        basis = np.hstack([basis, directions[:, lengths >= RANK_TOLERANCE]])
        others.append(variable)


def block_donors(problems: Problems, design: Design, donors: pd.Series) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the design matrix for repeated samples of donors.

    If the tested variable differs between the samples of each donor, donors are blocks: each has an own intercept, and only
    differences within donors count. Covariates that are constant within donors are then left out. Otherwise donors need a
    random intercept.

    Parameters
    ----------
    problems
        Collects the messages.
    design
        Design without donors.
    donors
        Donor of each sample.

    Returns
    -------
    Matrix of full rank, numbers of the tested columns, and whether donors need a random intercept.
    """
    codes, known = pd.factorize(donors)
    column = f"adata.obs[{str(donors.name)!r}]"
    if len(known) == len(codes):
        problems.add(
            f"Expected several samples of a donor in {column}, found {len(known)} donors of {len(codes)} samples. Omit paired_by."
        )
    tested, others = design.matrix[:, design.tested], design.matrix[:, 1 + len(design.tested) :]
    if design.groups is not None:
        few = [str(level) for level in design.groups.categories if len(set(codes[design.groups == level])) < 2]
        if few:
            problems.add(
                f"Expected at least 2 donors of {column} in every group, found one in {examples(few)}. Merge groups, or "
                "remove these samples."
            )
    within = _within(tested, codes)
    if not all((within[codes == code] != 0).any() for code in range(len(known))):
        return design.matrix, design.tested, True
    blocks = np.eye(len(known))[codes]
    kept = [blocks, tested]
    for covariate in others.T:
        if np.linalg.matrix_rank(np.column_stack([*kept, covariate])) > sum(part.shape[1] for part in kept):
            kept.append(covariate[:, None])
    matrix = np.hstack(kept)
    if np.linalg.matrix_rank(matrix) < matrix.shape[1] or len(matrix) <= matrix.shape[1]:
        return design.matrix, design.tested, True
    return matrix, np.arange(len(known), len(known) + tested.shape[1]), False


def _within(columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return columns less their mean over the samples of a donor; exactly 0 if they do not differ."""
    means = np.array([columns[codes == code].mean(axis=0) for code in range(codes.max() + 1)])
    return np.where(np.isclose(columns, means[codes], rtol=1e-9, atol=0), 0, columns - means[codes])
