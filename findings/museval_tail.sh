#!/usr/bin/env bash
# museval 0.4.1, windows and hops of one second on a piece of 4.5 s.
# One would expect that every sample counts somewhere: a last, shorter window, or an error for an estimate that is too short.
# What happens: the last half second belongs to no window, so an estimate that is loud noise there scores the same. An estimate
# that ends after three seconds is padded with silence without a word, the missing second scores NaN, and the usual median, which
# ignores NaN, comes out as if nothing were missing.
# What to do: compare the lengths yourself before scoring, and pad references to whole windows if the ending matters.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile museval==0.4.1 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
from importlib.metadata import version
import museval
import numpy as np

rate = 8000
random = np.random.default_rng(0)
reference = 0.1 * random.standard_normal((2, int(4.5 * rate), 1))
estimate = reference + 0.1 * reference[::-1] + 0.02 * random.standard_normal(reference.shape)
score = lambda e: museval.evaluate(reference, e, win=rate, hop=rate)[0]

whole = score(estimate)
noisy = estimate.copy()
noisy[:, 4 * rate:] = random.standard_normal(noisy[:, 4 * rate:].shape)
ruined = score(noisy)
short = score(estimate[:, :3 * rate])
print("museval", version("museval"))
print(f"4.5 s of audio give {whole.shape[1]} windows of one second")
print(f"with noise in place of the last half second, SDR moves by {abs(ruined - whole).max():.6f} dB")
print("SDR of an estimate that stops after 3 s:", np.round(short[0], 2))
print(f"median without NaN: {np.nanmedian(short):.2f} dB, of the whole estimate: {np.nanmedian(whole):.2f} dB")
assert whole.shape == (2, 4)
assert abs(ruined - whole).max() < 1e-9
assert np.isnan(short[:, 3]).all() and np.isfinite(short[:, :3]).all()
assert abs(np.nanmedian(short) - np.nanmedian(whole)) < 0.3
EOF
