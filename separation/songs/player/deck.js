/**
 * Wav files that sound as one, to the sample: their pieces are handed to one clock, that of Web Audio, each for the
 * moment at which the one before ends. What has not arrived in time stops all of them.
 *
 * For pages that may read files. Else, and for other formats, there is `Ensemble`, which has the same face.
 */
class Deck {
  static PIECE = 1; // seconds read at a time
  static AHEAD = 6; // seconds that are handed over before they sound
  static SOON = 0.05; // seconds until what is begun sounds
  static RATES = [8000, 96000]; // what every browser has
  static keeper = null; // plays silence while a song plays: see `keep`

  static plays(stems, rate) {
    const [least, most] = Deck.RATES;
    return Channel.possible && rate >= least && rate <= most && stems.every((stem) => stem.format === "wav");
  }

  /** `changed` is called when playing begins or ends, `failed` with the stems that cannot be read. */
  constructor(stems, rate, changed, failed) {
    this.context = Channel.contextOf(rate);
    this.rate = rate;
    this.tracks = stems.map((stem) => ({ stem, wave: new Wave(stem.audio.dataset.src), sources: new Set() }));
    this.changed = changed;
    this.failed = failed;
    this.playing = false; // as the listener wants it
    this.at = 0; // seconds, while nothing sounds
    this.turn = null; // of the pieces that are being handed over: after a jump there is a new one
  }

  /** Seconds from the start. */
  get time() {
    const { zero = null, from, next } = this.turn ?? {};
    return zero === null ? this.at : Math.max(Math.min(this.context.currentTime, next) - zero, from);
  }

  play() {
    this.playing = true;
    this.begin(this.at);
    this.changed();
  }

  pause() {
    this.hold();
    this.playing = false;
    Deck.keeper?.pause();
    this.changed();
  }

  seek(time) {
    this.hold();
    this.at = time;
    if (this.playing) this.begin(time);
  }

  /** Let go of the files. */
  leave() {
    this.pause();
  }

  hold() {
    this.at = this.time;
    this.turn = null;
    for (const { sources } of this.tracks) {
      for (const source of sources) source.stop();
      sources.clear();
    }
  }

  /** Hand over one piece after the other, from `time` on to the end. */
  async begin(time) {
    const turn = (this.turn = { from: time, zero: null, next: 0 });
    Deck.keep();
    try {
      await Promise.all(this.tracks.map(({ wave }) => wave.opened));
      const length = Math.max(...this.tracks.map(({ wave }) => wave.length));
      if (time * this.rate >= length - 1) turn.from = time = 0; // it had ended
      for (let place = Math.floor(time * this.rate); place < length; ) {
        const end = Math.min(place + Deck.PIECE * this.rate, length);
        const pieces = await Promise.all(this.tracks.map(({ wave }) => wave.piece(this.context, place, end)));
        if (this.turn !== turn) return;
        if (turn.zero === null || this.context.currentTime > turn.next) {
          // The first piece, or one that comes too late: all begin anew from here.
          turn.from = place / this.rate;
          turn.next = this.context.currentTime + Deck.SOON;
          turn.zero = turn.next - turn.from;
        }
        pieces.forEach((piece, index) => this.hand(this.tracks[index], piece, turn.next));
        turn.next += (end - place) / this.rate;
        place = end;
        await this.reach(turn, turn.next - Deck.AHEAD);
      }
      await this.reach(turn, turn.next);
      if (this.turn !== turn) return;
      this.pause();
    } catch {
      if (this.turn !== turn) return;
      this.pause();
      const opened = await Promise.allSettled(this.tracks.map(({ wave }) => wave.opened));
      const gone = this.tracks.filter((_, index) => opened[index].status === "rejected");
      this.failed((gone.length ? gone : this.tracks).map(({ stem }) => stem));
    }
  }

  hand({ stem, sources }, piece, when) {
    const source = this.context.createBufferSource();
    source.buffer = piece;
    source.connect(stem.channel.fader);
    source.addEventListener("ended", () => sources.delete(source));
    sources.add(source);
    source.start(when);
  }

  /** Wait until the clock shows `moment`, or for a new turn. */
  async reach(turn, moment) {
    while (this.turn === turn && this.context.currentTime < moment) await new Promise((done) => setTimeout(done, 100));
  }

  /** Browsers give the buttons of a headset, and sound to a phone that is set to silent, only to audio elements. */
  static keep() {
    Deck.keeper ??= new Audio(URL.createObjectURL(wav(new Int16Array(8 * 8000), 1, 8000)));
    Deck.keeper.loop = true;
    Deck.keeper.play().catch(() => {});
  }
}
