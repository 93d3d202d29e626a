#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2) and miniaudio 1.71 on a FLAC file that an encoder wrote into a pipe, so that its header leaves the length
# open, as the format allows.
# One would expect it to be read to its end.
# What happens: info() gives about 2**63 frames, and read() raises ValueError, since it wants to make room for them. In blocks all goes well
# until the last one, which holds the song's end: that raises LibsndfileError. miniaudio reads all.
# What to do: decode such files with miniaudio or FFmpeg; have encoders write to a file, not a pipe.
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

audio = np.random.default_rng(0).integers(-3000, 3000, 100000, dtype=np.int16)
run = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "s16le", "-ar", "44100", "-ac", "1", "-i", "-", "-f", "flac", "-"],
                     input=audio.tobytes(), capture_output=True, check=True)
open("pipe.flac", "wb").write(run.stdout)
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
frames = soundfile.info("pipe.flac").frames
whole = "the samples"
try:
    soundfile.read("pipe.flac", dtype="int16")
except ValueError as error:
    whole = f"{type(error).__name__}: {str(error)[:16]}"
blocks = []
with soundfile.SoundFile("pipe.flac") as file:
    try:
        while len(block := file.read(4096, dtype="int16")):
            blocks.append(block)
        ending = "an end"
    except soundfile.LibsndfileError as error:
        ending = type(error).__name__
got = sum(map(len, blocks))
mini = np.array(miniaudio.decode_file("pipe.flac", nchannels=1).samples)
print(f"info() says {frames} frames of {len(audio)}; read() gives {whole}; blocks give {got}, then {ending}; miniaudio gives {len(mini)}")
assert frames > 2**62 and whole.startswith("ValueError") and got == 98304 and ending == "LibsndfileError"
assert np.array_equal(mini, audio)
EOF
