import { Stft } from "./stft.js";

const CHUNK = 64; // frames separated at a time, a multiple of every network's stride

/**
 * Takes a song apart, chunk by chunk, as `separation.inference.stream` does.
 *
 * `facts` are the metadata of the network, `session` is ONNX Runtime's, `left` and `right` are Float32Arrays at the
 * network's sample rate. For each chunk `hear` is called with the stems as they go on: for each source
 * `[left, right]`. Together they are as long as the song. `tell` is called with the share that is done; when it answers
 * false the song is given up, and the result is false.
 */
export async function separate(ort, session, facts, left, right, hear, tell) {
  const { hop, n_fft: size } = facts.spectral;
  const stft = new Stft(facts.spectral);
  const padding = size - hop;
  const whole = (frames) => Math.ceil(frames / facts.stride) * facts.stride;
  const missing = facts.context + facts.lag;
  const frames = whole(Math.ceil((left.length + padding) / hop) + missing);
  const begin = facts.context * hop + padding;
  // The song stands in, mirrored, for what its first frames and its last ones depend on.
  const mirrored = Math.min(facts.context, facts.lag) * hop + padding;
  const song = [left, right].map((signal) => {
    const padded = new Float32Array(frames * hop + padding);
    padded.set(signal, begin);
    for (let n = 1; n <= mirrored; n++) padded[begin - n] = mirror(signal, n - 1);
    const end = signal.slice(-mirrored).reverse();
    for (let n = begin + signal.length; n < padded.length; n++) padded[n] = mirror(end, n - begin - signal.length);
    return padded;
  });
  // The last source is not computed but what the others leave of the song.
  const masked = facts.sources.slice(0, -1).map((source) => facts.targets.indexOf(source));
  const tails = masked.map(() => [new Float32Array(padding), new Float32Array(padding)]);
  let states = Object.fromEntries(
    Object.entries(facts.states).map(([name, shape]) => [name, zeros(ort, shape)]),
  );
  let done = -(missing * hop + padding); // samples that have come out; those before the song are dropped
  for (let first = 0; first < frames; first += CHUNK) {
    const count = Math.min(CHUNK, frames - first);
    const spectrum = stft.analyse(song[0], song[1], first * hop, count);
    const mixture = new ort.Tensor("float32", spectrum, [2, count, stft.bins, 2]);
    const results = await session.run({ mixture, ...states });
    const targets = results.targets.data;
    states = Object.fromEntries(Object.keys(states).map((name) => [name, results[`next_${name}`]]));

    const from = Math.max(0, -done);
    const until = Math.min(count * hop, left.length - done);
    const stems = masked.map((target, index) => {
      const signals = tails[index].map((tail) => {
        const signal = new Float32Array(count * hop + padding);
        signal.set(tail);
        return signal;
      });
      stft.synthesise(targets, target * 2 * count * stft.bins * 2, count, ...signals);
      tails[index] = signals.map((signal) => signal.slice(count * hop));
      return signals.map((signal) => signal.subarray(from, Math.max(from, until)));
    });
    if (until > from) {
      const place = done + from;
      const rest = [left, right].map((signal, channel) => {
        const remaining = signal.slice(place, place + until - from);
        for (const stem of stems) stem[channel].forEach((sample, n) => (remaining[n] -= sample));
        return remaining;
      });
      hear([...stems, rest]);
    }
    done += count * hop;
    if ((await tell((first + count) / frames)) === false) return false;
  }
  return true;
}

/** Sample `n` of a signal that goes on by its mirror image, over and over. */
function mirror(signal, n) {
  const place = n % (2 * signal.length);
  return signal[place < signal.length ? place : 2 * signal.length - 1 - place];
}

function zeros(ort, shape) {
  return new ort.Tensor("float32", new Float32Array(shape.reduce((product, size) => product * size, 1)), shape);
}
