"""Notes become sound: General MIDI through fluidsynth, oscillators, and drum kits of samples or of oscillators.

Every sound is float32 `[2 channels, samples]` at 44.1 kHz.
"""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr
from pretty_midi import Instrument, Note, PrettyMIDI
from scipy.signal import butter, lfilter, sosfilt

RATE = 44100

PIECES = {
    "kick": (35, 36),
    "snare": (38, 40),
    "rim": (37,),
    "clap": (39,),
    "low tom": (41, 43),
    "mid tom": (45, 47),
    "high tom": (48, 50),
    "closed hat": (42, 44),
    "open hat": (46,),
    "crash": (49, 52, 55, 57),
    "ride": (51, 53, 59),
    "cowbell": (56,),
    "shaker": (54, 69, 70, 82),
}
"""The pieces of a kit, and the pitches that General MIDI plays them with."""

PIECE_OF = {pitch: piece for piece, pitches in PIECES.items() for pitch in pitches}

PIECE_NAMES = {
    "kick": r"kick|bass ?drum|^bd",
    "snare": r"snare",
    "rim": r"stick|rim",
    "clap": r"clap",
    "low tom": r"(low|floor).*tom|tom.*(low|floor)",
    "mid tom": r"mid.*tom|tom.*mid|^tom$",
    "high tom": r"hi.*tom|tom.*hi",
    "closed hat": r"(closed|cl) .*(hh|hat)|(hh|hat).*(closed|cl\b)|pedal hh",
    "open hat": r"(open|op) .*(hh|hat)|(hh|hat).*(open|op\b)",
    "crash": r"crash|splash|china",
    "ride": r"ride",
    "cowbell": r"cowbell",
    "shaker": r"shaker|maraca|tambourine",
}
"""What the makers of Hydrogen's kits call them."""

Kit = Mapping[str, Sequence[np.ndarray]]
"""A piece's sounds `[2 channels, samples]`, from the softest to the loudest."""


def render_midi(notes: list[Note], program: int, is_drum: bool, soundfont: Path, samples: int) -> np.ndarray:
    """The notes as fluidsynth plays them, without its reverb and chorus. Raises `CalledProcessError` if it fails."""
    midi = PrettyMIDI(resolution=960)
    midi.instruments.append(Instrument(program, is_drum))
    midi.instruments[0].notes = notes
    with TemporaryDirectory() as folder:
        song, sound = Path(folder) / "song.mid", Path(folder) / "song.wav"
        midi.write(str(song))
        # Samples are read as they are played: a large soundfont would else take longer to load than a song to play.
        options = f"-niq -R 0 -C 0 -g 0.5 -r {RATE} -T wav -O float -o synth.dynamic-sample-loading=1".split()
        subprocess.run(["fluidsynth", *options, "-F", sound, soundfont, song], check=True, capture_output=True)
        played, _ = soundfile.read(sound, dtype="float32", always_2d=True)
    return _fit(played.T, samples)


@dataclass(frozen=True)
class Patch:
    """A synthesiser's settings: times in seconds, levels and mixes from 0 to 1, cutoffs in hertz."""

    saw: float
    square: float
    sub: float
    noise: float
    voices: int
    detune: float
    attack: float
    decay: float
    sustain: float
    release: float
    cutoff_open: float
    cutoff_closed: float
    sweep: float
    glide: float


def random_patch(rng: np.random.Generator, kind: str) -> Patch:
    """Settings that suit "bass", "sub" (the long falling sine of an 808), "pluck", "lead" or "pad"."""
    saw, square = rng.dirichlet((0.6, 0.6))
    patch = {
        "saw": saw,
        "square": square,
        "sub": rng.uniform(0, 0.3),
        "noise": rng.choice([0, 0.02]),
        "voices": int(rng.integers(1, 7)),
        "detune": rng.uniform(0.03, 0.25),
        "attack": rng.uniform(0.002, 0.02),
        "decay": rng.uniform(0.1, 0.8),
        "sustain": rng.uniform(0.3, 0.9),
        "release": rng.uniform(0.03, 0.3),
        "cutoff_open": np.exp(rng.uniform(np.log(1500), np.log(14000))),
        "cutoff_closed": np.exp(rng.uniform(np.log(300), np.log(2000))),
        "sweep": rng.uniform(0.05, 0.6),
        "glide": 0.0,
    }
    glide = float(rng.choice([0, 0.03, 0.08]))
    own = {
        "bass": {"sub": rng.uniform(0.2, 1), "voices": int(rng.integers(1, 3)), "detune": 0.06, "glide": glide}
        | {"cutoff_open": np.exp(rng.uniform(np.log(300), np.log(4000))), "cutoff_closed": rng.uniform(80, 400)},
        "sub": {"saw": 0, "square": 0, "sub": 1, "noise": 0, "voices": 1, "detune": 0, "glide": glide}
        | {"decay": rng.uniform(0.6, 2.5), "sustain": rng.choice([0, 0.7])},
        "pluck": {"sustain": rng.uniform(0, 0.2), "decay": rng.uniform(0.1, 0.5)},
        "lead": {"glide": glide, "sub": 0},
        "pad": {"voices": int(rng.integers(4, 8)), "sub": 0, "sustain": 1}
        | {"attack": rng.uniform(0.02, 0.5), "release": rng.uniform(0.2, 1)},
    }
    return Patch(**patch | own[kind])


def render_synth(notes: list[Note], patch: Patch, samples: int, rng: np.random.Generator) -> np.ndarray:
    """The notes as a subtractive synthesiser plays them: detuned oscillators over the stereo field, and a lowpass
    that closes after each stroke.
    """
    played = np.zeros((2, samples), np.float32)
    last = None
    for note in sorted(notes, key=lambda note: note.start):
        begin = int(note.start * RATE)
        length = min(int((note.end - note.start + patch.release) * RATE), samples - begin)
        if length < 64:
            continue
        time = np.arange(length) / RATE
        pitch = np.full(length, float(note.pitch))
        if patch.glide and last is not None:
            pitch += (last - note.pitch) * np.exp(-time / patch.glide)
        last = note.pitch

        sound = np.zeros((2, length))
        for voice in range(patch.voices):
            place = (voice + 0.5) / patch.voices  # 0.5, the middle, for a lone voice
            frequency = 440 * 2 ** ((pitch + patch.detune * (2 * place - 1) - 69) / 12)
            phase = rng.random() + np.cumsum(frequency) / RATE
            wave = patch.saw * saw(phase, frequency) + patch.square * (
                saw(phase, frequency) - saw(phase + 0.5, frequency)
            )
            sound += np.array([[np.cos(place * np.pi / 2)], [np.sin(place * np.pi / 2)]]) * wave / patch.voices**0.5
        sound += patch.sub * np.sin(2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / RATE)
        sound += patch.noise * rng.standard_normal((2, length))

        sweep = np.exp(-time / patch.sweep)
        sound = sweep * _lowpass(sound, patch.cutoff_open) + (1 - sweep) * _lowpass(sound, patch.cutoff_closed)
        played[:, begin : begin + length] += (sound * _envelope(patch, time, note) * note.velocity / 127).astype("f4")
    return played


def saw(phase: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """A sawtooth of `phase` in turns, from -1 to 1, its steps rounded off against aliasing (PolyBLEP)."""
    step, phase = frequency / RATE, phase % 1
    wave = 2 * phase - 1
    after, before = phase / step, (phase - 1) / step
    wave -= np.where(after < 1, 2 * after - after**2 - 1, 0)
    wave -= np.where(before > -1, before**2 + 2 * before + 1, 0)
    return wave


def _envelope(patch: Patch, time: np.ndarray, note: Note) -> np.ndarray:
    held = patch.sustain + (1 - patch.sustain) * np.exp(-time / patch.decay)
    after = np.clip(time - (note.end - note.start), 0, None)
    return np.minimum(time / patch.attack, 1) * held * np.clip(1 - after / patch.release, 0, 1)


def play_kit(notes: list[Note], kit: Kit, samples: int) -> np.ndarray:
    """The sounds of `kit`, put where the notes are; those that General MIDI has no piece for become shakers."""
    played = np.zeros((2, samples), np.float32)
    for note in notes:
        sounds = kit[PIECE_OF.get(note.pitch, "shaker")]
        sound = sounds[min(note.velocity * len(sounds) // 128, len(sounds) - 1)]
        begin = int(note.start * RATE)
        length = min(sound.shape[1], samples - begin)
        if length > 0:
            played[:, begin : begin + length] += (note.velocity / 127) ** 1.5 * sound[:, :length]
    return played


def electronic_kit(rng: np.random.Generator) -> Kit:
    """A drum machine's pieces: falling sines, and bands of noise that die away."""

    def strike(decay: float, low: float, high: float, bursts: int = 1) -> np.ndarray:
        time = np.arange(int(RATE * min(6 * decay, 2.5))) / RATE
        band = sosfilt(butter(2, (low, high), "bandpass", fs=RATE, output="sos"), rng.standard_normal(len(time)))
        envelope = np.exp(-time / decay)
        for burst in range(1, bursts):  # hands that do not clap at once
            envelope *= np.where(time < 0.011 * burst, np.exp(-(time % 0.011) / 0.004), 1)
        return _unit(band * envelope)

    def fall(start: float, end: float, seconds: float, decay: float) -> np.ndarray:
        time = np.arange(int(RATE * min(6 * decay, 2.5))) / RATE
        phase = 2 * np.pi * np.cumsum(end + (start - end) * np.exp(-time / seconds)) / RATE
        return _unit(np.tanh(rng.uniform(1, 3) * np.sin(phase)) * np.exp(-time / decay) * np.minimum(time / 0.001, 1))

    def ring(decay: float, base: float) -> np.ndarray:
        time = np.arange(int(RATE * min(6 * decay, 2.5))) / RATE
        metal = sum(np.sign(np.sin(2 * np.pi * base * ratio * time)) for ratio in (1, 1.342, 1.2312, 1.6532, 1.9523))
        above = sosfilt(butter(3, 7000, "highpass", fs=RATE, output="sos"), metal)
        return _unit(above * np.exp(-time / decay))

    tone, hiss, low = rng.uniform(150, 240), rng.uniform(5000, 9000), rng.uniform(40, 60)
    metal = rng.uniform(350, 600) if rng.random() < 0.5 else None

    def cymbal(decay: float) -> np.ndarray:
        return ring(decay, metal) if metal else strike(decay, hiss, 18000)

    snare = _mix(fall(2 * tone, tone, 0.02, 0.08), rng.uniform(0.4, 1.2) * strike(rng.uniform(0.06, 0.2), 800, 12000))
    kick = fall(rng.uniform(150, 500), low, rng.uniform(0.01, 0.05), rng.uniform(0.12, 0.5))
    pieces = {
        "kick": _mix(kick, rng.uniform(0, 0.3) * strike(0.004, 1000, 9000)),
        "snare": snare,
        "rim": strike(0.015, 1200, 3500),
        "clap": strike(rng.uniform(0.05, 0.15), 700, rng.uniform(2500, 6000), bursts=3),
        **{f"{name} tom": fall(2 * low * n, low * n, 0.04, 0.2) for name, n in (("low", 2), ("mid", 3), ("high", 4))},
        "closed hat": 0.5 * cymbal(rng.uniform(0.015, 0.05)),
        "open hat": 0.5 * cymbal(rng.uniform(0.15, 0.4)),
        "crash": 0.7 * strike(rng.uniform(0.4, 0.9), 2500, 18000),
        "ride": 0.4 * cymbal(0.3),
        "cowbell": 0.6 * _mix(fall(540, 540, 1, 0.08), fall(800, 800, 1, 0.08)),
        "shaker": 0.4 * strike(rng.uniform(0.02, 0.06), 4000, 12000),
    }
    if rng.random() < 0.3:
        pieces["snare"] = pieces["clap"]
    return {piece: [np.stack([sound, sound]).astype(np.float32)] for piece, sound in pieces.items()}


def hydrogen_kit(folder: Path, rng: np.random.Generator) -> Kit:
    """One of Hydrogen's drum kits, retuned a little; what it lacks comes from a drum machine.

    Raises `ValueError` when it is no kit: without kick, snare and hi-hat.
    """
    text = re.sub(r'\sxmlns="[^"]+"', "", (folder / "drumkit.xml").read_text(encoding="utf-8", errors="replace"))
    candidates = defaultdict(list)
    for instrument in ElementTree.fromstring(text).iter("instrument"):
        layers = instrument.findall(".//layer")
        files = [layer.findtext("filename") for layer in sorted(layers, key=lambda one: float(one.findtext("min")))]
        files = [folder / name for name in files or [instrument.findtext("filename")] if name]
        files = [path for path in files if path.is_file()]
        for piece, pattern in PIECE_NAMES.items():
            if files and re.search(pattern, instrument.findtext("name"), re.IGNORECASE):
                candidates[piece].append(files)
                break
    if not {"kick", "snare", "closed hat"} <= candidates.keys():
        raise ValueError(f"{folder} lacks a kick, a snare or a hi-hat.")

    tuning = rng.uniform(0.85, 1.15)
    kit = dict(electronic_kit(rng))
    for piece, choices in candidates.items():
        sounds = [_read_hit(path, tuning) for path in choices[rng.integers(len(choices))][-6:]]
        loudest = max(np.abs(sound).max() for sound in sounds)
        level = 0.5 if "hat" in piece or piece == "ride" else 1.0
        kit[piece] = [level * sound / max(loudest, 1e-4) for sound in sounds]
    return kit


def _read_hit(path: Path, tuning: float) -> np.ndarray:
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=-1)
    sound = soxr.resample(sound[: 4 * rate, :2], rate * tuning, RATE)
    return np.ascontiguousarray(np.broadcast_to(sound.T, (2, len(sound))))


def _lowpass(sound: np.ndarray, cutoff: float) -> np.ndarray:
    coefficient = np.exp(-2 * np.pi * cutoff / RATE)
    b, a = np.polynomial.polynomial.polypow([1 - coefficient], 2), [1, -2 * coefficient, coefficient**2]
    return lfilter(b, a, sound)


def _unit(sound: np.ndarray) -> np.ndarray:
    return sound / np.abs(sound).max()


def _mix(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    length = max(len(one), len(two))
    return np.pad(one, (0, length - len(one))) + np.pad(two, (0, length - len(two)))


def _fit(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cut or padded with silence to `samples`."""
    return np.pad(sound[:, :samples], ((0, 0), (0, max(0, samples - sound.shape[1]))))
