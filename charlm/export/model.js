"use strict";

// A trained model: the record that charlm wrote, and the bytes of its float16 weights. Plain JavaScript, no browser.
function languageModel(record, packed) {
  const { cell, units, layers, vocabulary, symbols } = record;
  const view = new DataView(packed.buffer, packed.byteOffset);

  function half(bits) {
    const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
  }

  const read = ({ size, at }) => Float32Array.from({ length: size }, (_, n) => half(view.getUint16(at + 2 * n, true)));
  const weights = Object.fromEntries(record.arrays.map(array => [array.name, read(array)]));

  // out += x'W for W [rows, columns]
  function multiply(x, W, out) {
    const columns = out.length;
    for (let row = 0, at = 0; row < x.length; row++, at += columns) {
      const value = x[row];
      for (let n = 0; n < columns; n++) out[n] += value * W[at + n];
    }
  }

  // What each symbol adds to the first layer's gates: embedding times kernel.
  const gates = weights["layers.0.recurrent_kernel"].length / units;
  const features = weights.embedding.length / vocabulary;
  const table = Array.from({ length: vocabulary }, (_, id) => {
    const row = new Float32Array(gates);
    multiply(weights.embedding.subarray(id * features, (id + 1) * features), weights["layers.0.kernel"], row);
    return row;
  });

  // The projection, [units, vocabulary]; the embedding transposed where they are tied.
  const projection = weights.projection || new Float32Array(units * vocabulary).map((_, n) =>
    weights.embedding[(n % vocabulary) * units + Math.floor(n / vocabulary)]);

  const sigmoid = x => 1 / (1 + Math.exp(-x));

  // One step of a layer; x and u are W'x and U'h with their biases, and h and c are changed.
  const cells = {
    lstm(x, u, h, c) {
      for (let n = 0; n < units; n++) {
        const z = k => x[k * units + n] + u[k * units + n];
        c[n] = sigmoid(z(1)) * c[n] + sigmoid(z(0)) * Math.tanh(z(2));
        h[n] = sigmoid(z(3)) * Math.tanh(c[n]);
      }
    },
    gru(x, u, h) {
      for (let n = 0; n < units; n++) {
        const z = sigmoid(x[n] + u[n]), r = sigmoid(x[units + n] + u[units + n]);
        h[n] = z * h[n] + (1 - z) * Math.tanh(x[2 * units + n] + r * u[2 * units + n]);
      }
    },
    rnn(x, u, h) {
      for (let n = 0; n < units; n++) h[n] = Math.tanh(x[n] + u[n]);
    },
  };

  const initialState = () => Array.from({ length: layers }, () => ({ h: new Float32Array(units), c: new Float32Array(units) }));

  // One symbol: state is changed, logits come back.
  function step(id, state) {
    let x = table[id].slice();
    for (let n = 0; n < layers; n++) {
      const bias = weights[`layers.${n}.bias`], { h, c } = state[n];
      if (n) { x = new Float32Array(gates); multiply(state[n - 1].h, weights[`layers.${n}.kernel`], x); }
      const u = new Float32Array(gates);
      multiply(h, weights[`layers.${n}.recurrent_kernel`], u);
      for (let k = 0; k < gates; k++) { x[k] += bias[k]; if (bias.length > gates) u[k] += bias[gates + k]; }
      cells[cell](x, u, h, c);
    }
    const logits = weights.bias.slice();
    multiply(state[layers - 1].h, projection, logits);
    return logits;
  }

  // Threefry-2x32-20 (Salmon et al. 2011): the random numbers of a seed at a position, for each symbol.
  function threefry(k0, k1, a, b) {
    const keys = [k0, k1, k0 ^ k1 ^ 0x1BD11BDA];
    a = a + k0 | 0; b = b + k1 | 0;
    for (let group = 0; group < 5; group++) {
      for (const turn of [[13, 15, 26, 6], [17, 29, 16, 24]][group % 2]) {
        a = a + b | 0;
        b = (b << turn | b >>> 32 - turn) ^ a;
      }
      a = a + keys[(group + 1) % 3] | 0;
      b = b + keys[(group + 2) % 3] + group + 1 | 0;
    }
    return a >>> 0;
  }

  const highest = values => values.reduce((a, b) => Math.max(a, b));

  // The least logit of the fewest likeliest symbols whose probabilities reach p.
  function nucleus(logits, p) {
    const top = highest(logits), ordered = logits.slice().sort().reverse();
    const total = ordered.reduce((sum, z) => sum + Math.exp(z - top), 0);
    let least = top, before = 0;
    for (const z of ordered) {
      if (before > 0 && before >= p * total) break;
      least = z;
      before += Math.exp(z - top);
    }
    return least;
  }

  // Gumbel-max: the likeliest symbol after noise; the likeliest itself at temperature 0. `recent` are the last ids.
  function draw(logits, settings, position = 0, recent = []) {
    const { temperature = 1, top_k = 0, top_p = 1, min_p = 0, repetition_penalty = 1, seed = 0 } = settings;
    let allowed = logits.map((z, id) => blocked.has(id) ? -Infinity : z);
    if (repetition_penalty !== 1) for (const id of new Set(recent)) allowed[id] -= Math.log(repetition_penalty);
    if (!temperature) return allowed.indexOf(highest(allowed));
    allowed = allowed.map(z => z / temperature);
    const keep = least => { allowed = allowed.map(z => z < least ? -Infinity : z); };
    if (top_k && top_k < vocabulary) keep(allowed.slice().sort().at(-top_k));
    if (top_p < 1) keep(nucleus(allowed, top_p));
    if (min_p) keep(highest(allowed) + Math.log(min_p));
    let best = -1, most = -Infinity;
    for (let id = 0; id < vocabulary; id++) {
      if (allowed[id] === -Infinity) continue;
      const uniform = ((threefry(seed, 0, position, id) >>> 9) + 0.5) * 2 ** -23;
      const value = allowed[id] - Math.log(-Math.log(uniform));
      if (value > most) { most = value; best = id; }
    }
    return best;
  }
  const blocked = new Set(record.blocked);

  function logProbabilities(logits) {
    const top = highest(logits), total = Math.log(logits.reduce((sum, z) => sum + Math.exp(z - top), 0));
    return logits.map(z => z - top - total);
  }

  // The ids of the largest values, the largest first.
  function largest(values, count) {
    const ids = [];
    for (let id = 0; id < values.length; id++) {
      if (ids.length === count && values[id] <= values[ids[count - 1]]) continue;
      let n = ids.length;
      while (n && values[ids[n - 1]] < values[id]) n--;
      ids.splice(n, 0, id);
      ids.length = Math.min(ids.length, count);
    }
    return ids;
  }

  const utf8 = text => Array.from(encodeURIComponent(text.toWellFormed()).matchAll(/%(..)|(.)/g),
    ([, hex, letter]) => hex ? parseInt(hex, 16) : letter.charCodeAt(0));

  // The ids of characters, of bytes, or of the pieces that sentencepiece would cut a text into.
  const encoders = {
    char() {
      const ids = new Map(symbols.map((symbol, id) => [symbol, id]));
      return text => [...text].map(character => ids.get(character) ?? 0);
    },
    byte: () => utf8,
    sentencepiece() {
      const pieces = new Map(), byteIds = [];
      symbols.forEach((symbol, id) => {
        if (record.scores[id] !== null) pieces.set(symbol, id);
        else if (symbol.length === 1) byteIds[typeof symbol === "string" ? symbol.charCodeAt(0) : symbol[0]] = id;
      });
      const longest = Math.max(...[...pieces.keys()].map(piece => [...piece].length)), none = {};

      // The cut whose scores have the largest sum (Viterbi), in float32 like sentencepiece's own.
      function cut(characters) {
        const sums = new Float32Array(characters.length + 1).fill(-Infinity), last = [];
        sums[0] = 0;
        for (let start = 0; start < characters.length; start++) {
          let text = "";
          for (let end = start + 1; end <= Math.min(start + longest, characters.length); end++) {
            text += characters[end - 1];
            const id = pieces.get(text) ?? (end === start + 1 ? none : undefined);
            if (id === undefined) continue;
            const score = Math.fround(id === none ? record.unknown_score : record.scores[id]);
            const sum = Math.fround(sums[start] + score);
            if (sum > sums[end]) { sums[end] = sum; last[end] = { start, id }; }
          }
        }
        const parts = [];
        for (let end = characters.length; end > 0; end = last[end].start) {
          const { start, id } = last[end];
          parts.push(id === none ? utf8(characters[start]).map(byte => byteIds[byte]) : [id]);
        }
        return parts.reverse().flat();
      }

      return text => text.split(/(?<=\n)/).flatMap(line => {
        const characters = [...line], ids = [];
        for (let n = 0; n < characters.length; n += record.line) {
          for (const part of characters.slice(n, n + record.line).join("").split(/(\u2581+)/)) ids.push(...cut([...part]));
        }
        return ids;
      });
    },
  };
  const encode = encoders[record.tokenizer]();

  // Yields null for every symbol of the prompt, then each symbol that it draws: its id, what it cost in nats, and the
  // likeliest ones in its place with their log probabilities.
  function* drawn(prompt, length, settings, alternatives) {
    const state = initialState(), recent = [];
    let logits;
    const read = id => { logits = step(id, state); recent.push(id); if (recent.length > record.recent) recent.shift(); };
    for (const id of prompt ? encode(prompt) : [record.start]) { read(id); yield null; }
    for (let position = 0; position < length; position++) {
      const id = draw(logits, settings, position, recent), told = logProbabilities(logits);
      yield { id, nats: -told[id], likeliest: largest(told, alternatives).map(other => [other, told[other]]) };
      read(id);
    }
  }

  const bytesOf = id => typeof symbols[id] === "string" ? utf8(symbols[id]) : symbols[id];

  // The symbols before a text, as they come; what may become the text is held back. Where it begins inside of a symbol,
  // that has the `text` before it.
  function* before(stop, all) {
    const wanted = utf8(stop), held = [], bytes = [];
    for (const symbol of all) {
      if (!symbol) { yield null; continue; }
      held.push(symbol);
      bytes.push(...bytesOf(symbol.id));
      let place = bytes.findIndex((_, n) => bytes.slice(n, n + wanted.length).every((byte, k) => byte === wanted[k]));
      if (place < 0) place = bytes.length;
      for (let size; held.length && (size = bytesOf(held[0].id).length) <= place; place -= size) {
        bytes.splice(0, size);
        yield held.shift();
      }
      if (bytes.length - place < wanted.length) continue;
      let text = "";
      for (const character of symbols[held[0].id]) if (utf8(text + character).length <= place) text += character;
      if (text) yield { ...held[0], text };
      return;
    }
    yield* held;
  }

  const write = (prompt, length, settings, alternatives, stop = "") => {
    const all = drawn(prompt, length, settings, alternatives);
    return stop ? before(stop, all) : all;
  };

  return { initialState, step, draw, encode, write };
}
