"""Compare two weights on the same songs: the difference per song, its mean and standard error, and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from separation.errors import UserError
from separation.files import replacing
from separation.scoring.evaluation import USDR, SongScores, aligned, scored_sources

SCORES = {USDR: USDR, "csdr": "SDR"}
"""The two SDRs of `evaluation`, and the columns that hold them."""


@dataclass(frozen=True)
class Comparison:
    """Scores of one source by two weights, in dB, for each song."""

    source: str
    score: str
    songs: tuple[str, ...]
    values: np.ndarray
    """`[songs, 2]`: the first weights and the second."""

    @property
    def gain(self) -> str:
        """Mean over songs of the second minus the first, ± its standard error if there are several songs."""
        gains, count = self.values[:, 1] - self.values[:, 0], len(self.songs)
        return f"{gains.mean():+.2f}" + (f" ± {gains.std(ddof=1) / count**0.5:.2f}" if count > 1 else "")


def report(
    first: Sequence[SongScores], second: Sequence[SongScores], target: str, names: Sequence[str], place: Path
) -> str:
    """Format the comparison of two weights called `names`; write each song's scores and a plot to `place`."""
    comparisons = compare(first, second, target)
    save_songs(Path(f"{place}.csv"), comparisons, names)
    drawn = plot(Path(f"{place}.png"), comparisons, names)
    files = f"song by song: {place}.csv" + (" and .png" if drawn else "; for a plot, pip install matplotlib")
    return f"{table(comparisons, names)}\n{files}"


def compare(first: Sequence[SongScores], second: Sequence[SongScores], target: str) -> list[Comparison]:
    """Pair the scores of songs that both weights have scored. Raises `UserError` when there are none."""
    others, comparisons = {song.name: song for song in second}, []
    for source in scored_sources(target):
        for score, column in SCORES.items():
            both = {
                song.name: (song.score(source, column), others[song.name].score(source, column))
                for song in first
                if song.name in others
            }
            both = {name: pair for name, pair in both.items() if np.isfinite(pair).all()}
            if both:
                comparisons.append(Comparison(source, score, tuple(both), np.array([*both.values()])))
    if not comparisons:
        raise UserError("--compare: no song has a score of both weights.", code="nothing_to_compare")
    return comparisons


def table(comparisons: Sequence[Comparison], names: Sequence[str]) -> str:
    """Format means over songs, and paired differences with their standard errors."""
    rows = [
        (one.source, one.score, str(len(one.songs)), *map(float, one.values.mean(axis=0)), one.gain)
        for one in comparisons
    ]
    return aligned(("source", "score", "songs", *names, "difference"), rows)


def save_songs(path: Path, comparisons: Sequence[Comparison], names: Sequence[str]) -> None:
    """Write both scores of each song, source and SDR, one pair per line."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["song", "source", "score", *names])
        for one in comparisons:
            for song, values in zip(one.songs, one.values, strict=True):
                writer.writerow([song, one.source, one.score, *(f"{value:.3f}" for value in values)])


def plot(path: Path, comparisons: Sequence[Comparison], names: Sequence[str]) -> bool:
    """Plot both weights song by song, a panel for each source and SDR. Returns False if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    sources = [*dict.fromkeys(one.source for one in comparisons)]
    figure = Figure(figsize=(4 * len(sources), 7), layout="constrained")
    panels = figure.subplots(len(SCORES), len(sources), squeeze=False)
    for one in comparisons:
        panel = panels[[*SCORES].index(one.score), sources.index(one.source)]
        values = one.values[np.argsort(one.values[:, 0])]
        places = np.arange(len(values))
        panel.vlines(places, *np.sort(values, axis=1).T, color="0.75")
        for column, (label, marker) in enumerate(zip(names, "ox", strict=True)):
            panel.plot(places, values[:, column], marker, label=label, color=("#555555", "#d62728")[column])
        panel.set_title(f"{one.source}: {one.gain} dB")
        panel.set_ylabel(f"{one.score} in dB")
        panel.set_xlabel("songs, in order of the first")
        panel.set_xticks([])
    panels[0, 0].legend()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    return True
