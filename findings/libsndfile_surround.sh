#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2) and FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), six and eight channels, each a tone of its own, as Vorbis,
# Opus, Apple Lossless and FLAC: 5.1 and 7.1, or three and four stereo stems in one file.
# One would expect channels to keep their places, and the lossy codecs to treat them alike.
# What happens: libsndfile hands channels to Vorbis, Opus and Apple Lossless in the order given, but these formats fix an order of their own, which
# FFmpeg puts right in both directions: what one writes, the other reads with channels exchanged. The encoders take the last channel of
# libsndfile's Opus (and of its Vorbis with six) for the bass effects: of noise there, all above some hundred hertz is gone,
# 50 dB down and more at 2 to 8 kHz. soundfile's own round trip shows no exchange.
# What to do: keep stems in files of their own or in FLAC or WAV, and reorder surround for these formats before writing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RATE = 48000
print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__, "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def pitches(count):  # low enough to pass where only bass does
    return [20 + 10 * n for n in range(count)]

def order(audio):  # the number of the tone that is the loudest in each channel
    spectra = abs(np.fft.rfft(audio[RATE:2 * RATE], axis=0))
    return [int((s.argmax() - 20) / 10) + 1 for s in spectra.T]

def ffmpeg_read(path, channels):
    said = subprocess.run([FFMPEG, "-v", "error", "-i", path, "-f", "f32le", "-"], capture_output=True, check=True).stdout
    return np.frombuffer(said, "<f4").reshape(-1, channels)

expected = {
    ("ogg", "VORBIS", 6): [1, 3, 2, 6, 4, 5], ("ogg", "VORBIS", 8): [1, 3, 2, 8, 6, 7, 4, 5],
    ("ogg", "OPUS", 6): [1, 3, 2, 6, 4, 5], ("ogg", "OPUS", 8): [1, 3, 2, 8, 6, 7, 4, 5],
    ("caf", "ALAC_16", 6): [2, 3, 1, 6, 4, 5], ("flac", "PCM_16", 6): [1, 2, 3, 4, 5, 6], ("flac", "PCM_16", 8): [1, 2, 3, 4, 5, 6, 7, 8],
}
for (extension, kind, channels), seen in expected.items():
    tones = 0.3 * np.sin(2 * np.pi * np.arange(3 * RATE)[:, None] / RATE * pitches(channels))
    soundfile.write("tones." + extension, tones, RATE, subtype=kind)
    own, other = order(soundfile.read("tones." + extension)[0]), order(ffmpeg_read("tones." + extension, channels))
    print(f"{kind}: channels written {list(range(1, channels + 1))}, read by soundfile {own}, by FFmpeg {other}")
    assert own == list(range(1, channels + 1)) and other == seen

soundfile.write("tones.wav", tones[:, :6], RATE)
for codec in ("libvorbis", "libopus"):
    subprocess.run([FFMPEG, "-v", "error", "-y", "-i", "tones.wav", "-c:a", codec, "-b:a", "384k", "theirs.ogg"], check=True)
    own, other = order(soundfile.read("theirs.ogg")[0]), order(ffmpeg_read("theirs.ogg", 6))
    print(f"FFmpeg's {codec}: read by FFmpeg {other}, by soundfile {own}")
    assert other == [1, 2, 3, 4, 5, 6] and own == [1, 3, 2, 5, 6, 4]

def level(audio):
    return 10 * np.log10((abs(np.fft.rfft(audio[RATE:2 * RATE], axis=0))[2000:8000] ** 2).mean(0) + 1e-9)

for kind, channels, lost in (("VORBIS", 6, True), ("VORBIS", 8, False), ("OPUS", 6, True), ("OPUS", 8, True)):
    noise = 0.1 * np.random.default_rng(0).standard_normal((3 * RATE, channels))
    soundfile.write("noise.ogg", noise, RATE, subtype=kind)
    change = level(soundfile.read("noise.ogg")[0]) - level(noise)
    print(f"{kind}, 2 to 8 kHz, change in dB by channel:", np.round(change, 1).tolist())
    assert abs(change[:-1]).max() < 6 and (change[-1] < -40) == lost
EOF
