from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scdeconv import pl


def frame(name: str, values: list[float], epochs: list[int] | None = None) -> pd.DataFrame:
    index = pd.Index(range(len(values)) if epochs is None else epochs, name="epoch")
    return pd.DataFrame({name: values}, index=index)


def make(train: list[float], validation: list[float]) -> dict[str, pd.DataFrame]:
    return {
        "train_loss": frame("train_loss", train),
        "validation_loss": frame("validation_loss", validation),
    }


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines}


def test_losses_are_drawn_with_lowest_validation_marked():
    ax = pl.history(make([0.5, 0.4, 0.3], [0.6, 0.4, 0.5]))
    assert lines(ax)["training"] == [0.5, 0.4, 0.3]
    assert lines(ax)["validation"] == [0.6, 0.4, 0.5]
    marker = next(line for line in ax.lines if line.get_label() == "kept: epoch 1")
    assert list(marker.get_xdata()) == [1, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation", "kept: epoch 1"]


@pytest.mark.parametrize("best", [2, np.int64(2), pd.DataFrame({"best_epoch": [2]})])
def test_recorded_best_epoch_overrides_the_lowest_validation(best):
    ax = pl.history({**make([0.5, 0.4, 0.3], [0.6, 0.4, 0.5]), "best_epoch": best})
    assert "kept: epoch 2" in lines(ax)


def test_validation_losses_may_be_missing():
    history = {
        "train_loss": frame("train_loss", [4.0, 3.0, 2.0, 1.5]),
        "validation_loss": frame("validation_loss", [3.0, np.nan, 1.0], epochs=[0, 1, 3]),
    }
    ax = pl.history(history)
    assert lines(ax)["validation"] == [3.0, 1.0]
    assert "kept: epoch 3" in lines(ax)


def test_without_validation_the_last_epoch_is_kept():
    assert list(lines(pl.history({"train_loss": frame("train_loss", [0.5, 0.4])}))) == ["training", "kept: epoch 1"]


def test_epoch_zero_is_named_the_start():
    history = {
        "train_loss": frame("train_loss", [0.3, 0.2], epochs=[1, 2]),
        "validation_loss": frame("validation_loss", [0.2, 0.3, 0.4]),
    }
    assert "kept: the start (epoch 0)" in lines(pl.history(history))
    assert pl.history(history).get_xlabel() == "epoch (0: the start)"
    assert pl.history({"train_loss": history["train_loss"]}).get_xlabel() == "epoch"
    rejected = pl.history({**history, "best_epoch": 0, "confirmed": 0.0})
    assert any("did not confirm" in label for label in lines(rejected))


@pytest.mark.parametrize(("train", "scale"), [([1.0, 0.05], "log"), ([1.0, 0.9], "log"), ([1.0, 0.01, -0.1], "linear")])
def test_positive_losses_have_a_log_scale(train, scale):
    ax = pl.history({"train_loss": frame("train_loss", train)})
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 2


def test_given_ax_is_used():
    _, ax = plt.subplots()
    assert pl.history(make([0.5, 0.4], [0.6, 0.4]), ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_unknown_history_error_lists_its_columns():
    with pytest.raises(KeyError, match=r"found \['elbo_train'\]"):
        pl.history({"elbo_train": frame("elbo_train", [1.0])})
    assert not plt.get_fignums()
