#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2), floating-point noise and near silence written with 16 and 24 bits in WAV, AIFF, Apple Lossless and FLAC.
# One would expect each sample to go to the nearest integer: an error of 0.29 steps RMS with no mean, and silence for values far below a step.
# What happens: in all but FLAC each goes to the next integer below. The mean is off by half a step and the RMS error is 0.58 steps, twice
# that of rounding, and the same floats as FLAC are other integers in half of the samples. Of a stem that is silent but for numerical
# noise at -160 dBFS, half the samples become -1. Reading 16 bits as floats and writing them again is exact, so a round trip does
# not show it. FFmpeg rounds.
# What to do: convert first: numpy.rint(x * 32768), clipped to the range and cast to int16.
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

random = np.random.default_rng(0)
noise = 0.1 * random.standard_normal(200000)
print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__)
for extension, kind in (("wav", "PCM_16"), ("wav", "PCM_24"), ("aiff", "PCM_16"), ("caf", "ALAC_16"), ("flac", "PCM_16"), ("flac", "PCM_24")):
    for dtype in (np.float64, np.float32):
        sent, steps = noise.astype(dtype), 2 ** (int(kind[-2:]) - 1)
        soundfile.write(f"noise.{extension}", sent, 44100, subtype=kind)
        error = (soundfile.read(f"noise.{extension}")[0] - sent) * steps
        print(f"{dtype.__name__} as {kind} in {extension}: error of {error.mean():+.3f} steps in the mean, {np.sqrt((error**2).mean()):.3f} RMS,"
              f" {error.min():.2f} to {error.max():.2f}")
        mean, spread = (0, 0.289) if extension == "flac" else (-0.5, 0.577)
        assert abs(error.mean() - mean) < 0.04 and abs(np.sqrt((error**2).mean()) - spread) < 0.04

for extension in ("wav", "flac"):
    soundfile.write(f"both.{extension}", noise, 44100, subtype="PCM_16")
wav, flac = (soundfile.read(f"both.{extension}", dtype="int16")[0] for extension in ("wav", "flac"))
print(f"16 bits, WAV and FLAC: {100 * (wav != flac).mean():.1f} % of the samples differ")
assert abs((wav != flac).mean() - 0.5) < 0.02

quiet = 1e-8 * random.standard_normal(200000)
soundfile.write("quiet.wav", quiet, 44100, subtype="PCM_16")
values, counts = np.unique(soundfile.read("quiet.wav", dtype="int16")[0], return_counts=True)
print("noise at -160 dBFS becomes", dict(zip(values.tolist(), counts.tolist())))
assert values.tolist() == [-1, 0] and abs(counts[0] - 100000) < 4000

integers = np.arange(-32768, 32768, dtype=np.int16)
soundfile.write("again.wav", integers / 32768, 44100, subtype="PCM_16")
assert np.array_equal(soundfile.read("again.wav", dtype="int16")[0], integers)

raw = ["-f", "f64le", "-ar", "44100", "-ac", "1", "-i", "-"]
command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, "-c:a", "pcm_s16le", "-f", "s16le", "-"]
error = np.frombuffer(subprocess.run(command, input=noise.tobytes(), capture_output=True, check=True).stdout, "<i2") - noise * 32768
print(f"FFmpeg: {error.mean():+.3f} steps in the mean, {np.sqrt((error**2).mean()):.3f} RMS")
assert abs(error.mean()) < 0.02 and abs(np.sqrt((error**2).mean()) - 0.289) < 0.02
EOF
