from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scdeconv import pl, tl


@pytest.fixture
def tuning() -> tl.Tuning:
    """Six trials, the fourth pruned and the fifth the best; one argument of numbers, one of choices."""
    trials = pd.DataFrame(
        {
            "state": ["complete"] * 3 + ["pruned"] + ["complete"] * 2,
            "rmse": [0.05, 0.06, 0.04, np.nan, 0.03, 0.045],
            "seconds": 1.0,
            "learning_rate": [1e-3, 1e-5, 1e-4, 1e-2, 3e-4, 1e-3],
            "hidden": pd.Series([(64, 32), (32,), None, (32,), (64, 32), None], dtype=object),
        }
    ).rename_axis("trial")
    return tl.Tuning("simplednn", trials, {"learning_rate": 3e-4, "hidden": (64, 32)}, None, 0.07)


def points(ax, label):
    return next(c for c in ax.collections if c.get_label() == label).get_offsets()


def test_trials_and_each_argument_have_a_panel(tuning):
    panels = pl.tuning(tuning)
    assert [ax.get_xlabel() for ax in panels] == ["trial", "learning_rate", "hidden"]
    assert panels[1].get_xscale() == "log"


def test_dots_are_complete_trials_and_crosses_pruned_ones(tuning):
    panels = pl.tuning(tuning)
    complete = tuning.trials.drop(3)
    np.testing.assert_allclose(points(panels[0], "trial"), np.c_[complete.index, complete["rmse"]])
    np.testing.assert_allclose(points(panels[1], "trial"), complete[["learning_rate", "rmse"]])
    (strip,) = panels[0].child_axes
    assert [label.get_text() for label in strip.get_yticklabels()] == ["pruned"]
    assert list(strip.collections[0].get_offsets()[:, 0]) == [3]
    assert strip.get_xlim() == panels[0].get_xlim()


def test_lines_show_best_trial_and_mean_composition(tuning):
    best, baseline = pl.tuning(tuning)[0].lines
    np.testing.assert_allclose(best.get_ydata(), [0.05, 0.05, 0.04, 0.04, 0.03, 0.03])
    assert baseline.get_linestyle() == "--"
    assert list(baseline.get_ydata()) == [0.07, 0.07]


def test_defaults_and_best_are_marked_in_every_panel(tuning):
    trials, rate, hidden = pl.tuning(tuning)
    choices = [label.get_text() for label in hidden.get_xticklabels()]
    assert choices == ["None", "(32,)", "(64, 32)"]
    for ax, default, best in ((trials, 0, 4), (rate, 1e-3, 3e-4), (hidden, 2, 2)):
        np.testing.assert_allclose(points(ax, "defaults"), [[default, 0.05]])
        np.testing.assert_allclose(points(ax, "best"), [[best, 0.03]])


def test_given_axes_are_used(tuning):
    _, axes = plt.subplots(1, 3)
    assert list(pl.tuning(tuning, axes=axes)) == list(axes)
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match="Expected 3 axes, .* found 2"):
        pl.tuning(tuning, axes=axes[:2])


def test_single_trial_can_be_drawn(tuning):
    before = tuning.trials.copy()
    pl.tuning(tuning)
    pd.testing.assert_frame_equal(tuning.trials, before)
    one = tl.Tuning("ridge", tuning.trials[:1], {}, None, 0.07)
    pl.tuning(one)[0].figure.canvas.draw()
