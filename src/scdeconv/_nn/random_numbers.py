"""Random numbers of torch from own generators instead of the global random state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Tensor = torch.Tensor
# functions with an argument ``generator``
WITH_GENERATOR: frozenset[Any] = frozenset(
    {torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.binomial}
    | {torch.rand, torch.randint, torch.randn, torch.randperm, torch._standard_gamma}
    | {Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_, Tensor.log_normal_}
    | {Tensor.multinomial, Tensor.normal_, Tensor.random_, Tensor.uniform_}
    | {nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_}
)


class seeded(TorchFunctionMode):
    """Context in which torch draws the random numbers of this thread from a seed: weights, dropout, order of rows.

    The numbers are those after ``torch.manual_seed(seed)``. The global random state is neither read nor changed, so
    other threads have no influence on the result. All trainings of networks run in this context.

    Parameters
    ----------
    seed
        Seed of the generators, one generator for each device.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with the generator of its device."""
        options = dict(kwargs or {})
        if func is nn.functional.dropout:
            return self._dropout(*args, **options)
        if func in (torch.rand_like, torch.randn_like):
            empty = torch.empty_like(*args, **options)
            draw = empty.uniform_ if func is torch.rand_like else empty.normal_
            return draw(generator=self._generator(empty.device))
        if func in WITH_GENERATOR and options.get("generator") is None:
            tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor)]
            device = tensors[0].device if tensors else torch.device(options.get("device") or "cpu")
            options["generator"] = self._generator(device)
        return func(*args, **options)

    def _generator(self, device: torch.device) -> torch.Generator | None:
        if device.type == "meta":
            # no memory, no numbers
            return None
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Return ``torch.nn.functional.dropout``, which has no argument ``generator``."""
        if not training or p == 0:
            return input
        if p == 1:
            return input.mul_(0) if inplace else input * 0
        kept = torch.empty_like(input).bernoulli_(1 - p, generator=self._generator(input.device)).div_(1 - p)
        return input.mul_(kept) if inplace else input * kept
