"""museval scores separated songs (BSS Eval v4), and medians are taken: over the seconds of a song, then over songs."""

from __future__ import annotations

import csv
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import Tensor

from separation.audio.ffmpeg import provide_ffmpeg
from separation.dataset.layouts import Track
from separation.errors import UserError
from separation.files import replacing, sweep_partials
from separation.inference.separator import Separator
from separation.jobs import run_jobs
from separation.stems import ACCOMPANIMENT, MIXTURE, STEMS, rest_name, rest_parts

ALL = "all"
TARGETS = (*STEMS, ALL)

METRICS = ("SDR", "SIR", "ISR", "SAR")
MIXTURE_SDR = "mixture SDR"
"""The SDR of doing nothing: of the mixture as the estimate of a source."""

COLUMNS = (*METRICS, MIXTURE_SDR)

Frames = dict[str, np.ndarray]
"""The values of each column for one source, in dB, one a second; NaN in a second where some source is silent."""


@dataclass(frozen=True)
class SongScores:
    """The scores of one song's sources; `left_out` says of a source why it has none."""

    name: str
    subset: str
    sources: dict[str, Frames]
    left_out: dict[str, str]

    def median(self, source: str, column: str) -> float:
        """Median over the seconds of the song, in dB; NaN where there is none."""
        return _median(self.sources[source][column]) if source in self.sources else np.nan


def scenarios(target: str) -> tuple[tuple[str, ...], ...]:
    """The sources scored together: a stem and its rest; for `all` the four stems, then vocals and their rest."""
    if target == ALL:
        return STEMS, ("vocals", ACCOMPANIMENT)
    return ((target, rest_name([target])),)


def scored_sources(target: str) -> tuple[str, ...]:
    """The sources that `target` gives scores of.

    >>> scored_sources("drums")
    ('drums', 'no_drums')
    """
    return tuple(dict.fromkeys(source for scenario in scenarios(target) for source in scenario))


def can_be_scored(track: Track, target: str) -> bool:
    """Whether a song has a mixture to separate, and one of the stems to compare with."""
    return MIXTURE in track.parts and any(source in track.stems for source in scored_sources(target))


def evaluate_tracks(
    tracks: Sequence[Track],
    weights: tuple[str, ...],
    device: str,
    target: str,
    workers: int,
    cluster: str | None = None,
    network: str | None = None,
) -> Iterator[tuple[Track, SongScores | UserError]]:
    """Evaluate tracks side by side, each worker with a network of its own; a track that fails yields the reason.

    With the address of a `cluster`, its workers do it, and all paths are absolute.
    """
    work = partial(_evaluate, weights=weights, device=device, target=target, network=network)
    return run_jobs(work, tracks, workers, cluster=cluster)


def _evaluate(track: Track, weights: tuple[str, ...], device: str, target: str, network: str | None) -> SongScores:
    return evaluate_track(track, load_separator(weights, device, target, network), target)


@cache
def load_separator(weights: tuple[str, ...], device: str, target: str, network: str | None = None) -> Separator:
    """The separator that gives the sources scored for `target`; of `fast` or `best`, or of files.

    Raises `UserError` as `Separator.load` does.
    """
    return Separator.load(weights, device, scored_sources(target), network=network)


def evaluate_track(track: Track, separator: Separator, target: str) -> SongScores:
    """Separate one song and score its sources. Raises `UserError` when it cannot be read or separated."""
    mixture, references, rate = read_references(track, scored_sources(target))
    estimates = separator(mixture, rate)
    scored: dict[str, Frames] = {}
    for scenario in scenarios(target):
        known = {source: references[source] for source in scenario if source in references}
        known = {source: reference for source, reference in known.items() if is_heard(reference)}
        if len(known) < 2:
            continue
        # museval refuses a silent estimate, but no estimate changes another's scores: the mixture takes its place.
        heard = {source: estimates[source] if is_heard(estimates[source]) else mixture for source in known}
        frames = score(known, heard, mixture, rate)
        scored |= {source: frames[source] for source in known if heard[source] is estimates[source]}
    missing = (source for source in scored_sources(target) if source not in scored)
    left_out = {source: _why_not(source, references, estimates) for source in missing}
    return SongScores(track.name, track.subset, scored, left_out)


def is_heard(signal: Tensor) -> bool:
    """Whether a signal `[channels, samples]` is anything but silence, as museval understands it."""
    return bool(signal.sum(dim=0).any())


def read_references(track: Track, sources: Sequence[str]) -> tuple[Tensor, dict[str, Tensor], int]:
    """The mixture `[channels, samples]`, the true `sources` as far as the song has them, and the sample rate in hertz.

    The rest of a stem is the sum of the other stems, or else what the mixture holds besides the stem. References are
    rounded to 16 bits, as musdb reads them: what is quieter counts as silence.
    """
    parts, rate = track.read(tuple(track.parts))
    references = {source: parts[source] for source in sources if source in parts}
    for stem in STEMS:
        rest, signs = rest_name([stem]), rest_parts(track.parts, [stem])
        if rest in sources and rest not in references and signs:
            references[rest] = sum(sign * parts[part] for part, sign in signs.items())
    rounded = {source: (signal * 32768).round() / 32768 for source, signal in references.items()}
    return parts[MIXTURE], rounded, rate


def score(
    references: Mapping[str, Tensor], estimates: Mapping[str, Tensor], mixture: Tensor, sample_rate: int
) -> dict[str, Frames]:
    """BSS Eval v4 of two sources or more, in windows of one second.

    All signals are `[1 or 2 channels, samples]`; none of the `references` and their `estimates` may be wholly silent.
    """
    channels = max(len(signal) for signal in (mixture, *references.values()))
    true = np.stack([_samples_first(references[source], channels) for source in references])
    estimated = np.stack([_samples_first(estimates[source], channels) for source in references])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        sdr, isr, sir, sar = _import_museval().evaluate(true, estimated, sample_rate, sample_rate, padding=False)
    # The SDR of version 4 is the plain ratio of the true source to the error, so the mixture's needs no museval.
    doing_nothing = np.stack([frame_sdr(source, _samples_first(mixture, channels), sample_rate) for source in true])
    doing_nothing[np.isnan(sdr)] = np.nan
    columns = dict(zip(COLUMNS, (sdr, sir, isr, sar, doing_nothing), strict=True))
    return {source: {name: values[k] for name, values in columns.items()} for k, source in enumerate(references)}


def frame_sdr(reference: np.ndarray, estimate: np.ndarray, window: int) -> np.ndarray:
    """10 log10 of the energy of `reference` against the error's, in dB, in each window of `[samples, channels]`."""
    count = max(1, len(reference) // window)
    energy, error = (
        np.array([np.square(signal[k * window : (k + 1) * window]).sum() for k in range(count)])
        for signal in (reference, reference - estimate)
    )
    with np.errstate(all="ignore"):
        return 10 * np.log10(energy / error)


def prepare(output: Path, subset: str) -> None:
    """Make the folder of the scores, before they take an hour. Raises `UserError` when nothing can be written there."""
    for folder in (output, output / subset):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            sweep_partials(folder)
        except OSError as error:
            raise UserError(f"--output {folder} cannot be written to: {error.strerror}.") from error


def save_json(folder: Path, scores: SongScores) -> None:
    """Write a song's scores, if it has any, to `<folder>/<subset>/<song>.json`, as museval does and reads."""
    if not scores.sources:
        return
    store = _import_museval().TrackStore(scores.name)
    for source, frames in scores.sources.items():
        store.add_target(source, {metric: frames[metric].tolist() for metric in METRICS})
    store.validate()
    with replacing(folder / scores.subset / f"{scores.name}.json") as partial:
        partial.write_text(store.json, encoding="utf-8")


def save_csv(path: Path, songs: Iterable[SongScores], target: str) -> None:
    """Write the medians of each song and source, one a line; a value that there is none of is left empty."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["song", "subset", "source", *COLUMNS])
        for song in songs:
            for source in scored_sources(target):
                medians = [song.median(source, column) for column in COLUMNS]
                values = ["" if np.isnan(median) else f"{median:.3f}" for median in medians]
                writer.writerow([song.name, song.subset, source, *values])


def medians(songs: Sequence[SongScores], target: str) -> dict[str, dict[str, float]]:
    """For each source and column the median over songs, in dB, of the songs' medians."""
    return {
        source: {column: _median([song.median(source, column) for song in songs]) for column in COLUMNS}
        for source in scored_sources(target)
    }


def table(songs: Sequence[SongScores], target: str) -> str:
    """The scores of every song and source, their medians, and what was left out, as text."""
    sources = scored_sources(target)
    rows = [(song.name, source, map(partial(song.median, source), COLUMNS)) for song in songs for source in sources]
    total = f"median of {len(songs)} songs"
    totals = [(total, source, columns.values()) for source, columns in medians(songs, target).items()]
    first, second = (max(len(row[k]) for row in (*rows, *totals)) for k in (0, 1))

    def line(name: str, source: str, cells: Iterable[str]) -> str:
        aligned = (f"{cell:>{max(8, len(column) + 2)}}" for cell, column in zip(cells, COLUMNS, strict=True))
        return f"{name:<{first}}  {source:<{second}}" + "".join(aligned)

    def values(row: tuple[str, str, Iterable[float]]) -> str:
        return line(row[0], row[1], ("-" if np.isnan(value) else f"{value:.2f}" for value in row[2]))

    header = line("song", "source", COLUMNS)
    rule = "-" * len(header)
    left_out = [f"{source} of {song.name}: {reason}" for song in songs for source, reason in song.left_out.items()]
    notes = [f"left out, {len(left_out)}:", *left_out] if left_out else []
    return "\n".join([header, rule, *map(values, rows), rule, *map(values, totals), *notes])


def _median(values: Iterable[float]) -> float:
    """The median of the finite values, as museval takes it; NaN where there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else np.nan


def _why_not(source: str, references: Mapping[str, Tensor], estimates: Mapping[str, Tensor]) -> str:
    if source not in references:
        return "no reference"
    if not is_heard(references[source]):
        return "silent reference"
    return "silent estimate" if not is_heard(estimates[source]) else "the only source that is heard"


def _samples_first(signal: Tensor, channels: int) -> np.ndarray:
    return signal.double().expand(channels, -1).T.numpy()


def _import_museval() -> ModuleType:
    provide_ffmpeg()
    import museval

    # museval 0.4.1 falls back to least squares at an error that it knows by a name which numpy has dropped.
    if not hasattr(np.linalg, "linalg"):
        np.linalg.linalg = np.linalg
    return museval
