"""Design matrix of the tests of groups: columns of ``obs`` with their checks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from scdeconv._data.checks import examples, nearest
from scdeconv._data.labels import as_categorical, as_labels, is_missing, spellings_of_one_label
from scdeconv._data.warnings import warn
from scdeconv._stats.rounding import deviations_from_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scdeconv._data.checks import Problems

# a column is collinear if less than this share of its norm is left beside the others (set by hand)
RANK_TOLERANCE = 1e-8
INTERCEPT = "intercept"


@dataclass(frozen=True)
class Design:
    """Design matrix: an intercept, the tested columns of the group, then the covariates.

    Parameters
    ----------
    matrix
        Samples × columns. Continuous variables have mean 0 and standard deviation 1, because rounding errors must not depend
        on their units.
    names
        Names of the columns. A categorical variable has one column for each level except the first, the reference.
    contrasts
        Names of the tested columns: ``"patient - control"`` for a level against the reference, or the name of a
        continuous variable.
    groups
        Group of each sample; None if the tested variable is continuous.
    unit
        Standard deviation of the tested variable if it is continuous, else 1. Effects are divided by it.
    """

    matrix: np.ndarray
    names: list[str]
    contrasts: list[str]
    groups: pd.Categorical | None
    unit: float

    @property
    def tested(self) -> np.ndarray:
        """Return the numbers of the tested columns."""
        return np.arange(1, 1 + len(self.contrasts))


def make_design(
    problems: Problems, obs: pd.DataFrame, group: str, covariates: Sequence[str], name: str = "adata.obs"
) -> Design | None:
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
    name
        The table in messages.
    """
    before = len(problems.messages)
    repeated = [column for column in dict.fromkeys(covariates) if [group, *covariates].count(column) > 1]
    if repeated:
        problems.add(
            f"Expected different columns in group and covariates, found {examples(repeated)} more than once. Remove the "
            "repeated names from covariates."
        )
    parts = {
        column: _columns_of(problems, obs, column, name, is_group=column == group)
        for column in dict.fromkeys([group, *covariates])
    }
    if len(problems.messages) > before:
        return None
    matrix = pd.concat([pd.DataFrame({INTERCEPT: 1.0}, obs.index), *parts.values()], axis=1)
    variable_of = [INTERCEPT, *(variable for variable, part in parts.items() for _ in part)]
    _report_collinear(problems, matrix.to_numpy(), variable_of)
    if len(problems.messages) > before:
        return None
    columns = matrix.to_numpy(), list(map(str, matrix))
    if is_continuous(obs[group]):
        return Design(*columns, [group], None, float(_deviations(obs[group]).std()))
    groups = as_categorical(obs[group])
    return Design(*columns, [f"{level} - {groups.categories[0]}" for level in groups.categories[1:]], groups, 1.0)


def is_continuous(values: pd.Series) -> bool:
    """Return whether a variable is continuous, i.e. has numbers that are not True and False."""
    return is_numeric_dtype(values.dtype) and not is_bool_dtype(values.dtype)


def _deviations(values: pd.Series) -> np.ndarray:
    """Return numbers less their mean; 0 if they differ by rounding errors only."""
    return deviations_from_mean(values.to_numpy(dtype=float))


def check_complete(problems: Problems, obs: pd.DataFrame, column: str, name: str) -> bool:
    """Return whether a column is there once, without missing and infinite values; report it if not.

    Warn of labels that are probably two spellings of one.
    """
    if column not in obs:
        problems.add(
            f"Expected {column!r} in {name}, found columns {sorted(map(str, obs.columns))[:30]}. "
            f"{nearest(column, [str(known) for known in obs.columns]) or 'Add the column.'}"
        )
        return False
    values = obs[column]
    if isinstance(values, pd.DataFrame):
        problems.add(f"Expected one column {column!r} in {name}, found {values.shape[1]}. Rename or remove the others.")
        return False
    if is_continuous(values):
        missing, words = ~np.isfinite(values.to_numpy(dtype=float, na_value=np.nan)), []
    else:
        labels = as_labels(values)
        missing = is_missing(labels)
        words = list(labels[missing].dropna().unique())
        _warn_of_spellings(labels[~missing].unique(), f"{name}[{column!r}]")
    if missing.any():
        as_group = f"If {examples(words)} is a group, rename it. " if words else ""
        problems.add(
            f"Expected a value of {name}[{column!r}] for every sample, found {int(missing.sum())} of {len(obs)} without: "
            f"{examples(obs.index[missing])}. {as_group}Fill them in, or remove these samples."
        )
    return not missing.any()


def _warn_of_spellings(labels: Sequence[str], name: str) -> None:
    groups = spellings_of_one_label(labels)
    if groups:
        found = "; ".join(" and ".join(map(repr, group)) for group in groups[:3])
        warn(
            f"Expected one spelling of each value of {name}, found several: {found}. They are different values here. Give them "
            "the same name if they mean the same."
        )


def _columns_of(problems: Problems, obs: pd.DataFrame, column: str, name: str, *, is_group: bool) -> pd.DataFrame:
    """Return the columns of one variable in the design matrix; report a variable that cannot be used."""
    if not check_complete(problems, obs, column, name):
        return pd.DataFrame(index=obs.index)
    if is_continuous(obs[column]):
        number = _deviations(obs[column])
        if not number.any():
            problems.add(_constant(obs, column, name, f"{obs[column].iloc[0]:g}"))
            return pd.DataFrame(index=obs.index)
        return pd.DataFrame({column: number / number.std()}, obs.index)
    levels = as_categorical(obs[column])
    sizes = levels.value_counts()
    if len(sizes) < 2:
        problems.add(_constant(obs, column, name, repr(str(levels.categories[0]))))
    small = [f"{level} (1 sample)" for level, size in sizes.items() if size < 2]
    if small and is_group and len(sizes) > 1:
        are_numbers = pd.to_numeric(pd.Series(levels.categories), errors="coerce").notna().all()
        advice = "Convert numbers that are stored as text with .astype(float). " if are_numbers else ""
        if obs[column].dtype.kind in "mM":
            advice = "Convert dates to numbers, such as days since the first. "
        problems.add(
            f"Expected at least 2 samples in every group of {name}[{column!r}], found {len(small)} of {len(sizes)} groups "
            f"with one: {examples(small)}. {advice}Merge groups, or remove these samples."
        )
    columns = {f"{column}[{level}]": (levels == level).astype(float) for level in levels.categories[1:]}
    return pd.DataFrame(columns, obs.index)


def _constant(obs: pd.DataFrame, column: str, name: str, value: str) -> str:
    return (
        f"Expected different values in {name}[{column!r}], found {value} in all {len(obs)} samples. Use another column, or "
        "add samples."
    )


def _report_collinear(problems: Problems, matrix: np.ndarray, variable_of: Sequence[str]) -> None:
    """Report variables that are linear combinations of others, and too few samples for the columns."""
    n_samples, n_columns = matrix.shape
    if n_samples <= n_columns:
        sizes = ", ".join(f"{size} of {variable!r}" for variable, size in Counter(variable_of).items())
        problems.add(
            f"Expected more samples than columns of the design, found {n_samples} samples and {n_columns} columns ({sizes}). "
            "Convert dates and numbers that are stored as text to numbers, remove covariates, or add samples."
        )
        return
    starts = [number for number, pair in enumerate(pairwise(variable_of), 1) if pair[0] != pair[1]]
    basis = np.ones((n_samples, 1)) / np.sqrt(n_samples)
    for start, stop in zip(starts, [*starts[1:], n_columns], strict=True):
        # scaled: the tolerance must not depend on the unit
        centred = matrix[:, start:stop] - matrix[:, start:stop].mean(axis=0)
        columns = centred / np.linalg.norm(centred, axis=0)
        left = columns - basis @ (basis.T @ columns)
        directions, sizes, _ = np.linalg.svd(left, full_matrices=False)
        if sizes.min() < RANK_TOLERANCE:
            others = list(dict.fromkeys(variable_of[1:start]))
            problems.add(
                f"Expected independent variables, found that {variable_of[start]!r} follows from {examples(others, n=10)}: "
                "their effects cannot be told apart. Remove one of them, or add samples in which they differ."
            )
        basis = np.hstack([basis, directions[:, sizes >= RANK_TOLERANCE]])


def block_donors(
    problems: Problems, design: Design, donors: pd.Series, name: str = "adata.obs"
) -> tuple[np.ndarray, np.ndarray, bool]:
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
    name
        The table in messages.

    Returns
    -------
    Matrix of full rank, numbers of the tested columns, and whether donors need a random intercept.
    """
    codes, known = pd.factorize(donors)
    column = f"{name}[{str(donors.name)!r}]"
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
