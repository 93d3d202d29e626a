/** Where songs come apart: off the page's thread, one after the other. */
import * as ort from "./vendor/ort.wasm.min.mjs";
import { Sketch, paint } from "./picture.js";
import { Samples } from "./samples.js";
import { separate } from "./separation.js";

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
// Several threads need memory that they share, which browsers give only to isolated pages.
const limit = Number(new URL(import.meta.url).searchParams.get("threads")) || navigator.hardwareConcurrency;
ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(limit, 8) : 1;

const networks = new Map();
const cancelled = new Set();
let last = Promise.resolve();

onmessage = ({ data: { cancel, ...song } }) => {
  if (cancel !== undefined) cancelled.add(cancel);
  else last = last.then(() => run(song));
};

async function run({ id, network: name, channels }) {
  try {
    if (cancelled.has(id)) return;
    if (!networks.has(name)) networks.set(name, await open(name));
    const { facts, session } = networks.get(name);
    const [left, right = left] = channels;
    const rate = facts.spectral.sample_rate;
    const signals = facts.sources.map(() => new Samples(left.length, channels.length));
    const sketches = facts.sources.map(() => new Sketch(left.length, rate));
    const hear = (stems) =>
      stems.forEach((stem, index) => {
        signals[index].write(stem);
        sketches[index].hear(stem);
      });
    const tell = async (share) => {
      postMessage({ id, progress: share });
      await new Promise((resume) => setTimeout(resume)); // a word to give the song up comes in between
      return !cancelled.has(id);
    };
    const started = performance.now();
    if (!(await separate(ort, session, facts, left, right, hear, tell))) return;
    const pictures = await paint(sketches);
    const stems = facts.sources.map((name, n) => ({ name, samples: signals[n].values, picture: pictures[n] }));
    const seconds = { song: left.length / rate, took: (performance.now() - started) / 1000 };
    const beyond = signals.reduce((sum, signal) => sum + signal.beyond, 0);
    postMessage(
      { id, stems, channels: channels.length, seconds, beyond, threads: ort.env.wasm.numThreads },
      signals.map(({ values }) => values.buffer),
    );
  } catch (error) {
    const memory = error instanceof RangeError || /memory/i.test(error.message);
    postMessage({ id, error: memory ? "it is too long for this browser's memory: cut it into parts first." : String(error.message ?? error) });
  } finally {
    cancelled.delete(id);
  }
}

/** A network: ONNX Runtime's session, and the facts that lie beside the file. */
async function open(name) {
  const load = async (file) => {
    const answer = await fetch(new URL(file, import.meta.url)).catch(() => null);
    if (!answer?.ok) throw new Error("the network cannot be loaded: is the server still there?");
    return answer;
  };
  const facts = await (await load(`${name}.json`)).json();
  const session = await ort.InferenceSession.create(new Uint8Array(await (await load(`${name}.onnx`)).arrayBuffer()), {
    executionProviders: ["wasm"],
  });
  return { facts, session };
}
