"use strict";

// The model behind the server, for page.js.
const engine = (() => {
  const address = "v1/completions", key = document.getElementById("key");
  const headers = () => ({ "Content-Type": "application/json", ...(key.value && { Authorization: `Bearer ${key.value}` }) });

  class Refused extends Error {
    constructor(message, wantsKey = false) { super(message); this.wantsKey = wantsKey; }
  }

  const gone = error => {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?");
  };

  async function refusal(response) {
    const answer = await response.json().catch(() => null);
    const said = answer?.error?.message ?? (`${response.status} ${response.statusText}`).trim();
    if (response.status === 401) return new Refused(key.value ? "The server has another API key." : "The server wants its API key.", true);
    return new Refused(`The server answered: ${said.replace(/\.$/, "")}.`);
  }

  // The events of a stream, as they come.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let held = "";;) {
      const { value, done } = await reader.read().catch(gone);
      if (done) throw new Refused("The server stopped before the text was complete.");
      const lines = (held + value).split("\n\n");
      held = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") return;
        if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
      }
    }
  }

  async function* write(request, signal) {
    const body = JSON.stringify({ ...request, stream: true });
    const response = await fetch(address, { method: "POST", headers: headers(), body, signal }).catch(gone);
    if (!response.ok) throw await refusal(response);
    for await (const { error, choices, warnings } of events(response)) {
      if (error) throw new Refused(`The server answered: ${error.message}.`);
      const { tokens, token_logprobs, top_logprobs } = choices[0].logprobs;
      const symbols = tokens.map((token, n) => ({ token, nats: -token_logprobs[n], likeliest: Object.entries(top_logprobs[n]) }));
      yield Object.assign(symbols, { warnings });
    }
  }

  // Whether the model is loaded, and the same in words. Rejects if it never will be.
  async function ready() {
    const { ready, status } = await fetch("ready").then(response => response.json()).catch(gone);
    if (!ready && status !== "loading") throw new Refused(`The server cannot use its model: ${status}.`);
    return { ready, status };
  }

  function command({ logprobs, ...request }) {
    const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;
    const authorization = key.value ? ` -H ${quoted("Authorization: Bearer " + key.value)}` : "";
    return `curl ${new URL(address, location.href).href}${authorization} -d ${quoted(JSON.stringify(request))}`;
  }

  return { write, ready, command };
})();
