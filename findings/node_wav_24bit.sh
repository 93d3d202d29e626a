#!/usr/bin/env bash
# node-wav 0.0.2 and wav-decoder 1.3.0 (need Node.js): a sine that is clipped at full scale, as WAV with 24 bits.
# One would expect samples between -1 and 1 that follow the waveform.
# What happens: the most negative sample, -2**23, is read as +1. Every clipped trough becomes a peak at full scale: in loud masters, and in
# anything that was clipped on its way to 24 bits, full-scale clicks appear that are not in the file. The -1 that wav-encoder
# 1.3.0 writes comes back as 1 too. With 16 and 32 bits both are right.
# What to do: read 24-bit files with audio-decode, or set samples above 1 to -1: the wrong ones are 1.0000001, and nothing else exceeds 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Node.js $(node --version)"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact node-wav@0.0.2 wav-decoder@1.3.0 wav-encoder@1.3.0
cat > a.cjs <<'EOF'
const assert = require("node:assert");
const nodeWav = require("node-wav"), decoder = require("wav-decoder"), encoder = require("wav-encoder");
for (const name of ["node-wav", "wav-decoder"]) console.log(name, require(`./node_modules/${name}/package.json`).version);

const rate = 44100;
const tone = Float64Array.from({ length: rate }, (_, n) => Math.max(-1, Math.min(1, 1.2 * Math.sin((2 * Math.PI * 1000 * n) / rate))));
function wav(bits) {
  const bytes = bits / 8, file = Buffer.alloc(44 + rate * bytes);
  file.write("RIFF", 0), file.write("WAVEfmt ", 8), file.write("data", 36);
  for (const [at, value] of [[4, 36 + rate * bytes], [16, 16], [24, rate], [28, rate * bytes], [40, rate * bytes]]) file.writeUInt32LE(value, at);
  for (const [at, value] of [[20, 1], [22, 1], [32, bytes], [34, bits]]) file.writeUInt16LE(value, at);
  const top = 2 ** (bits - 1);
  tone.forEach((value, n) => file.writeIntLE(Math.min(top - 1, Math.round(value * top)), 44 + n * bytes, bytes));
  return file;
}
const copy = (file) => file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
(async () => {
  for (const bits of [16, 24, 32]) {
    const file = wav(bits);
    const first = nodeWav.decode(file).channelData[0], second = (await decoder.decode(copy(file))).channelData[0];
    for (const [name, read] of [["node-wav", first], ["wav-decoder", second]]) {
      let troughs = 0, wrong = 0, error = 0;
      for (let n = 0; n < rate; n++) {
        troughs += tone[n] === -1, wrong += tone[n] === -1 && read[n] > 1;
        error = Math.max(error, Math.abs(read[n] - tone[n]));
      }
      console.log(`${name}, ${bits} bits: ${wrong} of ${troughs} clipped troughs are read as +1, largest error ${error.toFixed(5)}`);
      assert(troughs > 5000 && wrong === (bits === 24 ? troughs : 0) && (bits === 24 ? error > 1.99 : error < 1e-4));
    }
  }
  const written = await encoder.encode({ sampleRate: rate, channelData: [Float32Array.of(-1, -0.5, 0.5)] }, { bitDepth: 24 });
  const again = Array.from((await decoder.decode(written)).channelData[0]);
  console.log("-1, -0.5, 0.5 written by wav-encoder with 24 bits and read by wav-decoder:", again.map((v) => v.toFixed(3)).join(", "));
  assert(again[0] > 1 && again[1] < -0.49 && again[2] > 0.49);
})();
EOF
node a.cjs
