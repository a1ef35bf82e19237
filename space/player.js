/* One recording on one scale: waveform, a lane a speaker, turns or words. Its data come from space/player.py.
   Everything a person wrote is put on the page as text, never as HTML. */
(() => {
  const COLOURS = [
    "#3b76d9", "#e0662f", "#2e9e5b", "#b5469b", "#9a7a00", "#0e93a3", "#c43c4c", "#6d5bd0", "#6b7a89", "#a0622d",
  ];
  const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const TICK_PIXELS = 64, CLOSEST_PIXELS = 120, SKIP_SECONDS = 5, LONGEST_NAME = 60, MOST_ACTIVE = 20;

  const colour = (speaker) => COLOURS[speaker.slot % COLOURS.length];

  function clock(seconds, decimals = 0) {
    const rounded = Number(seconds.toFixed(decimals));
    const hours = Math.floor(rounded / 3600), minutes = Math.floor(rounded / 60) % 60;
    const rest = (rounded % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, "0");
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  }

  function element(tag, properties = {}, ...children) {
    const { style = {}, ...others } = properties;
    const made = Object.assign(document.createElement(tag), others);
    for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const dot = (speaker) => element("span", { className: "dot", style: { background: colour(speaker) } });
  const facts = (text) => element("span", { className: "facts", textContent: text });
  const option = (text, value) => element("option", { textContent: text, value });

  function decoded(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  /* Of items [start, end, ...] by start, those at a time; of the many before it only the last are looked at. */
  function active(items, time) {
    let low = 0, high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle][0] <= time) low = middle + 1;
      else high = middle;
    }
    return items.slice(Math.max(0, low - MOST_ACTIVE), low).filter((item) => time < item[1]);
  }

  class DiarizedRecording extends HTMLElement {
    static observedAttributes = ["data"];

    constructor() {
      super();
      this.attachShadow({ mode: "open" });
      Object.assign(this, { at: 0, zoom: 1, from: 0, chosen: null, sound: null, until: null });
      this.resized = new ResizeObserver(() => this.place());
    }

    connectedCallback() {
      this.show();
    }

    disconnectedCallback() {
      this.resized.disconnect();
      this.sound?.pause();
    }

    attributeChangedCallback() {
      if (this.isConnected) this.show();
    }

    show() {
      const text = new TextDecoder().decode(decoded(this.getAttribute("data")));
      const scrolled = this.list?.scrollTop ?? 0;
      this.data = JSON.parse(text);
      this.peaks = decoded(this.data.peaks);
      Object.assign(this, { marked: [], timed: [], spoken: [] });
      this.load(this.data.sound);
      if (!this.data.turns.some((turn) => this.isChosen(turn))) this.chosen = null;
      this.stage = element("div", { className: "stage", tabIndex: 0, role: "slider" }, ...this.rows());
      this.stage.setAttribute("aria-label", "Position in the recording");
      this.list = this.data.live ? null : this.data.lines ? this.transcript() : this.turnList();
      this.strip = element("div", { className: "strip" });
      this.shadowRoot.replaceChildren(
        element("style", { textContent: PLAYER_STYLE }),
        ...(this.data.live ? [this.stage] : [this.toolbar(), this.stage, this.panned(), this.strip, this.list]));
      if (this.list) this.list.scrollTop = scrolled;
      this.listen();
      this.showStrip();
      this.place();
    }

    /* ---- sound ---- */

    load(address) {
      if (this.sound?.getAttribute("src") === address) return;
      this.sound?.pause();
      Object.assign(this, { sound: null, at: 0, zoom: 1, from: 0, chosen: null, until: null });
      if (!address) return;
      this.sound = element("audio", { preload: "metadata" });
      this.sound.setAttribute("src", address);
      for (const name of ["play", "pause", "ended"]) this.sound.addEventListener(name, () => this.follow());
      this.sound.addEventListener("seeked", () => { this.at = this.sound.currentTime; this.mark(); });
      const gone = "The sound is deleted by now; upload the recording again to hear it.";
      this.sound.addEventListener("error", () => this.tell(gone));
    }

    tell(text) {
      if (this.message) this.message.textContent = text;
    }

    follow() {
      const playing = this.sound && !this.sound.paused;
      if (this.play) {
        this.play.classList.toggle("playing", Boolean(playing));
        this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
      }
      if (!playing) return;
      this.at = this.sound.currentTime;
      if (this.until !== null && this.at >= this.until) {
        this.until = null;
        this.sound.pause();
      }
      this.keepInView();
      this.mark();
      requestAnimationFrame(() => this.follow());
    }

    toggle() {
      if (!this.sound) return;
      this.until = null;
      if (this.sound.paused) this.start();
      else this.sound.pause();
    }

    start() {
      this.tell("");
      this.sound.play().catch(() => {}); // why is told by the event "error"
    }

    seek(seconds) {
      this.at = Math.min(Math.max(seconds, 0), this.data.end);
      this.until = null;
      if (this.sound) this.sound.currentTime = this.at;
      this.keepInView();
      this.mark();
    }

    playTurn([start, end]) {
      this.seek(start);
      this.until = end;
      if (this.sound) this.start();
    }

    /* ---- what is drawn ---- */

    toolbar() {
      this.play = element("button", { className: "play", onclick: () => this.toggle() });
      this.play.setAttribute("aria-label", "Play");
      this.time = element("span", { className: "time" });
      this.message = element("span", { className: "message", role: "status" });
      const zoomed = (by) => () => this.magnify(this.zoom * by);
      const button = (text, title, onclick) => element("button", { textContent: text, title, onclick });
      const back = () => this.edit({ do: "undo" });
      const undo = this.data.undo ? button("Undo", "Take the last change back", back) : null;
      return element("div", { className: "toolbar" },
        this.data.sound ? this.play : null, this.time, this.message, undo,
        button("\u2212", "Show more of the recording", zoomed(1 / 2)), button("+", "Look closer", zoomed(2)));
    }

    rows() {
      this.wave = element("canvas", { className: "wave" });
      this.axis = element("div", { className: "axis" });
      const lanes = this.data.speakers.flatMap((speaker, row) => [this.heading(speaker), this.lane(row)]);
      const track = (size, content) =>
        [element("div", { className: "gutter" }), element("div", { className: `track ${size}` }, content)];
      return [...(this.peaks.length ? track("tall", this.wave) : []), ...lanes, ...track("low", this.axis)];
    }

    lane(row) {
      const speaker = this.data.speakers[row], span = this.data.end - this.data.begin;
      const bars = this.data.turns.filter((turn) => turn[2] === row).map((turn) => {
        const start = Math.max(turn[0], this.data.begin);
        return element("i", {
          title: `${speaker.name}, ${clock(turn[0], 1)} to ${clock(turn[1], 1)}`, turn,
          className: this.isChosen(turn) ? "chosen" : "",
          style: {
            left: `${100 * (start - this.data.begin) / span}%`, width: `${100 * (turn[1] - start) / span}%`,
            background: colour(speaker), opacity: 0.45 + 0.55 * turn[3],
          },
        });
      });
      return element("div", { className: "track lane" }, element("div", { className: "inner" }, ...bars));
    }

    heading(speaker) {
      const named = { className: "name", textContent: speaker.name };
      if (this.data.live) return element("div", { className: "heading" }, dot(speaker), element("span", named));
      const title = `${speaker.name}: rename or merge`;
      const name = element("button", { ...named, title, onclick: () => this.showRenaming(speaker) });
      const percent = Math.round(100 * speaker.share);
      const share = element("span", { className: "share", title: `${percent} % of all speech` },
        element("i", { style: { width: `${percent}%`, background: colour(speaker) } }));
      const turns = `${speaker.turns} turn${speaker.turns === 1 ? "" : "s"}`;
      const talk = facts(`${percent} % \u00b7 ${clock(speaker.seconds)} \u00b7 ${turns}`);
      talk.title = "Share of all speech, time, and turns: speech until somebody else speaks";
      return element("div", { className: "heading" }, dot(speaker), name, share, talk);
    }

    showRenaming(speaker) {
      this.choose(null);
      const others = this.data.speakers.filter((other) => other !== speaker);
      const send = (to) => this.edit({ do: "rename", speaker: speaker.name, to });
      const input = element("input", { value: speaker.name, maxLength: LONGEST_NAME });
      input.setAttribute("aria-label", `New name of ${speaker.name}`);
      const merge = element("select", { className: "merge", onchange: () => send(merge.value) },
        option("or merge with \u2026", ""), ...others.map((other) => option(other.name, other.name)));
      const form = element("form", {
        className: "renaming",
        onkeydown: (event) => { if (event.key === "Escape") this.showStrip(); },
        onsubmit: (event) => {
          event.preventDefault();
          if (input.value.trim()) send(input.value);
          else this.showStrip();
        },
      }, dot(speaker), facts("Name"), input, element("button", { className: "apply", textContent: "Rename" }),
      others.length ? merge : null,
      element("button", { type: "button", textContent: "Cancel", onclick: () => this.showStrip() }));
      this.strip.replaceChildren(form);
      input.select();
    }

    panned() {
      this.pan = element("div", { className: "pan", onscroll: () => {
        const from = this.pan.scrollLeft / this.pan.scrollWidth;
        if (Math.abs(from - this.from) * this.pan.scrollWidth >= 1) { this.from = from; this.place(); }
      } }, element("div"));
      return this.pan;
    }

    turnList() {
      const rows = this.data.turns.map((turn) => {
        const speaker = this.data.speakers[turn[2]];
        return this.line(speaker, turn, facts(`${(turn[1] - turn[0]).toFixed(1)} s`));
      });
      return element("div", { className: "list" }, ...rows);
    }

    transcript() {
      const rows = this.data.lines.map(([row, words]) => {
        const spans = words.map(([start, end, text]) => {
          const onclick = () => this.seek(start);
          const span = element("span", { className: "word", textContent: text, title: clock(start, 1), onclick });
          this.spoken.push([start, end, span]);
          return span;
        });
        const end = Math.max(...words.map((word) => word[1]));
        return this.line(this.data.speakers[row], [words[0][0], end], element("p", {}, ...spans));
      });
      return element("div", { className: "list" }, ...rows);
    }

    line(speaker, turn, said) {
      const readable = speaker && `color-mix(in srgb, ${colour(speaker)} 75%, var(--body-text-color, #222))`;
      const style = { color: readable ?? "inherit" };
      const name = element("b", { textContent: speaker?.name ?? "", style });
      const onclick = () => { this.choose(turn); this.playTurn(turn); };
      const textContent = clock(turn[0]), title = "Hear this turn";
      const hear = element("button", { className: "hear", textContent, title, onclick });
      const made = element("div", { className: "line" }, hear, name, said);
      this.timed.push([turn[0], turn[1], made]);
      return made;
    }

    /* ---- one turn, to be given to somebody else ---- */

    isChosen(turn) {
      return this.chosen !== null && turn[0] === this.chosen[0] && this.data.speakers[turn[2]]?.name === this.chosen[1];
    }

    choose(turn) {
      const speaker = this.data.speakers[turn?.[2]];
      this.chosen = speaker ? [turn[0], speaker.name] : null;
      const bars = this.stage.querySelectorAll(".inner i");
      for (const bar of bars) bar.classList.toggle("chosen", this.isChosen(bar.turn));
      this.showStrip();
    }

    showStrip() {
      const turn = this.data.turns.find((turn) => this.isChosen(turn));
      this.strip.replaceChildren();
      if (!turn || this.data.live) return;
      const [start, end, row] = turn, speaker = this.data.speakers[row];
      const scopes = {
        turn: () => [start, end], rest: () => [Math.max(this.at, start), end], later: () => [start, this.data.end],
      };
      const scope = element("select", {}, option("this turn", "turn"), option("this turn from the cursor on", "rest"),
        option(`${speaker.name} from here on`, "later"));
      scope.setAttribute("aria-label", "What to give");
      const others = this.data.speakers.filter((other) => other !== speaker);
      const names = others.map((other) => option(other.name, other.name));
      const to = element("select", {}, ...names, option("a new speaker", ""));
      to.setAttribute("aria-label", "Whom to give it to");
      const give = () => {
        const [first, last] = scopes[scope.value]();
        this.edit({ do: "give", speaker: speaker.name, start: first, end: last, to: to.value });
      };
      const hear = element("button", { textContent: "Hear", onclick: () => this.playTurn(turn) });
      this.strip.append(
        dot(speaker), element("b", { textContent: speaker.name }), facts(`${clock(start, 1)} \u2013 ${clock(end, 1)}`),
        ...(this.data.sound ? [hear] : []), facts("Give"), scope, facts("to"), to,
        element("button", { className: "apply", textContent: "Apply", onclick: give }));
    }

    edit(detail) {
      this.dispatchEvent(new CustomEvent("edit", { detail, bubbles: true, composed: true }));
    }

    /* ---- scale and cursor ---- */

    listen() {
      this.stage.onclick = (event) => {
        const track = event.target.closest(".track");
        if (!track || this.data.live) return;
        const box = track.getBoundingClientRect();
        this.seek(this.data.end * (this.from + (event.clientX - box.left) / box.width / this.zoom));
        this.choose(event.target.turn ?? null);
      };
      this.stage.onkeydown = (event) => {
        if (event.target !== this.stage || this.data.live) return;
        const keys = {
          ArrowLeft: () => this.seek(this.at - SKIP_SECONDS),
          ArrowRight: () => this.seek(this.at + SKIP_SECONDS),
          Home: () => this.seek(0), End: () => this.seek(this.data.end), " ": () => this.toggle(),
        };
        if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
      };
      this.stage.onwheel = (event) => {
        if (!event.deltaX || this.zoom === 1) return;
        event.preventDefault();
        this.pan.scrollLeft += event.deltaX;
      };
      this.resized.disconnect();
      this.resized.observe(this.axis);
    }

    magnify(zoom) {
      const closest = Math.max(1, this.data.end * CLOSEST_PIXELS / Math.max(this.axis.clientWidth, 1));
      this.zoom = Math.min(Math.max(zoom, 1), closest);
      this.from = Math.min(Math.max(this.at / this.data.end - 0.5 / this.zoom, 0), 1 - 1 / this.zoom);
      this.place();
    }

    keepInView() {
      const fraction = this.at / this.data.end;
      if (this.data.live || (fraction >= this.from && fraction <= this.from + 1 / this.zoom)) return;
      this.from = Math.min(Math.max(fraction - 0.1 / this.zoom, 0), 1 - 1 / this.zoom);
      this.place();
    }

    place() {
      if (!this.axis?.clientWidth) return;
      this.stage.style.setProperty("--zoom", this.zoom);
      this.stage.style.setProperty("--from", this.from);
      if (this.pan) {
        this.pan.hidden = this.zoom === 1;
        this.pan.firstChild.style.width = `${100 * this.zoom}%`;
        this.pan.scrollLeft = this.from * this.pan.scrollWidth;
      }
      this.drawAxis();
      this.drawWave();
      this.mark();
    }

    visible() {
      const span = (this.data.end - this.data.begin) / this.zoom, begin = this.data.begin + this.from * this.data.end;
      return [begin, Math.max(span, 1e-3)];
    }

    drawAxis() {
      const [begin, span] = this.visible(), width = this.axis.clientWidth;
      const step = TICKS.find((tick) => tick / span * width >= TICK_PIXELS) ?? TICKS.at(-1);
      const marks = [];
      for (let tick = Math.ceil(begin / step); tick * step <= begin + span; tick++) {
        const fraction = (tick * step - begin) / span;
        const className = fraction * width < 16 ? "first" : fraction * width > width - 16 ? "last" : "";
        const textContent = clock(tick * step, step < 1 ? 1 : 0);
        marks.push(element("span", { textContent, className, style: { left: `${100 * fraction}%` } }));
      }
      this.axis.replaceChildren(...marks);
    }

    drawWave() {
      if (!this.peaks.length) return;
      const density = devicePixelRatio, width = this.wave.clientWidth, height = this.wave.clientHeight;
      Object.assign(this.wave, { width: width * density, height: height * density });
      const context = this.wave.getContext("2d"), [begin, span] = this.visible();
      context.scale(density, density);
      const silent = getComputedStyle(this.stage).getPropertyValue("--silent"), step = 3;
      for (let x = 0; x < width; x += step) {
        const start = begin + span * x / width, end = begin + span * (x + step) / width;
        const first = Math.floor(this.peaks.length * start / this.data.end);
        const last = Math.max(first + 1, Math.floor(this.peaks.length * end / this.data.end));
        const loud = this.peaks.subarray(first, last).reduce((most, peak) => Math.max(most, peak), 0) / 255;
        const bar = Math.max(1.5, loud * (height - 4));
        const times = [(start + end) / 2, end, start];
        context.fillStyle = times.map((time) => this.speaking(time)).find(Boolean) ?? silent;
        context.fillRect(x, (height - bar) / 2, step - 1, bar);
      }
    }

    speaking(time) {
      const turn = active(this.data.turns, time).at(-1);
      return turn ? colour(this.data.speakers[turn[2]]) : null;
    }

    mark() {
      if (this.data.live) return;
      const [begin, span] = this.visible();
      this.stage.style.setProperty("--at", (this.at - begin) / span);
      this.stage.setAttribute("aria-valuemax", this.data.end.toFixed(1));
      this.stage.setAttribute("aria-valuenow", this.at.toFixed(1));
      this.stage.setAttribute("aria-valuetext", clock(this.at));
      this.time.textContent = `${clock(this.at)} / ${clock(this.data.end)}`;
      for (const node of this.marked) node.classList.remove("now");
      this.marked = [...active(this.timed, this.at), ...active(this.spoken, this.at)].map((item) => item[2]);
      for (const node of this.marked) node.classList.add("now");
    }
  }

  customElements.define("diarized-recording", DiarizedRecording);
})();
