"""Compositions with known parts: fractions, or sums of fractions, that were measured in a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from .conformal import HeldOut

if TYPE_CHECKING:
    from collections.abc import Iterator

# measurements drawn for each held-out sample if known values have standard errors; set by hand
N_DRAWS = 8


@dataclass(frozen=True)
class KnownParts:
    """Known fractions of parts of samples. A part is a cell type or a sum of cell types; parts are disjoint.

    Parameters
    ----------
    values
        Known fractions, samples × parts; NaN where unknown.
    se
        Standard errors, samples × parts; 0 for exact values.
    of
        Whether a cell type belongs to a part (0 or 1), cell types × parts.
    estimate_sd
        Standard deviation of the method's error of each part, length parts. Infinite: known values replace the estimate.
    """

    values: np.ndarray
    se: np.ndarray
    of: np.ndarray
    estimate_sd: np.ndarray

    @classmethod
    def none(cls, n_samples: int, n_types: int) -> KnownParts:
        """Return no known parts."""
        return cls(np.empty((n_samples, 0)), np.empty((n_samples, 0)), np.empty((n_types, 0)), np.empty(0))

    @property
    def known(self) -> np.ndarray:
        """Mask of the known values, samples × parts."""
        return ~np.isnan(self.values)

    @property
    def weights(self) -> np.ndarray:
        """Weight of the known value against the estimate, samples × parts: the share of its precision; 1 if exact."""
        estimate = np.broadcast_to(self.estimate_sd, self.se.shape)
        ratio = np.divide(self.se, estimate, out=np.zeros_like(self.se), where=(self.se > 0) & (estimate > 0))
        weights: np.ndarray = np.where((self.se > 0) & (estimate == 0), 0.0, 1 / (1 + ratio**2))
        return weights

    def take(self, rows: np.ndarray) -> KnownParts:
        """Return the known parts of some samples (mask or positions)."""
        return replace(self, values=self.values[rows], se=self.se[rows])

    def compromise(self, fractions: np.ndarray) -> KnownParts:
        """Return the precision-weighted means of known values and estimates, as exact values.

        Parameters
        ----------
        fractions
            Estimated fractions, samples × cell types, rows sum to 1.
        """
        sums = fractions @ self.of
        values = sums + self.weights * (self.values - sums)
        values = values / np.maximum(np.nansum(values, axis=1, keepdims=True), 1)
        return replace(self, values=values, se=np.zeros_like(self.se))

    def like(self, fractions: np.ndarray) -> KnownParts:
        """Return the known parts with the values that an estimate has given to them, as exact values.

        Parameters
        ----------
        fractions
            Estimates with the known parts, samples × cell types.
        """
        return replace(self, values=np.where(self.known, fractions @ self.of, np.nan), se=np.zeros_like(self.se))

    def rescale(self, fractions: np.ndarray) -> np.ndarray:
        """Return fractions with the known values; the other types are scaled to the rest.

        Parameters
        ----------
        fractions
            Estimated fractions, samples × cell types, rows sum to 1.

        Returns
        -------
        Samples × cell types, rows sum to 1. The types of a part keep their ratios. Types with an estimate of 0 share
        equally what their part, or the rest, must have. Rows of NaN stay NaN.
        """
        members = self._members()
        targets = np.nan_to_num(self.values)
        targets = np.column_stack([targets, members[:, :, -1].any(axis=1) * (1 - targets.sum(axis=1))])
        amounts = fractions[:, :, None] * members
        amounts = np.where((amounts.sum(axis=1, keepdims=True) == 0) & members, 1.0, amounts)
        totals = amounts.sum(axis=1, keepdims=True)
        shares = np.divide(amounts, totals, out=np.zeros_like(amounts), where=totals != 0)
        result = (shares * targets[:, None, :]).sum(axis=2)
        return result / result.sum(axis=1, keepdims=True)

    def _members(self) -> np.ndarray:
        """Return the types of each known part and, as the last part, all other types; samples × cell types × parts."""
        members = self.known[:, None, :] & (self.of > 0)
        return np.concatenate([members, ~members.any(axis=2, keepdims=True)], axis=2)

    def shared_equally(self, fractions: np.ndarray, tolerance: float) -> np.ndarray:
        """Return a mask of the samples in which :meth:`rescale` gives types with an estimate of 0 equal fractions.

        Parameters
        ----------
        fractions
            Estimates without the known parts, samples × cell types.
        tolerance
            Sum of such a part up to which it is ignored.
        """
        members = self._members()
        rest = 1 - np.nansum(self.values, axis=1)
        empty = (fractions[:, :, None] * members).sum(axis=1) == 0
        several = members.sum(axis=1) > 1
        mask: np.ndarray = (empty & several & (np.column_stack([self.values, rest]) > tolerance)).any(axis=1)
        return mask

    def patterns(self) -> Iterator[np.ndarray]:
        """Yield the positions of the samples with the same known parts and standard errors."""
        rows = np.where(self.known, self.se, -1.0)
        _, codes = np.unique(rows, axis=0, return_inverse=True)
        codes = np.ravel(codes)
        for code in range(codes.max(initial=-1) + 1):
            yield np.flatnonzero(codes == code)

    def given(self, held_out: HeldOut) -> HeldOut:
        """Return out-of-fold predictions rescaled as if the parts of the first sample were known of all held-out samples.

        Their known values are the measured fractions, with normal errors if the values have standard errors.
        """
        known, se = self.known[0], self.se[0]
        if not known.any():
            return held_out
        n_draws = N_DRAWS if (se[known] > 0).any() else 1
        measured = np.repeat(held_out.measured, n_draws, axis=0)
        errors = np.random.default_rng(0).standard_normal((len(measured), len(se))) * se
        values = np.where(known, np.clip(measured @ self.of + errors, 0, 1), np.nan)
        parts = replace(self, values=values, se=np.tile(se, (len(measured), 1)))

        def given(fractions: np.ndarray) -> np.ndarray:
            repeated = np.repeat(fractions, n_draws, axis=0)
            return parts.compromise(repeated).rescale(repeated)

        members = None if held_out.members is None else np.stack([given(each) for each in held_out.members])
        return HeldOut(measured, given(held_out.predicted), np.repeat(held_out.donors, n_draws), members)

    def bounds(
        self, fractions: np.ndarray, of: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return normal intervals of the sums that are a known part.

        Parameters
        ----------
        fractions
            Estimates with the known parts, samples × sums.
        of
            Whether a cell type belongs to a sum (0 or 1), cell types × sums.
        coverage
            Coverage of the intervals.

        Returns
        -------
        Lower and upper bounds (samples × sums; NaN for other sums), and the mask of the sums that are a known part.
        """
        same = (of[:, :, None] == self.of[:, None, :]).all(axis=0)
        mine = (self.known[:, None, :] & same).any(axis=2)
        variance = np.where(self.known, self.weights * self.se**2, 0.0)
        half_width = norm.ppf((1 + coverage) / 2) * np.sqrt(variance @ same.T)
        lower, upper = np.clip(fractions - half_width, 0, 1), np.clip(fractions + half_width, 0, 1)
        return np.where(mine, lower, np.nan), np.where(mine, upper, np.nan), mine

    def limit(self, lower: np.ndarray, upper: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds of sums of cell types, within what the exactly known values allow.

        Parameters
        ----------
        lower, upper
            Bounds, samples × sums.
        of
            Whether a cell type belongs to a sum (0 or 1), cell types × sums.
        """
        exact = self.known & (self.se == 0)
        if not exact.any():
            return lower, upper
        values = np.where(exact, self.values, 0.0)
        rest = 1 - values.sum(axis=1, keepdims=True)
        # samples × cell types
        is_free = ~(exact[:, None, :] & (self.of > 0)).any(axis=2)
        overlap = self.of.T @ of
        inside, touched = overlap == self.of.sum(axis=0)[:, None], overlap > 0
        low = values @ inside + np.where(is_free @ (1 - of) > 0, 0, rest)
        high = values @ touched + np.where(is_free @ of > 0, rest, 0)
        low, high = np.minimum(low, high).clip(0, 1), np.maximum(low, high).clip(0, 1)
        return np.clip(lower, low, high), np.clip(upper, low, high)

    def disagreement(self, fractions: np.ndarray) -> np.ndarray:
        """Return the differences of known values and estimates in standard deviations, samples × parts; NaN if unknown.

        Parameters
        ----------
        fractions
            Estimates without the known parts, samples × cell types.
        """
        total_sd = np.maximum(np.hypot(self.estimate_sd, self.se), np.finfo(float).tiny)
        difference: np.ndarray = np.abs(self.values - fractions @ self.of) / total_sd
        return difference


def error_of_parts(held_out: HeldOut | None, of: np.ndarray) -> np.ndarray:
    """Return the root mean squared out-of-fold error of each part (cell types × parts); infinite without held-out donors."""
    if held_out is None:
        return np.full(of.shape[1], np.inf)
    return np.sqrt((((held_out.predicted - held_out.measured) @ of) ** 2).mean(axis=0))
