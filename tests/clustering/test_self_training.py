from __future__ import annotations

import numpy as np
import pytest
import torch

from scdeconv._nn import target_distribution
from scdeconv.clustering._self_training import Schedule, SelfTraining


def assignments(labels, sure=0.8):
    """Soft assignments to three clusters with these labels."""
    q = torch.full((len(labels), 3), (1 - sure) / 2)
    q[range(len(labels)), labels] = sure
    return q


def script(*epochs):
    """Return a function that yields the assignments of these labels in turn, and the list of its calls."""
    values = iter([assignments(labels) for labels in epochs])
    return lambda: next(values)


def test_training_never_ends_at_the_first_refresh():
    same = [0, 1, 2, 0]
    training = SelfTraining(script(same, same), tolerance=2.0)
    assert training(0) is False
    assert len(training.history()) == 0
    assert training(1)


def test_training_ends_below_the_tolerance():
    labels = np.zeros((4, 10), dtype=int)
    labels[1, :4] = 1
    labels[2, :6] = 1
    labels[3, :7] = 1
    training = SelfTraining(script(*labels), tolerance=0.2)
    # 4, then 2 (not smaller than the tolerance), then 1 of 10
    assert [bool(training(epoch)) for epoch in range(4)] == [False, False, False, True]
    history = training.history()
    assert list(history) == ["label_change"]
    assert history.index.name == "epoch"
    assert list(history.index) == [1, 2, 3]
    np.testing.assert_allclose(history["label_change"], [0.4, 0.2, 0.1])


def test_targets_come_from_the_last_update():
    first, second = [0, 0, 1, 2], [0, 1, 1, 2]
    training = SelfTraining(script(first, second), tolerance=0.0)
    training(0)
    assert torch.equal(training.targets, target_distribution(assignments(first)))
    training(1)
    assert torch.equal(training.targets, target_distribution(assignments(second)))


@pytest.mark.parametrize("interval", [1, 3, 5])
def test_targets_are_kept_between_updates(interval):
    calls = []

    def assign():
        calls.append(1)
        return assignments([len(calls) % 3, 1, 2])

    training = SelfTraining(assign, tolerance=0.0, update_interval=interval)
    n_calls = []
    for epoch in range(11):
        assert not training(epoch)
        n_calls.append(len(calls))
    assert n_calls == [epoch // interval + 1 for epoch in range(11)]
    assert list(training.history().index) == list(range(interval, 11, interval))


def test_tolerance_of_0_never_ends_training():
    same = [0, 1, 2]
    training = SelfTraining(script(*[same] * 5), tolerance=0.0)
    assert not any(training(epoch) for epoch in range(5))


def test_sharper_assignments_do_not_count_as_change():
    values = iter([assignments([0, 1, 2], sure) for sure in (0.5, 0.9)])
    training = SelfTraining(lambda: next(values), tolerance=0.01)
    assert [bool(training(0)), bool(training(1))] == [False, True]


@pytest.mark.parametrize(
    ("n_cells", "batch_size", "expected"),
    [(2100, 256, 100), (4271, 256, 53), (2100, 128, 53), (50, 256, 150), (10**6, 256, 25)],
)
def test_pretraining_takes_about_as_many_steps(n_cells, batch_size, expected):
    assert Schedule(900, np.asarray, torch.optim.Adam).pretrain_epochs(n_cells, batch_size) == expected
