"""Reports of a run: lines when it starts and ends, a text file of its curves, and TensorBoard events."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.audio.stft import Spectral, mel_filters
from separation.dataset.layouts import artist_of
from separation.dataset.store import StoredTrack
from separation.files import replacing
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator
from separation.inference.weights import load_weights
from separation.stems import MIXTURE
from separation.training.batches import Batches
from separation.training.checkpoints import BEST, finetune_hint
from separation.training.config import Config

HISTORY = "history.jsonl"

FIRST_POINTS = (1, 2, 5, 10, 20)
"""Early steps that are logged in addition to every `RunLog.every`-th step."""

FEW_LABELS = 40
"""Most labelled songs for the exchange to help: it gains 1.6 dB with 5 songs, 0.2 with 20, and costs 0.2 with 80."""


class RunLog:
    """Writes `<output>/history.jsonl`, one JSON line per point, and TensorBoard events in `<output>/events`.

    A resumed run continues both after its `step` and drops later points, which will come again. Without TensorBoard
    or matplotlib no events are written. After a failed write nothing more is logged, and training goes on.
    """

    every = 50
    """Steps between two points of a loss curve."""

    def __init__(self, output: Path, config: Config, step: int):
        self.writer: Any = None
        path = output / HISTORY
        self.history: Path | None = path
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if step and path.is_file() else []
        with replacing(path) as partial_file:
            kept = [f"{line}\n" for line in lines if _step_of(line) <= step]
            partial_file.write_text("".join(kept), encoding="utf-8")
        try:
            import matplotlib  # noqa: F401
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            print(f"{error.name} is not installed: this run writes no TensorBoard events")
        else:
            threading.excepthook = partial(_report_elsewhere, threading.excepthook)
            with self._until_disk_is_full():
                self.writer = SummaryWriter(str(output / "events"), purge_step=step + 1 if step else None)
                self.writer.add_text("config", f"```json\n{json.dumps(asdict(config), indent=2)}\n```", step)
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.waited, self.worked, self.steps = 0.0, 0.0, 0

    def timed(self, batches: Iterable) -> Iterator:
        """Pass batches through, measuring how long each step waits for its batch and how long it works on it."""
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
        """Record the losses of a step. A point is the mean over the steps since the last point that had the term."""
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        if step % self.every and step not in FIRST_POINTS:
            return
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        took = self.waited + self.worked
        times = {"share waiting for data": self.waited / (took + 1e-9), "seconds per step": took / self.steps}
        self.sums, self.counts, self.waited, self.worked, self.steps = {}, {}, 0.0, 0.0, 0
        self._write(step, losses=means, time=times)
        with self._until_disk_is_full():
            if self.writer:
                for kind, values in (("loss", means), ("time", times)):
                    for name, value in values.items():
                        self.writer.add_scalar(f"{kind}/{name}", value, step)

    def validation(
        self, step: int, scores: Mapping[str, float], network: MaskingNetwork, songs: Sequence[StoredTrack]
    ) -> None:
        """Write validation SDR, and spectrograms, audio and energies of the first validation song."""
        if scores:
            self._write(step, validation_sdr=scores)
        with self._until_disk_is_full():
            if self.writer:
                for source, value in scores.items():
                    self.writer.add_scalar(f"validation SDR/{source}", value, step)
                if songs and songs[0].samples > 1:  # TensorBoard 2.20 treats a single sample as none
                    show(self.writer, step, network, songs[0])

    def _write(self, step: int, **values: Mapping[str, float]) -> None:
        with self._until_disk_is_full():
            if self.history:
                with self.history.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **values}) + "\n")

    @contextmanager
    def _until_disk_is_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            print(f"history and events are no longer written ({error}); training continues", flush=True)
            self.writer = self.history = None

    def close(self) -> None:
        with self._until_disk_is_full():
            if self.writer:
                self.writer.close()


def _step_of(line: str) -> float:
    """The step of a history line; infinity for a line that was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _report_elsewhere(others: Callable[..., Any], failure: threading.ExceptHookArgs) -> None:
    """Print no traceback for disk errors in TensorBoard's thread, which repeats them to its next caller."""
    if not issubclass(failure.exc_type, OSError):
        others(failure)


def show(writer: Any, step: int, network: MaskingNetwork, song: StoredTrack) -> None:
    """Write spectrograms, audio and energies of the first ten seconds of a song and its stems."""
    spectral, rate = Spectral(network.settings), network.settings.sample_rate
    mixture = song.crop(MIXTURE, 0, song.frames, network.settings.bins)
    waveform = spectral.inverse(mixture, song.samples)[:, : 10 * rate]
    sources = Separator(network)(waveform, rate)
    for name, signal in {"mixture": waveform, **sources}.items():
        writer.add_image(f"spectrogram/{name}", picture(spectral(signal), rate), step)
        writer.add_audio(f"audio/{name}", signal.mean(dim=0).clamp(-1, 1), step, rate)
    # A collapsed network extracts nothing: every L1 term is then zero, and only this share shows it.
    for name, signal in sources.items():
        share = float(signal.square().sum() / waveform.square().sum().clamp_min(1e-10))
        writer.add_scalar(f"share of the song's energy/{name}", share, step)


def picture(spectrogram: Tensor, sample_rate: int) -> Tensor:
    """Draw a spectrogram as an image: complex `[channels, bins, frames]` to `[3, height, frames]` in [0, 1].

    The height is mel frequency, rising upwards; brightness spans the 80 dB below full scale.
    """
    from matplotlib import colormaps

    power = spectrogram.abs().square().mean(dim=0).numpy()
    mel = mel_filters(128, len(power), sample_rate, 0, sample_rate / 2) @ power
    level = np.log10(np.maximum(mel, 1e-8)) / 8 + 1
    return torch.from_numpy(colormaps["magma"](level[::-1].clip(0, 1))[..., :3].copy()).permute(2, 0, 1)


def describe_music(batches: Batches, validated: Sequence[StoredTrack]) -> str:
    """Numbers of songs in a run, in words."""
    labelled, unlabelled = batches.pools.counts()
    return f"{labelled} labelled, {unlabelled} unlabelled, {len(validated)} to validate on"


def describe_network(config: Config, network: MaskingNetwork, dtype: torch.dtype) -> str:
    """Targets, size, device and precision of the network, in words."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    return f"{', '.join(config.targets)}; {parameters:,} parameters; on {network.device} in {precision}"


def warnings_about(config: Config, batches: Batches, validated: Sequence[StoredTrack]) -> list[str]:
    """Likely mistakes in the settings, a sentence each."""
    labelled, warnings = batches.pools.counts()[0], []
    if config.losses.supervised and not batches.supervised:
        warnings.append(
            f"no song has isolated {' and '.join(config.targets)} and a rest, so the supervised losses are left out: "
            "check data.stores and data.labelled, or set losses.supervised_target and supervised_rest to 0."
        )
    if config.losses.exchange and batches.supervised and labelled > FEW_LABELS:
        warnings.append(
            f"losses.exchange costs quality beside {labelled} labelled songs: set it to 0. It helps beside few."
        )
    if not validated:
        hint = f": data.valid={min(5, labelled // 2)} holds out some of the training songs" if labelled > 1 else ""
        warnings.append(
            f"there are no songs to validate on, so the weights of the last step will be kept, good or not{hint}."
        )
    return warnings


def shared_artists(batches: Batches, validated: Sequence[StoredTrack]) -> list[str]:
    """Artists in both training and validation songs, where validation rewards knowing the singer."""
    trained = {artist_of(signal.track.song) for signal in batches.pools.signals(batches.config.targets)}
    return sorted(trained & {artist_of(track.song) for track in validated})


def describe_result(output: Path, network: str, finished_before: bool = False) -> str:
    """The result of a run in words, read from its weights file."""
    facts = load_weights(output / BEST, network=network).provenance
    scores: Mapping[str, float] = facts.get("validation_sdr") or {}
    sdr, step = "".join(f", {source} {value:.2f} dB" for source, value in scores.items()), facts.get("step")
    chosen = f"step {step}, the best on the validation songs"
    if not scores:
        chosen = f"step {step}, the last, without songs to choose by"
    elif step == 0:
        chosen = "the weights it started from, which no later step has beaten"
    temperature = facts.get("temperature", 1)
    lines = [f"done: {output / BEST}{sdr} ({chosen}{f', temperature {temperature:g}' if temperature != 1 else ''})"]
    if finished_before:
        lines.append(f"it had finished before; {finetune_hint(output)}")
    return "\n".join(lines)
