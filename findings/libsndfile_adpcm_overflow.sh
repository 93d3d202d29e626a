#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2), a tone with a peak of 1.5, as the sum of two stems may have, written as WAV.
# One would expect what soundfile does in PCM: values beyond full scale are clipped.
# What happens: in mu-law, A-law and both kinds of ADPCM they wrap around. The peaks jump to the other side, and what is read
# back no longer resembles the tone.
# What to do: clip before writing in these formats.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import soundfile

tone = 1.5 * np.sin(2 * np.pi * 100 * np.arange(48000) / 48000)
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
for subtype in ("PCM_16", "PCM_24", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
    alike = []
    for audio in (tone, tone.clip(-0.999, 0.999)):
        soundfile.write("a.wav", audio, 48000, subtype=subtype)
        back = soundfile.read("a.wav")[0][:48000]
        alike.append(np.corrcoef(tone, back)[0, 1])
    print(f"{subtype}: correlation with the tone {alike[0]:.2f}, clipped before writing {alike[1]:.2f}")
    assert alike[1] > 0.98
    assert alike[0] > 0.98 if subtype.startswith("PCM") else alike[0] < 0.5
EOF
