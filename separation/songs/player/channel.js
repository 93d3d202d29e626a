/**
 * The sound of a stem on its way through Web Audio: its gain, which phones that leave the volume of an audio element
 * alone obey as well, and how loud it is at this moment.
 *
 * A page on disk has none of it: there browsers give Web Audio silence in place of a file.
 */
class Channel {
  static contexts = new Map(); // by sample rate: all songs of a rate share one, for browsers give only a few
  static possible = location.protocol !== "file:" && "AudioContext" in window;
  static FLOOR = -48; // dB below full scale at which a meter is empty

  /** The context of a sample rate, by default the device's: at the songs' own, pieces join without a seam. */
  static contextOf(sampleRate) {
    const context = Channel.contexts.get(sampleRate) ?? new AudioContext({ latencyHint: "playback", sampleRate });
    Channel.contexts.set(sampleRate, context);
    return context;
  }

  constructor(context) {
    this.context = context;
    this.fader = context.createGain();
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 2048;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.fader.connect(this.analyser).connect(context.destination);
  }

  /** Take up the sound of an audio element, for good. */
  carry(element) {
    this.context.createMediaElementSource(element).connect(this.fader);
  }

  /** Browsers start a context when a click asks for it. */
  wake() {
    this.context.resume();
  }

  set gain(gain) {
    this.fader.gain.setTargetAtTime(gain, this.context.currentTime, 0.01); // a jump would click
  }

  /** The peak of the last 2,048 samples, from 0 (`FLOOR` or less) to 1 (full scale). */
  get level() {
    this.analyser.getFloatTimeDomainData(this.samples);
    const peak = this.samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    return peak ? Math.min(Math.max(1 - (20 * Math.log10(peak)) / Channel.FLOOR, 0), 1) : 0;
  }
}
