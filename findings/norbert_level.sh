#!/usr/bin/env bash
# norbert 0.2.1 on scipy's STFT of a noise and a tone, at four levels of the whole piece.
# One would expect a Wiener filter not to care about level: turn the mixture down, and the estimates are turned down.
# What happens: its regularisation is an absolute number. With scipy's STFT, whose magnitudes are those of the waveform, the estimates
# of a piece 40 dB down no longer sum to the mixture (-7 dB instead of -43), and the noise is down from 20.9 dB to 1.6 dB.
# What to do: scale the mixture so that its largest magnitude is 10 or more before the call, and scale back after it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile norbert==0.2.1 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import norbert
import numpy as np
import scipy.signal

rate, random = 44100, np.random.default_rng(0)
b, a = scipy.signal.butter(2, [0.01, 0.2], "band")
noise = 0.2 * scipy.signal.lfilter(b, a, random.standard_normal((2, 3 * rate)), axis=1)
tone = np.stack([0.2 * np.sin(2 * np.pi * 220 * np.arange(3 * rate) / rate)] * 2)
spectra = np.stack([scipy.signal.stft(s, nperseg=2048, noverlap=1536)[2].transpose(2, 1, 0) for s in (noise, tone)], -1)
ratio = lambda signal, error: 10 * np.log10((abs(signal) ** 2).sum() / (abs(error) ** 2).sum())

def run(gain):
    y = spectra * gain
    estimates = norbert.wiener(abs(y), y.sum(-1), iterations=1)
    return ratio(y.sum(-1), estimates.sum(-1) - y.sum(-1)), ratio(y[..., 0], estimates[..., 0] - y[..., 0])

print("norbert", version("norbert"), "scipy", version("scipy"))
seen = {}
for level in (60, 0, -20, -40):
    seen[level] = run(10 ** (level / 20))
    print(f"mixture at {level:+d} dB: estimates sum to it within {-seen[level][0]:.1f} dB, noise at {seen[level][1]:.1f} dB SNR")
assert seen[60][0] > 80 and abs(seen[0][0] - 43.3) < 1 and abs(seen[-20][0] - 22.3) < 1 and abs(seen[-40][0] - 7.0) < 1
assert seen[60][1] > 20 and seen[-40][1] < 3
EOF
