"""What a training run shows of itself: TensorBoard's scalars, pictures and audio, and the time it waits for data."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from separation.audio.stft import Spectral
from separation.dataset.store import StoredTrack, mixture_of
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator
from separation.training.config import Config
from separation.training.history import History


class TrainingReport:
    """Writes `<output>/history.jsonl`, and TensorBoard's events into `<output>/events` for `tensorboard --logdir`.

    A machine that only trains may lack TensorBoard and what draws its pictures: no events are written there. Nor are
    they, or the history, once the disk has refused them: the training goes on as long as its weights can be written.
    """

    every = 50
    """Steps between two points of a loss."""

    def __init__(self, output: Path, config: Config, step: int):
        self.writer, self.history = None, History(output, step)
        try:
            import librosa  # noqa: F401
            import matplotlib  # noqa: F401
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            print(f"{error.name} is not installed: this run writes nothing for TensorBoard")
        else:
            threading.excepthook = partial(_told_elsewhere, threading.excepthook)
            with self._as_long_as_there_is_room():
                self.writer = SummaryWriter(str(output / "events"), purge_step=step + 1 if step else None)
                self.writer.add_text("config", f"```json\n{json.dumps(asdict(config), indent=2)}\n```", step)
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.waited = self.worked = 0.0

    def timed(self, batches: Iterable) -> Iterator:
        """The same batches, with a note of how long the step waited for each and how long it worked on it."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            arrived = time.perf_counter()
            self.waited += arrived - start
            yield batch
            self.worked += time.perf_counter() - arrived

    def losses(self, step: int, terms: Mapping[str, float]) -> None:
        """Note the losses of a step; means over `every` steps are written, each over the steps that had the term."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        if step % self.every:
            return
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        took = self.waited + self.worked
        times = {"share waiting for data": self.waited / (took + 1e-9), "seconds per step": took / self.every}
        self.sums, self.counts, self.waited, self.worked = {}, {}, 0.0, 0.0
        with self._as_long_as_there_is_room():
            if self.history:
                self.history.add(step, losses=means, time=times)
            if self.writer:
                for kind, values in (("loss", means), ("time", times)):
                    for name, value in values.items():
                        self.writer.add_scalar(f"{kind}/{name}", value, step)

    def validation(
        self, step: int, scores: Mapping[str, float], network: MaskingNetwork, songs: Sequence[StoredTrack]
    ) -> None:
        """Write validation SDR, and how the first validation song comes apart: pictures, sound and energies."""
        with self._as_long_as_there_is_room():
            if self.history and scores:
                self.history.add(step, validation_sdr=scores)
            if self.writer:
                for source, value in scores.items():
                    self.writer.add_scalar(f"validation SDR/{source}", value, step)
                if songs and songs[0].samples > 1:  # one sample alone TensorBoard takes for none
                    self._show(step, network, songs[0])

    def _show(self, step: int, network: MaskingNetwork, song: StoredTrack) -> None:
        spectral = Spectral(network.settings)
        mixture = mixture_of(song).crop(0, song.frames, network.settings.bins)
        rate = network.settings.sample_rate
        waveform = spectral.inverse(mixture, song.samples)[:, : 10 * rate]
        sources = Separator(network)(waveform, rate)
        for name, signal in {"mixture": waveform, **sources}.items():
            self.writer.add_image(f"spectrogram/{name}", picture(spectral(signal), rate), step)
            self.writer.add_audio(f"audio/{name}", signal.mean(dim=0).clamp(-1, 1), step, rate)
        # A generator that takes nothing out has collapsed: every L1 term is then zero, and only this shows it.
        for name, signal in sources.items():
            share = float(signal.square().sum() / waveform.square().sum().clamp_min(1e-10))
            self.writer.add_scalar(f"share of the song's energy/{name}", share, step)

    @contextmanager
    def _as_long_as_there_is_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(f"neither history nor events are written from here on ({error}); the training goes on", flush=True)
            self.writer = self.history = None

    def close(self) -> None:
        with self._as_long_as_there_is_room():
            if self.writer:
                self.writer.close()


def _told_elsewhere(others: Callable, failure: threading.ExceptHookArgs) -> None:
    """What a full disk says to TensorBoard's thread it says to its next caller as well: no trace of it is printed."""
    if not issubclass(failure.exc_type, OSError):
        others(failure)


def picture(spectrogram: Tensor, sample_rate: int) -> Tensor:
    """A spectrogram as an image: complex `[channels, bins, frames]` to `[3, height, frames]` in [0, 1].

    Height is mel frequency, upwards; brightness spans the 80 dB below full scale.
    """
    import librosa
    from matplotlib import colormaps

    power = spectrogram.abs().square().mean(dim=0).numpy()
    mel = librosa.feature.melspectrogram(S=power, sr=sample_rate, n_mels=128)
    level = librosa.power_to_db(mel, ref=1.0, amin=1e-8, top_db=None) / 80 + 1
    return torch.from_numpy(colormaps["magma"](level[::-1].clip(0, 1))[..., :3].copy()).permute(2, 0, 1)
