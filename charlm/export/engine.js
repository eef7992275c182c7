"use strict";

// The model inside the page, for page.js.
const engine = (() => {
  const content = id => document.getElementById(id).textContent;
  const record = JSON.parse(content("model"));
  const model = languageModel(record, Uint8Array.from(atob(content("weights")), c => c.charCodeAt(0)));
  const SLICE = 24;  // milliseconds between two looks at what the reader does

  const escaped = bytes => "bytes:" + bytes.map(byte => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  const tokens = record.symbols.map(symbol => typeof symbol === "string" ? symbol : escaped(symbol));

  async function* write({ prompt, max_tokens, logprobs, stop, ...settings }, signal) {
    let written = [], until = performance.now() + SLICE;
    for (const symbol of model.write(prompt, max_tokens, settings, logprobs, stop)) {
      if (symbol) {
        const likeliest = symbol.likeliest.map(([id, p]) => [tokens[id], p]);
        written.push({ token: symbol.text ?? tokens[symbol.id], nats: symbol.nats, likeliest });
      }
      if (performance.now() < until) continue;
      yield written;
      written = [];
      await new Promise(resume => setTimeout(resume));
      signal.throwIfAborted();
      until = performance.now() + SLICE;
    }
    yield written;
  }

  return { write };
})();
