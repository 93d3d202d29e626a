/** A signal in 16 bits that is filled block by block: samples beyond full scale are cut off there. */
export class Samples {
  constructor(length, channels) {
    this.channels = channels;
    this.values = new Int16Array(length * channels);
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
    this.values[this.place++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
  }
}
