from __future__ import annotations

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from scdeconv import metrics

BY_COLUMN = [metrics.mse, metrics.rmse, metrics.mae, metrics.bias, metrics.r2, metrics.pearson, metrics.ccc]
BY_SAMPLE = [
    metrics.kl,
    metrics.wasserstein,
    metrics.aitchison,
    metrics.paper_r2_pooled,
    metrics.paper_kl_softmax,
    metrics.paper_w_sorted,
]
TYPES = ["B", "T", "NK", "Monocyte"]


@pytest.fixture
def measured() -> pd.DataFrame:
    values = np.random.default_rng(0).dirichlet([1.0, 4.0, 0.5, 2.0], 9)
    return pd.DataFrame(values, index=[f"s{i}" for i in range(9)], columns=TYPES)


@pytest.fixture
def predicted(measured: pd.DataFrame) -> pd.DataFrame:
    noisy = measured + np.random.default_rng(1).uniform(0, 0.2, measured.shape)
    return noisy.div(noisy.sum(axis=1), axis=0)


def lin_1989(x, y):
    """CCC as printed in Lin (1989), equation 1, written out with plain sums."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    var_x = sum((v - mean_x) ** 2 for v in x) / n
    var_y = sum((v - mean_y) ** 2 for v in y) / n
    cov = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2)


ORACLES = {
    metrics.mse: mean_squared_error,
    metrics.rmse: lambda x, y: mean_squared_error(x, y) ** 0.5,
    metrics.mae: mean_absolute_error,
    metrics.bias: lambda x, y: sum(y) / len(y) - sum(x) / len(x),
    metrics.r2: r2_score,
    metrics.pearson: lambda x, y: stats.pearsonr(x, y).statistic,
    metrics.ccc: lin_1989,
}


@pytest.mark.parametrize("metric", ORACLES, ids=lambda metric: metric.__name__)
def test_metric_equals_its_oracle_pooled_and_per_type(metric, measured, predicted):
    oracle = ORACLES[metric]
    pooled = oracle(measured.to_numpy().ravel(), predicted.to_numpy().ravel())
    assert metric(measured, predicted) == pytest.approx(pooled, abs=1e-12)
    per_type = metric(measured, predicted, per_type=True)
    assert list(per_type.index) == TYPES
    assert per_type.to_list() == pytest.approx([oracle(measured[t], predicted[t]) for t in TYPES], abs=1e-12)


def test_ccc_equals_lin_1989_formula_on_three_points():
    # means 2 and 3, population variances 2/3 and 14/3, covariance 4/3: 2·(4/3) / (2/3 + 14/3 + 1) = 8/19
    measured, predicted = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [1.0], [6.0]])
    assert metrics.ccc(measured, predicted) == pytest.approx(8 / 19)


def test_perfect_prediction_scores_perfectly(measured):
    for metric in (metrics.r2, metrics.pearson, metrics.ccc):
        assert metric(measured, measured) == pytest.approx(1)
    for metric in (metrics.mse, metrics.rmse, metrics.mae, metrics.bias, metrics.kl, metrics.wasserstein):
        assert metric(measured, measured) == pytest.approx(0, abs=1e-12)


def test_constant_columns_have_undefined_correlation():
    # the mean of three times 0.1 is inexact: the column must still count as constant
    measured = np.array([[0.1, 0.1, 0.2], [0.1, 0.1, 0.3], [0.1, 0.1, 0.4]])
    predicted = np.array([[0.1, 0.2, 0.1], [0.1, 0.3, 0.1], [0.1, 0.1, 0.1]])
    both_constant, truth_constant, prediction_constant = range(3)
    ccc = metrics.ccc(measured, predicted, per_type=True)
    assert np.isnan(ccc[both_constant])
    assert ccc[truth_constant] == 0
    assert ccc[prediction_constant] == 0
    assert metrics.pearson(measured, predicted, per_type=True).isna().all()
    assert metrics.r2(measured, predicted, per_type=True).isna().tolist() == [True, True, False]


def test_mean_composition_scores_well_only_when_pooled(measured):
    baseline = pd.DataFrame([measured.mean()] * len(measured), index=measured.index)
    assert metrics.r2(measured, baseline, per_type=True).to_list() == pytest.approx([0] * 4, abs=1e-12)
    assert metrics.ccc(measured, baseline, per_type=True).to_list() == pytest.approx([0] * 4, abs=1e-12)
    assert metrics.r2(measured, baseline) > 0.4


def test_kl_equals_scipy_entropy(measured, predicted):
    expected = stats.entropy(measured.to_numpy(), predicted.to_numpy(), axis=1).mean()
    assert metrics.kl(measured, predicted, epsilon=1e-12) == pytest.approx(expected)


def test_kl_is_finite_for_zero_predictions():
    measured, predicted = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    floor = 1e-3 / (1 + 1e-3)
    expected = 0.5 * np.log(0.5 / (1 - floor)) + 0.5 * np.log(0.5 / floor)
    assert metrics.kl(measured, predicted, epsilon=1e-3) == pytest.approx(expected)


def test_wasserstein_without_distance_is_total_variation(measured, predicted):
    expected = np.abs(measured - predicted).sum(axis=1).mean() / 2
    assert metrics.wasserstein(measured, predicted) == pytest.approx(expected)
    discrete = 1 - np.eye(len(TYPES))
    assert metrics.wasserstein(measured, predicted, distance=discrete) == pytest.approx(expected)


def test_wasserstein_on_a_line_equals_scipy(measured, predicted):
    position = np.array([0.0, 1.0, 3.0, 3.5])
    distance = np.abs(position[:, None] - position)
    expected = [
        stats.wasserstein_distance(position, position, p, q)
        for p, q in zip(measured.to_numpy(), predicted.to_numpy(), strict=True)
    ]
    assert metrics.wasserstein(measured, predicted, distance=distance) == pytest.approx(np.mean(expected))


def test_wasserstein_distance_frame_is_aligned_by_name(measured, predicted):
    position = pd.Series([0.0, 1.0, 3.0, 3.5], index=TYPES)
    distance = pd.DataFrame(np.abs(position.to_numpy()[:, None] - position.to_numpy()), index=TYPES, columns=TYPES)
    shuffled = distance.loc[TYPES[::-1], ["T", "B", "Monocyte", "NK"]]
    expected = metrics.wasserstein(measured, predicted, distance=distance.to_numpy())
    assert metrics.wasserstein(measured, predicted, distance=shuffled) == pytest.approx(expected)


@pytest.mark.parametrize(
    "distance",
    [np.ones((4, 4)), -(1 - np.eye(4)), np.triu(np.ones((4, 4)), 1), 1 - np.eye(3), np.full((4, 4), np.nan)],
    ids=["diagonal", "negative", "asymmetric", "too small", "nan"],
)
def test_wasserstein_refuses_invalid_distances(measured, predicted, distance):
    with pytest.raises(ValueError, match=r"Expected distance as a symmetric 4 × 4 matrix"):
        metrics.wasserstein(measured, predicted, distance=distance)


def test_wasserstein_names_types_missing_from_distance(measured, predicted):
    distance = pd.DataFrame(1 - np.eye(4), index=TYPES, columns=[*TYPES[:3], "Mast"])
    with pytest.raises(ValueError, match=r"only in distance: \['Mast'\]"):
        metrics.wasserstein(measured, predicted, distance=distance)
    with pytest.raises(ValueError, match=r"only in distance: \['Mast'\]"):
        metrics.wasserstein(measured, predicted, distance=distance.T)


def test_aitchison_equals_distance_of_centred_log_ratios(measured, predicted):
    log_measured, log_predicted = (np.log(stats.gmean(x, axis=1)) for x in (measured, predicted))
    difference = (np.log(measured).sub(log_measured, axis=0)) - (np.log(predicted).sub(log_predicted, axis=0))
    expected = np.sqrt((difference**2).sum(axis=1)).mean()
    assert metrics.aitchison(measured, predicted, epsilon=1e-12) == pytest.approx(expected)


def test_aitchison_of_two_types_is_closed_form():
    value = metrics.aitchison(np.array([[0.5, 0.5]]), np.array([[0.2, 0.8]]))
    assert value == pytest.approx(np.log(4) / np.sqrt(2))


def test_paper_variants_equal_the_formulas_of_the_paper(measured, predicted):
    x, y = measured.to_numpy(), predicted.to_numpy()
    assert metrics.paper_r2_pooled(x, y) == pytest.approx(1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    softmax = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (x, y)]
    assert metrics.paper_kl_softmax(x, y) == pytest.approx(stats.entropy(*softmax, axis=1).mean())
    sets = [stats.wasserstein_distance(p, q) for p, q in zip(x, y, strict=True)]
    assert metrics.paper_w_sorted(x, y) == pytest.approx(np.mean(sets))


def test_paper_variants_differ_from_the_standard_definitions():
    measured, swapped = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    assert metrics.paper_w_sorted(measured, swapped) == 0
    assert metrics.wasserstein(measured, swapped) == pytest.approx(0.8)
    assert metrics.paper_kl_softmax(measured, swapped) < metrics.kl(measured, swapped) / 5


def test_frames_are_aligned_by_name(measured, predicted):
    shuffled = predicted.loc[measured.index[::-1], ["NK", "B", "Monocyte", "T"]]
    for metric in [*BY_COLUMN, *BY_SAMPLE]:
        assert metric(measured, shuffled) == pytest.approx(metric(measured, predicted))
    pd.testing.assert_frame_equal(metrics.table(measured, shuffled), metrics.table(measured, predicted))


def test_array_and_frame_are_compared_by_position(measured, predicted):
    for pair in ((measured, predicted.to_numpy()), (measured.to_numpy(), predicted)):
        assert metrics.rmse(*pair, per_type=True).equals(metrics.rmse(measured, predicted, per_type=True))


def test_inputs_are_not_changed(measured, predicted):
    before = measured.copy(), predicted.copy()
    metrics.table(measured, predicted)
    metrics.kl(measured, predicted, epsilon=0.5)
    pd.testing.assert_frame_equal(measured, before[0])
    pd.testing.assert_frame_equal(predicted, before[1])


@pytest.mark.parametrize("metric", [*BY_COLUMN, *BY_SAMPLE, metrics.table], ids=lambda metric: metric.__name__)
class TestBadInput:
    def test_other_cell_types_are_named(self, metric, measured, predicted):
        with pytest.raises(
            ValueError, match=r"same unique cell types.*only measured: \['NK'\].*only predicted: \['Mast'\]"
        ):
            metric(measured, predicted.rename(columns={"NK": "Mast"}))

    def test_other_samples_are_named(self, metric, measured, predicted):
        with pytest.raises(ValueError, match=r"same unique samples.*only measured: \['s8'\] \(1\)"):
            metric(measured, predicted.iloc[:-1])

    def test_missing_truth_error_suggests_dropping_samples(self, metric, measured, predicted):
        measured.loc["s3"] = np.nan
        with pytest.raises(ValueError, match=r"NaN in 1 of 9 samples \(e\.g\. 's3'\)\. Drop these samples\."):
            metric(measured, predicted)

    def test_missing_or_negative_values_are_refused(self, metric, measured, predicted):
        for value in (np.nan, np.inf, -0.1):
            with pytest.raises(ValueError, match="Expected finite predicted fractions of at least 0"):
                metric(measured, predicted.mask(predicted == predicted.iloc[0, 0], value))
        with pytest.raises(ValueError, match="Expected finite measured fractions of at least 0"):
            metric(measured - 0.5, predicted)

    @pytest.mark.parametrize("shape", [(9, 3), (9,), (0, 4), (9, 4, 1)])
    def test_shapes_are_checked(self, metric, shape, measured, predicted):
        with pytest.raises(ValueError, match=r"Expected two tables of the same shape"):
            metric(np.zeros(shape), predicted.to_numpy())


def test_rows_of_zeros_have_no_composition(predicted):
    measured = np.zeros(predicted.shape)
    for metric in (metrics.kl, metrics.wasserstein, metrics.aitchison):
        with pytest.raises(ValueError, match="9 rows of zeros"):
            metric(measured, predicted.to_numpy())


def test_repeated_sample_names_in_another_order_are_refused(measured, predicted):
    measured.index = ["s0", "s0", *measured.index[2:]]
    predicted.index = measured.index[::-1]
    with pytest.raises(ValueError, match="same unique samples"):
        metrics.rmse(measured, predicted)


def test_table_ends_with_pooled_and_mean_rows(measured, predicted):
    table = metrics.table(measured, predicted)
    assert list(table.index) == [*TYPES, "all entries", "mean of types"]
    assert list(table.columns) == ["n", "rmse", "mae", "r2", "pearson", "ccc", "bias"]
    assert table["n"].to_list() == [9, 9, 9, 9, 36, 9]
    for name in table.columns[1:]:
        metric = getattr(metrics, name)
        assert table.loc["all entries", name] == metric(measured, predicted)
        assert table.loc[TYPES, name].equals(metric(measured, predicted, per_type=True))
        assert table.loc["mean of types", name] == pytest.approx(metric(measured, predicted, per_type=True).mean())


def test_undefined_types_are_excluded_from_the_mean():
    measured = np.array([[0.5, 0.3, 0.2], [0.5, 0.2, 0.3], [0.5, 0.4, 0.1]])
    predicted = np.array([[0.4, 0.4, 0.2], [0.3, 0.2, 0.5], [0.5, 0.4, 0.1]])
    table = metrics.table(measured, predicted)
    assert np.isnan(table.loc[0, "pearson"])
    assert table.loc["mean of types", "pearson"] == pytest.approx(table.loc[[1, 2], "pearson"].mean())


@pytest.mark.parametrize("metric", BY_COLUMN, ids=lambda metric: metric.__name__)
def test_metrics_are_documented_functions(metric):
    assert list(inspect.signature(metric).parameters) == ["measured", "predicted", "per_type"]
    assert metric.__doc__
    assert metric.__module__ == "scdeconv.metrics"
    assert pickle.loads(pickle.dumps(metric)) is metric
