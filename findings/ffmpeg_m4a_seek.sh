#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), a cut of two seconds from one second on, out of AAC in .m4a, with -ss before and after -i.
# One would expect 2.000 s from both: when sound is decoded, seeking is exact.
# What happens: before -i the cut begins at the next packet. 956 samples (22 ms) are missing at its start, what follows is early by as
# much, and two seconds are 1.978. FFmpeg 5.1 cuts the same file exactly. A chunk of a stem.mp4
# file read in this way is out of step with labels and with other files.
# What to do: put -ss after -i, or seek a packet early and drop what is too much.
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
audio = np.random.default_rng(0).standard_normal(5 * rate)
audio = np.convolve(audio, np.hanning(40), "same").astype(np.float32)
audio *= 0.3 / abs(audio).max()
subprocess.run([FFMPEG, "-v", "error", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-", "-c:a", "aac", "-b:a", "192k", "song.m4a"],
               input=audio.tobytes(), check=True)

def cut(*arguments):
    pcm = subprocess.run([FFMPEG, "-v", "error", *arguments, "-f", "f32le", "-"], capture_output=True, check=True).stdout
    back = np.frombuffer(pcm, np.float32)
    part = back[3000:12000]
    shift = max(range(-2000, 2000), key=lambda k: audio[rate + 3000 + k:rate + 12000 + k] @ part)
    print(f"ffmpeg {' '.join(arguments)}: {len(back) / rate:.3f} s, begins {shift} samples into the part asked for")
    return len(back), shift

before = cut("-ss", "1", "-t", "2", "-i", "song.m4a")
after = cut("-i", "song.m4a", "-ss", "1", "-t", "2")
assert after == (2 * rate, 0)
assert before == (2 * rate - 956, 956)
EOF
