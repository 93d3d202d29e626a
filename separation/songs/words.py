"""What the command says about its work, in people's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from separation.errors import UserError
from separation.inference.weights import PRETRAINED
from separation.runtime import clock, count
from separation.songs.render import RenderReport


def spell(seconds: float) -> str:
    """How long something took.

    >>> spell(0.42), spell(6.4), spell(150)
    ('0.4 s', '6 s', '2:30 min')
    """
    if seconds >= 100:
        return f"{clock(seconds)} min" if seconds < 3600 else f"{clock(seconds)} h"
    return f"{seconds:.1f} s" if seconds < 5 else f"{seconds:.0f} s"


def opening(weights: Sequence[Path], place: str, songs: int, jobs: int = 1, cluster: str | None = None) -> str:
    """What is done with what: the songs, the weights and where they are computed, here or by a cluster."""
    abreast = f", {min(jobs, songs)} at a time" if min(jobs, songs) > 1 else ""
    times = {1: "", 2: ", twice,"}
    hearings = Counter(f"{path.name} (shipped)" if path.parent == PRETRAINED else str(path) for path in weights)
    named = " and ".join(name + times.get(often, f", {often} times,") for name, often in hearings.items()).rstrip(",")
    if cluster:
        place, abreast = f"the workers of {cluster}", ""
    return f"{count(songs, 'song')}{abreast}; weights {named}; {place}"


def place(files: PurePath) -> str:
    """Where the stems of a song are, `*` standing for their names: the folder, if it is theirs.

    >>> place(PurePath("outputs/lithium/*.wav")), place(PurePath("outputs/lithium - *.wav"))
    ('outputs/lithium/', 'outputs/lithium - *.wav')
    """
    return f"{files.parent.as_posix()}/" if files.stem == "*" else files.as_posix()


def result(report: RenderReport, files: PurePath, stems: Sequence[str]) -> str:
    """The line of a song that is done: how long it is, how long it took, where its stems are, and what was cut off."""
    line = f"{clock(report.seconds)} of music in {spell(report.elapsed)} -> {place(files)} ({', '.join(stems)})"
    if report.gain < 1:
        line += f"; all stems {report.gain:.3f} times as loud as in the song, lest they clip"
    beyond = sum(tally.beyond for tally in report.stems.values())
    line += f"; beyond full scale: {count(beyond, 'sample')}" if beyond else ""
    return "; ".join([line, *report.remarks])


def levels(report: RenderReport) -> str:
    """How loud each stem is: its root mean square, where a full-scale square wave has 0 dBFS."""
    return ", ".join(f"{stem} {tally.level:.1f} dBFS" for stem, tally in report.stems.items())


def reason(song: Path, error: UserError) -> str:
    """Why a song failed, with its name."""
    return str(error) if str(song) in str(error) else f"{song}: {error}"
