from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import warnings

import pandas as pd
import pytest
import torch

from scdeconv._nn import LOSSES, Ensemble, TrainingData, fit

SETTINGS = {"max_steps": 20, "batch_size": 8, "learning_rate": 0.01, "accelerator": "cpu"}


def make_data(n_rows=24, n_members=2, *, n_choices=1):
    """Rows whose fractions depend on the input, with weight 1 for every member."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, 6, generator=generator)
    noise = torch.randn(n_rows, n_choices, 3, generator=generator)
    targets = torch.softmax(2 * x[:, None, :3] + 0.5 * noise, dim=-1)
    return TrainingData(x, targets, torch.ones(n_members, n_rows))


def make_split(n_rows=24, n_members=2, *, n_choices=1, groups=None):
    """The same rows for training and validation; each member holds out a different third."""
    data = make_data(n_rows, n_members, n_choices=n_choices)
    held = torch.stack([torch.arange(n_rows) % 3 == member for member in range(n_members)]).float()
    return TrainingData(data.x, data.targets, 1 - held), TrainingData(data.x, data.targets, held, groups=groups)


def make_module(n_members=2, *, dropout=0.0, linear=False):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Ensemble(n_members, 6, 3, (8,), (dropout,), linear=linear)


def run(module, data, loss=LOSSES["cross_entropy"], **settings):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return fit(module, data, loss, **{**SETTINGS, **settings})


def validation_loss(module, validation):
    with torch.no_grad():
        losses = LOSSES["cross_entropy"](module(validation.x), validation.targets.mean(dim=1))
    return float((losses * validation.weights).sum() / validation.weights.sum())


@pytest.mark.parametrize("max_steps", [0, 1, 3, 7, 20])
@pytest.mark.parametrize("batch_size", [5, 8, 1000])
def test_exactly_max_steps_optimiser_steps_are_taken(monkeypatch, max_steps, batch_size):
    sizes = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *args, **kw: (sizes.append(1), step(self, *args, **kw))[1]
    )
    run(make_module(), make_data(), max_steps=max_steps, batch_size=batch_size)
    assert len(sizes) == max_steps


def test_batches_use_every_row_equally_often():
    seen = []

    class Watched(Ensemble):
        def forward(self, x):
            seen.append(x[:, 0])
            return super().forward(x)

    data = make_data()
    run(Watched(2, 6, 3, (8,), (0.0,), linear=False), data, max_steps=6, batch_size=8)
    assert [len(batch) for batch in seen] == [8] * 6
    everything = torch.cat(seen)
    for epoch in (everything[:24], everything[24:]):
        torch.testing.assert_close(epoch.sort().values, data.x[:, 0].sort().values)
    assert not torch.equal(everything[:24], everything[24:])


@pytest.mark.parametrize(("weight_decay", "optimiser"), [(0.0, torch.optim.Adam), (0.1, torch.optim.AdamW)])
def test_first_step_is_that_of_adam(weight_decay, optimiser):
    """Adam's first step is lr g / (|g| + eps), after a decay of lr * weight_decay * w in AdamW."""
    module, data = make_module(), make_data()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    LOSSES["mse"](module(data.x), data.targets[:, 0]).mean(dim=1).sum().backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    plan = run(*(module, data, LOSSES["mse"]), max_steps=1, batch_size=24, adam_epsilon=1e-3, weight_decay=weight_decay)
    assert type(plan.configure_optimizers()) is optimiser
    for parameter, start, gradient in zip(module.parameters(), before, gradients, strict=True):
        expected = start * (1 - 0.01 * weight_decay) - 0.01 * gradient / (gradient.abs() + 1e-3)
        torch.testing.assert_close(parameter.detach(), expected)


def test_rows_of_weight_zero_never_influence_a_member():
    (first, _), (second, _) = make_split(), make_split()
    # member 0 is not trained on the rows it holds out; member 1 is
    second.targets[first.weights[0] == 0] = torch.tensor([1.0, 0.0, 0.0])
    modules = [make_module(dropout=0.2) for _ in range(2)]
    for module, data in zip(modules, (first, second), strict=True):
        run(module, data)
    for a, b in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        assert torch.equal(a[0], b[0])
        assert not torch.equal(a[1], b[1])


def test_row_weights_scale_the_loss_of_each_row():
    """A row of weight 2 equals the same row twice."""
    data = make_data(4, 1)
    twice = TrainingData(*(torch.cat([part, part[:1]]) for part in (data.x, data.targets)), torch.ones(1, 5))
    data.weights[0, 0] = 2
    modules = [make_module(1) for _ in range(2)]
    for module, rows in zip(modules, (data, twice), strict=True):
        run(module, rows, max_steps=1)
    for a, b in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_training_draws_one_choice_and_validation_averages():
    drawn, validated = [], []

    def loss(logits, fractions):
        (drawn if torch.is_grad_enabled() else validated).append(fractions.clone())
        return LOSSES["cross_entropy"](logits, fractions)

    data, validation = make_split(n_choices=3)
    run(make_module(), data, loss, validation=validation, max_steps=10, batch_size=24)
    distances = (torch.stack(drawn)[:, :, None, None] - data.targets).abs().amax(dim=-1)
    nearest = distances.flatten(2).argmin(dim=-1)
    assert (distances.flatten(2).amin(dim=-1) == 0).all()
    assert set((nearest % 3).ravel().tolist()) == {0, 1, 2}
    assert len(validated) == 11
    assert all(torch.equal(fractions, data.targets.mean(dim=1)) for fractions in validated)


def test_best_weights_are_restored():
    module, (data, validation) = make_module(dropout=0.3), make_split()
    plan = run(module, data, validation=validation, max_steps=600, learning_rate=0.03)
    history = plan.history()["validation_loss"]["validation_loss"]
    assert 0 < plan.best_epoch < history.index[-1]
    assert history.idxmin() == plan.best_epoch
    assert validation_loss(module, validation) == pytest.approx(history.min(), rel=1e-6)


def test_starting_weights_are_kept_if_training_worsens():
    data, validation = make_split(300, 1)
    module = make_module(1)
    run(module, data, validation=validation, max_steps=200, batch_size=300)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data.targets = data.targets.flip(0)
    plan = run(module, data, validation=validation, learning_rate=0.1, batch_size=300)
    assert plan.best_epoch == 0
    assert all(torch.equal(tensor, start[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("n_choices", [1, 3])
def test_members_may_have_rows_of_their_own(n_choices):
    """Permuted rows for each member give the same training as one table; each member uses only its own rows."""
    shared = make_data(n_choices=n_choices)
    x, targets = shared.x.expand(2, -1, -1).clone(), shared.targets.expand(2, -1, -1, -1).clone()
    other = TrainingData(x.clone(), targets.clone(), shared.weights)
    other.targets[1] = other.targets[1].flip(0)
    modules = [make_module() for _ in range(3)]
    for module, data in zip(modules, (shared, TrainingData(x, targets, shared.weights), other), strict=True):
        run(module, data, max_steps=10)
    for together, apart, changed in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(apart, together)
        torch.testing.assert_close(changed[0], together[0])
        assert not torch.allclose(changed[1], together[1])


def test_offsets_are_added_to_the_logits():
    """A zero correction has the error of the base estimate, and training reduces it."""
    data, validation = make_split(300, 2)
    estimate = torch.log(data.targets[:, 0]).expand(2, -1, -1)
    wrong = estimate + torch.tensor([0.0, 1.0, -1.0])
    for offsets in (estimate, wrong):
        data.offsets = validation.offsets = offsets
        module = make_module(linear=True)
        plan = run(
            module, data, LOSSES["mse"], validation=validation, max_steps=300, learning_rate=0.03, batch_size=100
        )
        losses = LOSSES["mse"](offsets, data.targets[:, 0])
        at_start = float((losses * validation.weights).sum() / validation.weights.sum())
        assert plan.validation_losses[0] == pytest.approx(at_start, rel=1e-5, abs=1e-12)
        assert (plan.best_epoch > 0) == (offsets is wrong)
    assert min(plan.validation_losses) < 0.1 * plan.validation_losses[0]


def gain_by_group(module, start, validation):
    """Decrease of the validation loss from the starting weights to those of the module, summed by group."""
    losses = []
    for weights in (start, module.state_dict()):
        trained = make_module(len(validation.weights))
        trained.load_state_dict(weights)
        with torch.no_grad():
            values = LOSSES["cross_entropy"](trained(validation.x), validation.targets.mean(dim=1))
        losses.append((values * validation.weights).sum(dim=0))
    return pd.Series((losses[0] - losses[1]).numpy()).groupby(validation.groups.numpy()).sum()


def test_gain_over_all_groups_is_accepted():
    module = make_module(3)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data, validation = make_split(300, 3, groups=torch.arange(300) % 10)
    plan = run(module, data, validation=validation, max_steps=200)
    assert plan.best_epoch == plan.history()["validation_loss"]["validation_loss"].idxmin() > 0
    assert validation_loss(module, validation) == pytest.approx(min(plan.validation_losses), rel=1e-6)
    gains = gain_by_group(module, start, validation)
    assert gains.mean() > gains.sem()


@pytest.mark.parametrize("groups", [None, torch.arange(24) // 3])
def test_gain_of_a_single_group_is_refused(groups):
    """The total loss falls, but in one of eight groups only: with groups given, the starting weights are restored."""
    module = make_module(3, linear=True)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    data, validation = make_split(24, 3, groups=groups)
    # the starting weights are correct for all rows except the first three
    data.targets[:] = validation.targets[:] = 1 / 3
    data.targets[:3] = validation.targets[:3] = torch.tensor([1.0, 0.0, 0.0])
    data.weights[:] = 1
    plan = run(module, data, validation=validation, max_steps=30)
    assert min(plan.validation_losses) < 0.98 * plan.validation_losses[0]
    assert (plan.best_epoch > 0) == (groups is None)
    kept = all(torch.equal(tensor, start[name]) for name, tensor in module.state_dict().items())
    assert kept == (groups is not None)


def test_groups_without_held_out_rows_are_ignored():
    """Only one of five groups is validated, as with one member and five donors: a standard error is undefined."""
    groups = torch.arange(25) // 5
    for held in (groups == 0, groups == 4):
        data = make_data(25, 1)
        validation = TrainingData(data.x, data.targets, held[None].float(), groups=groups)
        data.weights = 1 - validation.weights
        plan = run(make_module(1), data, validation=validation, max_steps=60)
        assert min(plan.validation_losses) < 0.95 * plan.validation_losses[0]
        assert plan.best_epoch > 0


def test_training_stops_after_patience_epochs():
    data, validation = make_split()
    plan = run(make_module(), data, validation=validation, max_steps=6000, learning_rate=0.1, patience=7)
    epochs = plan.history()["train_loss"].index
    assert epochs[-1] == plan.best_epoch + 7
    assert len(epochs) < 2000


def test_last_weights_are_kept_on_request():
    data, validation = make_split()
    same = {"validation": validation, "max_steps": 600, "learning_rate": 0.1}
    best, last = make_module(), make_module()
    kept, plan = run(best, data, **same), run(last, data, keep_best=False, **same)
    assert kept.validation_losses == plan.validation_losses
    assert kept.best_epoch < plan.best_epoch == len(plan.train_losses)
    assert not all(torch.equal(tensor, best.state_dict()[name]) for name, tensor in last.state_dict().items())


def test_without_validation_the_last_weights_are_kept():
    plan = run(make_module(), make_data(), max_steps=30, patience=1)
    assert list(plan.history()) == ["train_loss"]
    assert len(plan.history()["train_loss"]) == 10


def test_history_has_one_frame_per_loss_by_epoch():
    data, validation = make_split()
    plan = run(make_module(), data, validation=validation, max_steps=9)
    history = plan.history()
    assert list(history) == ["train_loss", "validation_loss", "best_epoch"]
    assert history["best_epoch"].to_numpy().tolist() == [[plan.best_epoch]]
    for name, first in (("train_loss", 1), ("validation_loss", 0)):
        assert isinstance(history[name], pd.DataFrame)
        assert list(history[name].columns) == [name]
        assert history[name].index.name == "epoch"
        assert list(history[name].index) == list(range(first, 4))
        assert history[name].notna().all(axis=None)


def test_train_loss_is_the_mean_over_members():
    module, data = make_module(), make_data()
    with torch.no_grad():
        expected = LOSSES["mse"](module(data.x), data.targets[:, 0]).mean().item()
    history = run(module, data, LOSSES["mse"], max_steps=1, batch_size=24).history()
    assert history["train_loss"].iloc[0, 0] == pytest.approx(expected, rel=1e-6)


def interrupting(*at_calls):
    """A loss that sends SIGINT to this process when it is called for the n-th time."""
    calls = itertools.count(1)

    def loss(logits, fractions):
        if next(calls) in at_calls:
            os.kill(os.getpid(), signal.SIGINT)
        return LOSSES["cross_entropy"](logits, fractions)

    return loss


def test_ctrl_c_ends_training_and_restores_the_handler():
    handler = signal.getsignal(signal.SIGINT)
    module, data = make_module(), make_data()
    plan = run(module, data, interrupting(5), max_steps=10_000)
    assert plan.stop
    assert plan.n_steps == 5
    assert len(plan.history()["train_loss"]) == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert not module.training
    assert torch.isfinite(module(data.x)).all()


def test_ctrl_c_restores_the_best_weights_so_far():
    module, (data, validation) = make_module(), make_split()
    plan = run(module, data, interrupting(300), validation=validation, max_steps=10_000, learning_rate=0.1)
    assert plan.stop
    assert validation_loss(module, validation) == pytest.approx(min(plan.validation_losses), rel=1e-6)


def test_ctrl_c_before_the_first_step_changes_nothing():
    module, (data, validation) = make_module(), make_split()
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    plan = run(module, data, interrupting(1), validation=validation)
    assert plan.stop
    assert list(plan.history()) == ["validation_loss", "best_epoch"]
    assert len(plan.history()["validation_loss"]) == 1
    assert all(torch.equal(tensor, start[name]) for name, tensor in module.state_dict().items())


def test_second_ctrl_c_calls_the_previous_handler():
    received = []
    previous = signal.signal(signal.SIGINT, lambda *args: received.append(args))
    mine = signal.getsignal(signal.SIGINT)
    try:
        # the validation after the interrupted step calls the loss a second time
        data, validation = make_split()
        plan = run(make_module(), data, interrupting(2, 3), validation=validation)
        assert plan.stop
        assert len(received) == 1
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, previous)


def test_training_works_outside_the_main_thread():
    plans = []
    thread = threading.Thread(target=lambda: plans.append(run(make_module(), make_data(), max_steps=6)))
    thread.start()
    thread.join()
    assert len(plans[0].train_losses) == 2


def test_global_settings_are_restored_and_nothing_is_printed(capfd, global_state_untouched):
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with global_state_untouched(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(make_module(), make_data())
    assert not caught
    assert logger.level == level
    assert warnings.filters == filters
    assert capfd.readouterr() == ("", "")


def test_settings_are_restored_after_an_error():
    handler, level = signal.getsignal(signal.SIGINT), logging.getLogger("lightning.pytorch").level

    def failing(logits, fractions):
        msg = "planted"
        raise ZeroDivisionError(msg)

    with pytest.raises(ZeroDivisionError, match="planted"):
        run(make_module(), make_data(), failing)
    assert signal.getsignal(signal.SIGINT) is handler
    assert logging.getLogger("lightning.pytorch").level == level


def test_threads_are_limited_only_during_small_steps():
    previous = torch.get_num_threads()
    during = []

    def loss(logits, fractions):
        during.append(torch.get_num_threads())
        return LOSSES["mse"](logits, fractions)

    torch.set_num_threads(2)
    try:
        run(make_module(), make_data(), loss, max_steps=1)
        assert set(during) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(previous)
