#!/usr/bin/env bash
# node-web-audio-api 1.0.9 (needs Node.js), soundfile 0.14.0, FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1): a click, as WAV, FLAC, Vorbis, MP3 and AAC.
# One would expect decodeAudioData to give what browsers give: the click in its place and the length of the original.
# What happens: MP3 comes 1,105 samples (25 ms) late and AAC 1,024, since the delay that the files state is not cut off, and all lossy formats
# come too long. An M4A file as FFmpeg writes it, with its index at the end, is an error, "missing moov atom"; with the index in front it opens.
# WAV and FLAC are right.
# What to do: write M4A with -movflags +faststart, and decode lossy files elsewhere, to WAV, if they must line up with other stems.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Node.js $(node --version)"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact node-web-audio-api@1.0.9
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 imageio-ffmpeg==0.8.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np
import soundfile

print("soundfile", soundfile.__version__, "FFmpeg", imageio_ffmpeg.get_ffmpeg_version())
click = np.zeros(50000)
click[20000:20008] = 0.9
for name, kind in (("click.wav", "PCM_16"), ("click.flac", "PCM_16"), ("click.ogg", "VORBIS"), ("click.mp3", "MPEG_LAYER_III")):
    soundfile.write(name, click, 44100, subtype=kind)
    assert len(soundfile.read(name)[0]) == 50000 and abs((soundfile.read(name)[0] > 0.45).argmax() - 20000) <= 2
for name, options in (("click.m4a", []), ("front.m4a", ["-movflags", "+faststart"])):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "click.wav", "-c:a", "aac", "-b:a", "192k", *options, name], check=True)
EOF
cat > a.mjs <<'EOF'
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { OfflineAudioContext } from "node-web-audio-api";

console.log("node-web-audio-api", createRequire(import.meta.url)("./node_modules/node-web-audio-api/package.json").version);
const expected = {
  "click.wav": [0, 0], "click.flac": [0, 0], "click.ogg": [0, 368], "click.mp3": [1105, 1840], "front.m4a": [1024, 1200],
  "click.m4a": null,
};
for (const [name, seen] of Object.entries(expected)) {
  const bytes = new Uint8Array(readFileSync(name)).buffer;
  const decoded = await new OfflineAudioContext(1, 1, 44100).decodeAudioData(bytes).catch((error) => error);
  if (!seen) {
    console.log(`${name}: ${decoded.message}`);
    assert(/missing moov atom/.test(decoded.message));
    continue;
  }
  const audio = decoded.getChannelData(0);
  const late = audio.findIndex((value) => value > 0.45) - 20000, longer = audio.length - 50000;
  console.log(`${name}: click ${late} samples late, ${longer} samples too long`);
  assert(Math.abs(late - seen[0]) <= 2 && longer === seen[1]);
}
EOF
node a.mjs
