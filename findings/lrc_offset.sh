#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1) and pylrc 0.1.2 read lyrics in which a line at 10 s follows [offset:+500].
# One would expect 9.5 s from both: a positive offset, in milliseconds, shows the lyrics sooner.
# What happens: pylrc says 10.5 s, later instead of sooner. FFmpeg moves it by half a millisecond, as if the number were in
# microseconds, and rounds that away; only with thousands does one see that its direction is right.
# What to do: read the offset line yourself and subtract it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6 pylrc==0.1.2
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

from importlib.metadata import version
import pylrc

text = "[offset:{}]\n[00:10.00]one\n[00:12.00]two\n"

def ffmpeg(offset):
    open("a.lrc", "w").write(text.format(offset))
    srt = subprocess.run([FFMPEG, "-v", "error", "-i", "a.lrc", "-f", "srt", "-"], capture_output=True, text=True, check=True).stdout
    hours, minutes, seconds = srt.splitlines()[1].split(" --> ")[0].replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)

line = pylrc.parse(text.format("+500"))[0].time
print("pylrc", version("pylrc"), f"shows the line of 10 s with an offset of +500 ms at {line} s")
seen = {offset: ffmpeg(offset) for offset in ("+500", "+4000", "-4000")}
for offset, second in seen.items():
    print(f"FFmpeg, offset {offset} ms: {second} s")
assert line == 10.5
assert abs(seen["+500"] - 10) < 0.0011 and abs(seen["+4000"] - 9.996) < 0.0011 and abs(seen["-4000"] - 10.004) < 0.0011
EOF
