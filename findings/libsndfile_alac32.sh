#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2) writes Apple Lossless with 32 bits (CAF, ALAC_32) and reads it back, a tone, soft noise and loud noise.
# One would expect every sample back: the codec is lossless.
# What happens: noise at full level comes back wrong in every sample, by up to twice full scale. Tones and softer noise are exact, and
# ALAC_24 is exact for all.
# What to do: write ALAC_24, or FLAC with 24 bits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import soundfile

random = np.random.default_rng(0)
tone = (2**30 * np.sin(np.arange(44100) / 20)).astype(np.int32)
soft = (2**27 * random.standard_normal(44100)).astype(np.int32)
loud = random.integers(-2**31, 2**31, 44100).astype(np.int32)
print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
wrong = {}
for subtype, kept in (("ALAC_32", 32), ("ALAC_24", 24)):
    for name, audio in (("tone", tone), ("soft noise", soft), ("loud noise", loud)):
        audio = audio >> (32 - kept) << (32 - kept)
        soundfile.write("a.caf", audio, 44100, format="CAF", subtype=subtype)
        back = soundfile.read("a.caf", dtype="int32")[0]
        wrong[subtype, name] = int((back != audio).sum())
        print(f"{subtype}, {name}: {wrong[subtype, name]} of {len(audio)} samples wrong, "
              f"by up to {abs(back.astype(float) - audio).max() / 2**31:.2f} of full scale")
assert wrong.pop(("ALAC_32", "loud noise")) > 40000 and not any(wrong.values())
EOF
