#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1; 5.1 does the same), a click through filters that work in blocks or have long responses: afftdn,
# superequalizer (flat), surround (to stereo) and dialoguenhance.
# One would expect a filter either to give the sound back in step or to shift the timestamps by its delay.
# What happens: the sound is 25 to 93 ms late, the timestamps start at zero, the length is kept, so the end is cut, and no output says so.
# A stem that went through one of them no longer lines up with the others.
# What to do: measure the delay with a click, cut as much off the start and pad the input's end; afwtdn denoises in step.
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
click = np.zeros((2 * rate, 2), np.float32)
click[rate:rate + 4] = 0.5
expected = {"afftdn": 1102, "superequalizer": 4095, "surround=chl_out=stereo": 2048, "dialoguenhance": 1536, "afwtdn": 0}
for filter, delay in expected.items():
    chain = f"[0:a]{filter},aformat=fltp,pan=mono|c0=c0,ashowinfo[o]"
    run = subprocess.run([FFMPEG, "-v", "info", "-f", "f32le", "-ar", str(rate), "-ac", "2", "-i", "-", "-filter_complex", chain, "-map", "[o]",
                          "-f", "f32le", "-"], input=click.tobytes(), capture_output=True, check=True)
    back = np.frombuffer(run.stdout, np.float32)
    first = run.stderr.decode().split("pts_time:")[1].split()[0]
    late = abs(back).argmax() - rate
    print(f"{filter}: click {late} samples ({1000 * late / rate:.0f} ms) late, first timestamp {first}, length {len(back) - 2 * rate:+d}")
    assert abs(late - delay) <= 8 and float(first) == 0 and len(back) == 2 * rate
EOF
