#!/usr/bin/env bash
# node-web-audio-api 1.0.9 (needs Node.js): a 16-bit WAV file of 44.1 kHz, a tone of 10 kHz, decoded for a context of 48 kHz.
# One would expect decodeAudioData to resample with a proper filter, once, as browsers do.
# What happens: neighbours are interpolated. The tone is 2.1 dB down, half a sample late and with distortion at -8 dB, worse than when
# a context plays a buffer of another rate, where the specification allows something cheap (-20 dB). One second
# has 48,001 samples.
# What to do: decode in a context of the file's own rate, and resample elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Node.js $(node --version)"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact node-web-audio-api@1.0.9
cat > a.mjs <<'EOF'
import assert from "node:assert";
import { createRequire } from "node:module";
import { OfflineAudioContext } from "node-web-audio-api";

const tone = Float32Array.from({ length: 44100 }, (_, n) => 0.5 * Math.sin((2 * Math.PI * 10000 * n) / 44100));
const wav = new DataView(new ArrayBuffer(44 + 2 * tone.length));
const text = (at, word) => [...word].forEach((c, n) => wav.setUint8(at + n, c.charCodeAt(0)));
text(0, "RIFF"), text(8, "WAVEfmt "), text(36, "data");
for (const [at, value] of [[4, 36 + 2 * tone.length], [16, 16], [24, 44100], [28, 88200], [40, 2 * tone.length]]) wav.setUint32(at, value, true);
for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) wav.setUint16(at, value, true);
tone.forEach((v, n) => wav.setInt16(44 + 2 * n, Math.round(32767 * v), true));

function measure(name, audio) {
  let sine = 0, cosine = 0, rest = 0;
  const turn = (2 * Math.PI * 10000) / 48000, first = 2400, last = 45600;
  for (let n = first; n < last; n++) (sine += audio[n] * Math.sin(turn * n)), (cosine += audio[n] * Math.cos(turn * n));
  (sine *= 2 / (last - first)), (cosine *= 2 / (last - first));
  for (let n = first; n < last; n++) rest += (audio[n] - sine * Math.sin(turn * n) - cosine * Math.cos(turn * n)) ** 2;
  const power = sine ** 2 + cosine ** 2;
  const seen = { gain: 10 * Math.log10(power / 0.25), late: -Math.atan2(cosine, sine) / turn, distortion: 10 * Math.log10((2 * rest) / (last - first) / power) };
  console.log(`${name}: ${audio.length} samples, gain ${seen.gain.toFixed(2)} dB, ${seen.late.toFixed(2)} samples late, distortion ${seen.distortion.toFixed(1)} dB`);
  return seen;
}

console.log("node-web-audio-api", createRequire(import.meta.url)("./node_modules/node-web-audio-api/package.json").version);
const decoded = (await new OfflineAudioContext(1, 1, 48000).decodeAudioData(wav.buffer.slice(0))).getChannelData(0);
const context = new OfflineAudioContext(1, 48000, 48000);
const source = context.createBufferSource();
const buffer = context.createBuffer(1, 44100, 44100);
buffer.copyToChannel(tone, 0);
source.buffer = buffer;
source.connect(context.destination);
source.start();
const played = (await context.startRendering()).getChannelData(0);
const a = measure("decoded", decoded), b = measure("played", played);
assert(Math.abs(a.gain + 2.12) < 0.2 && Math.abs(a.late - 0.544) < 0.05 && Math.abs(a.distortion + 7.8) < 1 && decoded.length === 48001);
assert(Math.abs(b.late) < 0.01 && Math.abs(b.distortion + 20.4) < 1);
EOF
node a.mjs
