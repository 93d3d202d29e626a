#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1; 5.1 does the same) and soundfile 0.14.0 on a WAV file of integer PCM,
# 24 valid bits in samples of 32, which its WAVE_FORMAT_EXTENSIBLE header says.
# One would expect 24-bit sound, the lowest eight bits being zero.
# What happens: FFmpeg takes the file for "24.0 floating point", an old studio format, and decodes noise beyond all bounds, without a
# warning. soundfile is right.
# What to do: read such files with libsndfile, or tell FFmpeg: -c:a pcm_s32le before -i.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6 soundfile==0.14.0
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

import struct
import soundfile

samples = (np.random.default_rng(0).integers(-2**20, 2**20, 44100) << 8).astype(np.int32)
pcm_guid = bytes.fromhex("0100000000001000800000aa00389b71")
fmt = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 44100, 4 * 44100, 4, 32, 22, 24, 4) + pcm_guid
data = samples.tobytes()
body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
open("a.wav", "wb").write(b"RIFF" + struct.pack("<I", len(body)) + body)

def ffmpeg(*options):
    run = subprocess.run([FFMPEG, *options, "-i", "a.wav", "-f", "f32le", "-"], capture_output=True, check=True)
    codec = [line for line in run.stderr.decode().splitlines() if "Stream #0:0" in line][0].split("Audio:")[1].split()[0]
    return codec, np.frombuffer(run.stdout, np.float32)

print("soundfile", soundfile.__version__, "reads the samples exactly:", np.array_equal(soundfile.read("a.wav", dtype="int32")[0], samples))
codec, guessed = ffmpeg()
print(f"FFmpeg takes it for {codec}; largest sample {np.nanmax(abs(guessed)):.3g} instead of {abs(samples).max() / 2**31:.3g}")
told, right = ffmpeg("-c:a", "pcm_s32le")
print(f"FFmpeg told {told}: right within {abs(right - samples / 2**31).max():.1e}")
assert np.array_equal(soundfile.read("a.wav", dtype="int32")[0], samples)
assert codec == "pcm_f24le" and not np.nanmax(abs(guessed)) < 1e6
assert abs(right - samples / 2**31).max() < 1e-7
EOF
