#!/usr/bin/env bash
# Short Ogg Vorbis files, tones of half a second to three seconds, written by soundfile 0.14.0 (libsndfile 1.2.2) and by FFmpeg 9.0.2 (of
# imageio-ffmpeg 0.8.1), read by FFmpeg (5.1 does the same), soundfile and miniaudio 1.71.
# One would expect the same length from all: the last page of an Ogg file says where the sound ends.
# What happens: if all the sound fits in one page, FFmpeg gives 128 samples too few, its own files included, or up to 992 too many.
# soundfile and miniaudio are right, and so is FFmpeg for longer files.
# What to do: for loops and one-shots decode with libsndfile, or use FLAC.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 soundfile==0.14.0 numpy==2.4.6 miniaudio==1.71
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import miniaudio
import numpy as np
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__, "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def ffmpeg(file):
    return len(subprocess.run([FFMPEG, "-v", "error", "-i", file, "-f", "f32le", "-"], capture_output=True, check=True).stdout) // 4

for length, off in ((22050, (-128, -128)), (60000, (992, 0)), (132300, (0, 0))):
    audio = 0.3 * np.sin(np.arange(length) * 0.05)
    soundfile.write("libsndfile.ogg", audio, 44100, format="OGG", subtype="VORBIS")
    subprocess.run([FFMPEG, "-y", "-v", "error", "-f", "f64le", "-ar", "44100", "-ac", "1", "-i", "-", "-c:a", "libvorbis", "ffmpeg.ogg"],
                   input=audio.tobytes(), check=True)
    for file, expected in zip(("libsndfile.ogg", "ffmpeg.ogg"), off):
        pages = open(file, "rb").read().count(b"OggS") - 2
        others = len(soundfile.read(file)[0]) - length, len(miniaudio.decode_file(file, nchannels=1).samples) - length
        print(f"{length} samples, {file}, {pages} page(s) of sound: FFmpeg {ffmpeg(file) - length:+d}, "
              f"soundfile {others[0]:+d}, miniaudio {others[1]:+d}")
        assert others == (0, 0) and ffmpeg(file) - length == expected
EOF
