"""One training step, and the loop around it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from separation.errors import UserError
from separation.files import sweep_partials
from separation.inference.device import choose_precision
from separation.inference.weights import build_network, load_weights, save_weights
from separation.models import Discriminator
from separation.training import words
from separation.training.batches import Batch, Batches
from separation.training.calibration import soften
from separation.training.config import Config
from separation.training.loading import load
from separation.training.objective import DiscriminatorObjective, GeneratorObjective
from separation.training.optimizer import GeneratorOptimizer, learning_rate_factor
from separation.training.pools import open_pools
from separation.training.report import TrainingReport
from separation.training.resume import BEST, LAST, read_run, restore
from separation.training.start import grown_from, measure_input
from separation.training.state import save_state
from separation.training.validation import mean_of, medians, validate, validation_tracks
from separation.training.waveforms import waveforms_of


class Trainer:
    """A training run in the folder `output`: `last.pt` to take it up again, `best.safetensors` to separate with.

    Under torchrun every process has one trainer, and shares the batches out with the others.
    """

    def __init__(self, config: Config, output: Path, device: torch.device, resume: bool = False):
        self.config, self.output, self.device = config, output, device
        self.schedule = config.schedule
        self.dtype = choose_precision(self.schedule.precision, device)
        self.rank, self.processes = processes()
        self.step, self.best = 0, -math.inf
        self.minutes = 0.0  # counted where the schedule has a number of them
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} cannot be made a folder: it is a file.")
        state = read_run(output, config, resume)
        band = config.used_bins * config.spectral.sample_rate / config.spectral.n_fft
        self.pools = open_pools(config.targets, config.data, config.spectral, min(band, 16_000))
        self.waveforms = waveforms_of(self.pools, config, device)
        clerk = self.waveforms.clerk if self.waveforms else None
        self.batches = Batches(config, self.pools, self.rank, self.processes, clerk)
        self.songs = self.pools.held_out or validation_tracks(config.data.stores)

        torch.manual_seed(config.seed)
        self.network = build_network(config).to(device)
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(self.schedule.average), use_buffers=True
        )
        self.optimizer = GeneratorOptimizer(self.network.generator, self.schedule, self.dtype)
        # What a run is taken up again with.
        self.parts = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
        if config.losses.adversarial:
            self.critics = DiscriminatorObjective(self._discriminator(len(config.targets)), self._discriminator(1))
            self.critics.to(device)
            self.critics_optimizer = torch.optim.Adam(
                self.critics.parameters(), config.discriminator.learning_rate, betas=(0.5, 0.999)
            )
            self.parts |= {"critics": self.critics, "critics_optimizer": self.critics_optimizer}
        if state:
            self.step, self.best = restore(state, self.parts, self.schedule.steps, output / LAST)
            self.minutes = float(state.get("minutes", 0.0))  # older runs had no clock
            self.best = self.best if (output / BEST).is_file() else -math.inf
        elif config.weights:
            self.network.load_state_dict(grown_from(config.weights, config, self.network.state_dict(), device))
        else:
            measure_input(self.network, self._first_batches())
        if not state:
            self.average.module.load_state_dict(self.network.state_dict())
        self.objective = self._share(GeneratorObjective(self.network, config.losses, config.data.taught_floor))
        self.judging = self._share(self.critics) if config.losses.adversarial else None
        self.begun_at, self.finished_before = self.step, self.is_over
        if self.schedule.compiled:
            self.network.generator.compile()
        try:
            output.mkdir(parents=True, exist_ok=True)  # not before all else is in order
            sweep_partials(output)
        except OSError as error:
            raise UserError(f"--output {output} cannot be made a folder: {error.strerror}.") from error

    def opening(self) -> str:
        """What the run has found and will do, in words, and what is amiss."""
        return words.opening(
            self.config, self.batches, self.songs, self.network, self.device, self.dtype, self.begun_at
        )

    def closing(self) -> str:
        """What the run has made, in words."""
        return words.closing(self.output, self.config.network, finished_before=self.finished_before)

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or the time is up."""
        return self.step == self.schedule.steps or self.minutes >= (self.schedule.minutes or math.inf)

    def run(self) -> None:
        """Train to the end. Raises `UserError` when a loss is not finite, or music cannot be read any more."""
        report = TrainingReport(self.output, self.config, self.step) if self.rank == 0 else None
        bar = tqdm(total=self.schedule.steps, initial=self.step, disable=self.rank > 0, dynamic_ncols=True, unit="step")
        shown: dict[str, str] = {}  # the latest value of each loss: not every step has them all
        scores: dict[str, str] = {}
        with bar, closing(report) if report else nullcontext():
            if report and self.config.weights and self.step == 0:
                scores = in_words(self._validate(report))  # the best will be no worse than what it went on from
            batches = [] if self.is_over else load(self.batches, self.step, self.device, self.waveforms)
            clock = Clock(self.minutes, self.device)
            for batch in report.timed(batches) if report else batches:
                terms = self.train_step(batch)
                self.step += 1
                if self.schedule.minutes:
                    self.minutes = clock.minutes()
                bar.update()
                shown |= {name: f"{value:.3g}" for name, value in terms.items()}
                bar.set_postfix(shown | scores, refresh=False)
                last = self.is_over
                if report:
                    report.losses(self.step, terms)
                    if self.step % self.schedule.validate_every == 0 or last:
                        scores = in_words(self._validate(report))
                    if self.step % self.schedule.checkpoint_every == 0 or last:
                        save_state(self.output / LAST, self._state())
                if last:
                    break
            if report:
                self._finish(report)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Update the generator, then the discriminators, on one batch; the losses by name."""
        self._set_learning_rate()
        unlabelled = "mixtures" in batch
        adversarial = unlabelled and self.config.adversarial_at(self.step)

        # Generator. Its gradient passes through the discriminators, which stand still meanwhile.
        if adversarial:
            self.critics.requires_grad_(False)
        with self._precision():
            terms, estimates = self.objective(batch, self.critics if adversarial else None)
        self._check(terms)
        total = self.config.losses.total(terms)
        self.network.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self._check({"gradient": norm})
        self.optimizer.step()
        self.average.update_parameters(self.network)

        # Discriminators.
        if adversarial:
            self.critics.requires_grad_(True)
            with self._precision():
                judged = self.judging(batch, estimates)
            self._check(judged)
            self.critics_optimizer.zero_grad(set_to_none=True)
            sum(judged.values()).backward()
            self.critics_optimizer.step()
            terms |= judged
        return {name: float(term.detach()) for name, term in terms.items()}

    def _discriminator(self, targets: int) -> Discriminator:
        settings = self.config.discriminator
        return Discriminator(targets=targets, widths=settings.widths, scales=settings.scales)

    def _first_batches(self) -> Iterator[Batch]:
        """The first 16 batches that have all that batches can have, of all processes together."""
        whole, every = Batches(self.config, self.pools, clerk=self.batches.clerk), self.schedule.unlabelled_every
        for step in range(0, min(16 * every, len(whole)), every):
            yield whole.finished(whole[step], self.waveforms) if self.waveforms else whole[step]

    def _share(self, module: nn.Module) -> nn.Module:
        """Let gradients be averaged over the processes of torchrun, if there are several."""
        return DistributedDataParallel(module) if self.processes > 1 else module

    @contextmanager
    def _precision(self):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            yield

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.step, self.schedule, self.minutes)
        self.optimizer.set_learning_rate(self.schedule.learning_rate * factor)
        if self.config.losses.adversarial:
            for group in self.critics_optimizer.param_groups:
                group["lr"] = self.config.discriminator.learning_rate * factor

    def _check(self, terms: dict[str, torch.Tensor]) -> None:
        for name, term in terms.items():
            if not torch.isfinite(term):
                last = self.output / LAST
                good = f"the last good checkpoint is {last}; " if last.exists() else ""
                raise UserError(
                    f"{name} is not finite at step {self.step}: {good}lower schedule.learning_rate, "
                    "or try schedule.precision=fp32."
                )

    def _validate(self, report: TrainingReport) -> dict[str, float]:
        """Score the averaged weights on the validation songs, and keep them if they are the best."""
        network = self.average.module.eval() if self.schedule.average else self.network.eval()
        songs = validate(network, self.songs)
        scores, mean = medians(songs), mean_of(self.config.targets, songs)
        report.validation(self.step, scores, network, self.songs)
        merit = self.step if mean is None else mean  # with nothing to compare, the latest is the best
        if merit > self.best:
            self.best = merit
            self._save(network, step=self.step, validation_sdr=scores)
        self.network.train()
        return scores

    def _finish(self, report: TrainingReport) -> None:
        """Make the masks of the best weights as soft as scores best: once, however often the end is taken up again."""
        if self.best == -math.inf:  # the best weights were taken away
            self._validate(report)
        best = load_weights(self.output / BEST, self.device, self.config.network)
        facts = {name: value for name, value in best.provenance.items() if name != "config"}
        if (
            self.songs
            and self.schedule.soften
            and "softened" not in facts
            and hasattr(best.network.generator, "scale_logits")
        ):
            facts["softened"], songs = soften(best.network, self.songs, self.schedule.soften)
            facts["validation_sdr"] = medians(songs)
            self._save(best.network, **facts)

    def _save(self, network: nn.Module, **facts: Any) -> None:
        provenance = {"config": asdict(self.config), **facts}
        save_weights(self.output / BEST, network, self.config, provenance, self.config.licence)

    def _state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "step": self.step,
            "best": self.best,
            "minutes": self.minutes,
            **{name: part.state_dict() for name, part in self.parts.items()},
        }


class Clock:
    """Minutes that a run has taken, all its sittings together; the same for all processes of torchrun."""

    def __init__(self, minutes: float, device: torch.device):
        self.start, self.device = time.monotonic() - 60 * minutes, device

    def minutes(self) -> float:
        spent = (time.monotonic() - self.start) / 60
        if processes()[1] == 1:
            return spent
        longest = torch.tensor(spent, device=self.device)
        torch.distributed.all_reduce(longest, torch.distributed.ReduceOp.MAX)
        return float(longest)


def in_words(scores: dict[str, float]) -> dict[str, str]:
    """SDR by source, in dB, as the progress bar shows it."""
    return {source: f"{value:.2f} dB" for source, value in scores.items()}


def processes() -> tuple[int, int]:
    """This process's rank and how many there are; torchrun says so in the environment."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
