#!/usr/bin/env bash
# wavefile 11.0.0 (needs Node.js), FFmpeg 9.0.2 (of imageio-ffmpeg 0.8.1), soundfile 0.14.0: IMA ADPCM in WAV, mono, 8 kHz, the one kind that
# wavefile writes, written by each and read by each.
# One would expect two seconds of a tone at 300 Hz back, with an SNR of some 30 dB, from every pair.
# What happens: a block of 256 bytes holds 505 samples, a value in its head and 504 after it. wavefile reads 512, so the sound falls behind block by
# block, and FFmpeg's and soundfile's files are read with an SNR below 0 dB. The files that it writes are longer than the sound, too: FFmpeg and
# soundfile read them late and with a wrong length, and so does wavefile itself.
# What to do: use another program for ADPCM; mu-law and A-law are right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Node.js $(node --version)"
echo '{"private": true}' > package.json
npm install --silent --no-audit --no-fund --save-exact wavefile@11.0.0
python3 -m venv --without-pip venv
python3 -m pip --python venv/bin/python -q --disable-pip-version-check install --no-compile soundfile==0.14.0 imageio-ffmpeg==0.8.1 numpy==2.4.6
cat > write.cjs <<'EOF'
const { WaveFile } = require("wavefile"), fs = require("node:fs");
console.log("wavefile", require("./node_modules/wavefile/package.json").version);
const file = new WaveFile(fs.readFileSync("pcm.wav"));
file.toIMAADPCM();
fs.writeFileSync("wavefile.wav", file.toBuffer());
for (const name of ["wavefile", "ffmpeg", "soundfile"]) {
  const read = new WaveFile(fs.readFileSync(name + ".wav"));
  read.fromIMAADPCM();
  fs.writeFileSync(name + ".raw", Buffer.from(Int16Array.from(read.getSamples(false, Int16Array)).buffer));
}
EOF
cat > a.py <<'EOF'
import subprocess
import imageio_ffmpeg
import numpy as np
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
print("FFmpeg", imageio_ffmpeg.get_ffmpeg_version(), "soundfile", soundfile.__version__)
tone = np.rint(12000 * np.sin(2 * np.pi * 300 * np.arange(16000) / 8000)).astype(np.int16)
soundfile.write("pcm.wav", tone, 8000, subtype="PCM_16")
soundfile.write("soundfile.wav", tone, 8000, subtype="IMA_ADPCM")
subprocess.run([FFMPEG, "-v", "error", "-i", "pcm.wav", "-c:a", "adpcm_ima_wav", "-block_size", "256", "ffmpeg.wav"], check=True)
subprocess.run(["node", "write.cjs"], check=True)

def snr(read):
    assert len(read) >= len(tone)
    return 10 * np.log10((tone.astype(float) ** 2).sum() / ((read[:len(tone)].astype(float) - tone) ** 2).sum())

for writer in ("ffmpeg", "soundfile", "wavefile"):
    said = subprocess.run([FFMPEG, "-v", "error", "-i", writer + ".wav", "-f", "s16le", "-"], capture_output=True, check=True).stdout
    for reader, read in (("ffmpeg", np.frombuffer(said, "<i2")), ("soundfile", soundfile.read(writer + ".wav", dtype="int16")[0]),
                         ("wavefile", np.fromfile(writer + ".raw", "<i2"))):
        print(f"written by {writer}, read by {reader}: {len(read)} of {len(tone)} samples, SNR {snr(read):.1f} dB")
        good = "wavefile" not in (writer, reader)
        assert snr(read) > 25 if good else snr(read) < 10
        assert len(read) < len(tone) + 505 or not good
EOF
venv/bin/python a.py
