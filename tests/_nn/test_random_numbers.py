from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from scdeconv._nn import seeded

X = torch.ones(20, 5)
DRAWS = {
    "rand": lambda: torch.rand(4),
    "randn": lambda: torch.randn(4),
    "randint": lambda: torch.randint(9, (8,)),
    "randperm": lambda: torch.randperm(9),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X),
    "normal": lambda: torch.normal(X, X),
    "bernoulli": lambda: torch.bernoulli(X / 2),
    "multinomial": lambda: torch.multinomial(X, 3),
    "uniform_": lambda: torch.empty(4).uniform_(-1, 1),
    "rsample": lambda: Normal(X, X).rsample(),
    "linear": lambda: nn.Linear(4, 3).weight.detach(),
    "xavier": lambda: nn.init.xavier_uniform_(torch.empty(4, 3)),
    "kaiming": lambda: nn.init.kaiming_normal_(torch.empty(4, 3)),
    "dropout": lambda: nn.functional.dropout(X, 0.3),
    "dropout of a module": lambda: nn.Dropout(0.3)(X),
    "dropout in place": lambda: nn.functional.dropout(X.clone(), 0.3, inplace=True),
    "all dropped": lambda: nn.functional.dropout(X, 1.0),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_numbers_are_those_of_manual_seed(draw, global_state_untouched):
    with global_state_untouched(), seeded(3):
        found = [draw(), draw()]
    torch.manual_seed(3)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, [draw(), draw()], strict=True))


@pytest.mark.parametrize(("p", "training"), [(0.3, False), (0.0, True)])
def test_no_dropout_returns_the_input(p, training):
    with seeded(0):
        assert nn.functional.dropout(X, p, training) is X


def test_generator_of_the_caller_is_used():
    with seeded(0):
        found = torch.rand(3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_meta_tensors_draw_nothing():
    with seeded(0):
        with torch.device("meta"):
            nn.Linear(3, 2)
        found = torch.rand(3)
    with seeded(0):
        assert torch.equal(found, torch.rand(3))
