#!/usr/bin/env python3
"""Render songs with separate drums, bass and other: mma writes the notes, fluidsynth plays them, vocals are optional.

usage: python -m benchmarks.render_songs --count 200 --output songs/train [--vocals FOLDER]

Style (from mma's library), key, tempo, chord progression, instruments, melody, levels and slight distortion are all
drawn from the song's number: the same number gives the same song. With `--vocals` each song also gets an excerpt of
singing at a random speed. It is out of tune and time, which does not matter for training a separator (Jeon et al., Why
does music source separation benefit from cacophony?, arXiv:2402.18407). Needs Debian's `mma` (after running `mma -G`
once), `fluidsynth` and a General MIDI soundfont, and the Python packages `mido` and `soxr`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import mido
import numpy
import soundfile
import soxr

LIBRARY = Path("/usr/share/mma/lib")
SOUNDFONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2",)
STEMS = ("drums", "bass", "other")
RATE = 44100
KEYS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
QUALITIES = {MAJOR: ("", "m", "m", "", "", "m", "dim"), MINOR: ("m", "dim", "", "m", "m", "", "")}
PROGRESSIONS = ("1564", "6415", "1645", "1451", "1415", "6545", "2511", "1625", "1343", "1716", "1414", "1166", "6471")
DRUM_CHANNEL = 9
DRUM_KITS = (0, 0, 0, 8, 16, 16, 24, 25, 32, 40)
BASSES = (*range(32, 40), 33, 33, 34, 34, 38, 39)
VOICES = frozenset({52, 53, 54, 85, 91})
"""Programs that imitate singing, which would teach a network that voices are not vocals."""
GUITARS = (24, 25, 26, 27, 28, 29, 29, 30, 30, 30)
OTHERS = tuple(program for program in range(104) if program not in VOICES and not 32 <= program < 40)


@cache
def find_grooves(library: Path = LIBRARY) -> dict[Path, list[str]]:
    """The grooves that each style file defines, without metronomes, which contain no music."""
    grooves = {}
    for path in sorted(library.glob("*/*.mma")):
        names = re.findall(r"(?im)^\s*DefGroove\s+(\S+)", path.read_text(encoding="latin-1"))
        if names and not path.stem.startswith(("metronome", "none")):
            grooves[path] = names
    return grooves


def write_lead_sheet(chance: random.Random, seconds: float, grooves: dict[Path, list[str]]) -> tuple[str, dict]:
    """The lead sheet of a song for mma, and the properties drawn for it."""
    path = chance.choice(sorted(grooves))
    names = chance.sample(grooves[path], min(3, len(grooves[path])))
    scale, key = chance.choice((MAJOR, MAJOR, MINOR)), chance.randrange(12)
    tempo = chance.randint(72, 168)
    bars = max(4, round(seconds * tempo / 60 / 4))
    degrees = "".join(chance.choices(PROGRESSIONS, k=2))
    lines = [f"Tempo {tempo}", f"RndSeed {chance.randrange(10**6)}"]
    for bar in range(bars):
        if bar % 8 == 0:
            lines.append(f"Groove {path.parent.name}/{path.stem}:{chance.choice(names)}")
        degree = int(degrees[bar % len(degrees)]) - 1
        quality = QUALITIES[scale][degree] + chance.choice(("", "", "", "", "7", "sus4" if degree == 4 else ""))
        quality = quality.replace("dim7", "dim").replace("msus4", "sus4")
        lines.append(f"{bar + 1} {KEYS[(key + scale[degree]) % 12]}{quality}")
    drawn = {"style": f"{path.parent.name}/{path.stem}", "tempo": tempo, "key": KEYS[key], "minor": scale is MINOR}
    return "\n".join(lines) + "\n", drawn


def make_melody(chance: random.Random, key: int, scale: tuple[int, ...], ticks: int, length: int) -> mido.MidiTrack:
    """A random walk on the scale on channel 0, `length` ticks long at `ticks` per beat."""
    program = chance.choice((*OTHERS, *GUITARS))
    track = mido.MidiTrack([mido.Message("program_change", channel=0, program=program)])
    place, position, gap = chance.randint(14, 28), 0, 0
    while position < length:
        duration = round(ticks * chance.choice((0.5, 0.5, 0.5, 1, 1, 1.5, 2, 3)))
        if chance.random() < 0.25:
            gap += duration
        else:
            place = min(35, max(10, place + chance.choice((-2, -1, -1, 0, 1, 1, 2, chance.randint(-5, 5)))))
            note = 12 * (place // 7) + 24 + key + scale[place % 7]
            held = round(duration * chance.uniform(0.6, 1.0))
            track += [
                mido.Message("note_on", note=note, velocity=chance.randint(60, 110), time=gap),
                mido.Message("note_off", note=note, time=held),
            ]
            gap = duration - held
        position += duration
    return track


def stem_of(track: mido.MidiTrack) -> str | None:
    """The stem that a track from mma belongs to; None if it has no notes."""
    channels = {message.channel for message in track if message.type == "note_on"}
    programs = {message.program for message in track if message.type == "program_change"}
    if not channels:
        return None
    if DRUM_CHANNEL in channels:
        return "drums"
    is_bass = track.name.startswith(("Bass", "Walk")) or (bool(programs) and programs <= set(range(32, 40)))
    return "bass" if is_bass else "other"


def choose_instruments(chance: random.Random, track: mido.MidiTrack, stem: str) -> mido.MidiTrack:
    """The track, sometimes with another instrument, and never with one that imitates singing."""
    choices = {"drums": DRUM_KITS, "bass": BASSES, "other": chance.choice((OTHERS, GUITARS))}[stem]
    program, replaced = chance.choice(choices), chance.random() < 0.6
    changed = mido.MidiTrack()
    for message in track:
        if message.type == "program_change" and (replaced or message.program in VOICES):
            message = message.copy(program=program)
        changed.append(message)
    if stem == "drums":
        changed.insert(0, mido.Message("program_change", channel=DRUM_CHANNEL, program=program))
    return changed


def play(midi: Path, wav: Path, soundfont: str, reverb: float, room: float) -> numpy.ndarray:
    """Render a MIDI file to `[samples, 2 channels]`."""
    options = [f"synth.reverb.level={reverb:.2f}", f"synth.reverb.room-size={room:.2f}"]
    command = ["fluidsynth", "-ni", "-q", "-g", "0.5", "-r", str(RATE), "-F", str(wav)]
    command += ["-o", "synth.dynamic-sample-loading=1"]  # otherwise compressed soundfonts take seconds to load
    command += [part for option in options for part in ("-o", option)]
    subprocess.run([*command, soundfont, str(midi)], check=True, capture_output=True)
    return soundfile.read(wav, dtype="float32", always_2d=True)[0]


def master(chance: random.Random, sound: numpy.ndarray) -> numpy.ndarray:
    """The sound scaled to around -20 dB, sometimes with the distortion of an amplifier or a limiter."""
    loud = float(numpy.sqrt(numpy.mean(sound**2)))
    if loud < 1e-5:
        return sound
    drive = chance.choice((0.0, 0.0, 0.5, 1.0, 2.0, 4.0))
    if drive:
        sound = numpy.tanh(sound * (drive / (4 * loud))) * (4 * loud / drive)
        loud = float(numpy.sqrt(numpy.mean(sound**2)))
    sound = sound * (10 ** (chance.gauss(-20, 2.5) / 20) / loud)
    return sound / max(1.0, float(numpy.abs(sound).max()) / 0.99)


def excerpt(chance: random.Random, path: Path, samples: int) -> numpy.ndarray:
    """`[samples, 2 channels]` from a random place in a file, at 0.72 to 1.12 times its speed; short files repeat."""
    speed = chance.uniform(0.72, 1.12)
    with soundfile.SoundFile(path) as file:
        needed = round(samples * speed * file.samplerate / RATE) + 1
        file.seek(chance.randrange(max(1, file.frames - needed)))
        sound, rate = file.read(needed, dtype="float32", always_2d=True), file.samplerate
    sound = soxr.resample(sound, rate * speed, RATE)
    sound = numpy.tile(sound, (-(-samples // len(sound)), 1))[:samples]
    return numpy.repeat(sound, 2, axis=1) if sound.shape[1] == 1 else sound


def render_song(
    seed: str, folder: Path, seconds: tuple[float, float], soundfonts: tuple[str, ...], vocals: tuple[Path, ...] = ()
) -> dict | None:
    """Write the stems of the song given by `seed`, with an excerpt from one of `vocals`, if there are any.

    Returns the properties drawn for it, or None if mma cannot make a song from them.
    """
    chance = random.Random(seed)
    sheet, drawn = write_lead_sheet(chance, chance.uniform(*seconds), find_grooves())
    soundfont, reverb, room = chance.choice(soundfonts), chance.uniform(0.0, 0.9), chance.uniform(0.1, 0.8)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "song.mma").write_text(sheet, encoding="utf-8")
        done = subprocess.run(["mma", "-w", "-f", work / "song.mid", work / "song.mma"], capture_output=True)
        if done.returncode or not (work / "song.mid").is_file():
            return None
        song = mido.MidiFile(work / "song.mid")
        groups: dict[str, list[mido.MidiTrack]] = {stem: [] for stem in STEMS}
        for track in song.tracks:
            if stem := stem_of(track):
                groups[stem].append(choose_instruments(chance, track, stem))
        if chance.random() < 0.6:
            scale = MINOR if drawn["minor"] else MAJOR
            length = max(sum(message.time for message in track) for track in song.tracks)
            groups["other"].append(make_melody(chance, KEYS.index(drawn["key"]), scale, song.ticks_per_beat, length))
        if sum(map(bool, groups.values())) < 2:
            return None
        sounds = {}
        for stem, tracks in groups.items():
            if tracks:
                part = mido.MidiFile(ticks_per_beat=song.ticks_per_beat, tracks=[song.tracks[0], *tracks])
                part.save(work / f"{stem}.mid")
                level = reverb * (0.5 if stem == "bass" else 1.0)
                sounds[stem] = master(chance, play(work / f"{stem}.mid", work / "part.wav", soundfont, level, room))
    samples = min(max(map(len, sounds.values())), round((seconds[1] + 5) * RATE))
    if vocals:
        singing = chance.choice(vocals)
        sounds["vocals"] = master(chance, excerpt(chance, singing, samples))
        drawn["vocals"] = singing.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    for stem, sound in sounds.items():
        whole = numpy.zeros((samples, 2), numpy.float32)
        whole[: len(sound)] = sound[:samples]
        soundfile.write(folder / f"{stem}.flac", whole, RATE, subtype="PCM_16")
    return {"song": folder.name, "soundfont": Path(soundfont).name, "seconds": round(samples / RATE, 1), **drawn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=200, help="how many songs (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="number of the first song (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, nargs=2, default=(20, 40), metavar=("LEAST", "MOST"))
    parser.add_argument("--soundfont", nargs="+", default=SOUNDFONTS, help="one is drawn for each song")
    parser.add_argument("--vocals", type=Path, help="folder of singing: one file is drawn for each song")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder that gets a folder for each song")
    arguments = parser.parse_args()

    vocals = tuple(sorted(arguments.vocals.rglob("vocals.*"))) if arguments.vocals else ()

    def render(number: int) -> dict | None:
        folder = arguments.output / f"rendered {arguments.seed}-{number:04}"
        return render_song(
            f"{arguments.seed} {number}", folder, tuple(arguments.seconds), tuple(arguments.soundfont), vocals
        )

    with ThreadPoolExecutor(arguments.workers) as pool:
        for drawn in pool.map(render, range(arguments.first, arguments.first + arguments.count)):
            print(json.dumps(drawn), flush=True)


if __name__ == "__main__":
    main()
