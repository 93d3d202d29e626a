#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), a click 1,000 samples after the start and one after a second, coded as Windows Media Audio 2.
# One would expect both clicks back, perhaps with the delay of the codec.
# What happens: read from a .wma file the first 2,048 samples are gone, the first click with them, and all the rest is 46 ms early.
# The same codec in Matroska gives both clicks in their places (in 5.1 it loses the start there too).
# What to do: put 2,048 samples of silence in front before coding to .wma with FFmpeg, or do not use that format.
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

rate = 44100
audio = np.zeros(2 * rate, np.float32)
places = (1000, rate)
for place in places:
    audio[place:place + 32] = 0.9

def clicks(file):
    subprocess.run([FFMPEG, "-v", "error", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-", "-c:a", "wmav2", "-b:a", "192k", file],
                   input=audio.tobytes(), check=True)
    pcm = subprocess.run([FFMPEG, "-v", "error", "-i", file, "-f", "f32le", "-"], capture_output=True, check=True).stdout
    back = abs(np.frombuffer(pcm, np.float32))
    found, n = [], 0
    while n < len(back):
        if back[n] > 0.4:
            found.append(n)
            n += 1000
        n += 1
    print(f"{file}: {len(back) - len(audio):+d} samples, clicks at {found}, where {list(places)} were put in")
    return found

lost, kept = clicks("song.wma"), clicks("song.mka")
assert len(lost) == 1 and abs(lost[0] - (rate - 2048)) < 40
assert len(kept) == 2 and all(abs(a - b) < 40 for a, b in zip(kept, places))
EOF
