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
    marker = next(line for line in ax.lines if line.get_label() == "best epoch (1)")
    assert list(marker.get_xdata()) == [1, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation", "best epoch (1)"]


@pytest.mark.parametrize("best", [2, np.int64(2), pd.DataFrame({"best_epoch": [2]})])
def test_recorded_best_epoch_overrides_the_lowest_validation(best):
    ax = pl.history({**make([0.5, 0.4, 0.3], [0.6, 0.4, 0.5]), "best_epoch": best})
    assert "best epoch (2)" in lines(ax)


def test_validation_losses_may_be_missing():
    history = {
        "train_loss": frame("train_loss", [4.0, 3.0, 2.0, 1.5]),
        "validation_loss": frame("validation_loss", [3.0, np.nan, 1.0], epochs=[0, 1, 3]),
    }
    ax = pl.history(history)
    assert lines(ax)["validation"] == [3.0, 1.0]
    assert "best epoch (3)" in lines(ax)


def test_without_validation_there_is_no_best_epoch():
    assert list(lines(pl.history({"train_loss": frame("train_loss", [0.5, 0.4])}))) == ["training"]


@pytest.mark.parametrize(
    ("train", "scale"), [([1.0, 0.05], "log"), ([1.0, 0.5], "linear"), ([1.0, 0.01, -0.1], "linear")]
)
def test_wide_loss_range_uses_a_log_scale(train, scale):
    assert pl.history({"train_loss": frame("train_loss", train)}).get_yscale() == scale


def test_given_ax_is_used():
    _, ax = plt.subplots()
    assert pl.history(make([0.5, 0.4], [0.6, 0.4]), ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_unknown_history_error_lists_its_columns():
    with pytest.raises(KeyError, match=r"found \['elbo_train'\]"):
        pl.history({"elbo_train": frame("elbo_train", [1.0])})
    assert not plt.get_fignums()
