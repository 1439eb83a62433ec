"""Run a training plan: one progress bar, stop on the first signal, no messages of Lightning."""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from scdeconv._data.progress import progress, quiet
from scdeconv._data.warnings import dependency_warnings_ignored
from scdeconv._process import first_interrupt_calls, one_openmp_thread, shared_change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loop import Plan

# weights × rows of a step below which one thread is faster; chosen by timing on 2 cores
SINGLE_THREAD_STEP_SIZE = 100_000_000
IMPORTED_BY = os.getpid()

DEFAULTS = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Trainer(lightning.Trainer):
    """Trainer that does not touch the global random state."""

    def _run_stage(self) -> None:
        # without the sanity check, after which Lightning restores the random state and undoes draws of other threads
        self.strategy.barrier("run-stage")
        with torch.autograd.set_detect_anomaly(self._detect_anomaly):
            self.fit_loop.run()


@contextmanager
def _threads(*, one: bool) -> Iterator[None]:
    """Run on one thread, or on all; in a forked process on one, because threads of OpenMP do not survive a fork."""
    is_forked = os.getpid() != IMPORTED_BY
    with (
        shared_change("threads of torch", _one_torch_thread) if is_forked else nullcontext(),
        one_openmp_thread() if one or is_forked else nullcontext(),
    ):
        yield


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Set the number of threads of the whole process, also of MKL."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@contextmanager
def inference() -> Iterator[None]:
    """Evaluate a trained network: without gradients, and also in a forked process."""
    with torch.no_grad(), _threads(one=False):
        yield


def _is_small(plan: Plan) -> bool:
    """Return whether steps are faster on one thread, in particular on shared cores."""
    n_weights = sum(parameter.numel() for parameter in plan.module.parameters())
    return n_weights * plan.batch_size < SINGLE_THREAD_STEP_SIZE


def trainer_arguments() -> list[str]:
    """Return the arguments of ``lightning.Trainer`` that ``train`` passes on; the duration of a training is not one."""
    return [name for name in inspect.signature(lightning.Trainer).parameters if name not in ("max_epochs", "max_steps")]


def registration_arguments() -> tuple[str, ...]:
    """Return the arguments of ``AnnDataManager.register_fields`` of scvi-tools that ``setup_anndata`` passes on."""
    return "source_registry", "extend_categories", "allow_missing_labels"


def run(
    plan: Plan,
    *,
    description: str,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    **trainer_kwargs: Any,
) -> None:
    """Train the module of a plan in place. Afterwards it is in evaluation mode and on the CPU.

    Parameters
    ----------
    plan
        Training plan. Ctrl-C stops it after the current step; Lightning would exit the process. SIGTERM does the same if it has a
        handler, as in the commands; else it ends the process.
    description
        Name of the progress bar.
    accelerator, devices, **trainer_kwargs
        Passed to ``lightning.Trainer``.
    """
    plan.module.train()
    with (
        quiet("lightning.pytorch"),
        dependency_warnings_ignored(),
        first_interrupt_calls(plan.request_stop) as plan.install_signal_handlers,
        _threads(one=_is_small(plan)),
        progress(plan.max_epochs, description) as plan.bar,
    ):
        options = {"accelerator": accelerator, "devices": devices, **trainer_kwargs}
        try:
            trainer = Trainer(max_epochs=plan.max_epochs, **{**DEFAULTS, **options})
        except (MisconfigurationException, TypeError, ValueError) as error:
            msg = (
                f"Expected arguments of lightning.Trainer that fit this machine, found {options}: {error} Omit them, or "
                "use accelerator='auto'."
            )
            raise ValueError(msg) from error
        trainer.fit(plan, train_dataloaders=[0])
    plan.module.eval()
    plan.module.cpu()
