"""Synthetic multitracks: chords and lines, the oscillators and, where mma and fluidsynth are, whole songs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from separation.tracks import find_tracks

pytest.importorskip("pretty_midi")
pytest.importorskip("scipy")

from pretty_midi import Note

from recipes.score import (
    MMA_CHORDS,
    SCALES,
    Chord,
    Score,
    arrange,
    make_chords,
    play_bass,
    play_melody,
    play_riff,
    split_band,
)
from recipes.sound import PIECES, RATE, electronic_kit, play_kit, random_patch, render_synth, saw

REPOSITORY = Path(__file__).resolve().parents[1]

SYNTH_KINDS = ("bass", "sub", "pluck", "lead", "pad")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def score(bars: int = 8) -> Score:
    chords = [Chord(9, (3, 7)), Chord(5, (4, 7))] * (bars // 2)
    return Score(tempo=120.0, chords=chords, drums=[], bass=[])


def strongest(sound: np.ndarray) -> float:
    """The frequency, in hertz, with the most energy."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return spectrum.argmax() * RATE / len(sound)


@pytest.mark.parametrize("mode", SCALES)
@pytest.mark.parametrize("seed", range(10))
def test_chords_belong_to_the_key_and_have_a_name_in_mma(mode, seed):
    chords = make_chords(rng(seed), 2, mode, 20)
    assert len(chords) == 20
    assert {(tone - 2) % 12 for chord in chords for tone in chord.tones} <= set(SCALES[mode])
    assert {chord.intervals for chord in chords} <= MMA_CHORDS.keys()


def test_a_chord_is_named_as_musicians_do():
    assert [Chord(9, (3, 7)).name, Chord(0, (4, 7, 10)).name, Chord(10, (4, 7)).name] == ["Am", "C7", "Bb"]
    assert Chord(9, (3, 7)).tones == (9, 0, 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_bass_plays_roots_fifths_and_octaves_below_middle_c(seed):
    song = score()
    for note in play_bass(rng(seed), song):
        root = song.chords[int((note.start + 0.05) / song.bar)].root
        assert (note.pitch - root) % 12 in (0, 7)
        assert 26 <= note.pitch < 60


@pytest.mark.parametrize("seed", range(5))
def test_a_melody_keeps_to_the_scale_and_rests_on_chord_tones(seed):
    song = score()
    for note in play_melody(rng(seed), song, key=9, mode="minor").notes:
        bar = int((note.start + 0.05) / song.bar)
        assert (note.pitch - 9) % 12 in SCALES["minor"]
        if abs(note.start - bar * song.bar) < 0.05:
            assert note.pitch % 12 in song.chords[bar].tones


def test_arranging_leaves_no_section_empty():
    song = score(32)
    layers = [play_riff(rng(seed), song) for seed in range(2)]
    for seed in range(10):
        kept = arrange(rng(seed), layers, song.bar, 64.0)
        sections = {int((note.start + 0.05) / song.bar / 4) for layer in kept for note in layer.notes}
        assert sections == set(range(8))


def test_a_band_is_split_by_program():
    notes = {name: [Note(90, pitch, t, t + 0.2) for t in range(5)] for name, pitch in (("low", 14), ("high", 70))}
    band = [
        ("Drum", 0, True, notes["high"]),
        ("Bass", 33, False, notes["low"]),
        ("Bass-Guitar", 27, False, notes["high"]),
        ("Chord-Gunshot", 127, False, notes["high"]),
    ]
    drums, bass, other = split_band(band)
    assert drums == notes["high"]
    assert {note.pitch for note in bass} == {38}  # up by octaves, into the range of a bass
    assert [(layer.program, len(layer.notes)) for layer in other] == [(27, 5)]


def test_a_sawtooth_has_every_harmonic_and_hardly_any_alias():
    frequency = np.full(RATE, 3001.0)
    spectrum = np.abs(np.fft.rfft(saw(np.cumsum(frequency) / RATE, frequency))) ** 2
    harmonics = [round(3001 * n) for n in range(1, 8)]
    assert spectrum[harmonics].min() > 1e-4 * spectrum.max()
    assert spectrum[harmonics].sum() > 0.99 * spectrum.sum()


@pytest.mark.parametrize("kind", SYNTH_KINDS)
def test_a_synthesiser_plays_when_and_only_when_there_is_a_note(kind):
    sound = render_synth([Note(100, 57, 1.0, 1.5)], random_patch(rng(3), kind), 4 * RATE, rng(4))
    assert sound.shape == (2, 4 * RATE)
    assert not sound[:, :RATE].any()
    assert np.abs(sound[:, RATE : RATE + RATE // 2]).max() > 0.01
    assert not sound[:, int(2.6 * RATE) :].any()  # the longest release is a second


def test_an_808_sounds_at_its_pitch():
    sound = render_synth([Note(100, 33, 0.0, 1.0)], random_patch(rng(), "sub"), RATE, rng())
    assert strongest(sound[0]) == pytest.approx(55, abs=1.5)


def test_a_drum_machine_has_every_piece_and_a_kick_below_the_hats():
    kit = electronic_kit(rng())
    assert kit.keys() == PIECES.keys()
    assert strongest(kit["kick"][0][0]) < 150 < 4000 < strongest(kit["closed hat"][0][0])


def test_a_kit_is_struck_where_the_notes_are():
    kit = {piece: [np.ones((2, 100), np.float32)] for piece in PIECES}
    sound = play_kit([Note(127, 36, 0.5, 0.6), Note(127, 42, 0.99999, 1.1)], kit, RATE)
    assert np.flatnonzero(sound[0])[[0, 99]].tolist() == [RATE // 2, RATE // 2 + 99]
    assert sound.shape == (2, RATE)  # the last stroke is cut off at the end


def test_what_is_missing_is_said_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "recipes.synthesise", "--output", str(tmp_path)]
    said = subprocess.run(command, cwd=REPOSITORY, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr.startswith("error: mma and fluidsynth") and "apt-get install" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    """Two songs of six seconds."""
    if not (shutil.which("mma") and shutil.which("fluidsynth")):
        pytest.skip("needs mma and fluidsynth")
    pytest.importorskip("pedalboard")
    folder = tmp_path_factory.mktemp("synthetic")
    synthesise(folder, songs=2)
    return folder


def synthesise(folder: Path, songs: int) -> None:
    command = f"-m recipes.synthesise --seconds 6 --seed 3 --songs {songs} --output".split()
    subprocess.run([sys.executable, *command, str(folder)], cwd=REPOSITORY, check=True)


def test_songs_are_a_dataset_of_drums_bass_and_other(songs):
    tracks = find_tracks("FOLDER", songs)
    assert len(tracks) == 2
    for track in tracks:
        waveforms, rate = track.read(("drums", "bass", "other", "accompaniment"))
        assert rate == RATE
        assert {tuple(waveform.shape) for waveform in waveforms.values()} == {(2, 6 * RATE)}
        assert waveforms["accompaniment"].abs().max() < 1
        for stem in ("drums", "bass", "other"):
            assert waveforms[stem].pow(2).mean() > 1e-5


def test_the_bass_is_low(songs):
    for track in find_tracks("FOLDER", songs):
        bass = track.read(("bass",))[0]["bass"].mean(0).numpy()
        energy = np.abs(np.fft.rfft(bass)) ** 2
        assert energy[: 1000 * 6].sum() > 0.8 * energy.sum()


def test_the_same_seed_gives_the_same_audio(songs, tmp_path):
    synthesise(tmp_path, songs=1)
    again = find_tracks("FOLDER", tmp_path)
    first = find_tracks("FOLDER", songs)[0]
    assert [track.name for track in again] == [first.name]
    for stem, waveform in again[0].read(("drums", "bass", "other"))[0].items():
        assert (waveform == first.read((stem,))[0][stem]).all()
