#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1; 5.1 does the same), a tone mixed from stereo to mono, from 5.1 to stereo and from mono to stereo.
# One would expect the mixing levels to depend on the channels alone, and mono to become stereo at its own level.
# What happens: they depend on the sample format of the output. To 16 bits, as for WAV and FLAC, the coefficients are scaled down so that
# nothing can clip; to float, as for MP3 and AAC, they are not: a stereo file's mono version is 3 dB louder as AAC than as FLAC, and
# 5.1's stereo version 7.7 dB. Mono becomes stereo 3 dB down in both.
# What to do: state the mix, as in -af "pan=mono|c0=0.5*c0+0.5*c1", never leave it to -ac.
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

def level(layout, channels, codec):
    tone = "0.1*sin(2*PI*1000*t)"
    source = {"mono": tone, "stereo": f"{tone}|0", "5.1": f"0|0|{tone}|0|0|0"}[layout]
    run = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", f"aevalsrc={source}:c={layout}:d=1", "-ac", str(channels)]
    pcm = subprocess.run(run + ["-c:a", codec, "-f", codec[4:], "-"], capture_output=True, check=True).stdout
    audio = np.frombuffer(pcm, np.float32 if codec == "pcm_f32le" else np.int16) / (1 if codec == "pcm_f32le" else 32768)
    return 20 * np.log10(abs(audio).max() / 0.1)

for layout, channels, integer, floating in (("stereo", 1, -6.02, -3.01), ("5.1", 2, -10.67, -3.01), ("mono", 2, -3.01, -3.01)):
    seen = level(layout, channels, "pcm_s16le"), level(layout, channels, "pcm_f32le")
    which = {"stereo": "left", "5.1": "centre", "mono": "only"}[layout]
    print(f"{layout} to {channels} channel(s), the {which} channel's tone: {seen[0]:.2f} dB in 16 bits, {seen[1]:.2f} dB in float")
    assert abs(seen[0] - integer) < 0.05 and abs(seen[1] - floating) < 0.05
EOF
