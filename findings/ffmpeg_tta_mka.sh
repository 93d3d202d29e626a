#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1; 5.1 does the same), True Audio (TTA), a lossless codec, in Matroska: 3.9 s, and 20 samples more.
# One would expect the samples back, or a conversion that fails.
# What happens: Matroska knows lengths in milliseconds only, FFmpeg rebuilds TTA's header from that, and a last frame which does not fit
# it is dropped: 33,770 samples, 0.77 s, of the longer file. A line of error is printed and the exit status is 0. Three
# seconds and 777 samples lose 0.93 s. The same audio is whole in .tta, and as FLAC in Matroska.
# What to do: keep TTA in .tta files, or use FLAC or WavPack in Matroska.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def lost(codec, file, length):
    audio = np.random.default_rng(0).integers(-3000, 3000, length, dtype=np.int16)
    subprocess.run([FFMPEG, "-y", "-v", "error", "-f", "s16le", "-ar", "44100", "-ac", "1", "-i", "-", "-c:a", codec, file],
                   input=audio.tobytes(), check=True, capture_output=True)
    run = subprocess.run([FFMPEG, "-v", "error", "-i", file, "-f", "s16le", "-"], capture_output=True)
    back = np.frombuffer(run.stdout, np.int16)
    print(f"{codec} in {file}, {length} samples: {length - len(back)} lost at the end, the others equal: "
          f"{np.array_equal(back, audio[:len(back)])}; exit status {run.returncode}")
    assert run.returncode == 0 and np.array_equal(back, audio[:len(back)])
    return length - len(back)

length = 171990
assert lost("tta", "a.mka", length) == 0
assert lost("tta", "a.mka", length + 20) == 33770
assert lost("tta", "a.tta", length + 20) == 0
assert lost("flac", "b.mka", length + 20) == 0
EOF
