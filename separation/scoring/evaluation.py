"""Scores of separated songs, in dB: two signal-to-distortion ratios, both called SDR in papers.

    usdr  the plain ratio over a whole song, 10 log10(|s|^2 / |s - e|^2); mean over songs, as in the Sony MDX challenges
    csdr  museval's SDR, BSS Eval v4, in one-second windows; median over them, then over songs, as in SiSEC 2018

Scores are kept per weights: those of one network never replace another's.
"""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import version
from operator import add
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from separation.dataset.layouts import Track, provide_ffmpeg
from separation.errors import UserError, writing
from separation.files import drop_partial, make_partial, portable_name, replacing, sweep_partials, write_file
from separation.inference.separator import Separator, sdr
from separation.inference.weights import find_weights
from separation.runtime import prepare_torch
from separation.stems import ACCOMPANIMENT, FOUR, MIXTURE, STEMS, rest_name, rest_parts

if TYPE_CHECKING:
    from torch import Tensor

ALL = "all"
TARGETS = (*STEMS, ALL)

METRICS = ("SDR", "SIR", "ISR", "SAR")
MIXTURE_SDR = "mixture SDR"
"""SDR of doing nothing: of the mixture as the estimate of a source."""

COLUMNS = (*METRICS, MIXTURE_SDR)
"""Columns with one value per second. The median of SDR is the csdr."""

USDR = "usdr"


Frames = dict[str, np.ndarray]
"""Values of each column for one source, in dB, one per second; NaN in seconds where any source is silent."""


@dataclass(frozen=True)
class SongScores:
    """Scores of one song's sources: museval's per second, and the usdr.

    `left_out` gives the reason why a source has no museval scores.
    """

    name: str
    subset: str
    sources: dict[str, Frames]
    usdr: dict[str, float]
    left_out: dict[str, str]

    def score(self, source: str, column: str) -> float:
        """The usdr, or the median of a column over the seconds of the song, in dB; NaN if missing."""
        if column == USDR:
            return self.usdr.get(source, np.nan)
        return _median(self.sources[source][column]) if source in self.sources else np.nan


@dataclass(frozen=True)
class WeightsChoice:
    """Weights to score: `fast` or `best`, or weights files whose estimates are averaged.

    The other fields are those of `Separator.load`.
    """

    names: tuple[str, ...]
    device: str = "auto"
    engine: str = "auto"
    network: str | None = None

    def label(self, target: str) -> str:
        """Name of the folder for the scores: the names of the weights, and a hash of their files."""
        digest = hashlib.sha256((self.network or "").encode())
        for path in find_weights(self.names, scored_sources(target), self.engine, self.device):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        name = "+".join(dict.fromkeys(Path(name).stem for name in self.names))
        return f"{portable_name(name)[:60]}-{digest.hexdigest()[:8]}"


def scenarios(target: str) -> tuple[tuple[str, ...], ...]:
    """Sources scored together: a stem and its rest; for `all` the four stems, then vocals and their rest."""
    if target == ALL:
        return FOUR, ("vocals", ACCOMPANIMENT)
    return ((target, rest_name([target]) or ""),)


def scored_sources(target: str) -> tuple[str, ...]:
    """Sources that are scored for `target`.

    >>> scored_sources("drums")
    ('drums', 'no_drums')
    """
    return tuple(dict.fromkeys(source for scenario in scenarios(target) for source in scenario))


def can_be_scored(track: Track, target: str) -> bool:
    """Whether a song has a mixture to separate, and at least one stem to compare with."""
    return MIXTURE in track.parts and any(source in track.stems for source in scored_sources(target))


@cache
def load_separator(weights: WeightsChoice, target: str) -> Separator:
    """Load the separator for the sources of `target`. Raises `UserError` as `Separator.load` does."""
    prepare_torch()
    sources = scored_sources(target)
    return Separator.load(weights.names, weights.device, sources, weights.engine, weights.network)


def evaluate(weights: WeightsChoice, target: str, track: Track) -> SongScores:
    """As `evaluate_track`, with the network of `weights`, which is loaded once per process."""
    return evaluate_track(track, load_separator(weights, target), target)


def evaluate_track(track: Track, separator: Callable[[Tensor, int], dict[str, Tensor]], target: str) -> SongScores:
    """Separate one song and score its sources. Raises `UserError` when it cannot be read or separated."""
    mixture, references, rate = read_references(track, scored_sources(target))
    estimates = separator(mixture, rate)
    audible = {source: reference for source, reference in references.items() if is_audible(reference)}
    scored: dict[str, Frames] = {}
    for scenario in scenarios(target):
        known = {source: audible[source] for source in scenario if source in audible}
        if len(known) < 2:
            continue
        # museval 0.4.1 raises ValueError for a source or an estimate that is silent throughout. Estimates do not affect
        # each other's scores, so the mixture stands in for a silent one.
        given = {source: estimates[source] if is_audible(estimates[source]) else mixture for source in known}
        frames = score(known, given, mixture, rate)
        scored |= {source: frames[source] for source in known if given[source] is estimates[source]}
    left_out = {
        source: _why_not(source, references, estimates) for source in scored_sources(target) if source not in scored
    }
    plain = {source: sdr(reference, estimates[source]) for source, reference in audible.items()}
    return SongScores(track.name, track.subset, scored, plain, left_out)


def is_audible(signal: Tensor) -> bool:
    """Whether a signal `[channels, samples]` is not silent by museval's definition."""
    return bool(signal.sum(dim=0).any())


def read_references(track: Track, sources: Sequence[str]) -> tuple[Tensor, dict[str, Tensor], int]:
    """Read the mixture `[channels, samples]`, the true `sources` that the song has, and the sample rate in hertz.

    The rest of a stem is the sum of the other stems, or else the mixture minus the stem. References are rounded to 16
    bits, as musdb reads them: anything quieter counts as silence.
    """
    parts, rate = track.read(tuple(track.parts))
    references = {source: parts[source] for source in sources if source in parts}
    for stem in STEMS:
        rest, signs = rest_name([stem]) or "", rest_parts(track.parts, [stem])
        if rest in sources and rest not in references and signs:
            references[rest] = reduce(add, (sign * parts[part] for part, sign in signs.items()))
    rounded = {source: (signal * 32768).round() / 32768 for source, signal in references.items()}
    return parts[MIXTURE], rounded, rate


def score(
    references: Mapping[str, Tensor], estimates: Mapping[str, Tensor], mixture: Tensor, sample_rate: int
) -> dict[str, Frames]:
    """BSS Eval v4 of two or more sources, in one-second windows.

    All signals are `[1 or 2 channels, samples]`; none of the `references` and `estimates` may be silent throughout.
    """
    channels = max(len(signal) for signal in (mixture, *references.values()))
    true = np.stack([_samples_first(references[source], channels) for source in references])
    estimated = np.stack([_samples_first(estimates[source], channels) for source in references])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        sdr, isr, sir, sar = import_museval().evaluate(true, estimated, sample_rate, sample_rate, padding=False)
    # In version 4 SDR is the plain ratio of the true source to the error, so the mixture's needs no museval.
    doing_nothing = np.stack([frame_sdr(source, _samples_first(mixture, channels), sample_rate) for source in true])
    doing_nothing[np.isnan(sdr)] = np.nan
    columns = dict(zip(COLUMNS, (sdr, sir, isr, sar, doing_nothing), strict=True))
    return {source: {name: values[k] for name, values in columns.items()} for k, source in enumerate(references)}


def frame_sdr(reference: np.ndarray, estimate: np.ndarray, window: int) -> np.ndarray:
    """As the usdr, without its floor, for each complete window of `[samples, channels]`."""
    starts = [k * window for k in range(max(1, len(reference) // window))]
    pairs = ((reference[start : start + window], estimate[start : start + window]) for start in starts)
    with np.errstate(all="ignore"):
        return np.array([10 * np.log10(np.square(true).sum() / np.square(true - found).sum()) for true, found in pairs])


def prepare(folder: Path) -> None:
    """Make a folder for scores before an hour of scoring. Raises `UserError` when it is not writable."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drop_partial(make_partial(folder))
    sweep_partials(folder)


def save_json(folder: Path, scores: SongScores, files: Mapping[str, Sequence]) -> None:
    """Write a song's scores to `<folder>/<subset>/<song>.json` in museval's format, with null for NaN.

    `files` are those of the song, so that `load_json` can tell whether they have changed.
    """

    def metrics(frames: Frames, second: int) -> dict[str, float | None]:
        values = {column: float(frames[column][second]) for column in COLUMNS}
        return {column: round(value, 5) if np.isfinite(value) else None for column, value in values.items()}

    targets = [
        {
            "name": source,
            "frames": [{"time": t, "duration": 1, "metrics": metrics(frames, t)} for t in range(len(frames["SDR"]))],
        }
        for source, frames in scores.sources.items()
    ]
    content = {"museval_version": version("museval"), "targets": targets, USDR: scores.usdr}
    content |= {"left_out": scores.left_out, "files": files}
    write_file(folder / scores.subset / f"{scores.name}.json", json.dumps(content, indent=2, allow_nan=False))


def load_json(folder: Path, track: Track, files: Mapping[str, Sequence]) -> SongScores | None:
    """Load the scores that `save_json` wrote for a song; None if there are none.

    Raises `UserError` when the file has other contents, or the song's files have changed since.
    """
    path = folder / track.subset / f"{track.name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["files"] != json.loads(json.dumps(files)):
            raise UserError(f"{path} has scores for other song files: name another --output.", code="other_scores")
        frames = {
            target["name"]: {c: np.array([t["metrics"][c] for t in target["frames"]], float) for c in COLUMNS}
            for target in content["targets"]
        }
        return SongScores(track.name, track.subset, frames, content[USDR], content["left_out"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} was not written by test.py: name another --output."
        raise UserError(message, code="other_scores") from error


def save_csv(path: Path, songs: Iterable[SongScores], target: str, weights: str) -> None:
    """Write the scores of each song and source, one per line, with the weights. Missing values stay empty.

    Rows of other songs that the file already has are kept.
    """
    header = ["song", "subset", "source", *COLUMNS, USDR, "weights"]
    rows: dict[tuple[str, str], list[str]] = {}
    with suppress(OSError, ValueError, KeyError), path.open(encoding="utf-8", newline="") as file:
        rows = {(row["song"], row["source"]): [row[column] for column in header] for row in csv.DictReader(file)}
    for song in songs:
        for source in scored_sources(target):
            values = [song.score(source, column) for column in (*COLUMNS, USDR)]
            cells = ["" if np.isnan(value) else f"{value:.3f}" for value in values]
            rows[song.name, source] = [song.name, song.subset, source, *cells, weights]
    order = scored_sources(target).index
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *sorted(rows.values(), key=lambda row: (row[0], order(row[2])))])


def summary(songs: Sequence[SongScores], target: str) -> dict[str, dict[str, float]]:
    """Scores over songs, in dB, by source: the median of their medians for museval's columns, the mean for the usdr."""
    return {
        source: {
            column: _median((song.score(source, column) for song in songs), np.mean if column == USDR else np.median)
            for column in (*COLUMNS, USDR)
        }
        for source in scored_sources(target)
    }


def table(songs: Sequence[SongScores], target: str) -> str:
    """Format the scores of every song and source, those over songs, and what was left out."""
    columns = (*COLUMNS, USDR)
    rows = [
        (song.name, source, *(song.score(source, column) for column in columns))
        for song in songs
        for source in scored_sources(target)
    ]
    total = f"{len(songs)} songs: medians, mean {USDR}"
    totals = [(total, source, *values.values()) for source, values in summary(songs, target).items()]
    left_out = [f"{source} of {song.name}: {reason}" for song in songs for source, reason in song.left_out.items()]
    notes = [f"left out, {len(left_out)}:", *left_out] if left_out else []
    return "\n".join([aligned(("song", "source", *columns), rows, totals), *notes])


def aligned(header: Sequence[str], *groups: Sequence[Sequence[object]]) -> str:
    """Format a table with a rule above each group of rows: texts, numbers in dB, and a dash for NaN."""

    def cell(value: object) -> str:
        return str(value) if not isinstance(value, float) else "-" if np.isnan(value) else f"{value:.2f}"

    cells = [[[cell(value) for value in row] for row in group] for group in ([header], *groups)]
    widths = [max(len(row[k]) for group in cells for row in group) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(x.ljust(w) if k < 2 else x.rjust(w) for k, (x, w) in enumerate(zip(row, widths, strict=True)))

    rule = "\n" + "-" * len(line([*header])) + "\n"
    return rule.join("\n".join(map(line, group)) for group in cells)


def _median(values: Iterable[float], average: Callable[[list[float]], Any] = np.median) -> float:
    """Median of the finite values, as in museval, or another average; NaN if there are none."""
    finite = [float(value) for value in values if np.isfinite(value)]
    return float(average(finite)) if finite else np.nan


def _why_not(source: str, references: Mapping[str, Tensor], estimates: Mapping[str, Tensor]) -> str:
    if source not in references:
        return "no reference"
    if not is_audible(references[source]):
        return "silent reference"
    return "silent estimate" if not is_audible(estimates[source]) else "the only audible source"


def _samples_first(signal: Tensor, channels: int) -> np.ndarray:
    return signal.double().expand(channels, -1).T.numpy()


def import_museval() -> ModuleType:
    """Import museval, which requires FFmpeg. Raises `UserError` without it."""
    provide_ffmpeg()
    import museval

    # museval 0.4.1 falls back to least squares on an error that it looks up under a name numpy has removed.
    vars(np.linalg).setdefault("linalg", np.linalg)
    return museval
