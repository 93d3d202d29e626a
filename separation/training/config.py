"""Settings of a training run with their types, defaults and checks, and the YAML files that hold them.

A file lists what differs from the defaults or, with `base: other.yaml`, from another file beside it. `--set a.b=value`
overrides one key. Unknown keys, wrong types and values out of range are errors that name the key and the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from separation.errors import UserError
from separation.inference.config import NetworkSettings, between, one_of, parse, require

MOST_VALUES = 10_000
"""Most values in a config: a short file of nested YAML aliases can expand to billions."""

RENAMED = {
    "data.taught": "data.pseudo_labelled",
    "data.taught_floor": "data.pseudo_label_floor",
    "schedule.soften": "schedule.temperatures, the inverse of these factors",
}
"""Keys of earlier versions and their current names."""

RESUMABLE_KEYS = {
    "licence",
    "data.workers",
    "data.in_memory",
    "schedule.validate_every",
    "schedule.checkpoint_every",
    "schedule.compiled",
}
"""Settings that may change when a run is resumed, because the weights do not depend on them."""


@dataclass(frozen=True)
class DataSettings:
    """Where the music comes from, which songs count as labelled, and how batches are drawn and augmented."""

    stores: dict[str, float] = field(default_factory=lambda: {"store/MUSDB18": 1.0})
    """Folders written by dataset.py, each with its share of the examples."""
    labelled: int | None = None
    """Number of songs that keep their isolated stems; null: all. Subsets with the same seed are nested."""
    labelled_seed: int = 0
    remaining: str = "mixture"
    """What songs beyond `labelled` give: `mixture`; `split`: about half give their rest instead; `drop`: nothing."""
    valid: int | tuple[str, ...] | None = None
    """Training songs held out for validation, in place of the stores' validation songs: a number, drawn by
    `labelled_seed` artist by artist, or names of songs or artists, as in "artist - title"."""
    batch_size: int = 6
    unlabelled_batch_size: int = 3
    crop_frames: int = 64
    remix: float = 0.7
    """Share of the labelled examples whose sources come from different songs."""
    pseudo_labelled: float = 0.0
    """Share of the labelled examples built from pseudo-labels, which `dataset.py --label` makes: the sources of one
    song with new gains or, for a share of `remix`, of several songs, with a true rest where there is one. Without
    isolated targets all labelled examples are built this way."""
    pseudo_label_floor: float = -12.0
    """Errors this far below the mixture, in dB, hardly count for pseudo-labels, which are no more accurate themselves.
    See `losses.error_level`."""
    pairs: dict[str, float] = field(default_factory=dict)
    """For several targets: share of the labelled examples that remix this target alone with music that lacks it."""
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
    """Largest gain in dB of the smooth random equaliser on each source of a remix and on unlabelled music."""
    in_memory: bool | None = None
    """Keep the waveforms of compact stores in device memory and make batches there; null: only on a GPU with compact
    stores. Batches are the same up to rounding."""
    workers: int = 1
    """Worker processes that prefetch batches."""

    def __post_init__(self) -> None:
        require(bool(self.stores), "data.stores must name at least one folder written by dataset.py")
        between(self.stores.values(), 1e-6, 1e6, "data.stores must give every store a share above 0")
        require(self.labelled is None or self.labelled >= 0, "data.labelled must be null (all songs) or at least 0")
        require(not isinstance(self.valid, int) or self.valid >= 0, "data.valid must be at least 0, or names of songs")
        one_of(self.remaining, ("mixture", "split", "drop"), "data.remaining")
        for key, most in (("batch_size", 4096), ("unlabelled_batch_size", 4096), ("crop_frames", 65_536)):
            between([getattr(self, key)], 1, most, f"data.{key} must be at least 1")
        for key in ("remix", "pseudo_labelled", "swap", "flip", "mono", "mute"):
            between([getattr(self, key)], 0, 1, f"data.{key} is a probability: it must be at least 0")
        between([self.pseudo_label_floor], -60, 0, "data.pseudo_label_floor must be at least -60")
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

    def __post_init__(self) -> None:
        require(0 < len(self.widths) <= 12, "discriminator.widths must name a width for each of at most 12 layers")
        between(self.widths, 1, 4096, "discriminator.widths must be at least 1")
        between([self.scales], 1, 12, "discriminator.scales must be at least 1")
        between([self.learning_rate], 1e-30, 1e30, "discriminator.learning_rate must be above 0")

    @property
    def patch(self) -> int:
        """Fewest bins and frames from which the coarsest scale makes one judgement."""
        return 2 ** (len(self.widths) + self.scales - 1)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms, by the names that a training step reports.

    Batches and network passes that only terms of weight 0 would need are skipped; discriminators are built for any
    adversarial weight. The paper gives 20 to each L1 term and 10 to the adversarial ones. Sources sum exactly, so for a
    single target `supervised_rest` equals `supervised_target`, and `remix_rest` equals `remix_target`.
    """

    supervised_target: float = 1.0
    supervised_rest: float = 1.0
    exchange: float = 0.0
    identity: float = 0.0
    idempotence: float = 0.0
    remix_rest: float = 0.0
    remix_target: float = 0.0
    adversarial_rest: float = 0.0
    adversarial_mixture: float = 0.0

    def __post_init__(self) -> None:
        for key, weight in asdict(self).items():
            between([weight], 0, 1e30, f"losses.{key} must be at least 0")

    @property
    def supervised(self) -> bool:
        return bool(self.supervised_target or self.supervised_rest)

    @property
    def adversarial(self) -> bool:
        return bool(self.adversarial_rest or self.adversarial_mixture)

    @property
    def circular(self) -> bool:
        """Whether any of the paper's L1 terms has a weight."""
        return any((self.identity, self.idempotence, self.remix_rest, self.remix_target))

    @property
    def unlabelled(self) -> bool:
        """Whether any term uses unlabelled music."""
        return self.adversarial or self.circular or bool(self.exchange)


@dataclass(frozen=True)
class ScheduleSettings:
    """Length, learning rate and precision of training, and how often the run is validated."""

    steps: int = 3_000
    minutes: float | None = None
    """Time limit in minutes, validation included. The run ends at it or after `steps`, whichever comes first."""
    learning_rate: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup: int = 200
    """Steps over which the learning rate rises from 0."""
    decay: str = "cosine"
    """`cosine` to 0 at the last step, `halving` every `halve_every` steps as in the paper, or `constant`."""
    halve_every: int = 100_000
    clip: float = 20.0
    """Maximum norm of the network's gradient, taken of the weighted loss."""
    unlabelled_every: int = 1
    """Compute the terms for unlabelled music at every n-th step."""
    adversarial_from: int = 0
    """First step with adversarial terms."""
    average: float = 0.998
    """Decay of the exponential moving average of the weights, which is validated and saved; 0: no average."""
    precision: str = "auto"
    """Precision of the networks: `fp32`, `bf16`, or `auto` for whichever is faster on the device."""
    compiled: bool = False
    """Run the network through `torch.compile`, which takes a minute or more and needs a compiler for the device."""
    temperatures: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5)
    """Mask temperatures to try at the end of the run; none: masks stay as trained. See `fit_temperature`."""
    validate_every: int = 500
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        one_of(self.decay, ("cosine", "halving", "constant"), "schedule.decay")
        one_of(self.precision, ("auto", "bf16", "fp32"), "schedule.precision")
        for key in ("steps", "halve_every", "unlabelled_every", "validate_every", "checkpoint_every"):
            between([getattr(self, key)], 1, 10**9, f"schedule.{key} must be at least 1")
        for key in ("warmup", "adversarial_from"):
            between([getattr(self, key)], 0, 10**9, f"schedule.{key} must be at least 0")
        between(self.temperatures, 1e-3, 1e3, "schedule.temperatures must hold numbers above 0")
        require(0 <= self.average < 1, "schedule.average must lie between 0 and 1")
        for key in ("learning_rate", "clip"):
            between([getattr(self, key)], 1e-30, 1e30, f"schedule.{key} must be above 0")
        require(self.minutes is None or 0 < self.minutes <= 1e6, "schedule.minutes must be null or a number above 0")
        between([self.weight_decay], 0, 1e30, "schedule.weight_decay must be at least 0")
        require(all(0 <= beta < 1 for beta in self.betas), "schedule.betas must lie between 0 and 1")


@dataclass(frozen=True)
class Config(NetworkSettings):
    """All settings of a training run."""

    weights: tuple[str, ...] = ()
    """Weights to start from, with the same targets, STFT and network; none: random weights. Several are averaged, which
    beats each of them if all were fine-tuned from the same weights: Wortsman et al., "Model soups", ICML 2022. The
    U-Net may add blocks, which start near zero, omit blocks, and have narrower levels."""
    seed: int = 0
    licence: str = ""
    """Licence of the weights in words, saved in the weights file; by default that of the `weights` it starts from."""
    data: DataSettings = field(default_factory=DataSettings)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    losses: LossWeights = field(default_factory=LossWeights)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for target in self.data.pairs:
            one_of(target, self.targets, "data.pairs")
        between([self.seed], 0, 2**63 - 1, "seed must be at least 0")
        patch = self.discriminator.patch if self.losses.adversarial else 1
        require(self.data.crop_frames >= patch, f"data.crop_frames must be at least {patch} for these discriminators")
        require(self.used_bins >= patch, f"the network must look at {patch} bins at least for these discriminators")

    def adversarial_at(self, step: int) -> bool:
        """Whether a step with unlabelled music has adversarial terms."""
        return self.losses.adversarial and step >= self.schedule.adversarial_from

    def learns_unlabelled_at(self, step: int) -> bool:
        """Whether a step with unlabelled music has any term for it."""
        return self.losses.circular or bool(self.losses.exchange) or self.adversarial_at(step)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config and apply `key=value` overrides. Raises `UserError` naming the key and the file."""
    values = _read_file(Path(path))
    for override in overrides:
        _set(values, override)
    return parse_config(values, str(path))


def parse_config(values: Any, source: str) -> Config:
    """Parse nested mappings of settings. Raises `UserError` naming the key and `source`."""
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        if isinstance(values, dict) and isinstance(values.get(section), dict) and key in values[section]:
            raise UserError(f"{source}: unknown key {old}: it is called {new} now.", code="bad_config")
    try:
        return parse(Config, values, "")
    except ValueError as error:
        raise UserError(f"{source}: {error}.", code="bad_config") from error


def changed_keys(before: Config, now: Config) -> list[str]:
    """Dotted names of changed settings that the weights depend on."""
    return [name for name in _differences(asdict(before), asdict(now)) if name not in RESUMABLE_KEYS]


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            names.append(prefix + name)
    return names


def _read_file(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Values of a file merged into those of its `base`: sections key by key, everything else replaced."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}.", code="no_config") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}.", code="bad_yaml") from error
    values = read_yaml(text, str(path))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values.", code="bad_config")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or (path.parent / base).resolve() in (*seen, path.resolve()):
        raise UserError(f"{path}: base must name another config, not {base!r:.80}.", code="bad_config")
    merged = _read_file(path.parent / base, (*seen, path.resolve()))
    if values.get("network", merged.get("network")) != merged.get("network"):
        merged.pop("generator", None)  # these are arguments of another network
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(
            f"--set {override:.80}: write it as key=value, for example --set schedule.steps=1000.", code="bad_config"
        )
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override:.80}: {section:.80} has no keys of its own.", code="bad_config")
    values[name] = read_yaml(text, f"--set {override:.80}: the value")


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML. Raises `UserError` naming `source` when the text is invalid, ambiguous or too large."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = "too many brackets" if isinstance(error, RecursionError) else " ".join(str(error).split())
        reason = reason.replace('in "<unicode string>", ', "in ")[:300].rstrip(".")
        raise UserError(f"{source} is not valid YAML: {reason}.", code="bad_yaml") from error
    waiting, count = [values], 0
    while waiting:
        value, count = waiting.pop(), count + 1
        if count > MOST_VALUES:
            raise UserError(f"{source} is not valid YAML: it holds more than {MOST_VALUES} values.", code="bad_yaml")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()][: MOST_VALUES + 1]
        elif isinstance(value, list | tuple | set):
            waiting += [*value][: MOST_VALUES + 1]
    return values


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, which PyYAML 6.0 silently overwrites, and names the key of an invalid value."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, KeyError, AttributeError, TypeError) as error:  # as for `!!bool maybe`
            raise ConstructorError(
                None, None, f"{node.value!r:.80} is no such value ({error})", node.start_mark
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value} occurs twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            if isinstance(value, yaml.ScalarNode):
                try:
                    self.construct_object(value)
                except ConstructorError as error:
                    raise ConstructorError(None, None, f"{key.value}: {error.problem}", value.start_mark) from error
        return super().construct_mapping(node, deep)
