"""A score becomes stems: every part gets a sound of its own, effects, a place in the stereo field and a level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pedalboard as fx
from pretty_midi import Note

from recipes.score import GrooveError, Layer, Score, compose
from recipes.sound import (
    PIECE_OF,
    RATE,
    Kit,
    electronic_kit,
    hydrogen_kit,
    play_kit,
    random_patch,
    render_midi,
    render_synth,
)
from separation.errors import UserError

SOUNDFONTS = {
    "FluidR3_GM.sf2": 3,
    "MuseScore_General_Full.sf2": 3,
    "TimGM6mb.sf2": 2,
    "OPL-3_FM_128M.sf2": 1,
}
"""General MIDI soundfonts of Debian's packages, and how often each is taken; those that are not there are left out."""

DRUM_SOUNDFONTS = {**SOUNDFONTS, "Black_Pearl_4_LV2.sf2": 1, "Red_Zeppelin_4_LV2.sf2": 1}
"""The same for drums; the last two are a drum kit each, played as if they were one pitched instrument."""

SOUNDFONT_FOLDER = Path("/usr/share/sounds/sf2")

MICROPHONES = (
    (("kick", "snare", "rim", "clap"), 0.0),
    (("closed hat", "open hat", "cowbell", "shaker"), 0.2),
    (("low tom", "mid tom", "high tom", "crash", "ride"), 0.2),
)
"""Pieces of the kit that are mixed together, and how far from the middle they may be panned."""

HYDROGEN = Path("/usr/share/hydrogen/data/drumkits")

DRUM_KITS = (0, 0, 0, 8, 8, 16, 16, 24, 25, 25, 32, 40)
"""General MIDI's standard, room, power, electronic, TR-808, jazz and brush kits."""

PIANOS, ELECTRIC_PIANOS, MALLETS, ORGANS = (0, 1, 2, 3), (4, 5, 7), (8, 9, 11, 12, 13, 108), (16, 17, 18, 19, 21)
GUITARS, ELECTRIC, BANJOS = (24, 25, 26, 27, 28), (26, 27, 28, 29, 30), (104, 105, 106)
STRINGS, BRASS = (40, 41, 42, 44, 45, 48, 49, 50, 51), (56, 57, 58, 59, 60, 61, 62, 63)
WINDS, LEADS, PADS = (64, 65, 66, 67, 68, 71, 73, 74, 75), (80, 81, 82, 83, 84, 86, 87), (88, 89, 90, 92, 93, 94, 95)

PLAYERS = {
    "comp": (PIANOS, ELECTRIC_PIANOS, ORGANS, GUITARS, GUITARS, ELECTRIC, STRINGS, BRASS, LEADS),
    "riff": (ELECTRIC, ELECTRIC, ELECTRIC, (29, 30), LEADS, PIANOS),
    "pad": (STRINGS, STRINGS, PADS, PADS, ORGANS, BRASS),
    "arpeggio": (PIANOS, ELECTRIC_PIANOS, GUITARS, GUITARS, MALLETS, LEADS, STRINGS, BANJOS),
    "melody": (LEADS, WINDS, BRASS, STRINGS, ELECTRIC, GUITARS, PIANOS, MALLETS, ORGANS),
}
"""Families of General MIDI programs that suit each kind of layer; choirs and voices are none of them."""

SYNTHS = {"comp": "pluck", "riff": "lead", "pad": "pad", "arpeggio": "pluck", "melody": "lead"}
"""The oscillators' patch for each kind of layer."""

LEVELS = {"drums": (-22, -15), "bass": (-23, -15), "other": (-24, -16)}
"""RMS of each stem in dB below full scale, drawn evenly from this range."""

TRIES = 5
"""How often something else is drawn before a groove, or a part, is given up."""

AUDIBLE = 1e-3
"""The lowest peak of a part that was really played."""

CEILING = 0.95
"""The highest peak of a song."""


def make_song(rng: np.random.Generator, seconds: float) -> tuple[str, dict[str, np.ndarray]]:
    """What the song is like, in a line, and its drums, bass and other, each float32 `[2 channels, samples]`.

    Grooves that MMA cannot play are passed over. Raises `UserError` when it can play none.
    """
    for _ in range(TRIES):
        try:
            score = compose(rng, seconds)
            break
        except GrooveError as error:
            trouble = error
    else:
        raise UserError(f"{TRIES} grooves in a row can't be played; {trouble}")
    samples = round(seconds * RATE)
    drums, drums_sound = make_drums(rng, score, samples)
    bass, bass_sound = make_bass(rng, score, samples)
    players = [make_layer(rng, layer, samples) for layer in score.other]
    stems = {"drums": drums, "bass": bass, "other": sum(sound for sound, _ in players)}
    said = f"{score.tempo:.0f} bpm; {drums_sound}; {bass_sound}; {', '.join(name for _, name in players)}"
    return said, balance(rng, stems)


def make_drums(rng: np.random.Generator, score: Score, samples: int) -> tuple[np.ndarray, str]:
    """The drums, and what plays them: a soundfont's kit, Hydrogen's samples or a drum machine."""
    kind = rng.choice(["soundfont", "hydrogen", "machine"], p=[0.5, 0.3, 0.2])
    if kind == "soundfont":
        soundfont, program = choose_soundfont(rng, DRUM_SOUNDFONTS), int(rng.choice(DRUM_KITS))
        is_drum = soundfont.name in SOUNDFONTS
        name = f"{soundfont.stem} kit {program}" if is_drum else soundfont.stem
    else:
        kit, name = choose_kit(rng) if kind == "hydrogen" else (electronic_kit(rng), "drum machine")

    played = np.zeros((2, samples), np.float32)
    for pieces, spread in MICROPHONES:
        notes = [note for note in score.drums if PIECE_OF.get(note.pitch, "shaker") in pieces]
        if kind == "soundfont":
            part = render_midi(notes, program if is_drum else 0, is_drum, soundfont, samples)
        else:
            part = play_kit(notes, kit, samples)
        played += pan(part, 0.5 + rng.uniform(-spread, spread)) * np.float32(10 ** (rng.uniform(-4, 4) / 20))
    board = [
        fx.LowShelfFilter(rng.uniform(60, 150), rng.uniform(-3, 5)),
        fx.PeakFilter(rng.uniform(250, 900), rng.uniform(-6, 1), 0.8),
        fx.HighShelfFilter(rng.uniform(4000, 9000), rng.uniform(-4, 6)),
    ]
    if rng.random() < 0.7:
        board.append(fx.Compressor(rng.uniform(-30, -18), rng.uniform(2, 8), rng.uniform(1, 30), rng.uniform(50, 250)))
    if rng.random() < 0.3:
        board.append(fx.Distortion(rng.uniform(2, 12)))
    if rng.random() < 0.6:
        board.append(reverb(rng, 0.4, 0.15))
    return effect(level(played, -20), board), name


def choose_kit(rng: np.random.Generator) -> tuple[Kit, str]:
    """One of Hydrogen's kits and its name, or a drum machine where there are none."""
    folders = sorted(path.parent for path in HYDROGEN.glob("*/drumkit.xml"))
    for folder in rng.permutation(np.array(folders, object)):
        try:
            return hydrogen_kit(folder, rng), folder.name
        except (ValueError, OSError, RuntimeError):
            continue
    return electronic_kit(rng), "drum machine"


def make_bass(rng: np.random.Generator, score: Score, samples: int) -> tuple[np.ndarray, str]:
    """The bass, in the middle, and what plays it: a General MIDI bass or oscillators."""
    notes = monophonic(score.bass)
    if rng.random() < 0.62:
        program = int(rng.choice([32, 33, 33, 33, 34, 34, 35, 36, 37, 38, 39]))
        played, name = play_soundfont(rng, notes, program, samples)
        name += f" bass {program}"
    else:
        kind = str(rng.choice(["bass", "bass", "sub"]))
        played, name = render_synth(notes, random_patch(rng, kind), samples, rng), f"synth {kind}"
    board = [fx.HighpassFilter(28), fx.LowShelfFilter(rng.uniform(70, 140), rng.uniform(-2, 6))]
    board.append(fx.HighShelfFilter(rng.uniform(1500, 4000), rng.uniform(-12, 3)))
    if rng.random() < 0.45:
        driven = [fx.Distortion(rng.uniform(4, 22)), fx.LowpassFilter(rng.uniform(1500, 5000))]
        board.append(fx.Mix([fx.Chain([fx.Gain(0)]), fx.Chain([*driven, fx.Gain(rng.uniform(-14, -3))])]))
    if rng.random() < 0.12:
        board.append(fx.Chorus(rate_hz=rng.uniform(0.3, 1.5), depth=0.15, mix=0.3))
    board.append(fx.Compressor(rng.uniform(-32, -20), rng.uniform(2, 6), rng.uniform(2, 20), rng.uniform(60, 250)))
    middle = level(played, -20).mean(0, keepdims=True).repeat(2, 0)
    return effect(middle, board), name


def make_layer(rng: np.random.Generator, layer: Layer, samples: int) -> tuple[np.ndarray, str]:
    """One player of "other", and what it plays on: General MIDI or oscillators, driven guitars among them."""
    is_driven, is_wide = False, False
    if rng.random() < (0.15 if layer.kind == "riff" else 0.3):
        kind = SYNTHS[layer.kind]
        played, name = render_synth(layer.notes, random_patch(rng, kind), samples, rng), f"synth {kind}"
    else:
        families = PLAYERS[layer.kind]
        program = int(rng.choice(families[rng.integers(len(families))]))
        if layer.program is not None and rng.random() < 0.4 and layer.program not in (52, 53, 54, 85, 91):
            program = layer.program
        is_driven = program in ELECTRIC and rng.random() < (0.85 if layer.kind == "riff" else 0.4)
        is_wide = is_driven and rng.random() < 0.7
        takes = [play_soundfont(rng, layer.notes, program, samples)[0]]
        if is_wide:  # played twice, one take for each side
            takes.append(play_soundfont(rng, loosen(rng, layer.notes), program, samples)[0])
        played = np.stack([level(take, -20).mean(0) for take in takes]) if is_wide else takes[0]
        name = f"{layer.kind} on {program}" + " driven" * is_driven + " twice" * is_wide

    board = [fx.HighpassFilter(rng.uniform(60, 180))]
    if is_driven:
        cabinet = fx.LadderFilter(fx.LadderFilter.Mode.LPF24, rng.uniform(3500, 6500))
        board += [fx.Distortion(rng.uniform(12, 38)), cabinet, fx.PeakFilter(rng.uniform(500, 2500), 4, 0.7)]
    board.append(fx.HighShelfFilter(rng.uniform(2500, 7000), rng.uniform(-5, 6)))
    if rng.random() < 0.25:
        board.append(fx.Chorus(rate_hz=rng.uniform(0.3, 2), depth=rng.uniform(0.1, 0.4), mix=0.5))
    elif rng.random() < 0.1:
        board.append(fx.Phaser(rate_hz=rng.uniform(0.1, 1), mix=0.5))
    if rng.random() < 0.4:
        board.append(fx.Compressor(rng.uniform(-30, -20), rng.uniform(2, 5)))
    if rng.random() < 0.25:
        board.append(fx.Delay(rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.3)))
    if rng.random() < 0.7:
        board.append(reverb(rng, 0.8, 0.35))
    played = effect(level(played, -20), board)
    return level(pan(played, 0.5 if is_wide else rng.uniform(0.2, 0.8)), rng.uniform(-28, -18)), name


def reverb(rng: np.random.Generator, largest: float, wettest: float) -> fx.Reverb:
    """A room of any size up to `largest`, mixed in up to `wettest`; both from 0 to 1."""
    wet = rng.uniform(0.03, wettest)
    return fx.Reverb(rng.uniform(0.05, largest), rng.uniform(0.2, 0.8), wet, 1 - wet, rng.uniform(0.5, 1))


def effect(sound: np.ndarray, board: list[fx.Plugin]) -> np.ndarray:
    """The sound through all effects in turn."""
    return fx.Pedalboard(board)(sound.astype(np.float32), RATE)


def play_soundfont(rng: np.random.Generator, notes: list[Note], program: int, samples: int) -> tuple[np.ndarray, str]:
    """The notes as any installed soundfont plays them, and its name; one that is silent there is passed over."""
    for _ in range(TRIES):
        path = choose_soundfont(rng, SOUNDFONTS)
        played = render_midi(notes, program, False, path, samples)
        if np.abs(played).max() > AUDIBLE:
            break
    return played, path.stem


def choose_soundfont(rng: np.random.Generator, soundfonts: Mapping[str, int]) -> Path:
    """One of those that are installed, some more often than others. Raises `UserError` when none is."""
    there = [name for name in soundfonts if (SOUNDFONT_FOLDER / name).exists()]
    if not there:
        raise UserError(
            f"{SOUNDFONT_FOLDER} has none of {', '.join(soundfonts)}: recipes/README.md says how to install them."
        )
    weights = np.array([soundfonts[name] for name in there], float)
    return SOUNDFONT_FOLDER / str(rng.choice(there, p=weights / weights.sum()))


def monophonic(notes: list[Note]) -> list[Note]:
    """One note at a time: each ends, at the latest, where the next begins, and of two at once the lowest is kept."""
    kept: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, note.pitch)):
        if kept and note.start - kept[-1].start < 0.03:
            continue
        if kept:
            kept[-1] = Note(kept[-1].velocity, kept[-1].pitch, kept[-1].start, min(kept[-1].end, note.start))
        kept.append(note)
    return kept


def loosen(rng: np.random.Generator, notes: list[Note]) -> list[Note]:
    """The same, played another time."""
    return [
        Note(int(np.clip(n.velocity + rng.normal(0, 6), 1, 127)), n.pitch, *np.clip([n.start + d, n.end + d], 0, None))
        for n in notes
        for d in [rng.normal(0, 0.008)]
    ]


def pan(sound: np.ndarray, right: float) -> np.ndarray:
    """`[2 channels, samples]` moved to a side; `right` is 0 for left, 0.5 for as it was, 1 for right."""
    return sound * np.sqrt(2 * np.array([[1 - right], [right]], np.float32))


def level(sound: np.ndarray, decibels: float) -> np.ndarray:
    """The sound with an RMS of so many dB of full scale; silence stays silence."""
    rms = np.sqrt(np.mean(sound**2, dtype=np.float64))
    return sound * np.float32(10 ** (decibels / 20) / max(rms, 1e-6))


def soft_clip(sound: np.ndarray) -> np.ndarray:
    """Peaks are bent below `CEILING`, as mastering does; what is soft stays as it is."""
    return CEILING * np.tanh(sound / CEILING)


def balance(rng: np.random.Generator, stems: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stems at levels as in real songs, together below full scale, without a click at the end."""
    stems = {stem: soft_clip(level(sound, rng.uniform(*LEVELS[stem]))) for stem, sound in stems.items()}
    loudest = max(np.abs(sound).max() for sound in [*stems.values(), sum(stems.values())])
    fade = np.minimum(1, np.arange(next(iter(stems.values())).shape[1])[::-1] / (0.05 * RATE))
    scale = (fade * min(1, CEILING / loudest)).astype(np.float32)
    return {stem: sound * scale for stem, sound in stems.items()}
