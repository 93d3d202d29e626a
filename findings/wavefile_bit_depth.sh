#!/usr/bin/env bash
# wavefile 11.0.0 (needs Node.js): all 16-bit values converted by toBitDepth to 24 and 32 bits and to floats, and back to 16 bits.
# One would expect more bits to hold the same samples, shifted or divided by 32,768, and the way back to give the file as it was.
# What happens: each side of zero is stretched so that the largest values meet: 16,384 becomes 4,194,431 with 24 bits instead of 4,194,304, and
# positive samples are 1 / 32,767 too loud. The way back cuts fractions off: through 24 or 32 bits half of all values come back
# changed by one, through floats a quarter. The file no longer cancels against the original or any other tool's conversion.
# What to do: shift or divide the samples yourself and give them to fromScratch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Node.js $(node --version)"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact wavefile@11.0.0
cat > a.cjs <<'EOF'
const assert = require("node:assert");
const { WaveFile } = require("wavefile");
console.log("wavefile", require("./node_modules/wavefile/package.json").version);
const all = Int16Array.from({ length: 65536 }, (_, n) => n - 32768);
for (const [kind, step, share] of [["24", 256, 0.5], ["32", 65536, 0.5], ["32f", 1 / 32768, 0.254]]) {
  const file = new WaveFile();
  file.fromScratch(1, 44100, "16", all);
  file.toBitDepth(kind);
  const wide = file.getSamples(false, Float64Array);
  file.toBitDepth("16");
  const back = file.getSamples(false, Int16Array);
  let high = 0, low = 0, changed = 0, most = 0;
  for (let n = 0; n < 65536; n++) {
    const off = wide[n] / step - all[n];
    high = Math.max(high, off), low = Math.min(low, off);
    changed += back[n] !== all[n], most = Math.max(most, Math.abs(back[n] - all[n]));
  }
  console.log(`16 to ${kind}: 16,384 becomes ${wide[16384 + 32768]}, not ${16384 * step}; ` +
    `off by up to ${Math.max(high, -low).toFixed(3)} steps of 16 bits; back to 16: ${changed} of 65536 values differ, by up to ${most}`);
  assert(high > 0.99 && low > -1e-3 && Math.abs(changed / 65536 - share) < 0.01 && most === 1);
}
EOF
node a.cjs
