from __future__ import annotations

import itertools
import os
import signal

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from torch import nn

from scdeconv._nn import fit_cells


class Rows:
    """Returns the requested rows unchanged and records them."""

    def __init__(self, values):
        self.values = torch.as_tensor(values, dtype=torch.float32)
        self.asked = []

    def batch(self, rows, device):
        self.asked.append(np.asarray(rows))
        return self.values[rows].to(device)


class Value(nn.Module):
    """A model with one parameter."""

    def __init__(self, start=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(start)))


def run(module, data, loss, **settings):
    """Plain gradient descent, whose steps have a closed form."""
    defaults = {
        "rows": np.arange(len(data.values)),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "max_epochs": 3,
        "batch_size": 4,
        "description": "test",
        "accelerator": "cpu",
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit_cells(module, data, loss, **{**defaults, **settings})


def squared_error(module):
    return lambda batch: (module.value - batch).square().mean()


def scripted(losses):
    """A loss independent of the weights: the next value at each call, with a gradient of 1."""
    values = iter(losses)
    return lambda module: lambda batch: next(values) + module.value - module.value.detach()


# epochs and batches


@pytest.mark.parametrize("batch_size", [1, 4, 10, 100])
def test_each_epoch_reads_all_rows_in_new_order(batch_size):
    data, module = Rows(np.arange(20)), Value()
    rows = np.arange(3, 17)
    run(module, data, squared_error(module), rows=rows, batch_size=batch_size)
    n_batches = -(-14 // batch_size)
    assert len(data.asked) == 3 * n_batches
    assert all(len(asked) <= batch_size for asked in data.asked)
    epochs = [np.concatenate(data.asked[start : start + n_batches]) for start in range(0, 3 * n_batches, n_batches)]
    for epoch in epochs:
        assert sorted(epoch) == list(rows)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise([rows, *epochs]))


def test_last_batch_is_weighted_by_its_size():
    """9 rows in batches of 4, 4 and 1: without steps, the epoch loss is the mean over rows."""
    data, module = Rows(np.arange(9) ** 2), Value()
    still = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    plan = run(module, data, squared_error(module), validation_rows=np.arange(5), **still)
    squares = np.arange(9.0) ** 4
    assert [len(asked) for asked in data.asked[:3]] == [4, 4, 1]
    np.testing.assert_allclose(plan.train_losses, squares.mean(), rtol=1e-6)
    np.testing.assert_allclose(plan.validation_losses, squares[:5].mean(), rtol=1e-6)


def test_training_equals_manual_optimizer_steps():
    """One batch of all rows: each step covers a fifth (2 * 0.1) of the distance to the mean."""
    data, module = Rows([1.0, 2.0, 6.0]), Value()
    plan = run(module, data, squared_error(module), max_epochs=5)
    assert module.value.item() == pytest.approx(3 * (1 - 0.8**5))
    steps = 3 * (1 - 0.8 ** np.arange(5))
    expected = [((np.array([1, 2, 6]) - at) ** 2).mean() for at in steps]
    np.testing.assert_allclose(plan.train_losses, expected, rtol=1e-6)


def test_zero_epochs_change_nothing():
    data, module = Rows(np.ones(5)), Value(7)
    plan = run(module, data, squared_error(module), max_epochs=0)
    assert module.value.item() == 7
    assert plan.history() == {}
    assert not module.training


def test_history_counts_epochs_from_1():
    data, module = Rows(np.ones(5)), Value()
    history = run(module, data, squared_error(module), validation_rows=[0, 1]).history("first_")
    assert list(history) == ["first_train_loss", "first_validation_loss"]
    for name, curve in history.items():
        assert list(curve) == [name]
        assert list(curve.index) == [1, 2, 3]
        assert curve.index.name == "epoch"
    assert list(run(module, data, squared_error(module)).history()) == ["train_loss"]


def test_module_is_in_evaluation_mode_for_validation():
    data, module = Rows(np.arange(8)), Value()
    modes = {True: set(), False: set()}

    def loss(batch):
        modes[bool((batch >= 6).all())].add(module.training)
        return squared_error(module)(batch)

    run(module, data, loss, rows=np.arange(6), validation_rows=np.array([6, 7]))
    assert modes == {False: {True}, True: {False}}
    assert not module.training


# early stopping


def test_best_weights_on_validation_rows_are_restored():
    """Descent to the mean of the training rows, 10, passes the mean of the validation rows, 4."""
    data, module = Rows([10.0, 10.0, 4.0]), Value()
    plan = run(module, data, squared_error(module), rows=np.arange(2), validation_rows=[2], max_epochs=8)
    path = 10 * (1 - 0.8 ** np.arange(1, 9))
    best = np.abs(path - 4).argmin()
    assert 0 < best < 7
    assert module.value.item() == pytest.approx(path[best])
    np.testing.assert_allclose(plan.validation_losses, (path - 4) ** 2, rtol=1e-5)
    # epochs are counted from 1
    assert plan.best_epoch == best + 1


def test_without_validation_rows_the_last_weights_are_kept():
    module = Value()
    run(module, Rows(np.ones(4)), scripted([1.0, 5.0, 9.0])(module))
    assert module.value.item() == pytest.approx(-0.3)


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 3), (2, 6), (3, 9), (None, 10)])
def test_training_stops_after_patience_epochs(patience, n_epochs):
    losses = [5.0, 4.0, 4.5, 3.0, 3.5, 2.9, 3.0, 3.0, 2.9, 1.0]
    if patience == 2:
        losses[5] = 3.2
    module = Value()
    plan = run(module, Rows(np.ones(4)), scripted(losses)(module), max_epochs=10, patience=patience)
    assert plan.train_losses == pytest.approx(losses[:n_epochs])


def test_falls_below_min_delta_do_not_count():
    losses = [1.0, 0.9, 0.85, 0.81, 0.75, 0.7, 0.7]
    small, large = Value(), Value()
    patient = run(small, Rows(np.ones(4)), scripted(losses)(small), max_epochs=7, patience=2, min_delta=0.04)
    # after 0.9, neither 0.85 nor 0.81 is lower by 0.1
    strict = run(large, Rows(np.ones(4)), scripted(losses)(large), max_epochs=7, patience=2, min_delta=0.099)
    assert len(patient.train_losses) == 7
    assert len(strict.train_losses) == 4


def test_patience_uses_the_validation_loss():
    """Training loss falls in every epoch, validation loss rises."""
    data, module = Rows([5.0, -5.0]), Value()
    plan = run(
        *(module, data, squared_error(module)), rows=np.array([0]), validation_rows=[1], max_epochs=9, patience=3
    )
    assert len(plan.train_losses) == len(plan.validation_losses) == 4
    assert np.diff(plan.train_losses).max() < 0 < np.diff(plan.validation_losses).min()
    assert module.value.item() == pytest.approx(1)


def test_loss_that_is_nan_is_never_the_best():
    module = Value()
    losses = [float("nan"), 2.0, float("nan"), 3.0]
    plan = run(module, Rows(np.ones(4)), scripted(losses)(module), max_epochs=4, patience=9)
    assert (plan.lowest, plan.best_epoch) == (2, 2)


# before each epoch


def test_hook_is_called_before_each_epoch():
    calls, module, data = [], Value(), Rows(np.ones(6))

    def hook(epoch):
        calls.append((epoch, len(data.asked)))
        return False

    run(module, data, squared_error(module), before_epoch=hook)
    assert calls == [(0, 0), (1, 2), (2, 4)]


@pytest.mark.parametrize("last", [0, 2])
def test_hook_can_end_training_before_the_epoch(last):
    module, data = Value(), Rows(np.ones(6))
    plan = run(module, data, squared_error(module), max_epochs=9, before_epoch=lambda epoch: epoch == last)
    assert len(plan.train_losses) == last
    assert len(data.asked) == 2 * last
    assert not plan.stop


# Ctrl-C


def test_ctrl_c_ends_training_after_the_step(global_state_untouched):
    data, module, steps = Rows(np.ones(20)), Value(), itertools.count()

    def loss(batch):
        if next(steps) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return squared_error(module)(batch)

    with global_state_untouched():
        plan = run(module, data, loss, max_epochs=50)
    assert plan.stop
    # 5 steps in the first epoch, 3 in the second, averaged over the rows of these 3
    assert next(steps) == 8
    assert module.value.item() == pytest.approx(1 - 0.8**8)
    assert len(plan.train_losses) == 2
    assert plan.train_losses[1] == pytest.approx(np.mean([0.8 ** (2 * step) for step in (5, 6, 7)]))
    assert not module.training


def test_ctrl_c_restores_the_best_weights():
    data, module, steps = Rows([10.0, 10.0, 4.0]), Value(), itertools.count()

    def loss(batch):
        # a step and a validation in each epoch
        if next(steps) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return squared_error(module)(batch)

    plan = run(module, data, loss, rows=np.arange(2), validation_rows=[2], max_epochs=50)
    assert plan.stop
    assert len(plan.validation_losses) == 6
    assert module.value.item() == pytest.approx(10 * (1 - 0.8**2))


def test_ctrl_c_before_the_first_step_takes_none():
    module, data = Value(3), Rows(np.ones(6))

    def hook(epoch):
        os.kill(os.getpid(), signal.SIGINT)
        return False

    plan = run(module, data, squared_error(module), before_epoch=hook)
    assert plan.stop
    assert module.value.item() == 3
    assert plan.history() == {}


def test_errors_in_a_step_reach_the_caller(global_state_untouched):
    def loss(batch):
        msg = "from the loss"
        raise RuntimeError(msg)

    with global_state_untouched(), pytest.raises(RuntimeError, match="from the loss"):
        run(Value(), Rows(np.ones(6)), loss)


# Lightning callbacks


def test_callbacks_see_the_losses_of_each_epoch():
    seen = []

    class Record(lightning.Callback):
        def on_validation_end(self, trainer, plan):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    data, module = Rows(np.arange(8)), Value()
    plan = run(module, data, squared_error(module), validation_rows=[6, 7], callbacks=[Record()])
    # Lightning computes metrics when the epoch has ended, so the last training loss may be missing
    assert len(seen) == 3
    assert plan.trainer.callback_metrics["train_loss"] == pytest.approx(plan.train_losses[-1], rel=1e-6)
    assert plan.trainer.callback_metrics["validation_loss"] == pytest.approx(plan.validation_losses[-1], rel=1e-6)
