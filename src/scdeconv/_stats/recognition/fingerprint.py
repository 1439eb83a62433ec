"""Fingerprints of training samples: they recognise a sample, but do not contain its expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

# number of genes with the highest mean expression, and number of compared pairs of them; set by hand
N_GENES, N_PAIRS = 256, 256
# ratios of two genes are rounded to 1 / STEPS of a doubling (0.14 %): rounding of stored values changes them by less,
# sequencing the same library again by more
STEPS = 512
# number of codes; the code of a ratio is its number of steps modulo N_CODES, so that it does not tell the ratio
N_CODES = 256
# minimum share of equal codes of the same sample: rounding may move a code by one step, which is accepted
MIN_EQUAL = 0.95
# minimum number of compared pairs; two samples have equal codes of one pair with a probability of about 3 / N_CODES
MIN_PAIRS = 3


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of samples: ratios of pairs of genes, rounded and reduced modulo a small number.

    The ratios do not depend on the library size, and missing genes leave most of them unchanged.

    Parameters
    ----------
    pairs
        Positions of the two genes of each pair, pairs × 2.
    codes
        Codes of the ratios, samples × pairs; -1 if a gene is 0.
    """

    pairs: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, expression: np.ndarray) -> Self:
        """Return the fingerprints of samples (samples × genes, linear scale)."""
        pairs = _choose_pairs(expression)
        return cls(pairs=pairs, codes=_codes(expression, pairs))

    def find(self, expression: np.ndarray) -> np.ndarray:
        """Return the position of the same sample for each row of ``expression``; -1 for new samples.

        Parameters
        ----------
        expression
            Samples × genes, with the genes of :meth:`of`. Missing genes are NaN.
        """
        codes = _codes(expression, self.pairs)
        present = ~np.isnan(expression[:, self.pairs]).any(axis=2)
        found = np.full(len(codes), -1)
        for row, (code, here) in enumerate(zip(codes, present, strict=True)):
            compared = here & ((self.codes >= 0) | (code >= 0))
            distance = np.abs(self.codes - code) % N_CODES
            close = np.minimum(distance, N_CODES - distance) <= 1
            equal = (close & (self.codes >= 0) & (code >= 0) & compared).sum(axis=1)
            n_compared = compared.sum(axis=1)
            same = (n_compared >= MIN_PAIRS) & (equal >= MIN_EQUAL * n_compared)
            if same.any():
                found[row] = np.argmax(np.where(same, equal, -1))
        return found


def most_expressed(expression: np.ndarray) -> np.ndarray:
    """Return the positions of the genes with the highest mean expression, at most ``N_GENES``, in their order."""
    return np.sort(np.argsort(-expression.mean(axis=0), kind="stable")[:N_GENES])


def _choose_pairs(expression: np.ndarray) -> np.ndarray:
    """Return pairs of neighbours in the order of mean expression, of the most expressed genes first."""
    order = np.argsort(-expression.mean(axis=0), kind="stable")
    found: list[np.ndarray] = []
    n_found, offset = 0, 1
    while n_found < N_PAIRS and offset < len(order):
        found.append(np.column_stack([order[:-offset], order[offset:]])[: N_PAIRS - n_found])
        n_found += len(found[-1])
        offset += 1
    return np.concatenate(found) if found else np.empty((0, 2), dtype=int)


def _codes(expression: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    first, second = expression[:, pairs[:, 0]], expression[:, pairs[:, 1]]
    known = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones_like(first), where=known)
    codes = np.floor(np.log2(ratio) * STEPS).astype(np.int64) % N_CODES
    return np.where(known, codes, -1).astype(np.int16)
