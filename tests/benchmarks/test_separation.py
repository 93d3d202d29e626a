"""benchmarks/separation.py: the song that it times, and peers that are not installed."""

from __future__ import annotations

import sys

import numpy as np
import soundfile

from benchmarks.separation import first_missing, write_song


def test_what_is_installed_lacks_nothing():
    assert first_missing(sys.executable, ("json", "numpy")) == ""


def test_the_missing_module_is_named():
    assert "no_such_peer" in first_missing(sys.executable, ("json", "no_such_peer"))


def test_a_made_up_song_is_stereo_and_as_long_as_asked(tmp_path):
    info = soundfile.info(write_song(tmp_path / "song.wav", 3, None))
    assert (info.frames, info.samplerate, info.channels) == (3 * 44100, 44100, 2)


def test_the_first_seconds_of_a_song(tmp_path):
    song = np.random.default_rng(0).uniform(-1, 1, (5 * 8000, 2))
    soundfile.write(tmp_path / "whole.wav", song, 8000)
    waveform, rate = soundfile.read(write_song(tmp_path / "song.wav", 2, tmp_path / "whole.wav"))
    assert rate == 8000
    np.testing.assert_allclose(waveform, song[: 2 * 8000], atol=1e-4)
