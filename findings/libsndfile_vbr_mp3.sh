#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2) and miniaudio 1.71 on an MP3 of variable bit rate without a Xing header, as streams and cut files are:
# ten seconds, of which the first is noise and the rest a soft tone.
# One would expect the whole file, found by reading on to its end.
# What happens: the length is guessed from the size of the first frames, and reading stops there: 1.7 s of 10 are returned, without an error.
# miniaudio reads it whole.
# What to do: decode MP3 of unknown origin to its end with FFmpeg or miniaudio; never trust info().frames.
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

t = np.arange(10 * 44100) / 44100
audio = (0.1 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
audio[:44100] = 0.3 * np.random.default_rng(0).standard_normal(44100)
ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
subprocess.run([ffmpeg, "-v", "error", "-f", "f32le", "-ar", "44100", "-ac", "1", "-i", "-", "-c:a", "libmp3lame", "-q:a", "2",
                "-write_xing", "0", "song.mp3"], input=audio.tobytes(), check=True)
short, whole = len(soundfile.read("song.mp3")[0]), len(miniaudio.decode_file("song.mp3", nchannels=1).samples)
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
print(f"of {len(audio) / 44100:.1f} s: info says {soundfile.info('song.mp3').duration:.2f} s, soundfile reads {short / 44100:.2f} s, "
      f"miniaudio {whole / 44100:.2f} s")
assert abs(whole - len(audio)) < 3 * 1152
assert short < 0.3 * len(audio)
EOF
