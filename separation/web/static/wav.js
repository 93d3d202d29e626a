/** A wav of 16 bits that is filled block by block: samples beyond full scale are cut off there. */
export class Wav {
  constructor(samples, channels, rate) {
    this.channels = channels;
    this.rate = rate;
    this.samples = new Int16Array(samples * channels);
    this.place = 0;
    this.beyond = 0; // samples that were cut off
  }

  /** `block` holds left and right; of a mono song their mean is kept. */
  write([left, right]) {
    for (let n = 0; n < left.length; n++) {
      if (this.channels === 1) this.put((left[n] + right[n]) / 2);
      else this.put(left[n]), this.put(right[n]);
    }
  }

  put(sample) {
    if (Math.abs(sample) > 1) this.beyond++;
    this.samples[this.place++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
  }

  get blob() {
    return new Blob([header(this.samples.byteLength, this.channels, this.rate), this.samples], { type: "audio/wav" });
  }
}

function header(bytes, channels, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (place, word) => [...word].forEach((letter, n) => view.setUint8(place + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view;
}
