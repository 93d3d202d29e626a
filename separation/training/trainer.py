"""The training step, and the loop around it."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from separation.errors import UserError
from separation.files import sweep_partials
from separation.inference.device import choose_precision, trusted_precision
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator
from separation.inference.weights import UNKNOWN_LICENCE, build_network, load_weights, save_weights
from separation.runtime import Stopped, stops_deferred
from separation.training.batches import Batch, Batches, load, mixtures_in, worker_failures_reported
from separation.training.checkpoints import BEST, LAST, fit_input, init_from_weights, read_run, restore, save_state
from separation.training.config import Config
from separation.training.gpu_batches import resident_waveforms
from separation.training.logging import RunLog, describe_music, describe_network, describe_result, warnings_about
from separation.training.losses import GeneratorObjective
from separation.training.optimizer import GeneratorOptimizer, learning_rate_factor
from separation.training.paper import Discriminators
from separation.training.sources import open_pools
from separation.training.validation import fit_temperature, mean_of, medians, validate, validation_tracks


class Trainer:
    """A training run in the folder `output`: `last.pt` to resume from, `best.safetensors` to separate with.

    Under torchrun every process has its own trainer and takes its share of each batch.

    Raises `UserError` when the music, the weights or a stopped run do not fit the config. Only `run` writes files.
    """

    def __init__(self, config: Config, output: Path, device: torch.device, resume: bool = False):
        self.config, self.output, self.device = config, output, device
        self.schedule = config.schedule
        self.dtype = choose_precision(self.schedule.precision, device)
        self.rank, self.processes = processes()
        self.step, self.best, self.minutes = 0, -math.inf, 0.0
        self.validated = -1  # the last validated step
        self.in_step = False
        self.licence, self.pruned = config.licence, ""
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is a file: name a folder.", code="not_a_folder")
        state = read_run(output, config, resume)
        band = config.used_bins * config.spectral.sample_rate / config.spectral.n_fft
        band = min(band, 16_000, config.spectral.sample_rate / 2)
        self.pools = open_pools(config.targets, config.data, config.spectral, band)
        self.resident = resident_waveforms(self.pools, config, device)
        plan = self.resident.planner if self.resident else None
        self.batches = Batches(config, self.pools, self.rank, self.processes, plan)
        self.songs = self.pools.held_out or validation_tracks(config.data.stores, config.spectral)

        torch.manual_seed(config.seed)
        self.network = build_network(config).to(device)
        self.dtype = trusted_precision(self.dtype, device, self._trial)
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(self.schedule.average), use_buffers=True
        )
        self.optimizer = GeneratorOptimizer(self.network.generator, self.schedule, self.dtype)
        # What `last.pt` saves and a resumed run restores.
        self.parts: dict[str, Any] = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
        self.discriminators = None
        if config.losses.adversarial:
            self.discriminators = Discriminators(len(config.targets), config.discriminator).to(device)
            self.discriminators_optimizer = torch.optim.Adam(
                self.discriminators.parameters(), config.discriminator.learning_rate, betas=(0.5, 0.999)
            )
            self.parts["discriminators"] = self.discriminators
            self.parts["discriminators_optimizer"] = self.discriminators_optimizer
        if state:
            values = restore(state, self.parts, self.schedule.steps, output / LAST)
            self.step, self.validated, self.best, self.minutes = values
            self.best = self.best if (output / BEST).is_file() else -math.inf
            self.licence = config.licence or str(state.get("licence", ""))
        elif config.weights:
            start = init_from_weights(config.weights, config, self.network.state_dict(), device, self.first_batches)
            self.network.load_state_dict(start.tensors)
            self.licence, self.pruned = config.licence or start.licence, start.pruned
        else:
            fit_input(self.network, self.first_batches())
        if not state:
            self.averaged.load_state_dict(self.network.state_dict())
        self.objective = self._distributed(
            GeneratorObjective(self.network, config.losses, config.data.pseudo_label_floor)
        )
        self.discrimination = self._distributed(self.discriminators) if self.discriminators else None
        self.finished_before = self.is_over
        if self.schedule.compiled:
            self.network.generator.compile()

    def describe(self) -> str:
        """Songs, network, initial weights and steps of the run, one line each, then warnings."""
        lines = [
            f"songs: {describe_music(self.batches, self.songs)}",
            f"network: {describe_network(self.config, self.network, self.dtype)}",
            f"steps: {self.step} of {self.schedule.steps} are done" if self.step else f"steps: {self.schedule.steps}",
        ]
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings()])

    def warnings(self) -> list[str]:
        """What is likely to be a mistake, one sentence each."""
        about = warnings_about(self.config, self.batches, self.songs)
        return [self.pruned, *about] if self.pruned else about

    def describe_result(self) -> str:
        """The result of the run, in words."""
        return describe_result(self.output, self.config.network, self.finished_before)

    @property
    def averaged(self) -> MaskingNetwork:
        """The network with the moving average of its weights."""
        return cast(MaskingNetwork, self.average.module)

    @property
    def is_over(self) -> bool:
        """Whether the last step is done or the time is up."""
        return self.step == self.schedule.steps or self.minutes >= (self.schedule.minutes or math.inf)

    def run(self) -> None:
        """Train to the end. A stop signal at any time leaves a state to resume from.

        Raises `UserError` when a loss is not finite, or when music can no longer be read.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            sweep_partials(self.output)
        except OSError as error:
            raise UserError(
                f"--output {self.output} cannot be created: {error.strerror}.", code="not_a_folder"
            ) from error
        log = RunLog(self.output, self.config, self.step) if self.rank == 0 else None
        try:
            with closing(log) if log else nullcontext(), worker_failures_reported():
                self._run(log)
        except (KeyboardInterrupt, Stopped):
            if log and not self.in_step:
                self._save_state()
            raise

    def _run(self, log: RunLog | None) -> None:
        bar = tqdm(total=self.schedule.steps, initial=self.step, disable=not log, dynamic_ncols=True, unit="step")
        shown: dict[str, str] = {}  # the latest value of each loss: not every step has all of them
        finish = self.resident.finish if self.resident else None
        batches = load(self.batches, self.schedule.steps if self.is_over else self.step, self.device, finish)
        with bar, closing(batches):
            if log and self._validation_is_due():
                shown |= self._validate(log, bar)
                if self.is_over:  # stopped before its last validation: no step follows that would save the state
                    self._save_state()
            started = time.monotonic() - 60 * self.minutes
            for batch in log.timed(batches) if log else batches:
                with stops_deferred() as stops:
                    self.in_step = True
                    terms = self.train_step(batch)
                    self.step, self.in_step = self.step + 1, False
                    if self.schedule.minutes:
                        self.minutes = over_processes((time.monotonic() - started) / 60, self.device)
                    stopping = over_processes(float(bool(stops)), self.device) > 0
                if stopping:  # perhaps only another process received the signal
                    raise Stopped(signal.SIGTERM)
                bar.update()
                shown |= {name: f"{value:.3g}" for name, value in terms.items()}
                bar.set_postfix(shown, refresh=False)
                if log:
                    log.losses(self.step, terms)
                    if self._validation_is_due():
                        shown |= self._validate(log, bar)
                    if self.step % self.schedule.checkpoint_every == 0 or self.is_over:
                        self._save_state()
                if self.is_over:
                    break
            if log:
                self._finish(log, bar)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Update the network, then the discriminators, on one batch. Returns the losses, averaged over processes."""
        self._set_learning_rate()
        # Dropout depends only on seed, step and rank, so that a resumed run continues as it would have.
        torch.manual_seed((self.config.seed + self.step * self.processes + self.rank) % 2**63)
        adversarial = "mixtures" in batch and self.config.adversarial_at(self.step)

        # The network. Its gradient passes through the discriminators, which are frozen meanwhile.
        discriminators = self.discriminators if adversarial else None
        if discriminators:
            discriminators.requires_grad_(False)
        with self._precision():
            terms, estimates = self.objective(batch, discriminators)
        values = self._values(terms)
        weights = asdict(self.config.losses)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.network.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self._values({"gradient": norm})
        self.optimizer.step()
        self.average.update_parameters(self.network)

        if discriminators and self.discrimination:
            discriminators.requires_grad_(True)
            with self._precision():
                terms = self.discrimination(batch, estimates)
            values |= self._values(terms)
            self.discriminators_optimizer.zero_grad(set_to_none=True)
            torch.stack([*terms.values()]).sum().backward()
            self.discriminators_optimizer.step()
        return values

    def first_batches(self) -> Iterator[Batch]:
        """Yield up to 16 early batches with every part that a batch can have, undivided between processes."""
        whole, every = Batches(self.config, self.pools, plan=self.batches.plan), self.schedule.unlabelled_every
        for step in range(0, min(16 * every, len(whole)), every):
            yield self.resident.finish(whole[step]) if self.resident else whole[step]

    def _trial(self, dtype: torch.dtype) -> list[Tensor]:
        """Estimates of the network for one example when it computes in `dtype`, and the gradient."""
        mixture = mixtures_in(next(self.first_batches()))[:1].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            estimates = self.network.eval()(mixture)
        (estimates.abs() - mixture[:, None].abs()).square().sum().backward()
        gradients = [parameter.grad.flatten() for parameter in self.network.parameters() if parameter.grad is not None]
        self.network.train().zero_grad()
        return [estimates.detach(), torch.cat(gradients)]

    def _distributed(self, module: nn.Module) -> nn.Module:
        """Wrap a module in DDP if torchrun started several processes."""
        return DistributedDataParallel(module) if self.processes > 1 else module

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(self.step, self.schedule, self.minutes)
        self.optimizer.set_learning_rate(self.schedule.learning_rate * factor)
        if self.discriminators:
            for group in self.discriminators_optimizer.param_groups:
                group["lr"] = self.config.discriminator.learning_rate * factor

    def _values(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Values of named losses, averaged over processes. Raises `UserError` naming one that is not finite."""
        stacked = torch.stack([term.detach().float() for term in terms.values()])
        if self.processes > 1:
            distributed.all_reduce(stacked)
        values = dict(zip(terms, (stacked / self.processes).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                last = self.output / LAST
                good = f"the last good checkpoint is {last}; " if last.exists() else ""
                raise UserError(
                    f"{name} is not finite at step {self.step}: {good}lower schedule.learning_rate, "
                    "or try schedule.precision=fp32.",
                    code="not_finite",
                )
        return values

    def _validation_is_due(self) -> bool:
        if self.validated == self.step:
            return False
        if self.step == 0:  # so that the best weights are no worse than the initial ones
            return bool(self.config.weights)
        return self.step % self.schedule.validate_every == 0 or self.is_over

    def _validate(self, log: RunLog, bar: tqdm) -> dict[str, str]:
        """Score the averaged weights on the validation songs, save them if best, and return the scores in words."""
        network = (self.averaged if self.schedule.average else self.network).eval()
        songs = validate(
            Separator(network), self.songs, lambda n: bar.set_description(f"validation, song {n + 1}/{len(self.songs)}")
        )
        bar.set_description("")
        scores, mean = medians(songs), mean_of(self.config.targets, songs)
        merit = self.step if mean is None else mean  # without scores, the latest weights are the best
        with stops_deferred():
            if merit > self.best:
                self._save(network, step=self.step, validation_sdr=scores)
                self.best = merit
            log.validation(self.step, scores, network, self.songs)
            self.validated = self.step
        self.network.train()
        return {source: f"{value:.2f} dB" for source, value in scores.items()}

    def _finish(self, log: RunLog, bar: tqdm) -> None:
        """Fit the temperature of the best weights, once, however often a finished run is resumed."""
        if self.best == -math.inf:  # the best weights were deleted
            self._validate(log, bar)
        best = load_weights(self.output / BEST, self.device, self.config.network)
        facts = {name: value for name, value in best.provenance.items() if name != "config"}
        temperatures = self.schedule.temperatures
        if (
            self.songs
            and temperatures
            and "temperature" not in facts
            and hasattr(best.network.generator, "scale_logits")
        ):
            facts["temperature"], songs = fit_temperature(
                best.network,
                self.songs,
                temperatures,
                lambda number, song: bar.set_description(
                    f"temperature {number + 1}/{len(temperatures)}, song {song + 1}/{len(self.songs)}"
                ),
            )
            bar.set_description("")
            facts["validation_sdr"] = medians(songs)
            self._save(best.network, **facts)

    def _save(self, network: MaskingNetwork, **facts: Any) -> None:
        provenance = {"config": asdict(self.config), **facts}
        save_weights(self.output / BEST, network, self.config, provenance, self.licence or UNKNOWN_LICENCE)

    def _save_state(self) -> None:
        values = {name: getattr(self, name) for name in ("step", "best", "minutes", "validated", "licence")}
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save_state(self.output / LAST, {"config": asdict(self.config), **values, **parts})


def over_processes(value: float, device: torch.device) -> float:
    """Largest value among the torchrun processes."""
    if processes()[1] == 1:
        return value
    largest = torch.tensor(value, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return float(largest)


def processes() -> tuple[int, int]:
    """Rank of this process and number of processes, from the environment that torchrun sets."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
