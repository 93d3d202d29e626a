"""The runs of benchmarks/labels.py as a table, a plot, and a table of variants.

Runs are compared song by song, each song averaged over seeds; songs that some run has no score of are left out of all.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Run:
    """One training; without labelled songs and unlabelled music there is none, and the mixture stays as it is."""

    labels: int
    unlabelled: bool
    seed: int = 0
    variant: str = ""
    """What the other settings of this run are called, if it has any."""

    @property
    def kind(self) -> str:
        return "semi-supervised" if self.unlabelled else "supervised" if self.labels else "mixture"

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return re.sub(r"\W+", "-", f"{self.kind} {self.labels} seed {self.seed} {self.variant.lower()}").strip("-")


Scores = Mapping[Run, Mapping[str, Mapping[str, float]]]
"""SDR in dB by run, source and song."""

PAIRED = "Gains are paired: each song is averaged over seeds, its gain over songs (mean ± standard error over songs)."


def write_tables(folder: Path, scores: Scores, duration: str) -> None:
    """Write scores.csv, table.md, plot.png and, where there are variants, variants.md; the target comes first."""
    write_csv(folder / "scores.csv", scores)
    comparisons = [Comparison(scores, source) for source in next(iter(scores.values()))]
    tables = [comparison.table() for comparison in comparisons]
    (folder / "table.md").write_text("\n\n".join([*tables, duration]) + "\n", encoding="utf-8")
    if any(run.variant for run in scores):
        tables = [comparison.variants() for comparison in comparisons]
        (folder / "variants.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    comparisons[0].plot(folder / "plot.png")


def write_csv(path: Path, scores: Scores) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "labels", "unlabelled", "seed", "variant", "song", "source", "sdr"])
        for run, sources in scores.items():
            about = [run.name, run.labels, "yes" if run.unlabelled else "no", run.seed, run.variant]
            for source, songs in sources.items():
                writer.writerows([*about, song, source, f"{sdr:.3f}"] for song, sdr in songs.items())


class Comparison:
    """The runs side by side, by the SDR of one source."""

    def __init__(self, scores: Scores, source: str):
        self.source = source
        self.songs = sorted(set.intersection(*(set(sources.get(source, ())) for sources in scores.values())))
        self.sdr = {run: [sources[source][song] for song in self.songs] for run, sources in scores.items()}
        self.labels = sorted({run.labels for run in scores})

    def seeds(self, kind: Run) -> set[int]:
        """The seeds of the runs that differ from `kind` in nothing else."""
        return {run.seed for run in self.sdr if replace(run, seed=kind.seed) == kind}

    def cell(self, kind: Run, seeds: Iterable[int] | None = None) -> np.ndarray:
        """SDR `[seeds, songs]` of those runs, with all their seeds or with those given."""
        found = [self.sdr[replace(kind, seed=seed)] for seed in (self.seeds(kind) if seeds is None else seeds)]
        return np.array(found).reshape(len(found), len(self.songs))

    def table(self) -> str:
        """SDR by labelled songs without and with unlabelled music, and the gain; then few labels against many."""
        rows, claims = [], []
        for count in self.labels:
            cells = self.cell(Run(count, False)), self.cell(Run(count, True))
            figures = [over_seeds(average(cell, axis=1)) for average in (np.median, np.mean) for cell in cells]
            seeds = f"{len(cells[0]) if count else '-'}, {len(cells[1])}"
            rows.append([count, seeds, *figures, gain(*cells)])
        labelled = [count for count in self.labels if count]
        for few, many in pairwise([*labelled, *labelled[-1:]]):
            before, after = self.cell(Run(many, False)), self.cell(Run(few, True))
            medians = [over_seeds(np.median(cell, axis=1)) for cell in (after, before)]
            claims.append([few, many, *medians, gain(before, after)])
        figures = [f"{average}, {which}" for average in ("median", "mean") for which in ("without", "with")]
        return f"""## {self.source}

SDR in dB by museval without and with unlabelled music: the median over the seconds of a song, the median or mean over
{len(self.songs)} songs, the mean over seeds (with the range over seeds). Without either, the mixture itself is scored.
{PAIRED}

{markdown(["labelled songs", "seeds without, with", *figures, "gain"], rows)}

Few labelled songs with unlabelled music, against many without:

{markdown(["labelled songs, with", "labelled songs, without", "median, with", "median, without", "gain"], claims)}"""

    def variants(self) -> str:
        """Every variant, and at last the supervised runs, against the unchanged runs of the same seeds."""
        kinds = dict.fromkeys(replace(run, seed=0) for run in self.sdr if run.variant)
        unchanged, rows = replace(next(iter(kinds)), variant=""), []
        varied = set().union(*(self.seeds(kind) for kind in kinds))
        for kind in (unchanged, *kinds, replace(unchanged, unlabelled=False)):
            seeds = self.seeds(kind) & self.seeds(unchanged) & varied
            before, after = self.cell(unchanged, seeds), self.cell(kind, seeds)
            figures = [over_seeds(average(after, axis=1)) for average in (np.median, np.mean)]
            name = kind.variant or ("unchanged" if kind == unchanged else kind.kind)
            rows.append([name, len(seeds), *figures, "" if kind == unchanged else gain(before, after)])
        return f"""## {self.source}

SDR in dB by museval over {len(self.songs)} songs, with {unchanged.labels} labelled songs and unlabelled music: other
settings against the unchanged ones with the same seeds, and at last no unlabelled music.
{PAIRED}

{markdown(["variant", "seeds", "median", "mean", "gain"], rows)}"""

    def plot(self, path: Path) -> None:
        """Draw the median over songs by labelled songs: a line without and one with unlabelled music."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for unlabelled, shift, colour in ((True, 0.03, "#c2410c"), (False, -0.03, "#6b7280")):
            medians = {n: np.median(self.cell(Run(count, unlabelled)), axis=1) for n, count in enumerate(self.labels)}
            # The mixture is so far below that the lines would look flat beside it.
            shown = {n: seeds for n, seeds in medians.items() if len(seeds) and (self.labels[n] or unlabelled)}
            if not shown:
                continue
            low, mean, high = np.transpose([(seeds.min(), seeds.mean(), seeds.max()) for seeds in shown.values()])
            name = "with unlabelled music" if unlabelled else "labelled songs alone"
            style = {"color": colour, "marker": "o", "linewidth": 2, "elinewidth": 1.2, "capsize": 3}
            axes.errorbar([n + shift for n in shown], mean, (mean - low, high - mean), label=name, **style)
        axes.legend(frameon=False)
        doing_nothing = np.median(self.cell(Run(0, False)))
        axes.set_xticks(range(len(self.labels)), self.labels)
        axes.set_xlabel(f"labelled songs\n(bars: range over seeds; the mixture itself: {doing_nothing:.2f} dB)")
        axes.set_ylabel(f"SDR of {self.source} in dB, median of {len(self.songs)} songs")
        axes.grid(axis="y", color="#e5e7eb")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


def over_seeds(values: np.ndarray) -> str:
    """The mean of a figure over seeds, and its range if there are several.

    >>> over_seeds(np.array([1.0, 2.0])), over_seeds(np.array([1.0])), over_seeds(np.array([]))
    ('1.50 (1.00 to 2.00)', '1.00', '-')
    """
    if not len(values):
        return "-"
    return f"{values.mean():.2f}" + (f" ({values.min():.2f} to {values.max():.2f})" if len(values) > 1 else "")


def gain(before: np.ndarray, after: np.ndarray) -> str:
    """How much better the runs `after` are, of `[seeds, songs]` each: mean over songs ± its standard error."""
    if not (len(before) and len(after)):
        return "-"
    differences = after.mean(axis=0) - before.mean(axis=0)
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.2f} ± {error:.2f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
