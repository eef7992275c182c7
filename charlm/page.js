"use strict";

// The page: a form, a text and what else each part of it might have been. What writes is `engine`:
//   write(request, signal)  yields lists of symbols, each { token, nats, likeliest: [[token, log probability], ...] };
//                           a list may have `warnings`, about the prompt
//   ready()                 { ready, status }: whether it can write at once, and that in words; where there is a server
//   command(request)        the request as a command line; where there is a server
// A token is a text, or "bytes:\xe4\xb8" where it is only a part of a character.
const at = id => document.getElementById(id);
const ALTERNATIVES = 5, SHADES = 15, BITS_TO_SHADES = 2;
const knobs = [...document.querySelectorAll("[data-knob]")];  // of the samplers
let running = null;

const request = () => ({
  prompt: at("prompt").value, max_tokens: +at("length").value, seed: +at("seed").value, logprobs: ALTERNATIVES,
  ...Object.fromEntries(knobs.map(({ id, value }) => [id, +value])), ...(at("before").value && { stop: at("before").value }),
});
const counted = count => `${count.toLocaleString("en")} ${at("main").dataset.symbol}${count === 1 ? "" : "s"}`;

// ---- Tokens as text.

const bytesOf = token => /^bytes:(\\x[0-9a-f]{2})+$/.test(token)
  ? Uint8Array.from(token.slice(8).split("\\x"), hex => parseInt(hex, 16)) : new TextEncoder().encode(token);

// Makes parts of a text out of symbols: one of each, or one of several where they are parts of a character.
function joiner() {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let part = null;
  return ({ token, nats, likeliest }) => {
    part ??= { nats: 0, likeliest };
    part.nats += nats;
    const text = decoder.decode(bytesOf(token), { stream: true });
    if (!text) return [];
    const made = { ...part, text };
    part = null;
    return [made];
  };
}

function named(token) {
  const names = { " ": "space", "\n": "line end", "\t": "tab", "\ufffd": "what it never saw" };
  const code = () => `U+${token.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  if (token in names) return names[token];
  if (token.startsWith("bytes:\\x")) return `byte ${token.slice(8).toUpperCase().replaceAll("\\X", " ")}`;
  if (/^[\p{C}\p{Z}]$/u.test(token)) return code();
  return (/^\p{M}/u.test(token) ? "\u25cc" + token : token).replaceAll("\n", "\u21b5");
}

const percent = p => `${(100 * p).toFixed(1)} %`;

// ---- The text: one text node, so that letters join and a screen reader reads it whole; shades are highlights over it.

const text = at("text"), node = text.appendChild(document.createTextNode(""));
const colours = new Map();  // highlights by name, where the browser has them
let parts = [], current = -1;

for (const name of ["prompt", ...Array.from({ length: SHADES }, (_, n) => `shade-${n + 1}`), "looked-at"]) {
  if (globalThis.Highlight) CSS.highlights.set(name, colours.set(name, new Highlight()).get(name));
}
const shaded = rule => Array.from({ length: SHADES }, (_, n) => `::highlight(shade-${n + 1}) { ${rule(n + 1)} }`).join("\n");
document.head.append(Object.assign(document.createElement("style"), {
  textContent: `${shaded(n => `background-color: color-mix(in srgb, var(--tint) ${5 * n}%, transparent);`)}
@media (forced-colors: active) { ${shaded(n => `background-color: transparent; text-decoration: underline ${n / 4}px;`)} }`,
}));

const stretch = (startOffset, endOffset) => new StaticRange({ startContainer: node, startOffset, endContainer: node, endOffset });
const boxes = ({ from, to }) => {
  const range = document.createRange();
  range.setStart(node, from);
  range.setEnd(node, to);
  return [...range.getClientRects()];
};

function begin(prompt) {
  parts = [];
  look(-1);
  for (const colour of colours.values()) colour.clear();
  node.data = prompt;
  colours.get("prompt")?.add(stretch(0, prompt.length));
  at("openings").hidden = true;
}

function append(added) {
  let from = node.length;
  node.appendData(added.map(part => part.text).join(""));
  for (const part of added) {
    const shade = Math.min(SHADES, Math.round(BITS_TO_SHADES * part.nats / Math.LN2)), to = from + part.text.length;
    colours.get(`shade-${shade}`)?.add(stretch(from, to));
    parts.push({ ...part, from, to });
    from = to;
  }
}

// ---- What else a part might have been.

function look(n, aloud = false) {
  current = n;
  const part = parts[n];
  at("hint").hidden = !part;
  colours.get("looked-at")?.clear();
  if (!part) return;
  colours.get("looked-at")?.add(stretch(part.from, part.to));
  const { text, nats, likeliest } = part, p = percent(Math.exp(-nats));
  const others = likeliest.toSorted((a, b) => b[1] - a[1]).map(([token, log]) => [percent(Math.exp(log)), named(token), token === text]);
  if (!others.some(([, , drawn]) => drawn)) others.push([p, named(text), true]);
  at("hint").replaceChildren(...others.map(([p, name, drawn]) => {
    const row = Object.assign(document.createElement("div"), { textContent: `${p.padStart(7)}  `, className: drawn ? "drawn" : "" });
    row.append(Object.assign(document.createElement("bdi"), { textContent: name }));
    return row;
  }));
  if (aloud) {
    const rest = others.filter(([, , drawn]) => !drawn).map(([p, name]) => `${name} ${p}`).join(", ");
    at("said").textContent = `${named(text)}, ${p}. Others: ${rest}.`;
  }
  place(boxes(part));
}

function place([box]) {
  const { offsetWidth, offsetHeight } = at("hint"), room = document.documentElement;
  if (!box) return;
  const below = box.bottom + 4 + offsetHeight <= room.clientHeight || box.top < offsetHeight + 4;
  at("hint").style.left = `${Math.max(8, Math.min(box.left, room.clientWidth - offsetWidth - 8)) + scrollX}px`;
  at("hint").style.top = `${(below ? box.bottom + 4 : box.top - offsetHeight - 4) + scrollY}px`;
}

// The index of the part at a point of the window, -1 if there is none.
function partAt(x, y) {
  const caret = document.caretPositionFromPoint?.(x, y) ?? document.caretRangeFromPoint?.(x, y);
  const offset = caret?.offset ?? caret?.startOffset;
  if ((caret?.offsetNode ?? caret?.startContainer) !== node) return -1;
  const after = parts.findIndex(({ to }) => to > offset), first = after < 0 ? parts.length - 1 : after;
  const inside = n => parts[n] && boxes(parts[n]).some(box => box.left <= x && x < box.right && box.top <= y && y < box.bottom);
  return [first, first - 1, first + 1].find(inside) ?? -1;
}

function move(key) {
  const forward = getComputedStyle(text).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  const [box] = parts[current] ? boxes(parts[current]) : [], middle = box && (box.left + box.right) / 2;
  if (key === "Home") return 0;
  if (key === "End") return parts.length - 1;
  if (key === "ArrowLeft" || key === "ArrowRight") return Math.min(parts.length - 1, Math.max(0, current + (key === forward ? 1 : -1)));
  if (!box) return 0;
  const height = box.bottom - box.top, step = key === "ArrowUp" ? -1 : 1;
  for (let y = box.top + height / 2 + step * 1.5 * height, tries = 0; tries < 3; tries++, y += step * height) {
    const found = partAt(middle, y);
    if (found >= 0) return found;
  }
  return -1;
}

text.addEventListener("keydown", event => {
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key) || !parts.length) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const found = move(event.key);
  if (found < 0) return;
  event.preventDefault();
  look(found, true);
  const [box] = boxes(parts[found]), room = document.documentElement.clientHeight;
  if (box && (box.top < 0 || box.bottom > room)) scrollBy(0, box.top - room / 2);
  if (box) place(boxes(parts[found]));
});
text.addEventListener("pointermove", event => { if (event.pointerType === "mouse") look(partAt(event.clientX, event.clientY)); });
text.addEventListener("pointerleave", event => { if (event.pointerType === "mouse" && document.activeElement !== text) look(-1); });
text.addEventListener("blur", () => look(-1));
addEventListener("click", event => look(text.contains(event.target) ? partAt(event.clientX, event.clientY) : -1));

// ---- Writing.

function warn(error) {
  at("warning").textContent = error.message;
  at("warning").hidden = false;
  at("status").textContent = "";
  if (error.wantsKey) { at("key-label").hidden = false; at("key").focus(); }
}

async function write() {
  running?.abort();
  const job = running = new AbortController(), asked = request(), join = joiner();
  let symbols = 0, first = 0, since = 0;
  at("stop").disabled = false;
  at("warning").hidden = true;
  at("status").textContent = `Waiting for the first ${at("main").dataset.symbol}\u2026`;
  at("said").textContent = "Writing.";
  text.ariaBusy = "true";
  try {
    for await (const written of engine.write(asked, job.signal)) {
      if (!written.length) continue;
      if (written.warnings) warn({ message: written.warnings.join(" ") });
      if (!symbols) { begin(asked.prompt); first = written.length; since = performance.now(); }
      symbols += written.length;
      append(written.flatMap(join));
      const rate = Math.round((symbols - first) / (performance.now() - since) * 1000);
      at("status").textContent = counted(symbols) + (symbols > first ? `, ${rate.toLocaleString("en")} a second.` : ".");
    }
  } catch (error) {
    if (error.name !== "AbortError") warn(error);
  }
  if (running !== job) return;
  if (!symbols) at("status").textContent = "";
  running = null;
  text.ariaBusy = "false";
  at("said").textContent = at("warning").hidden ? `${counted(symbols)} written.` : "";
  at("stop").disabled = true;
}

// ---- What an empty page offers, and whether the model is there yet.

// The first words of some texts of the model's own, those that begin like a sentence before the others.
function openingsOf(texts) {
  const words = new Intl.Segmenter(undefined, { granularity: "word" });
  const cut = text => {
    let opening = "", count = 0;
    for (const { segment, isWordLike } of words.segment(text.trim().split("\n")[0])) {
      if (isWordLike ? ++count > 3 : segment !== " ") break;
      opening += segment;
    }
    return opening.trim();
  };
  const openings = [...new Set(texts.map(cut))].filter(opening => [...opening].length > 1 && opening.length < 40);
  const begins = opening => /^[\p{Lu}\p{Lo}]/u.test(opening);
  return openings.toSorted((a, b) => begins(b) - begins(a)).slice(0, 3);
}

async function offer() {
  const job = running = new AbortController();
  const drawn = async seed => {
    const asked = { prompt: "\n\n", max_tokens: 40, temperature: 0.4, top_p: 1, seed, logprobs: 1 }, join = joiner();
    let written = "";
    for await (const symbols of engine.write(asked, job.signal)) written += symbols.flatMap(join).map(part => part.text).join("");
    return written;
  };
  let openings = [];
  try {
    openings = openingsOf(await Promise.all([1, 2, 3, 4, 5, 6].map(drawn)));
  } catch (error) {
    if (error.wantsKey) at("key-label").hidden = false;
  }
  if (running !== job) return;
  running = null;
  at("openings").hidden = !openings.length;
  at("openings").append(...openings.map(opening => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: opening, lang: "", dir: "auto" });
    button.addEventListener("click", () => { at("prompt").value = opening; at("form").requestSubmit(); });
    return button;
  }));
}

async function awake() {
  const tell = words => { at("status").textContent = at("said").textContent = words; };
  try {
    let server = await engine.ready?.();
    if (server && !server.ready) {
      tell("Loading the model\u2026");
      do {
        await new Promise(resume => setTimeout(resume, 300));
        server = await engine.ready();
      } while (!server.ready);
      tell(`${server.status[0].toUpperCase()}${server.status.slice(1)}.`);
    }
    if (!running && !parts.length) await offer();
  } catch (error) {
    warn(error);
  }
}

// ---- The form.

async function copy(content) {
  await navigator.clipboard?.writeText(content);  // which a browser has for https and this machine alone
  at("status").textContent = at("said").textContent = navigator.clipboard ? "Copied." : content;
}

const stop = () => { running?.abort(); if (document.activeElement === at("stop")) at("write").focus(); };

at("settings").open = innerWidth >= 640;
for (const knob of knobs) knob.addEventListener("input", () => { at(`${knob.id}-shown`).textContent = knob.value; });
at("form").addEventListener("invalid", () => { at("settings").open = true; }, true);
at("form").addEventListener("submit", event => {
  event.preventDefault();
  if (matchMedia("(pointer: coarse)").matches) document.activeElement.blur();  // its keyboard covers the text
  write();
});
at("key").addEventListener("change", () => { if (!parts.length && !running && !at("openings").children.length) offer(); });
at("stop").addEventListener("click", stop);
at("another").addEventListener("click", () => { at("seed").value = Math.floor(Math.random() * 2 ** 31); at("form").requestSubmit(); });
at("copy").addEventListener("click", () => copy(node.data));
at("curl").hidden = !engine.command;
at("curl").addEventListener("click", () => copy(engine.command(request())));
at("prompt").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit(); });
addEventListener("click", event => { if (!event.target.closest?.("#more summary")) at("more").open = false; });
addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  if (at("more").open) { at("more").open = false; at("more").firstElementChild.focus(); }
  look(-1);
  stop();
});
awake();
