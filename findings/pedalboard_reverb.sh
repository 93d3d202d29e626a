#!/usr/bin/env bash
# pedalboard 0.9.26, Reverb with its wet part turned off.
# One would expect dry_level to be the gain of the dry sound: 1 leaves it alone, as in Delay and Chorus with mix=0.
# What happens: it is doubled. dry_level=1 raises the sound by 6.02 dB, so music near full scale comes out at twice full scale; the default 0.4
# turns it down by 1.94 dB instead of 7.96. Only 0.5 leaves it as it is.
# What to do: give half the gain that is meant, or use dry_level=0 and add the dry sound yourself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pedalboard==0.9.26 numpy==2.4.6
venv/bin/python - <<'EOF'
from importlib.metadata import version
import numpy as np
import pedalboard

rate = 44100
sound = (0.9 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)[None]
settled = slice(rate, None)
print("pedalboard", version("pedalboard"))
for dry in (1, 0.5, 0.4, 0.25):
    out = pedalboard.Reverb(wet_level=0, dry_level=dry)(sound, rate)
    gain = np.vdot(out[:, settled], sound[:, settled]) / np.vdot(sound[:, settled], sound[:, settled])
    print(f"dry_level={dry}: gain {gain:.3f}, {20 * np.log10(gain):+.2f} dB, peak {abs(out[:, settled]).max():.2f}")
    assert abs(gain - 2 * dry) < 1e-3 and abs(out[:, settled] - gain * sound[:, settled]).max() < 1e-4
for effect in (pedalboard.Delay(mix=0), pedalboard.Chorus(mix=0)):
    assert abs(effect(sound, rate) - sound).max() < 1e-5
EOF
