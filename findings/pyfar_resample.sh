#!/usr/bin/env bash
# pyfar 0.8.1, a tone of amplitude 0.25 in a WAV file of 48 kHz, read by read_audio, resampled by dsp.resample, written by write_audio.
# One would expect the tone at its level, as from every other resampler.
# What happens: the level changes by the ratio of the rates: at 16 kHz it is 9.5 dB louder, at 96 kHz 6 dB softer, at 44.1 kHz 0.7 dB louder. What is
# read from a file counts as an impulse response, whose spectrum, not its samples, the default keeps (so its documentation says). At 8 kHz
# a tone of 0.25 is written clipped, with a warning. Resampled stems no longer sum to a mixture that was resampled elsewhere.
# What to do: pass match_amplitude="time".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile pyfar==0.8.1 soundfile==0.14.0 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'EOF'
import numpy as np
import pyfar
import soundfile

print("pyfar", pyfar.__version__)
soundfile.write("tone.wav", 0.25 * np.sin(2 * np.pi * 1000 * np.arange(48000) / 48000), 48000, subtype="FLOAT")
signal = pyfar.io.read_audio("tone.wav")
print("type of the signal read:", signal.signal_type)
assert signal.signal_type == "energy"

def level(rate, **options):
    samples = pyfar.dsp.resample(signal, rate, **options).time[0]
    return 20 * np.log10(np.sqrt(2) * samples[1000:-1000].std() / 0.25)

for rate in (8000, 16000, 44100, 96000):
    plain, named = level(rate), level(rate, match_amplitude="time")
    print(f"to {rate} Hz: {plain:+.2f} dB; with match_amplitude=\"time\" {named:+.2f} dB; 48000 / {rate} is {20 * np.log10(48000 / rate):+.2f} dB")
    assert abs(plain - 20 * np.log10(48000 / rate)) < 0.05 and abs(named) < 0.05
pyfar.io.write_audio(pyfar.dsp.resample(signal, 8000), "low.wav")
written = soundfile.read("low.wav")[0]
print(f"written at 8 kHz: largest sample {abs(written).max():.3f}, {100 * (abs(written) > 0.999).mean():.0f} % of the samples are at full scale")
assert (abs(written) > 0.999).mean() > 0.3
EOF
