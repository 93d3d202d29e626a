#!/usr/bin/env bash
# FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), WAV of one to eight channels without a layout, noise of its own in each, coded as Apple Lossless.
# One would expect all channels back, bit for bit and in any order, as from FLAC, or an error.
# What happens: of three channels only two are left: FFmpeg takes three for 2.1, the encoder knows only 3.0, and the nearest layout that it has is
# stereo. Of eight seven are left, four of them 4.6 dB softer, the others two mixtures and one that is silent. The mixing is not reported,
# only the layout in the list of streams tells it. FLAC keeps all.
# What to do: name the layout, -channel_layout 3.0 or channelmap with 7.1(wide), or use FLAC.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("soundfile", soundfile.__version__, "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
random = np.random.default_rng(0)

def there_and_back(audio, coded, codec, *options):
    soundfile.write("stems.wav", audio, 48000, subtype="PCM_16")
    subprocess.run([FFMPEG, "-v", "error", "-y", "-i", "stems.wav", *options, "-c:a", codec, coded], check=True)
    subprocess.run([FFMPEG, "-v", "error", "-y", "-i", coded, "-c:a", "pcm_s16le", "back.wav"], check=True)
    return soundfile.read("back.wav", dtype="int16")[0].reshape(len(audio), -1)

def kept(audio, back):  # how many channels came back, in whatever place
    return sum((back == one[:, None]).all(0).any() for one in audio.T)

for channels in range(1, 9):
    audio = (2000 * random.standard_normal((48000, channels))).astype(np.int16)
    alac, flac = there_and_back(audio, "stems.m4a", "alac"), there_and_back(audio, "stems.flac", "flac")
    print(f"{channels} channels: {kept(audio, alac)} of them come back in {alac.shape[1]} from Apple Lossless, {kept(audio, flac)} from FLAC")
    assert kept(audio, flac) == channels and kept(audio, alac) == {3: 2, 8: 0}.get(channels, channels)
    assert alac.shape[1] == {3: 2, 8: 7}.get(channels, channels)
    if channels in (3, 8):
        gains = np.linalg.lstsq(audio.astype(float), alac.astype(float), rcond=None)[0].T.round(2) + 0.0
        print("    gain from each channel, by channel that came back:", *gains.tolist(), sep="\n    ")
        layout = {3: "3.0", 8: "7.1(wide)"}[channels]
        named = there_and_back(audio, "stems.m4a", "alac", "-af", f"channelmap={'|'.join(map(str, range(channels)))}:{layout}")
        print(f"    with the layout {layout}: {kept(audio, named)} come back")
        assert kept(audio, named) == channels
assert (gains[:4] == 0.59 * np.eye(8)[:4]).all() and sorted((gains > 0.3).sum(1)) == [0, 1, 1, 1, 1, 2, 2]
EOF
