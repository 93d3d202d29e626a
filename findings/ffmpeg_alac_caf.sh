#!/usr/bin/env bash
# Apple Lossless in CAF: written and read by soundfile 0.14.0 (libsndfile 1.2.2) and by FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1).
# One would expect both to read both, to the last sample.
# What happens: FFmpeg cuts the padding of the last packet twice, so that the end is missing: 956 samples of 44,100, its own file or not, and
# a whole packet of 4,096 of libsndfile's file of 65,536, with a line of error and exit status 0. libsndfile does not open
# FFmpeg's files at all. FFmpeg 5.1 reads all of them whole.
# What to do: keep ALAC in M4A; for CAF use plain PCM, which both read.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile imageio-ffmpeg==0.8.1 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__, "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())

def lost_by_ffmpeg(file, audio):
    run = subprocess.run([FFMPEG, "-v", "error", "-i", file, "-f", "s16le", "-"], capture_output=True)
    back = np.frombuffer(run.stdout, np.int16)
    assert run.returncode == 0 and np.array_equal(back, audio[:len(back)])
    return len(audio) - len(back)

def lost_by_libsndfile(file, audio):
    try:
        back = soundfile.read(file, dtype="int16")[0]
    except soundfile.LibsndfileError as error:
        return type(error).__name__
    assert np.array_equal(back, audio[:len(back)])
    return len(audio) - len(back)

seen = {}
for length in (65536, 44100):
    audio = (8000 * np.sin(np.arange(length) / 20)).astype(np.int16)
    soundfile.write("libsndfile.caf", audio, 44100, format="CAF", subtype="ALAC_16")
    subprocess.run([FFMPEG, "-y", "-v", "error", "-f", "s16le", "-ar", "44100", "-ac", "1", "-i", "-", "-c:a", "alac", "ffmpeg.caf"],
                   input=audio.tobytes(), check=True)
    for writer in ("libsndfile", "ffmpeg"):
        file = writer + ".caf"
        seen[length, writer] = lost_by_ffmpeg(file, audio), lost_by_libsndfile(file, audio)
        print(f"{length} samples written by {writer}: lost by FFmpeg {seen[length, writer][0]}, by libsndfile {seen[length, writer][1]}")
assert seen == {(65536, "libsndfile"): (4096, 0), (44100, "libsndfile"): (956, 0),
                (65536, "ffmpeg"): (0, "LibsndfileError"), (44100, "ffmpeg"): (956, "LibsndfileError")}
EOF
