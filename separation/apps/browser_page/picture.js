import { Stft } from "./stft.js";

const COLUMNS = 1024;
const BANDS = 96; // between these frequencies in hertz
const [LOWEST, HIGHEST] = [40, 20000];
const RANGE = 70; // dB from black to white; white is the loudest spot of all stems, if that is louder than `FAINT`
const FAINT = -60;
const SIZE = 4096;

/** The spectrogram of a stem that comes in blocks, drawn as `separation.songs.picture` draws it. */
export class Sketch {
  constructor(samples, rate) {
    this.hop = Math.min(Math.max(Math.floor(samples / (4 * COLUMNS)), SIZE / 8), SIZE);
    this.columns = Math.min(Math.max(Math.floor(samples / this.hop), 1), COLUMNS);
    this.samples = samples;
    this.stft = new Stft({ n_fft: SIZE, hop: this.hop });
    this.filters = melFilters(rate, this.stft.bins);
    this.sums = new Float64Array(BANDS * this.columns);
    this.counts = new Float64Array(this.columns);
    this.waiting = [new Float32Array(SIZE / 2), new Float32Array(SIZE / 2)]; // a frame shows the time at its middle
    this.frame = 0;
  }

  hear(block) {
    this.waiting = this.waiting.map((waiting, channel) => joined(waiting, block[channel]));
    const frames = 1 + Math.floor((this.waiting[0].length - SIZE) / this.hop);
    if (frames < 1) return;
    const spectrum = this.stft.analyse(...this.waiting, 0, frames);
    const half = spectrum.length / 2;
    for (let frame = 0; frame < frames; frame++, this.frame++) {
      const column = Math.min(Math.floor((this.frame * this.hop * this.columns) / this.samples), this.columns - 1);
      this.counts[column]++;
      this.filters.forEach(({ first, weights }, band) => {
        let power = 0;
        for (let n = 0, at = (frame * this.stft.bins + first) * 2; n < weights.length; n++, at += 2) {
          const left = spectrum[at] ** 2 + spectrum[at + 1] ** 2;
          const right = spectrum[half + at] ** 2 + spectrum[half + at + 1] ** 2;
          power += weights[n] * (left + right);
        }
        this.sums[band * this.columns + column] += (2 * power) / this.stft.energy;
      });
    }
    this.waiting = this.waiting.map((waiting) => waiting.slice(frames * this.hop));
  }

  /** Mean power of each band in each column: a sine at full scale has 1. */
  finish() {
    this.hear([new Float32Array(SIZE / 2), new Float32Array(SIZE / 2)]);
    return this.sums.map((sum, place) => sum / Math.max(this.counts[place % this.columns], 1));
  }
}

/** The sketches of a song's stems as grey pictures on one scale of brightness, low notes at the bottom. */
export async function paint(sketches) {
  const powers = sketches.map((sketch) => sketch.finish());
  const white = powers.reduce((most, power) => power.reduce((a, b) => Math.max(a, b), most), 10 ** (FAINT / 10));
  return Promise.all(
    powers.map((power, index) => {
      const columns = sketches[index].columns;
      const canvas = new OffscreenCanvas(columns, BANDS);
      const image = new ImageData(columns, BANDS);
      power.forEach((value, place) => {
        const level = 1 + (10 * Math.log10(Math.max(value / white, 1e-20))) / RANGE;
        const pixel = 4 * ((BANDS - 1 - Math.floor(place / columns)) * columns + (place % columns));
        image.data.fill(Math.round(255 * level), pixel, pixel + 3); // what is out of range is cut off there
        image.data[pixel + 3] = 255;
      });
      canvas.getContext("2d").putImageData(image, 0, 0);
      return canvas.convertToBlob({ type: "image/png" });
    }),
  );
}

/** Triangles evenly spaced on HTK's mel scale, as `separation.songs.picture` has them. */
function melFilters(rate, bins) {
  const mel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
  const hertz = (value) => 700 * (10 ** (value / 2595) - 1);
  const [low, high] = [mel(LOWEST), mel(Math.min(HIGHEST, rate / 2))];
  const edges = Array.from({ length: BANDS + 2 }, (_, n) => hertz(low + ((high - low) * n) / (BANDS + 1)));
  const bin = rate / SIZE;
  return Array.from({ length: BANDS }, (_, band) => {
    const [from, middle, to] = edges.slice(band, band + 3);
    const first = Math.ceil(from / bin);
    const weights = [];
    for (let k = first; k < bins && k * bin < to; k++) {
      weights.push(Math.min((k * bin - from) / (middle - from), (to - k * bin) / (to - middle)));
    }
    return { first, weights };
  });
}

function joined(one, other) {
  const both = new Float32Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
