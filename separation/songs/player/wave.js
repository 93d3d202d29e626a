/** The samples of a wav file on a server or in this page's memory, a piece at a time: files may be large. */
class Wave {
  constructor(address) {
    this.address = address;
    this.opened = this.open();
    this.opened.catch(() => {}); // whoever reads hears of it
  }

  /** Find the format and the samples: a file is a row of chunks, each with its name and its length. */
  async open() {
    let place = 12;
    for (;;) {
      const view = new DataView(await this.bytes(place, place + 40));
      if (view.byteLength < 8) throw new Error("no wav");
      const name = String.fromCharCode(...new Uint8Array(view.buffer, 0, 4));
      const size = view.getUint32(4, true);
      if (name === "fmt ") {
        const kind = view.getUint16(8, true);
        this.kind = kind === 0xfffe ? view.getUint16(32, true) : kind; // the extended format says it further on
        this.channels = view.getUint16(10, true);
        this.rate = view.getUint32(12, true);
        this.width = view.getUint16(22, true) / 8;
      }
      place += 8;
      if (name === "data") {
        this.decode = DECODERS[`${this.kind}/${this.width}`];
        if (!this.decode) throw new Error("a wav of another kind");
        this.start = place;
        this.length = Math.floor(size / (this.width * this.channels));
        return;
      }
      place += size + (size % 2);
    }
  }

  async bytes(from, to) {
    if (!this.whole) {
      const answer = await fetch(this.address, { headers: { Range: `bytes=${from}-${to - 1}` } });
      if (answer.status === 206) return answer.arrayBuffer();
      if (!answer.ok) throw new Error("gone");
      this.whole = await answer.blob(); // not every server gives parts
    }
    return this.whole.slice(from, to).arrayBuffer();
  }

  /** Samples `from` to `to` as an AudioBuffer of `context`; past the end there is silence. */
  async piece(context, from, to) {
    await this.opened;
    const buffer = context.createBuffer(this.channels, to - from, this.rate);
    const size = this.width * this.channels;
    const end = Math.min(to, this.length);
    if (from >= end) return buffer;
    const view = new DataView(await this.bytes(this.start + from * size, this.start + end * size));
    const count = Math.floor(view.byteLength / size); // fewer than asked for if the file was cut off
    for (let channel = 0; channel < this.channels; channel++) {
      const samples = buffer.getChannelData(channel);
      for (let n = 0; n < count; n++) samples[n] = this.decode(view, n * size + channel * this.width);
    }
    return buffer;
  }
}

const DECODERS = {
  "1/2": (view, place) => view.getInt16(place, true) / 0x8000,
  "1/3": (view, place) => (view.getInt16(place + 1, true) * 0x100 + view.getUint8(place)) / 0x800000,
  "1/4": (view, place) => view.getInt32(place, true) / 0x80000000,
  "3/4": (view, place) => view.getFloat32(place, true),
};
