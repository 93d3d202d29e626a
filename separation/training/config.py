"""The settings of a training run: each one is named, typed, defaulted and checked here.

A YAML file gives what differs from the defaults; `--set a.b=value` overrides one key. An unknown key, a value of
another type or one out of range is an error that names the key and the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from separation.errors import UserError
from separation.inference.config import NetworkSettings, between, one_of, parse, require
from separation.training.yaml_file import read_yaml


@dataclass(frozen=True)
class DataSettings:
    """Where the music comes from, who counts as labelled, and how batches are drawn and augmented."""

    stores: dict[str, float] = field(default_factory=lambda: {"store/MUSDB18": 1.0})
    """Folders that dataset.py wrote, each with the share of the examples that is drawn from it."""
    labelled: int | None = None
    """How many songs keep their isolated stems; null: all. The same seed picks nested subsets."""
    labelled_seed: int = 0
    remaining: str = "mixture"
    """What songs past `labelled` give: `mixture`, `split` (about half give their rest instead) or nothing (`drop`)."""
    valid: int | tuple[str, ...] | None = None
    """Training songs to validate on instead of the stores' validation songs, and never to train on: how many (drawn by
    `labelled_seed`, artist by artist), or their names or artists, as in "artist - title"."""
    batch_size: int = 6
    unlabelled_batch_size: int = 3
    crop_frames: int = 64
    remix: float = 0.7
    """Share of the labelled examples whose sources come from different songs."""
    taught: float = 0.0
    """Share of the labelled examples that a teacher has labelled: sources of one song with new gains or, `remix` of
    them, of several, beside a true rest if there is one. Stores have such songs by `dataset.py --label`. Without
    isolated targets all examples are such."""
    taught_floor: float = -12.0
    """In dB of the mixture: an error below it, in what a teacher says, is nearly as good as none, for the teacher errs
    as much. See `losses.error_level`."""
    pairs: dict[str, float] = field(default_factory=dict)
    """For several targets: the share of the labelled examples that remix just this target with music that lacks it."""
    gain: tuple[float, float] = (0.25, 1.25)
    swap: float = 0.5
    """Probability of swapping left and right of a source."""
    flip: float = 0.5
    """Probability of inverting the polarity of a source."""
    mono: float = 0.0
    """Probability that an example is mono: both channels of its sources are their mean."""
    mute: float = 0.05
    """Probability of silencing a source of a remix."""
    equalise: float = 0.0
    """Largest gain, in decibels, of a smooth random equaliser on every source of a remix."""
    in_memory: bool | None = None
    """Whether the waveforms of compact stores lie in the memory of the device, and batches are made there; null: where
    the device is a GPU and all stores are compact. The batches are the same, but for rounding."""
    workers: int = 1

    def __post_init__(self):
        require(bool(self.stores), "data.stores must name at least one folder written by dataset.py")
        between(self.stores.values(), 1e-6, 1e6, "data.stores must give every store a share above 0")
        require(self.labelled is None or self.labelled >= 0, "data.labelled must be null (all songs) or at least 0")
        require(not isinstance(self.valid, int) or self.valid >= 0, "data.valid must be at least 0, or names of songs")
        one_of(self.remaining, ("mixture", "split", "drop"), "data.remaining")
        for key, most in (("batch_size", 4096), ("unlabelled_batch_size", 4096), ("crop_frames", 65_536)):
            between([getattr(self, key)], 1, most, f"data.{key} must be at least 1")
        for key in ("remix", "taught", "swap", "flip", "mono", "mute"):
            between([getattr(self, key)], 0, 1, f"data.{key} is a probability: it must be at least 0")
        between([self.taught_floor], -60, 0, "data.taught_floor must be at least -60")
        between(self.pairs.values(), 0, 1, "data.pairs must give shares of at least 0")
        require(sum(self.pairs.values()) <= 1, "data.pairs must give shares of at most 1 together")
        require(self.gain[0] <= self.gain[1], "data.gain must be two factors, the smaller one first")
        between(self.gain, 1e-6, 1e6, "data.gain must be factors above 0")
        for key, most in (("equalise", 60), ("workers", 256)):
            between([getattr(self, key)], 0, most, f"data.{key} must be at least 0")


@dataclass(frozen=True)
class DiscriminatorSettings:
    """Sizes and learning rate of the two discriminators; see `models.Discriminator`."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    scales: int = 3
    learning_rate: float = 1e-4

    def __post_init__(self):
        require(0 < len(self.widths) <= 12, "discriminator.widths must name a width for each of at most 12 layers")
        between(self.widths, 1, 4096, "discriminator.widths must be at least 1")
        between([self.scales], 1, 12, "discriminator.scales must be at least 1")
        between([self.learning_rate], 1e-30, 1e30, "discriminator.learning_rate must be above 0")

    @property
    def patch(self) -> int:
        """Bins and frames that the coarsest scale needs for one judgement."""
        return 2 ** (len(self.widths) + self.scales - 1)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses, by the names they have in `separation.training.losses`.

    What has no weight is not computed: the labelled batch, the unlabelled one, or the discriminators. The paper gives
    20 to each L1 distance and 10 to the adversarial terms, beside no term in decibels. Sums are exact,
    so with a single target `supervised_rest` is the same number as `supervised_target`, and `remix_rest` the same as
    `remix_target`: each pair is then one term with the sum of both weights.
    """

    supervised_target: float = 1.0
    supervised_rest: float = 1.0
    identity: float = 0.0
    idempotence: float = 0.0
    remix_rest: float = 0.0
    remix_target: float = 0.0
    exchange: float = 0.0
    adversarial_rest: float = 0.0
    adversarial_mixture: float = 0.0

    def __post_init__(self):
        for key, weight in asdict(self).items():
            between([weight], 0, 1e30, f"losses.{key} must be at least 0")

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of named losses, `[]`."""
        return sum(getattr(self, name) * term for name, term in terms.items())

    @property
    def supervised(self) -> bool:
        return bool(self.supervised_target or self.supervised_rest)

    @property
    def adversarial(self) -> bool:
        return bool(self.adversarial_rest or self.adversarial_mixture)

    @property
    def circular(self) -> bool:
        """Whether the generator's own estimates are given to it again."""
        return any((self.identity, self.idempotence, self.remix_rest, self.remix_target))

    @property
    def semi_supervised(self) -> bool:
        return self.adversarial or self.circular or bool(self.exchange)


@dataclass(frozen=True)
class ScheduleSettings:
    """How long, how fast and how precisely the networks learn, and how often the run looks at itself."""

    steps: int = 3_000
    minutes: float | None = None
    """Minutes that the run may take, validation included: it ends after them or after `steps`, whatever comes first."""
    learning_rate: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 200
    """Steps over which the learning rate rises from 0."""
    decay: str = "cosine"
    """`cosine` to nothing at the last step, `halving` every `halve_every` steps (as in the paper), or `constant`."""
    halve_every: int = 100_000
    clip: float = 20.0
    """Largest norm of the generator's gradient, in units of the weighted loss."""
    unlabelled_every: int = 1
    """The terms for unlabelled music are taken at every n-th step."""
    adversarial_from: int = 0
    """First step with adversarial terms."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is what gets validated and shipped; 0: none."""
    precision: str = "auto"
    """What the networks compute in: `fp32`, `bf16`, or `auto` for whichever is faster on the device."""
    compiled: bool = False
    """Whether `torch.compile` makes the generator faster: it takes a minute or more, and a compiler for the device."""
    soften: tuple[float, ...] = (1.0, 0.8, 0.65, 0.5, 0.4, 0.35, 0.3)
    """Factors tried on the log-shares of the best weights at the end of the run; none: they stay as learned."""
    validate_every: int = 500
    checkpoint_every: int = 250

    def __post_init__(self):
        one_of(self.decay, ("cosine", "halving", "constant"), "schedule.decay")
        one_of(self.precision, ("auto", "bf16", "fp32"), "schedule.precision")
        for key in ("steps", "halve_every", "unlabelled_every", "validate_every", "checkpoint_every"):
            between([getattr(self, key)], 1, 10**9, f"schedule.{key} must be at least 1")
        for key in ("warmup", "adversarial_from"):
            between([getattr(self, key)], 0, 10**9, f"schedule.{key} must be at least 0")
        between(self.soften, 1e-3, 1e3, "schedule.soften must hold factors above 0")
        require(0 <= self.average < 1, "schedule.average must lie between 0 and 1")
        for key in ("learning_rate", "clip"):
            between([getattr(self, key)], 1e-30, 1e30, f"schedule.{key} must be above 0")
        require(self.minutes is None or 0 < self.minutes <= 1e6, "schedule.minutes must be null or a number above 0")
        between([self.weight_decay], 0, 1e30, "schedule.weight_decay must be at least 0")
        require(all(0 <= beta < 1 for beta in self.betas), "schedule.betas must lie between 0 and 1")


@dataclass(frozen=True)
class Config(NetworkSettings):
    """All settings of one training run."""

    weights: tuple[str, ...] = ()
    """Weights to go on from, of the same targets, STFT and generator, which may have other numbers of blocks and TDFs:
    those that the config leaves out are dropped, those that it adds begin silent. Of several their mean, which beats
    each of them when they went on from the same weights (Wortsman et al., Model soups, ICML 2022). None named: to
    start from nothing."""
    seed: int = 0
    licence: str = "not stated: ask who made the weights"
    """What the weights may be used for, in words: it goes into the weights file."""
    data: DataSettings = field(default_factory=DataSettings)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    losses: LossWeights = field(default_factory=LossWeights)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self):
        super().__post_init__()
        for target in self.data.pairs:
            one_of(target, self.targets, "data.pairs")
        between([self.seed], 0, 2**63 - 1, "seed must be at least 0")
        patch = self.discriminator.patch if self.losses.adversarial else 1
        require(self.data.crop_frames >= patch, f"data.crop_frames must be at least {patch} for these discriminators")
        require(
            self.used_bins >= patch, f"generator.band_layout must end at bin {patch} at least for these discriminators"
        )

    def adversarial_at(self, step: int) -> bool:
        """Whether a step has adversarial terms, if it has unlabelled music."""
        return self.losses.adversarial and step >= self.schedule.adversarial_from

    def learns_unsupervised_at(self, step: int) -> bool:
        """Whether a step has a loss that needs no labelled songs."""
        at_any_step = self.losses.circular or bool(self.losses.exchange)
        return at_any_step or self.adversarial_at(step)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `key=value` overrides. Raises `UserError` naming the key and the file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from error
    values = read_yaml(text, str(path))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values.")
    for override in overrides:
        _set(values, override)
    return parse_config(values, str(path))


def parse_config(values: Any, source: str) -> Config:
    """Check nested mappings of settings. Raises `UserError` naming the key and `source`."""
    try:
        return parse(Config, values, "")
    except ValueError as error:
        raise UserError(f"{source}: {error}.") from error


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override:.80}: write it as key=value, for example --set schedule.steps=1000.")
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override:.80}: {section:.80} has no keys of its own.")
    values[name] = read_yaml(text, f"--set {override:.80}: the value")


HARMLESS = (
    "data.workers",
    "data.in_memory",
    "schedule.validate_every",
    "schedule.checkpoint_every",
    "schedule.compiled",
)
"""The settings that a run may change when it is taken up again: no weight depends on them."""


def decisive_differences(before: Config, now: Config) -> list[str]:
    """Dotted names of the settings that differ between two configs, and that weights depend on."""
    return [name for name in _differences(asdict(before), asdict(now)) if name not in HARMLESS]


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ."""
    names = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(prefix + name)
    return names
