"""Running a training plan: one progress bar, Ctrl-C that keeps what was learned, a quiet Lightning."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import torch

from scdeconv._data.progress import progress, quiet
from scdeconv._data.warnings import dependency_warnings_ignored

if TYPE_CHECKING:
    from collections.abc import Iterator

# multiplications in a forward pass below which a second thread does not pay
SMALL_STEP = 100_000_000


class EpochPlan(lightning.LightningModule):
    """A plan whose one Lightning "batch" is an epoch; it steps its optimiser itself and obeys ``stop``.

    Parameters
    ----------
    module
        What is trained; put into evaluation mode and back on the CPU at the end.
    max_epochs, batch_size
        Longest training, and rows in a step.
    """

    def __init__(self, module: torch.nn.Module, max_epochs: int, batch_size: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.bar: Any = None
        self.stop = False


@contextmanager
def _stop_on_interrupt(plan: EpochPlan) -> Iterator[None]:
    """Let the first Ctrl-C end training after the current step; Lightning would end the whole process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    def stop(signum: int, frame: Any) -> None:
        plan.stop = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _one_thread_if_small(plan: EpochPlan) -> Iterator[None]:
    """Run small steps on one thread: others cost more than they bring, and far more where cores are shared."""
    n_weights = sum(parameter.numel() for parameter in plan.module.parameters())
    previous = torch.get_num_threads()
    if n_weights * plan.batch_size < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def run(
    plan: EpochPlan,
    *,
    description: str,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    **trainer_kwargs: Any,
) -> None:
    """Run the plan to its end; the first Ctrl-C only sets ``plan.stop``."""
    plan.module.train()
    with (
        quiet("lightning.pytorch"),
        dependency_warnings_ignored(),
        _stop_on_interrupt(plan),
        _one_thread_if_small(plan),
        progress(plan.max_epochs, description) as plan.bar,
    ):
        trainer = lightning.Trainer(
            max_epochs=plan.max_epochs,
            accelerator=accelerator,
            devices=devices,
            **{
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **trainer_kwargs,
            },
        )
        trainer.fit(plan, train_dataloaders=[0])
    plan.module.eval()
    plan.module.cpu()
