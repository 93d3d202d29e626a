"""Datasets on disk become tracks: MUSDB18 (stem.mp4 or MUSDB18-HQ's wav), DSD100, and plain folders of songs."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import pad

from separation.audio.ffmpeg import provide_ffmpeg
from separation.audio.formats import AUDIO_SUFFIXES, AudioFile
from separation.audio.io import read
from separation.audio.resample import resample
from separation.errors import UserError
from separation.files import PARTIAL
from separation.stems import ACCOMPANIMENT, MIXTURE, PARTS, STEMS, is_whole, rest_parts

if TYPE_CHECKING:
    import musdb

SUBSETS = ("train", "valid", "test")

PADDING = 0.1
"""Seconds that the files of a song may differ by without a word: encoders add a little silence."""


def artist_of(song: str) -> str:
    """Who a song is by, of a name as "artist - title"; the whole name where it says none."""
    return song.split(" - ", 1)[0]


def is_named(song: str, name: str) -> bool:
    """Whether `name` is that of a song, or of who it is by.

    >>> is_named("Aimee Norwich - Child", "Aimee Norwich")
    True
    """
    return name in (song, artist_of(song))


@dataclass(frozen=True)
class Track:
    """One song of a dataset: the parts it comes with ("mixture", a stem or "accompaniment"), and the file of each.

    `name` may be used as a file name.
    """

    name: str
    subset: str
    files: Mapping[str, AudioFile]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that have a file, in the order of `STEMS`."""
        return tuple(stem for stem in STEMS if stem in self.files)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Every part that can be had, each with the files that sum to it.

        Two files or more without a mixture are a whole song: the mixture is their sum, and the accompaniment, unless it
        is one of them, the sum of all but the vocals. Beside a mixture, it is that of drums, bass and other, if all
        three are there.
        """
        parts = {part: (part,) for part in self.files}
        rest = rest_parts(self.files, ["vocals"]) or {}
        if rest and min(rest.values()) > 0:
            parts[ACCOMPANIMENT] = tuple(rest)
        if is_whole(self.files):
            parts[MIXTURE] = tuple(stem for stem in self.stems if stem == "vocals") + parts[ACCOMPANIMENT]
        return parts

    def files_of(self, parts: Iterable[str]) -> dict[str, AudioFile]:
        """The files that `parts` are made of."""
        names = {name for part in parts for name in self.parts[part]}
        return {name: file for name, file in self.files.items() if name in names}

    def read(self, parts: Sequence[str], sample_rate: int | None = None) -> tuple[dict[str, Tensor], int]:
        """The first two values of `read_padded`."""
        return self.read_padded(parts, sample_rate)[:2]

    def read_padded(
        self, parts: Sequence[str], sample_rate: int | None = None
    ) -> tuple[dict[str, Tensor], int, dict[str, float]]:
        """The waveforms `[1 or 2 channels, samples]` of `parts`, and the lowest sample rate, in hertz, of their files.

        They are resampled to `sample_rate`, by default the lowest, and as long as the longest file: the others end in
        silence, and the third value says of those how many seconds of it. No file is decoded twice. Raises `UserError`
        when a file cannot be decoded.
        """
        decoded = {name: read(file.path, track=file.track) for name, file in self.files_of(parts).items()}
        lowest = min(rate for _, rate in decoded.values())
        target = sample_rate or lowest
        waveforms = {name: resample(waveform, rate, target) for name, (waveform, rate) in decoded.items()}
        samples = max(waveform.shape[-1] for waveform in waveforms.values())
        missing = {name: samples - waveform.shape[-1] for name, waveform in waveforms.items()}
        waveforms = {name: pad(waveform, (0, missing[name])) for name, waveform in waveforms.items()}
        silence = {name: count / target for name, count in missing.items() if count > PADDING * target}
        return {part: sum(waveforms[name] for name in self.parts[part]) for part in parts}, lowest, silence


def find_tracks(dataset: str, root: Path) -> list[Track]:
    """The songs of `dataset` ("MUSDB18", "DSD100" or "FOLDER") under `root`, in order of subset and name.

    Raises `UserError` when there are none (what was looked for, and where the dataset is to be had), and when two have
    the same name.
    """
    find, looked_for, source = READERS[dataset]
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: it should hold {looked_for}; {source}.")
    tracks = [replace(track, name=file_name(track.name)) for track in find(root)]
    if not tracks:
        raise UserError(f"{root} holds no songs: looked for {looked_for}; {source}.")
    for name, count in Counter(track.name for track in tracks).items():
        if count > 1:
            raise UserError(f"{root} holds {count} songs called {name!r}: rename them, for their names must differ.")
    return sorted(tracks, key=lambda track: (SUBSETS.index(track.subset), track.name))


def file_name(name: str) -> str:
    """A song's name as a file name that every system takes, and that the store takes for no half-written track."""
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).rstrip(" .")
    return name + "_" if not name or name.endswith(PARTIAL) else name


def validation_songs() -> frozenset[str]:
    """The official validation songs of MUSDB18, each as "artist - title", from the musdb package's own list."""
    import yaml

    package = importlib.util.find_spec("musdb")
    if package is None:
        raise UserError("the musdb package is missing: run `pip install musdb`.")
    setup = Path(package.origin).parent / "configs" / "mus.yaml"
    return frozenset(yaml.safe_load(setup.read_text(encoding="utf-8"))["validation_tracks"])


def download_sample(root: Path) -> None:
    """Let musdb download its 7-second sample of MUSDB18 to `root`, unless there is a dataset already."""
    try:
        _open_musdb(root, download=True)
    except OSError as error:
        raise UserError(f"the sample of MUSDB18 could not be downloaded to {root}: {error}.") from error


def _find_musdb18(root: Path) -> Iterable[Track]:
    valid = validation_songs()
    for song in _open_musdb(root, is_wav=not any(root.glob("*/*.stem.mp4"))).tracks:
        files = {
            part: AudioFile(Path(source.path), 0 if song.is_wav else source.stem_id)
            for part, source in {MIXTURE: song, **song.sources}.items()
            if Path(source.path).is_file()
        }
        if files:
            yield Track(song.name, _subset(song.subset, song.name in valid), files)


def _open_musdb(root: Path, **options: bool) -> musdb.DB:
    provide_ffmpeg()
    import musdb
    import stempeg

    # While it lists, musdb has ffprobe look into every song: slow, and a single damaged one would end the listing.
    probing, stempeg.Info = stempeg.Info, _Unprobed
    try:
        return musdb.DB(root=str(root), **options)
    finally:
        stempeg.Info = probing


class _Unprobed:
    """Stands in for `stempeg.Info` while musdb lists: a file that nobody has looked into yet."""

    def __init__(self, path: str):
        pass

    def samples(self, stream: int) -> int:
        return 0

    duration = rate = samples


def _find_dsd100(root: Path) -> Iterable[Track]:
    valid = {song.casefold() for song in validation_songs()}
    for folder, subset in (("Dev", "train"), ("Test", "test")):
        for mixture in root.glob(f"Mixtures/{folder}/*/mixture.wav"):
            name = mixture.parent.name
            stems = {stem: root / "Sources" / folder / name / f"{stem}.wav" for stem in STEMS}
            files = {part: AudioFile(path) for part, path in {MIXTURE: mixture, **stems}.items() if path.is_file()}
            song = name.split(" - ", 1)[-1]  # without its number: "001 - artist - title"
            yield Track(name, _subset(subset, song.casefold() in valid), files)


def _find_folders(root: Path) -> Iterable[Track]:
    subsets = {subset: root / subset for subset in SUBSETS if (root / subset).is_dir()}
    for subset, parent in subsets.items() or [("train", root)]:
        for folder in parent.iterdir():
            if folder.is_dir() and (files := _parts_in(folder)):
                yield Track(folder.name, subset, files)


def _parts_in(folder: Path) -> dict[str, AudioFile]:
    present = {path.name.casefold(): path for path in folder.iterdir() if path.is_file()}
    names = {part: [part + suffix for suffix in AUDIO_SUFFIXES if part + suffix in present] for part in PARTS}
    return {part: AudioFile(present[found[0]]) for part, found in names.items() if found}


def _subset(official: str, is_valid: bool) -> str:
    return "valid" if official == "train" and is_valid else official


READERS = {
    "MUSDB18": (
        _find_musdb18,
        "`train/` and `test/` with <song>.stem.mp4, or <song>/{mixture,vocals,drums,bass,other}.wav",
        "MUSDB18 is to be had at https://sigsep.github.io/datasets/musdb.html, its 7-second sample with --download",
    ),
    "DSD100": (
        _find_dsd100,
        "`Mixtures/{Dev,Test}/<song>/mixture.wav` and `Sources/{Dev,Test}/<song>/{vocals,drums,bass,other}.wav`",
        "DSD100 is to be had at https://sigsep.github.io/datasets/dsd100.html",
    ),
    "FOLDER": (
        _find_folders,
        "a folder a song, with files called vocals, drums, bass, other, accompaniment or mixture (.wav, .mp3, ...)",
        "point --root at such a folder",
    ),
}
DATASETS = tuple(READERS)
