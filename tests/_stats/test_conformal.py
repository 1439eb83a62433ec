"""Prediction intervals: empirical coverage, and bounds compared with explicit loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.conformal import PRIOR_DONORS, HeldOut, angle, spread_of

N_DONORS, N_TYPES = 13, 7


def draw(rng, n, sd, donor_sd=0.5):
    """True fractions and predictions with errors that differ between types and between donors."""
    measured = rng.dirichlet([8, 4, 3, 2, 1.5, 1, 0.6], n)
    errors = rng.normal(size=(n, N_TYPES)) * sd * rng.lognormal(0, donor_sd, (n, 1))
    return measured, np.sin(np.clip(np.arcsin(np.sqrt(measured)) + errors, 0, np.pi / 2)) ** 2


def held_out(rng, sd, n=N_DONORS):
    return HeldOut(*draw(rng, n, sd), np.array([f"D{i}" for i in range(n)]))


def type_sd(rng):
    return rng.lognormal(np.log(0.05), 0.6, N_TYPES)


def mean_coverage(coverage, repetitions=600, donor_sd=0.5):
    inside = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        sd = type_sd(rng)
        training = HeldOut(*draw(rng, N_DONORS, sd, donor_sd), np.array([f"D{i}" for i in range(N_DONORS)]))
        measured, predicted = draw(rng, 1, sd, donor_sd)
        lower, upper = training.intervals(predicted, coverage)
        inside.append(((lower <= measured) & (measured <= upper)).mean())
    return np.mean(inside), np.std(inside) / np.sqrt(repetitions)


def intervals_by_loops(data, predicted, coverage, spread=0.0):
    """The rule of the docstring in a loop over entries."""
    names = sorted(set(data.donors))
    n, n_types = len(names), data.measured.shape[1]
    error = lambda i, k: abs(
        np.arcsin(np.sqrt(data.measured[i, k])) - np.arcsin(np.sqrt(np.clip(data.predicted[i, k], 0, 1)))
    )
    rows = {name: [i for i in range(len(data.donors)) if data.donors[i] == name] for name in names}
    square = {(name, k): np.mean([error(i, k) ** 2 for i in rows[name]]) for name in names for k in range(n_types)}

    def unit(of, k):
        """Typical error of a type over some donors, shrunk to that of all types with the weight of three donors."""
        own = np.mean([square[name, k] for name in of])
        pooled = np.mean([square[name, j] for name in of for j in range(n_types)])
        return np.sqrt((len(of) * own + PRIOR_DONORS * pooled) / (len(of) + PRIOR_DONORS)) + 1e-9

    def own_spread(i, k):
        """Standard deviation over the members of an ensemble."""
        if data.members is None:
            return 0.0
        values = [np.arcsin(np.sqrt(member[i, k])) for member in data.members]
        return np.sqrt(sum((value - sum(values) / len(values)) ** 2 for value in values) / (len(values) - 1))

    scores = {}
    for name in names:
        others = [other for other in names if other != name]
        scores[name] = [
            error(i, k) / np.sqrt(unit(others, k) ** 2 + own_spread(i, k) ** 2)
            for i in rows[name]
            for k in range(n_types)
        ]

    def quantiles(of):
        """Weighted quantiles of the scores, every donor with the same weight."""
        weighted = sorted((score, Fraction(1, len(scores[name]) * len(of))) for name in of for score in scores[name])
        found, rank, reached = [], 0, weighted[0][1]
        for step in range(401):
            while reached < Fraction(step, 400):
                rank += 1
                reached += weighted[rank][1]
            found.append(weighted[rank][0])
        return found

    of_others = {name: quantiles([other for other in names if other != name]) for name in names}
    asked = Fraction(coverage).limit_denominator(1000) * (1 + Fraction(1, n * max(n_types - 1, 1) ** 2))
    asked, level = min(asked, Fraction(1)), 400
    for step in range(401):
        inside = [
            Fraction(sum(score <= of_others[name][step] for score in scores[name]), len(scores[name])) for name in names
        ]
        if sum(inside) / n >= asked:
            level = step
            break
    score = quantiles(names)[level]
    lower, upper = np.empty(predicted.shape), np.empty(predicted.shape)
    for (i, k), fraction in np.ndenumerate(predicted):
        half = score * np.sqrt(unit(names, k) ** 2 + spread**2)
        middle = np.arcsin(np.sqrt(fraction))
        lower[i, k] = np.sin(max(middle - half, 0.0)) ** 2
        upper[i, k] = np.sin(min(middle + half, np.pi / 2)) ** 2
    return lower, upper


@pytest.mark.parametrize("coverage", [0.3, 0.8, 0.9, 13 / 14])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_bounds_equal_an_explicit_loop(coverage, spread):
    rng = np.random.default_rng(1)
    data, (_, predicted) = held_out(rng, type_sd(rng)), draw(rng, 6, 0.05)
    if spread:
        data.members = np.stack([draw(rng, N_DONORS, 0.1)[1] for _ in range(3)])
    found = data.intervals(predicted, coverage, spread)
    np.testing.assert_allclose(found, intervals_by_loops(data, predicted, coverage, spread), rtol=1e-9, atol=1e-12)


def test_bounds_equal_the_rule_with_repeated_samples():
    rng = np.random.default_rng(2)
    measured, predicted = draw(rng, 12, type_sd(rng))
    data = HeldOut(measured, predicted, np.array(list("abbcccddddee")))
    new = draw(rng, 4, 0.05)[1]
    for coverage in (0.4, 0.8):
        found = data.intervals(new, coverage)
        np.testing.assert_allclose(found, intervals_by_loops(data, new, coverage), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_equal_the_rule_at_exact_coverage(seed):
    """24 of 30 entries are 0.8: floating-point sums of weights must not be lower."""
    rng = np.random.default_rng(seed)
    measured, new = rng.dirichlet([5, 3, 2, 1, 1], 6), rng.dirichlet([5, 3, 2, 1, 1], 3)
    noisy = np.sin(np.clip(angle(measured) + rng.normal(0, 0.08, measured.shape), 0, np.pi / 2)) ** 2
    data = HeldOut(measured, noisy, np.array(list("abcdef")))
    for coverage in (0.6, 0.8):
        found = data.intervals(new, coverage)
        np.testing.assert_allclose(found, intervals_by_loops(data, new, coverage), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("donor_sd", [0.0, 0.5, 1.0])
def test_coverage_of_new_donors_is_reached(donor_sd):
    """Donors are exchangeable, so 90 % coverage holds for any distribution of errors."""
    coverage, uncertainty = mean_coverage(0.9, repetitions=1000, donor_sd=donor_sd)
    assert uncertainty < 0.006
    assert coverage > 0.88


def test_coverage_is_not_far_above_the_request():
    coverage, _ = mean_coverage(0.9)
    assert 0.88 < coverage < 0.95


@pytest.mark.parametrize("asked", [0.5, 0.8, 0.9])
def test_coverage_is_close_to_the_request(asked):
    """No extra donor weight is added to the quantile level."""
    coverage, uncertainty = mean_coverage(asked)
    assert asked - 3 * uncertainty < coverage < asked + 3 * uncertainty + 0.02


def test_coverage_holds_for_each_type():
    """Interval widths scale with the error of each type."""
    sd = np.array([0.2, 0.02, 0.05, 0.05, 0.1, 0.05, 0.02])
    inside = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        data = held_out(rng, sd)
        measured, predicted = draw(rng, 1, sd)
        lower, upper = data.intervals(predicted, 0.9)
        inside.append(((lower <= measured) & (measured <= upper))[0])
    coverage = np.mean(inside, axis=0)
    assert (coverage > 0.8).all()
    assert coverage.mean() > 0.88


@pytest.mark.parametrize("n_donors", [4, 9, 13])
def test_coverage_needs_enough_donors(n_donors):
    rng = np.random.default_rng(0)
    data, (_, predicted) = held_out(rng, type_sd(rng), n_donors), draw(rng, 2, 0.05)
    widest = n_donors / (n_donors + 1)
    assert data.widest_coverage() == pytest.approx(widest)
    message = (
        rf"at most {widest:.3f}, .*{n_donors} held-out donors, found 0.95. Use a lower coverage or pair more donors"
    )
    with pytest.raises(ValueError, match=message):
        data.intervals(predicted, 0.95)
    data.intervals(predicted, widest)


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.0, 1.5, float("nan")])
def test_coverage_outside_zero_and_one_is_refused(coverage):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="Expected coverage above 0"):
        held_out(rng, 0.05).intervals(np.full((1, N_TYPES), 1 / N_TYPES), coverage)


def test_donors_are_counted_and_not_samples():
    rng = np.random.default_rng(0)
    data = HeldOut(*draw(rng, 20, 0.05), np.repeat(["a", "b", "c", "d"], 5))
    assert data.widest_coverage() == pytest.approx(0.8)
    with pytest.raises(ValueError, match="4 held-out donors"):
        data.intervals(data.predicted, 0.9)


def test_copies_of_a_sample_do_not_matter():
    rng = np.random.default_rng(3)
    data, (_, predicted) = held_out(rng, type_sd(rng)), draw(rng, 5, 0.05)
    rows = np.repeat(np.arange(N_DONORS), 1 + np.arange(N_DONORS) % 4)
    copies = HeldOut(data.measured[rows], data.predicted[rows], data.donors[rows])
    for coverage in (0.5, 0.83):
        np.testing.assert_allclose(copies.intervals(predicted, coverage), data.intervals(predicted, coverage))


def test_sample_order_does_not_matter():
    rng = np.random.default_rng(3)
    data, (_, predicted) = held_out(rng, type_sd(rng)), draw(rng, 5, 0.05)
    order = rng.permutation(N_DONORS)
    other = HeldOut(data.measured[order], data.predicted[order], data.donors[order])
    np.testing.assert_allclose(other.intervals(predicted, 0.8), data.intervals(predicted, 0.8))


def test_bounds_contain_the_estimate():
    rng = np.random.default_rng(4)
    data = held_out(rng, 0.4)
    predicted = np.vstack([draw(rng, 30, 0.05)[1], np.eye(N_TYPES), np.zeros((1, N_TYPES))])
    for coverage in (0.1, 0.5, 0.9):
        lower, upper = data.intervals(predicted, coverage)
        assert (lower >= 0).all()
        assert (upper <= 1).all()
        assert (lower <= predicted + 1e-12).all()
        assert (predicted <= upper + 1e-12).all()


def test_intervals_widen_with_coverage_and_spread():
    rng = np.random.default_rng(5)
    data, (_, predicted) = held_out(rng, type_sd(rng)), draw(rng, 10, 0.05)
    np.testing.assert_array_equal(data.intervals(predicted, 0.9, 0.2), data.intervals(predicted, 0.9))
    data.members = np.stack([data.predicted] * 2)
    width = lambda *args: np.subtract(*data.intervals(predicted, *args)[::-1])
    narrow, usual, wide = (width(coverage) for coverage in (0.3, 0.7, 0.9))
    assert (narrow < usual).all()
    assert (usual < wide).all()
    assert (width(0.9, 0.2) >= wide).all()
    per_entry = np.zeros(predicted.shape)
    per_entry[2, 3] = 0.3
    different = width(0.9, per_entry) != wide
    assert different[2, 3]
    assert different.sum() == 1


def members_around(rng, n_samples):
    """Measured fractions of two types, and members whose distance is proportional to the error of their mean."""
    measured, sd = rng.uniform(0.3, 0.7, n_samples), rng.choice([0.01, 0.1], n_samples)
    predicted = np.sin(angle(measured) + sd * rng.standard_normal(n_samples)) ** 2
    members = np.sin(angle(predicted) + np.outer([-1, 1], sd)) ** 2
    pairs = [np.stack([values, 1 - values], axis=-1) for values in (measured, predicted, members)]
    return *pairs, sd


def test_spread_narrows_certain_samples_at_the_promised_coverage():
    inside, widths = [], {True: [], False: []}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        measured, predicted, members, _ = members_around(rng, 20)
        training = {True: HeldOut(measured, predicted, np.arange(20), members)}
        training[False] = HeldOut(measured, predicted, np.arange(20))
        measured, predicted, members, sd = members_around(rng, 40)
        for with_members, data in training.items():
            lower, upper = data.intervals(predicted, 0.8, spread_of(members))
            widths[with_members].append((upper - lower)[sd == 0.01].mean())
            if with_members:
                inside.append(((lower <= measured) & (measured <= upper)).mean())
    assert abs(np.mean(inside) - 0.8) < 3 * np.std(inside) / np.sqrt(len(inside)) + 0.02
    assert np.mean(widths[True]) < 0.9 * np.mean(widths[False])


def test_perfect_predictions_have_almost_no_width():
    rng = np.random.default_rng(6)
    measured, _ = draw(rng, N_DONORS, 0.05)
    data = HeldOut(measured, measured, np.arange(N_DONORS).astype(str))
    lower, upper = data.intervals(measured, 0.9)
    np.testing.assert_allclose(lower, measured, atol=1e-6)
    np.testing.assert_allclose(upper, measured, atol=1e-6)


def test_angular_transform_stabilises_the_variance():
    rng = np.random.default_rng(7)
    spread = [angle(rng.binomial(500, share, 20_000) / 500).std() for share in (0.05, 0.2, 0.5, 0.9)]
    np.testing.assert_allclose(spread, 1 / np.sqrt(4 * 500), rtol=0.05)
    np.testing.assert_allclose(angle(np.array([-0.1, 0, 1, 1.1])), [0, 0, np.pi / 2, np.pi / 2])


class TestUserInput:
    @pytest.fixture
    def tables(self):
        rng = np.random.default_rng(0)
        names = [f"s{i}" for i in range(12)]
        measured, predicted = (pd.DataFrame(rng.dirichlet(np.ones(3), 12), names, list("abc")) for _ in range(2))
        return measured, predicted, [f"d{i}" for i in range(12)]

    def test_tables_equal_arrays(self, tables):
        measured, predicted, donors = tables
        first = HeldOut(*tables).intervals(predicted, 0.8)
        second = HeldOut(measured.to_numpy(), predicted.to_numpy(), np.array(donors)).intervals(
            predicted.to_numpy(), 0.8
        )
        np.testing.assert_array_equal(first, second)

    def test_members_of_other_samples_are_refused(self, tables):
        measured, predicted, donors = tables
        with pytest.raises(ValueError, match="members × samples × cell types, found"):
            HeldOut(measured, predicted, donors, np.zeros((2, 5, 3)))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m, p, d: (m, p[["b", "a", "c"]], d), "the same samples and cell types in the same order"),
            (lambda m, p, d: (m, p[::-1], d), "the same samples and cell types in the same order"),
            (lambda m, p, d: (m.to_numpy(), p.to_numpy()[:, :2], d), "of the same shape"),
            (lambda m, p, d: (m, p, d[:5]), "one donor for each sample"),
            (lambda m, p, d: (m * 100, p, d), "Divide percent by 100"),
            (lambda m, p, d: (m, p * 100, d), "Divide percent by 100"),
            (lambda m, p, d: (m - 0.5, p, d), "fractions from 0 to 1"),
            (lambda m, p, d: (m.mask(m == m.iloc[0, 0]), p, d), "without NaN, found NaN in 1 of 12"),
            (lambda m, p, d: (m.astype(str) + "x", p, d), "as a table of numbers"),
            (lambda m, p, d: (m["a"], p["a"], d), "as a table of numbers, samples × cell types"),
        ],
    )
    def test_bad_tables_are_refused(self, change, message, tables):
        with pytest.raises(ValueError, match=message):
            HeldOut(*change(*tables))

    def test_other_types_have_no_intervals(self, tables):
        with pytest.raises(ValueError, match="Expected 3 cell types in predicted"):
            HeldOut(*tables).intervals(tables[1][["a", "b"]], 0.8)


@pytest.mark.parametrize("n_donors", [6, 10, 20, 30])
@pytest.mark.parametrize("n_types", [2, 3, 7])
def test_coverage_is_reached_with_few_types(n_types, n_donors):
    """With two types, the errors of a donor mirror each other."""
    inside = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        measured = rng.dirichlet(np.arange(1, n_types + 1) * 3, n_donors + 20)
        logits = np.log(measured) + rng.normal(size=measured.shape) * 0.25
        predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        training = HeldOut(measured[:n_donors], predicted[:n_donors], np.arange(n_donors))
        lower, upper = training.intervals(predicted[n_donors:], 0.8)
        new = measured[n_donors:]
        inside.append(((lower <= new) & (new <= upper)).mean())
    assert np.mean(inside) >= 0.8 - np.std(inside) / np.sqrt(150)
