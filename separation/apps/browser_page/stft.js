import FFT from "./vendor/fft.js";

/** The project's STFT of stereo signals and its inverse; the same as `separation.audio.stft.Spectral`. */
export class Stft {
  constructor({ n_fft, hop }) {
    this.size = n_fft;
    this.hop = hop;
    this.bins = n_fft / 2 + 1;
    this.fft = new FFT(n_fft);
    this.time = new Float64Array(2 * n_fft); // left is the real part and right the imaginary one: one transform for both
    this.frequency = new Float64Array(2 * n_fft);
    const window = Float64Array.from({ length: n_fft }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / n_fft));
    this.energy = window.reduce((sum, value) => sum + value * value, 0);
    this.before = window.map((value) => value / Math.sqrt(n_fft));
    this.after = window.map((value) => (value * Math.sqrt(n_fft) * hop) / this.energy);
  }

  /** Frames from sample `start` on: two signals to `[2 channels, frames, bins, 2]`, in one array. */
  analyse(left, right, start, frames) {
    const spectrum = new Float32Array(2 * frames * this.bins * 2);
    const other = frames * this.bins * 2; // where the right channel begins
    const { size, bins, time, frequency } = this;
    for (let frame = 0; frame < frames; frame++) {
      const first = start + frame * this.hop;
      for (let n = 0; n < size; n++) {
        time[2 * n] = left[first + n] * this.before[n];
        time[2 * n + 1] = right[first + n] * this.before[n];
      }
      this.fft.transform(frequency, time);
      for (let k = 0, at = frame * bins * 2; k < bins; k++, at += 2) {
        const mirror = 2 * ((size - k) % size);
        const [a, b, c, d] = [frequency[2 * k], frequency[2 * k + 1], frequency[mirror], frequency[mirror + 1]];
        spectrum[at] = (a + c) / 2;
        spectrum[at + 1] = (b - d) / 2;
        spectrum[other + at] = (b + d) / 2;
        spectrum[other + at + 1] = (c - a) / 2;
      }
    }
    return spectrum;
  }

  /** Overlap-add of `[2 channels, frames, bins, 2]`, which begins at `offset` of `spectrum`, onto two signals. */
  synthesise(spectrum, offset, frames, left, right) {
    const other = frames * this.bins * 2;
    const { size, bins, time, frequency } = this;
    for (let frame = 0; frame < frames; frame++) {
      for (let k = 0, at = offset + frame * bins * 2; k < bins; k++, at += 2) {
        const real = k === 0 || k === bins - 1; // these two bins have no imaginary part
        const [a, b, c, d] = [spectrum[at], real ? 0 : spectrum[at + 1], spectrum[other + at], real ? 0 : spectrum[other + at + 1]];
        frequency[2 * k] = a - d;
        frequency[2 * k + 1] = b + c;
        if (real) continue;
        frequency[2 * (size - k)] = a + d;
        frequency[2 * (size - k) + 1] = c - b;
      }
      this.fft.inverseTransform(time, frequency);
      for (let n = 0, at = frame * this.hop; n < size; n++, at++) {
        left[at] += time[2 * n] * this.after[n];
        right[at] += time[2 * n + 1] * this.after[n];
      }
    }
  }
}
