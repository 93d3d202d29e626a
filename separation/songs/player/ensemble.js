"use strict";

/**
 * Audio elements that sound as one: started together, held while one of them is loading, nudged when one falls behind.
 *
 * A page on disk may not read files itself (browsers bar it from fetch and Web Audio there), so a stem is an audio
 * element, with a clock of its own. The others follow the first one's.
 */
class Ensemble {
  static LOOK = 100; // milliseconds between two looks at the clocks
  static SLACK = 0.004; // seconds apart that nobody hears
  static HOLD = 0.08; // seconds apart that take a new start together
  static SURE = 3; // looks in turn that make a difference true: clocks move in steps, and are read one by one

  /** `changed` is called when playing begins or ends, `failed` when an element cannot be played. */
  constructor(elements, changed, failed) {
    this.elements = elements;
    this.changed = changed;
    this.playing = false; // as the listener wants it
    this.sounding = false; // the elements are under way, not waiting for each other
    this.astray = new Map(); // looks in turn that found an element out of step
    this.left = new AbortController();
    for (const element of elements) {
      const on = (event, act) => element.addEventListener(event, act, { signal: this.left.signal });
      on("seeked", () => this.look());
      on("canplay", () => this.look());
      on("waiting", () => this.look());
      on("ended", () => this.look());
      on("error", () => (failed(), this.look()));
      element.preservesPitch = false; // a nudge then costs nothing, and is too small to be heard
      element.preload = "auto";
      element.src = element.dataset.src;
    }
  }

  get parts() {
    return this.elements.filter((element) => !element.error);
  }

  /** Seconds from the start. */
  get time() {
    return this.parts[0]?.currentTime ?? 0;
  }

  play() {
    if (this.parts[0]?.ended) this.seek(0);
    // Safari lets a script start an element later only if a click has started it once.
    for (const part of this.parts) part.play().catch(() => {}), part.pause();
    this.playing = true;
    this.timer ??= setInterval(() => this.look(), Ensemble.LOOK);
    this.changed();
    this.look();
  }

  pause() {
    this.playing = false;
    clearInterval(this.timer);
    this.timer = undefined;
    this.hold();
    this.changed();
  }

  seek(time) {
    if (this.sounding) this.hold();
    for (const part of this.parts) part.currentTime = time;
  }

  /** Let go of the files. */
  leave() {
    this.pause();
    this.left.abort();
    for (const element of this.elements) {
      element.removeAttribute("src");
      element.load();
    }
  }

  /** Do what is to be done now: start, hold, nudge, or stop. */
  look() {
    if (!this.playing) return;
    const parts = this.parts;
    if (!parts.length || parts[0].ended) this.pause();
    else if (parts.some((part) => !part.ended && (part.seeking || part.readyState < 3))) this.hold(); // loading
    else if (!this.sounding) this.start();
    else if (parts.some((part) => part.paused && !part.ended)) this.pause(); // the browser did, or a headset's button
    else for (const part of parts.slice(1)) this.follow(part, parts[0].currentTime);
  }

  start() {
    this.sounding = true;
    for (const part of this.parts) {
      part.playbackRate = 1;
      part.play().catch((error) => error.name === "NotAllowedError" && this.pause());
    }
  }

  hold() {
    this.sounding = false;
    for (const part of this.parts) part.pause();
    for (const part of this.parts) {
      if (!part.ended && Math.abs(part.currentTime - this.time) > Ensemble.SLACK) part.currentTime = this.time;
    }
  }

  follow(part, time) {
    if (part.ended) return;
    const late = time - part.currentTime;
    const looks = Math.abs(late) > Ensemble.SLACK ? (this.astray.get(part) ?? 0) + 1 : 0;
    this.astray.set(part, looks);
    if (!looks) part.playbackRate = 1;
    else if (looks < Ensemble.SURE) return;
    else if (Math.abs(late) > Ensemble.HOLD) this.hold();
    else part.playbackRate = 1 + late; // even within a second
  }
}
