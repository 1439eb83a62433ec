"""Learned state of a method: a frozen dataclass that predicts fractions from expression."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.conformal import spread_of

from ._usable import to_all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scdeconv._stats.known_parts import KnownParts


@dataclass(frozen=True)
class Estimate:
    """Estimates of bulk samples.

    Attributes
    ----------
    fractions
        Samples × cell types; rows sum to 1.
    members
        Fractions of each member of an ensemble, members × samples × cell types. None for a single model.
    noise
        Root mean square of the residual, relative to its expected value, length samples. None if the method does not
        estimate noise.
    resamples
        Fractions from resampled training data, resamples × samples × cell types. None if the method does not resample.

    Examples
    --------
    >>> import numpy as np
    >>> import scdeconv
    >>> estimate = scdeconv.models.Estimate(np.array([[0.25, 0.75]]), noise=np.array([1.1]))
    >>> estimate.fractions
    array([[0.25, 0.75]])
    >>> estimate.spread
    0.0
    """

    fractions: np.ndarray
    members: np.ndarray | None = None
    noise: np.ndarray | None = None
    resamples: np.ndarray | None = None

    @property
    def spread(self) -> np.ndarray | float:
        """Standard deviation over the members on the scale arcsin(sqrt(fraction)), samples × cell types; 0 without."""
        return spread_of(self.members)

    def on_all_rows(self, fractions: np.ndarray, usable: np.ndarray) -> Estimate:
        """Return the estimate with rows of NaN for the samples that are not usable.

        Parameters
        ----------
        fractions
            Fractions of all samples.
        usable
            Mask of the samples of this estimate.

        Returns
        -------
        All samples, without noise.
        """
        members, resamples = (
            None if each is None else np.stack([to_all_rows(one, usable) for one in each])
            for each in (self.members, self.resamples)
        )
        return Estimate(fractions, members, resamples=resamples)

    def sums(self, of: np.ndarray) -> Estimate:
        """Return the estimates of sums of cell types.

        Parameters
        ----------
        of
            Whether a cell type is part of a sum (0 or 1), cell types × sums.

        Returns
        -------
        Samples × sums.
        """
        members, resamples = (None if each is None else each @ of for each in (self.members, self.resamples))
        return Estimate(self.fractions @ of, members, self.noise, resamples)


@dataclass(frozen=True, kw_only=True)
class State:
    """Base class of the learned states: arrays and plain values only.

    A subclass is a frozen dataclass with ``predict``. Its fields are arrays, numbers, text, None, lists of these, or
    dataclasses of such fields; :meth:`~scdeconv.models.CrossFittedModel.save` writes them to files.

    Parameters
    ----------
    summary
        Description of the training data in one line; printed by :func:`scdeconv.tl.train`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import scdeconv
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Constant(scdeconv.models.State):
    ...     mean: np.ndarray
    ...
    ...     def predict(self, expression):
    ...         return np.tile(self.mean, (len(expression), 1))
    >>> Constant(mean=np.array([1.0, 3.0])).estimate(np.ones((1, 5))).fractions
    array([[0.25, 0.75]])
    """

    summary: str = ""

    @abstractmethod
    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return non-negative weights of the cell types.

        Parameters
        ----------
        expression
            Samples × genes of the model, linear scale. Missing genes are NaN in all samples.

        Returns
        -------
        Weights, samples × cell types. :meth:`estimate` clips them at 0 and divides them by their sum. Samples without
        a positive weight have no composition.
        """

    def estimate(self, expression: np.ndarray) -> Estimate:
        """Return fractions, members and noise of the samples.

        Parameters
        ----------
        expression
            As for :meth:`predict`.

        Returns
        -------
        Fractions and, for methods that estimate them, members and noise. NaN for samples with no positive weight.
        """
        weights = self.predict(expression)
        fractions = to_fractions(weights)
        fractions[~(weights > 0).any(axis=1)] = np.nan
        return Estimate(fractions)

    def estimate_given(self, expression: np.ndarray, known: KnownParts, estimate: Estimate) -> Estimate:
        """Return the estimate with known parts of the composition. The default scales the other types to the rest.

        Parameters
        ----------
        expression
            As for :meth:`predict`.
        known
            Exactly known parts of the samples.
        estimate
            Result of :meth:`estimate`.

        Returns
        -------
        Estimate with the values of the known parts.
        """
        members = None if estimate.members is None else np.stack([known.rescale(each) for each in estimate.members])
        return Estimate(known.rescale(estimate.fractions), members, estimate.noise)

    def fractions(self, expression: np.ndarray) -> np.ndarray:
        """Return the fractions of :meth:`estimate`. Override it if the other results of ``estimate`` are expensive.

        Parameters
        ----------
        expression
            As for :meth:`predict`.

        Returns
        -------
        Samples × cell types.
        """
        return self.estimate(expression).fractions

    def resample(self, expression: np.ndarray) -> np.ndarray | None:
        """Return the fractions from resampled training data, for prediction intervals without held-out donors.

        Parameters
        ----------
        expression
            As for :meth:`predict`.

        Returns
        -------
        Resamples × samples × cell types; None (the default) if the method does not resample.
        """
        return None

    def contributions(self, expression: np.ndarray, cell_types: Sequence[int]) -> Iterator[np.ndarray] | None:
        """Return the expression that comes from each cell type.

        Parameters
        ----------
        expression
            As for :meth:`predict`.
        cell_types
            Numbers of the cell types.

        Returns
        -------
        Iterator over the cell types: samples × genes, in the unit of ``expression``, NaN for missing genes. None (the
        default) if the method does not estimate expression.
        """
        return None

    @property
    def cohort_sd(self) -> np.ndarray | None:
        """SD of the estimated fractions over the training bulk, length cell types; None if the method lacks it."""
        return None

    def quality(self, expression: np.ndarray, fractions: np.ndarray) -> dict[str, np.ndarray] | None:
        """Return measures of the goodness of fit.

        Parameters
        ----------
        expression
            As for :meth:`predict`.
        fractions
            Estimated fractions, samples × cell types.

        Returns
        -------
        Dictionary from names to arrays of length samples; None (the default) if the method has no such measures.
        """
        return None
