#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1) and mutagen 1.48.1: an MP3 with tempo and key (frames TBPM and TKEY), converted.
# One would expect tempo and key to arrive, under the names that each format has for them, as title and artist do.
# What happens: in M4A and WAV both are gone. In FLAC and Ogg they come as "tbpm" and "tkey", ID3's frame names in small
# letters, where BPM and INITIALKEY are usual. mutagen, to mend it, takes whole numbers only for M4A's tempo and raises an
# error for 128.5.
# What to do: copy both by hand; in M4A round the tempo, and write the key as a freeform field.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 numpy==2.4.6 mutagen==1.48.1
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

import mutagen
from mutagen.id3 import ID3, TBPM, TIT2, TKEY
from mutagen.mp4 import MP4

print("mutagen", mutagen.version_string)
subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", "sine=d=1", "a.mp3"], check=True)
tags = ID3("a.mp3")
for tag in (TIT2(3, "Song"), TBPM(3, "128.5"), TKEY(3, "Am")):
    tags.add(tag)
tags.save("a.mp3")
for kind in ("m4a", "wav", "flac", "ogg"):
    subprocess.run([FFMPEG, "-v", "error", "-i", "a.mp3", f"b.{kind}"], check=True)
    names = {str(name).lower(): value for name, value in (mutagen.File(f"b.{kind}").tags or {}).items()}
    listing = subprocess.run([FFMPEG, "-i", f"b.{kind}"], capture_output=True, text=True).stderr.lower()
    print(f"{kind}: tempo kept as {[n for n in names if 'bpm' in n or n == 'tmpo'] or 'nothing'}, "
          f"key as {[n for n in names if 'key' in n] or 'nothing'}, title kept: {'song' in listing}")
    assert "song" in listing and "bpm" not in names and "initialkey" not in names
    if kind in ("flac", "ogg"):
        assert names["tbpm"] == ["128.5"] and names["tkey"] == ["Am"]
    else:
        assert "128" not in str(names) and "128.5" not in listing and not [n for n in names if "key" in n]
song = MP4("b.m4a")
try:
    song["tmpo"] = [128.5]
    raise SystemExit("mutagen now takes a fractional tempo")
except ValueError as error:
    print("mutagen, tempo of 128.5 into M4A:", type(error).__name__)
EOF
