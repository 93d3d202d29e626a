"""`separate --live`, as a process with pipes."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from conftest import REPOSITORY, environment, refused
from networks import random_weights

from separation.errors import UserError
from separation.inference.separator import Separator
from separation.songs.command import parse_arguments


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "vocals.safetensors")


def listen(weights, *options: str, **files) -> subprocess.Popen:
    command = [sys.executable, "create_songs.py", "--weights", str(weights), *options]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment(), **{**pipes, **files})


@pytest.mark.parametrize(("channels", "rate"), [(2, 44100), (1, 48000)])
def test_what_comes_out_are_the_samples_of_the_whole_song(weights, channels, rate):
    song = 0.2 * np.random.default_rng(0).standard_normal((channels, 30000)).astype("<f4")
    process = listen(weights, "--live", "karaoke", "--channels", str(channels), "--rate", str(rate))
    out, error = process.communicate(song.T.tobytes())
    assert process.returncode == 0 and f"live: accompaniment, f32le, {rate} Hz".encode() in error
    stem = np.frombuffer(out, "<f4").reshape(-1, channels).T
    network = Separator.load(weights, "cpu").network
    whole = Separator(network, chunk_frames=1)(song, rate)["accompaniment"]
    # Within one process they are the same bits (tests/network/test_stream.py); another may round otherwise.
    np.testing.assert_allclose(stem, whole, atol=1e-6, rtol=0)


def test_stems_come_while_the_song_goes_on(weights):
    process = listen(weights, "--live", "vocals")
    radio = Thread(target=broadcast, args=(process.stdin,))
    radio.start()
    assert len(process.stdout.read(200_000)) == 200_000  # though the input has not ended
    process.stdout.close()  # the player is gone: there is nothing to be said
    assert b"rror" not in process.stderr.read()
    assert process.wait() == 0
    radio.join()


def broadcast(pipe) -> None:
    """Send silence for as long as there is somebody to hear it."""
    with suppress(BrokenPipeError):
        while True:
            pipe.write(bytes(1 << 14))


def test_input_that_ends_inside_a_sample_is_named(weights):
    process = listen(weights, "--live", "vocals")
    out, error = process.communicate(np.zeros(2001, "<f4").tobytes())
    assert process.returncode == 1 and b"inside a sample" in error and b"Traceback" not in error
    assert len(out) == 8000


@pytest.mark.parametrize(
    "head", [b"RIFF\0\0\0\0WAVE", b"ID3\4", b"fLaC\0", b"OggS\0", b"\0\0\0\x20ftypM4A ", b"\xff" * 8]
)
def test_input_that_is_not_f32le_is_one_sentence(weights, head):
    noise = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, 50_000).astype("<i2")
    process = listen(weights, "--live", "vocals")
    _, error = process.communicate(head + noise.tobytes())
    _, *said = error.decode().splitlines()
    assert process.returncode == 1 and len(said) == 1 and "-f f32le -ar 44100 -ac 2" in said[0]


def test_a_header_that_arrives_in_pieces_is_recognised(weights):
    process = listen(weights, "--live", "vocals")
    process.stderr.readline()
    for piece in (b"RI", b"FF\0\0\0\0WAVE"):
        process.stdin.write(piece)
        process.stdin.flush()
        time.sleep(0.2)
    _, error = process.communicate(bytes(1 << 14))
    assert process.returncode == 1 and b"header" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_takes_nothing_is_one_sentence(weights):
    with Path("/dev/full").open("wb") as full:
        process = listen(weights, "--live", "vocals", stdout=full)
        _, error = process.communicate(bytes(1 << 20))
    assert process.returncode == 1 and len(error.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--live", "vocals", "--format", "mp3"],
        ["--live", "vocals", "--keep-original", "--track", "1"],
        ["song.wav", "--rate", "48000"],
    ],
)
def test_options_without_effect_are_refused(arguments):
    with refused("no_effect"):
        parse_arguments(arguments)
    assert parse_arguments(["--live", "vocals", "--rate", "48000", "--quality", "best", "--threads", "1"]).live


@pytest.mark.parametrize(
    "arguments", [["--live", "two"], ["--live", "vocals", "song.mp3"], ["--live", "vocals", "--stems", "drums"]]
)
def test_one_stem_and_no_song_are_live(arguments):
    with pytest.raises(UserError, match="one stem"):
        parse_arguments(arguments)
