"""What a made-up song plays: chords, and the notes of drums, bass and other over them, mostly from MMA's grooves.

Times are in seconds, pitches are MIDI's, and every choice comes from the generator that is passed in.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pretty_midi import Note, PrettyMIDI

BEATS = 4
"""Beats in a bar: only grooves in 4/4 are taken."""

MMA_LIBRARY = Path("/usr/share/mma/lib")
"""Where Debian's package puts MMA's groove files."""

BANDS = {
    "stdlib": "8beat 60srock ballad basicrock boneym bubblerock bvfunk dsoul folkrock guitarballad jazzrock lfusion "
    "pianoballad popballad rb-ballad rb rock-128 rockballad ska softrock strut trance slowblues shuffleboggie",
    "casio": "16beat1 16beat2 16beat3 16beatballad1 16beatballad2 16beatballad3 16shuffle1 60spop 60ssoul 80spop "
    "8beat1 8beat2 8beat3 8beatballad1 8beatdance 8beatpop1 8beatpop2 8beatpop3 ambient1 ambient2 ambient3 blues "
    "dance2 dancepop1 dancepop2 dancepop3 digitalrock discosoul electricpop funk1 funk2 fusion heavymetal hip-hop "
    "house latinfusion latinhouse mellowrb modernrb pop popballad poprock1 poprock2 popshuffle1 r+b rave rock1 rock2 "
    "shufflerock slow16beat slowrock soul soulpop techno trance1 triphop worldpop",
    "alexis": "teamtechno",
    "kara": "8beatmotown K50s_rock Kfunk1",
    "pflib": "16beat1 16beat2 8beat1 8beat2 highfive metal1 metal2 rock1 slowrock",
    "yamaha": "w-rock",
}
"""MMA's files of whole bands, by library, without marches, waltzes and ragtime."""

DRUM_MACHINE = (
    "ambient bald beat16 beat16 beat8 beat8 dance dnb funk fus16 fusion hiphop hiphop hiphop house house hrk hrk latin "
    "mtl mtl pop pop punk reggae rnb rnb rock rock rock rock shuffle ska techno techno thr trip"
)
"""MMA's files of drum patterns alone (library "zoom"); what popular music plays more often stands there more often."""

LOOPS = {
    "major": ((0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4), (0, 3, 4, 3), (0, 3, 0, 4), (3, 0, 4, 5), (0, 2, 3, 4)),
    "minor": ((0, 5, 2, 6), (0, 6, 5, 6), (0, 3, 5, 4), (0, 0, 5, 6), (0, 2, 6, 3), (0, 5, 3, 4), (0, 0, 0, 6)),
}
"""Progressions of four chords, each the degree of the scale that it stands on."""

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")

MMA_CHORDS = {
    (4, 7): "",
    (3, 7): "m",
    (3, 6): "dim",
    (4, 7, 11): "M7",
    (4, 7, 10): "7",
    (3, 7, 10): "m7",
    (3, 6, 10): "m7b5",
}
"""Intervals above the root, in semitones, and what MMA calls the chord."""

BASS_RHYTHMS = ("r.r.r.r.r.r.r.r.", "r...r...r...r...", "r.....r...r.....", "r...............", "..r...r...r...r.")
BASS_RHYTHMS += ("r.o.r.o.r.o.r.o.", "rrr.rrr.rrr.rrr.", "r..r..r...r.r..o", "rrrrrrrrrrrrrrrr", "r.....rr..5...o.")
"""Sixteenths of a bar: the root, its fifth or octave is struck."""

CHORD_RHYTHMS = ("x...............", "x.......x.......", "..x...x...x...x.", "x..x..x...x..x..", "x.x.x.x.x.x.x.x.")
RIFF_RHYTHMS = ("x.x.x.x.x.x.x.x.", "x...x...x...x...", "xxx.xxx.xxx.xxx.", "x.xxx.xxx.xxx.xx", "x.....x.x...x...")
RIFF_RHYTHMS += ("x...............", "xxxxxxxxxxxxxxxx")

GENERAL_MIDI_BASSES = range(32, 40)
KICKS = (35, 36)


class GrooveError(Exception):
    """MMA could not play a groove. The message says which one, and what MMA said."""


@dataclass(frozen=True)
class Chord:
    """The pitch class of the root, and the other tones as semitones above it."""

    root: int
    intervals: tuple[int, ...]

    @property
    def name(self) -> str:
        """What MMA calls it."""
        return NAMES[self.root] + MMA_CHORDS[self.intervals]

    @property
    def tones(self) -> tuple[int, ...]:
        """Pitch classes, the root first."""
        return tuple((self.root + interval) % 12 for interval in (0, *self.intervals))


@dataclass(frozen=True)
class Layer:
    """Notes of one player of "other". `kind` says what suits them: "comp", "riff", "pad", "arpeggio" or "melody"."""

    kind: str
    notes: list[Note]
    program: int | None = None


@dataclass(frozen=True)
class Score:
    """One song: its tempo in beats a minute, a chord a bar, and the notes of each stem."""

    tempo: float
    chords: list[Chord]
    drums: list[Note]
    bass: list[Note]
    other: list[Layer] = field(default_factory=list)

    @property
    def bar(self) -> float:
        """Seconds of a bar."""
        return BEATS * 60 / self.tempo


def compose(rng: np.random.Generator, seconds: float) -> Score:
    """A song of at least `seconds`: a band or a drum machine of MMA's, with lines of our own laid over it."""
    tempo = float(rng.uniform(70, 180))
    bars = int(np.ceil(seconds * tempo / 60 / BEATS))
    mode = str(rng.choice(list(SCALES)))
    key = int(rng.integers(12))
    chords = make_chords(rng, key, mode, bars)

    library = str(rng.choice(list(BANDS), p=[0.3, 0.5, 0.02, 0.05, 0.11, 0.02]))
    band = play_groove(rng, library, str(rng.choice(BANDS[library].split())), tempo, chords)
    drums, bass, other = split_band(band)
    if rng.random() < 0.6 or not _is_steady([note for note in drums if note.pitch in KICKS], tempo, bars):
        machine = play_groove(rng, "zoom", str(rng.choice(DRUM_MACHINE.split())), tempo, chords)
        drums, _, _ = split_band(machine)

    score = Score(tempo, chords, drums, bass)
    if rng.random() < 0.45 or not _is_steady(bass, tempo, bars):
        score = replace(score, bass=play_bass(rng, score))
    if rng.random() < 0.3:  # a band of our own lines alone
        other.clear()
    wanted = max(int(rng.integers(0, 4)), 2 - len(other))
    for play in rng.permutation([play_riff, play_pad, play_arpeggio, play_comp])[:wanted]:
        other.append(play(rng, score))
    if rng.random() < 0.55:
        other.append(play_melody(rng, score, key, mode))
    return replace(score, other=arrange(rng, other, score.bar, seconds))


def make_chords(rng: np.random.Generator, key: int, mode: str, bars: int) -> list[Chord]:
    """A chord a bar: two loops of the scale, eight bars each in turn, with sevenths in some songs."""
    scale, sevenths, slow = SCALES[mode], rng.random() < 0.3, rng.random() < 0.3

    def chord(degree: int) -> Chord:
        above = [(scale[(degree + step) % 7] - scale[degree]) % 12 for step in (2, 4, 6)[: 2 + sevenths]]
        return Chord((key + scale[degree]) % 12, tuple(above))

    loops = rng.choice(LOOPS[mode], 2, replace=False)
    return [chord(int(loops[bar // 8 % 2][(bar // 2 if slow else bar) % 4])) for bar in range(bars)]


def play_groove(
    rng: np.random.Generator, library: str, name: str, tempo: float, chords: list[Chord]
) -> list[tuple[str, int, bool, list[Note]]]:
    """What MMA plays over `chords`: each track as (name, program, whether it is drums, notes).

    Two grooves of the file take turns, eight bars each. Raises `GrooveError` when MMA makes nothing of it.
    """
    path = MMA_LIBRARY / library / f"{name}.mma"
    found = re.findall(r"^\s*DefGroove\s+(\S+)", path.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE)
    grooves = [groove for groove in found if not re.search("end|intro|fill|count", groove, re.IGNORECASE)]
    if not grooves:
        raise GrooveError(f"{path} defines no groove.")
    pair = rng.choice(grooves, 2)
    lines = [f"RndSeed {rng.integers(1 << 30)}", f"Tempo {tempo:.2f}", f"Use {library}/{name}"]
    for bar, chord in enumerate(chords):
        lines += [f"Groove {pair[bar // 8 % 2]}"] * (bar % 8 == 0) + [f"{bar + 1} {chord.name}"]
    with TemporaryDirectory() as folder:
        (Path(folder) / "song.mma").write_text("\n".join(lines) + "\n")
        command = ["mma", "-w", "-f", "song.mid", "song.mma"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        if said.returncode or not (Path(folder) / "song.mid").is_file():
            raise GrooveError(f"mma can't play {path}: {said.stdout.strip()[-200:]}")
        midi = PrettyMIDI(str(Path(folder) / "song.mid"))
    return [(track.name, track.program, track.is_drum, track.notes) for track in midi.instruments]


def split_band(band: list[tuple[str, int, bool, list[Note]]]) -> tuple[list[Note], list[Note], list[Layer]]:
    """The drums, the busiest bass, and the rest of what MMA plays; sound effects are left out."""
    drums = [note for _, _, is_drum, notes in band if is_drum for note in notes]
    basses = [notes for _, program, is_drum, notes in band if not is_drum and program in GENERAL_MIDI_BASSES]
    other = [
        Layer("comp", _fold(notes, 48, 84), program)
        for _, program, is_drum, notes in band
        if not is_drum and program not in GENERAL_MIDI_BASSES and program < 112 and len(notes) > 3
    ]
    return drums, _fold(max(basses, key=len, default=[]), 28, 51), other


def play_bass(rng: np.random.Generator, score: Score) -> list[Note]:
    """Root, fifth and octave in one rhythm a song, now and then another one."""
    usual, rare = rng.choice(BASS_RHYTHMS, 2, replace=False)
    lowest, length, notes = int(rng.integers(26, 33)), rng.uniform(0.5, 1.0), []
    above = {"r": 0, "5": 7, "o": 12}
    for bar, chord in enumerate(score.chords):
        rhythm = rare if bar % 4 == 3 else usual
        pitch = lowest + (chord.root - lowest) % 12
        for step, until in _strokes(rhythm):
            notes.append(_note(rng, score, bar, step, until, pitch + above[rhythm[step]], 100, length))
    return notes


def play_riff(rng: np.random.Generator, score: Score) -> Layer:
    """Power chords: root, fifth and octave, held or chopped off as a palm-muted guitar is."""
    rhythms, length, notes = rng.choice(RIFF_RHYTHMS, 2), rng.choice([0.4, 0.95]), []
    for bar, chord in enumerate(score.chords):
        root = 40 + (chord.root - 40) % 12
        for step, until in _strokes(rhythms[bar // 8 % 2]):
            notes += [_note(rng, score, bar, step, until, root + above, 100, length) for above in (0, 7, 12)]
    return Layer("riff", notes)


def play_pad(rng: np.random.Generator, score: Score) -> Layer:
    """Whole chords, held for a bar."""
    lowest = int(rng.integers(50, 64))
    notes = [
        _note(rng, score, bar, 0, 16, lowest + (tone - lowest) % 12, 75, 1.05)
        for bar, chord in enumerate(score.chords)
        for tone in chord.tones
    ]
    return Layer("pad", notes)


def play_comp(rng: np.random.Generator, score: Score) -> Layer:
    """Chords struck in rhythm."""
    lowest, rhythms, length, notes = int(rng.integers(50, 64)), rng.choice(CHORD_RHYTHMS, 2), rng.uniform(0.3, 1), []
    for bar, chord in enumerate(score.chords):
        for step, until in _strokes(rhythms[bar // 8 % 2]):
            pitches = [lowest + (tone - lowest) % 12 for tone in chord.tones]
            notes += [_note(rng, score, bar, step, until, pitch, 85, length) for pitch in pitches]
    return Layer("comp", notes)


def play_arpeggio(rng: np.random.Generator, score: Score) -> Layer:
    """Chord tones one after the other, in eighths or sixteenths, over one or two octaves."""
    stride, lowest, octaves = int(rng.choice([1, 2])), int(rng.integers(52, 70)), int(rng.integers(1, 3))
    order, length, notes = rng.permutation(8), rng.uniform(0.4, 1.2), []
    for bar, chord in enumerate(score.chords):
        ladder = sorted(
            lowest + (tone - lowest) % 12 + 12 * octave for tone in chord.tones for octave in range(octaves)
        )
        for count, step in enumerate(range(0, 16, stride)):
            pitch = ladder[order[count % 8] % len(ladder)]
            notes.append(_note(rng, score, bar, step, step + stride, pitch, 85, length))
    return Layer("arpeggio", notes)


def play_melody(rng: np.random.Generator, score: Score, key: int, mode: str) -> Layer:
    """A walk on the scale that comes to rest on chord tones; its rhythm returns every second bar."""
    lowest, notes = int(rng.integers(58, 72)), []
    ladder = [pitch for pitch in range(lowest, lowest + 20) if (pitch - key) % 12 in SCALES[mode]]
    starts = [sorted({0, *rng.choice(16, int(rng.integers(2, 9)), replace=False)}) for _ in range(2)]
    place = len(ladder) // 2
    for bar, chord in enumerate(score.chords):
        steps = starts[bar % 2]
        for step, until in zip(steps, [*steps[1:], 16], strict=True):
            place = int(np.clip(place + rng.integers(-2, 3), 0, len(ladder) - 1))
            pitch = ladder[place]
            if step == 0:
                pitch = min((p for p in ladder if p % 12 in chord.tones), key=lambda p: abs(p - ladder[place]))
                place = ladder.index(pitch) if pitch in ladder else place
            notes.append(_note(rng, score, bar, int(step), int(until), pitch, 95, 0.9))
    return Layer("melody", notes)


def arrange(rng: np.random.Generator, layers: list[Layer], bar: float, seconds: float) -> list[Layer]:
    """Let each layer rest in about a third of the sections of four bars, but never all that have notes there.

    Layers that have nothing to play before the song ends are left out.
    """
    layers = [layer for layer in layers if any(note.start < seconds for note in layer.notes)]
    sections = [{int(note.start / bar / 4) for note in layer.notes} for layer in layers]
    rests = {(row, section) for row, own in enumerate(sections) for section in sorted(own) if rng.random() < 0.35}
    for section in sorted(set().union(*sections)):
        rows = [row for row, own in enumerate(sections) if section in own]
        rests.discard((rows[rng.integers(len(rows))], section))
    return [
        Layer(
            layer.kind, [note for note in layer.notes if (row, int(note.start / bar / 4)) not in rests], layer.program
        )
        for row, layer in enumerate(layers)
    ]


def _is_steady(notes: list[Note], tempo: float, bars: int) -> bool:
    """Whether something is struck in every second bar, at least."""
    struck = {int(note.start * tempo / 60 / BEATS / 2 + 1e-3) for note in notes}
    return struck >= set(range(bars // 2))


def _strokes(rhythm: str) -> list[tuple[int, int]]:
    """Where each stroke of a rhythm begins, and where the next one does, in sixteenths."""
    starts = [step for step, sign in enumerate(rhythm) if sign != "."]
    return list(zip(starts, [*starts[1:], len(rhythm)], strict=True))


def _note(
    rng: np.random.Generator, score: Score, bar: int, step: int, until: int, pitch: int, velocity: int, length: float
) -> Note:
    """A note from one sixteenth to another, played as a human does: a little early or late, and not always as loud."""
    sixteenth = score.bar / 16
    start = max(0.0, bar * score.bar + step * sixteenth + rng.normal(0, 0.004))
    loudness = int(np.clip(velocity + rng.normal(0, 8), 1, 127))
    return Note(loudness, int(pitch), start, start + max(0.03, (until - step) * sixteenth * length))


def _fold(notes: list[Note], lowest: int, highest: int) -> list[Note]:
    """The notes, moved by octaves until they lie between two pitches at least an octave apart."""

    def fold(pitch: int) -> int:
        while pitch < lowest:
            pitch += 12
        while pitch > highest:
            pitch -= 12
        return pitch

    return [Note(note.velocity, fold(note.pitch), note.start, note.end) for note in notes]
