#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), apsnr, the peak signal-to-noise ratio of a copy whose only fault is an offset of 0.001 to 0.2.
# One would expect 60 dB for an offset of 0.001, 20 dB less for ten times as much, and the same from samples of 32 and 64 bits.
# What happens: it is 164 dB, and the worse the copy, the higher the figure: ten times the error adds 4.6. The natural logarithm of the mean square
# error is added, not 10 times the decimal one subtracted, and the peak is the largest number a float can hold, so with samples of 64 bits all
# is above 1,400. Only "inf" for equal files is right. Its neighbours asdr and asisdr are right.
# What to do: use asdr or asisdr, or compute the PSNR from the mean square error yourself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import re
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def measure(filter, song, copy, bits=32):
    command = [FFMPEG, "-hide_banner"]
    for name, audio in (("song", song), ("copy", copy)):
        audio.astype(f"<f{bits // 8}").tofile(name)
        command += ["-f", f"f{bits}le", "-ar", "44100", "-ac", "1", "-i", name]
    said = subprocess.run([*command, "-filter_complex", f"[0][1]{filter}", "-f", "null", "-"], capture_output=True, check=True).stderr.decode()
    return float(re.search(r"ch0: (\S+) dB", said)[1])

song = 0.2 * np.random.default_rng(0).standard_normal(44100)
for bits in (32, 64):
    limit = np.log(float(np.finfo(f"f{bits // 8}").max))
    for offset in (0.001, 0.01, 0.1, 0.2):
        seen = measure("apsnr", song, song + offset, bits)
        power = (song ** 2).mean() / offset ** 2
        print(f"{bits} bits, offset {offset}: apsnr {seen:.2f} dB, by definition {-20 * np.log10(offset):.2f}; "
              f"2 ln(largest float) + ln(mean square error) is {2 * limit + 2 * np.log(offset):.2f}")
        assert abs(seen - 2 * limit - 2 * np.log(offset)) < 0.02
        assert abs(measure("asdr", song, song + offset, bits) - 10 * np.log10(power)) < 0.02
copy = song + 0.1
target = song * (song @ copy) / (song @ song)
invariant = 10 * np.log10((target ** 2).sum() / ((copy - target) ** 2).sum())
print(f"equal: apsnr {measure('apsnr', song, song)}; offset 0.1: asdr {measure('asdr', song, copy)}, asisdr {measure('asisdr', song, copy)}, "
      f"by definition {10 * np.log10((song ** 2).mean() / 0.01):.4f} and {invariant:.4f}")
assert abs(measure("asisdr", song, copy) - invariant) < 0.02
assert measure("apsnr", song, song) == np.inf
EOF
