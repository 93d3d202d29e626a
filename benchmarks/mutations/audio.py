"""Audio files in every format: damaged bytes, cut, joined, with junk around them; separated, and their sum checked."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from benchmarks.mutations.damage import damage
from benchmarks.mutations.weights import Weights
from separation.audio.formats import AudioFile
from separation.audio.io import AudioReader, AudioWriter, read
from separation.inference.separator import Separator
from separation.songs.outputs import StemFormat
from separation.songs.render import render

RATE = 8000
FORMATS = ("wav", "flac", "ogg", "mp3", "m4a", "opus", "aac", "mka")


class Audio:
    def __init__(self, folder: Path):
        self.files = {}
        for suffix in FORMATS:
            for channels in (1, 2):
                path = folder / f"{channels}.{suffix}"
                encode(path, 0.2 * torch.randn(channels, 3 * RATE, generator=torch.Generator().manual_seed(channels)))
                self.files[suffix, channels] = path.read_bytes()
        self.separator = Separator.load(Weights(folder).file, "cpu")

    def mutate(self, rng: random.Random, case: Path) -> str:
        suffix, channels = rng.choice(sorted(self.files))
        content, other = self.files[suffix, channels], self.files[suffix, 3 - channels]
        chance, what = rng.random(), ""
        if chance < 0.15:
            content, what = content + other, "joined"
        elif chance < 0.25:
            content, what = content + rng.randbytes(rng.randrange(5000)), "junk after it"
        elif chance < 0.3:
            content, what = rng.randbytes(rng.randrange(300)) + content, "junk before it"
        elif chance < 0.45:
            content, what = content[: rng.randrange(len(content))], "cut"
        elif chance < 0.55:
            start = rng.randrange(len(content))
            size = rng.randrange(1, 3000)
            content, what = content[:start] + content[start + size :], f"{size} bytes missing"
        else:
            content, what = damage(rng, content, rng.choice([None, 64, 4000]))
        (case / f"song.{rng.choice([suffix, suffix, suffix, 'wav', 'mp3'])}").write_bytes(content)
        return f"{suffix} of {channels} channels: {what}"

    def attempt(self, case: Path) -> None:
        (path,) = (path for path in case.iterdir() if path.stem == "song")
        with AudioReader(path) as reader:
            song = torch.cat([torch.from_numpy(block) for block in reader], dim=-1)
        stems = {stem: case / f"{stem}.wav" for stem in self.separator.stems}
        render(self.separator, AudioFile(path), stems, StemFormat("wav", "32f"))
        found = sum(read(stem)[0] for stem in stems.values())
        torch.testing.assert_close(found, song, atol=1e-4, rtol=1e-4)
        assert {entry.name for entry in case.iterdir()} == {path.name, *(stem.name for stem in stems.values())}


def encode(path: Path, song: torch.Tensor) -> None:
    """Write a song; FFmpeg, by PyAV, writes what the program does not."""
    if path.suffix in (".wav", ".flac", ".ogg", ".mp3", ".m4a"):
        with AudioWriter(path, RATE, *song.shape) as writer:
            writer.write(song)
        return
    import av

    codec, container = {".opus": ("libopus", "ogg"), ".aac": ("aac", "adts"), ".mka": ("pcm_s16le", "matroska")}[
        path.suffix
    ]
    with av.open(path, "w", format=container) as file:
        rate = 48000 if codec == "libopus" else RATE
        stream = file.add_stream(codec, rate=rate, layout="mono" if len(song) == 1 else "stereo")
        source = av.AudioFrame.from_ndarray(song.numpy(), "fltp", stream.layout.name)
        source.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, stream.layout, rate, frame_size=stream.codec_context.frame_size)
        for frame in (*resampler.resample(source), *resampler.resample(None)):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
