"""Batches on their way to the network: made ahead of time by worker processes, or ordered by them and made there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from separation.errors import UserError
from separation.training.batches import Batch, Batches
from separation.training.waveforms import Orders, Waveforms


def load(batches: Batches, first: int, device: torch.device, waveforms: Waveforms | None = None) -> Iterator[Batch]:
    """The batches from step `first` on, on a device: of `waveforms` that are there, if `batches` has their clerk.

    Raises `UserError` when music cannot be read any more, or a worker process is killed.
    """
    workers = batches.data.workers
    loader = DataLoader(
        _Told(batches),
        batch_size=None,
        sampler=range(first, len(batches)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            if waveforms:
                yield batches.finished(batch, waveforms)
            else:
                yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that makes batches was killed, perhaps for want of memory: lower data.workers or "
            "data.batch_size, and go on with --resume."
        ) from error


class _Told(Dataset):
    """The same batches, with an error for the user in place of one that cannot be made: no trace of a worker's."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | dict[str, Orders] | UserError:
        try:
            return self.batches[step]
        except UserError as error:
            return error


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # the cores belong to the network
