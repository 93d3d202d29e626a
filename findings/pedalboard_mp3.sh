#!/usr/bin/env bash
# pedalboard 0.9.26 writes a click to MP3, then pedalboard, soundfile 0.14.0 (libsndfile) and PyAV 18.1.0 (FFmpeg) read that file.
# One would expect all three to skip the encoder's delay, which the file states in its LAME tag, and to agree on the length.
# What happens: soundfile and PyAV put the click where it was; pedalboard reads its own file 1,105 samples (25 ms) late and longer.
# What to do: read MP3 with another library where time matters: a dataset read half by pedalboard is out of step with itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pedalboard==0.9.26 soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
import av
import numpy as np
import soundfile
from pedalboard.io import AudioFile

rate, length, place = 44100, 50000, 20000
click = np.zeros(length, np.float32)
click[place:place + 8] = 0.9
with AudioFile("click.mp3", "w", rate, 1, quality=320) as file:
    file.write(click)
with AudioFile("click.mp3") as file:
    read = {"pedalboard": file.read(file.frames)[0]}
read["soundfile"] = soundfile.read("click.mp3")[0]
read["PyAV"] = np.concatenate([frame.to_ndarray()[0] for frame in av.open("click.mp3").decode(audio=0)])
print("pedalboard", version("pedalboard"), "soundfile", version("soundfile"), "PyAV", version("av"))
late = {name: np.correlate(audio, np.ones(8), "valid").argmax() - place for name, audio in read.items()}
for name, audio in read.items():
    print(f"{name}: {len(audio)} samples of {length}, the click is {late[name]} samples late")
assert abs(late["soundfile"]) <= 1 and abs(late["PyAV"]) <= 1 and len(read["soundfile"]) == len(read["PyAV"]) == length
assert abs(late["pedalboard"] - 1105) <= 1 and len(read["pedalboard"]) > length + 1105
EOF
