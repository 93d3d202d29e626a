#!/usr/bin/env bash
# norbert 0.2.1, the multichannel Wiener filter behind Open-Unmix, with one iteration.
# One would expect that a function which returns estimates leaves its arguments alone.
# What happens: if the mixture's largest magnitude is above 10, as in any plain STFT of loud music, the caller's mixture comes back
# divided by a tenth of that magnitude. Whoever then subtracts the estimates from the mixture gets nonsense; quiet music works.
# What to do: pass a copy of the mixture.
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

random = np.random.default_rng(0)
shape = (40, 129, 2, 2)  # frames, bins, channels, sources
sources = random.standard_normal(shape) + 1j * random.standard_normal(shape)
print("norbert", version("norbert"))
for level in (1, 10):
    mixture = level * sources.sum(-1)
    before = mixture.copy()
    estimates = norbert.wiener(abs(level * sources), mixture, iterations=1)
    factor = np.abs(before).sum() / np.abs(mixture).sum()
    rest = np.abs(mixture - estimates.sum(-1)).sum() / np.abs(before).sum()
    print(f"largest magnitude {np.abs(before).max():.1f}: the mixture passed in is now {factor:.3f} times smaller; "
          f"mixture minus estimates leaves {100 * rest:.4f} %")
    if level == 1:
        assert factor == 1 and rest < 1e-4
    else:
        assert abs(factor - np.abs(before).max() / 10) < 1e-6 and rest > 0.5
EOF
