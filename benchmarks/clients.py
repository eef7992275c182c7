"""Writes docs/clients.md: other people's clients ask `charlm serve`, and each answer is compared with the model's own.

.venv/bin/python benchmarks/clients.py [MODEL]     (the clients are in .venv-clients; `make clients` makes both)
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nginx
import numpy as np
import tensorflow as tf
from load import server
from machine import heading
from picture import launched
from playwright.sync_api import Browser, sync_playwright

import charlm
from charlm.generation import prompt_ids

ROOT = Path(__file__).parent.parent
PAGE, TEXT = ROOT / "docs/clients.md", Path(__file__).with_name("clients.template.md")
CLIENTS, BUILD = Path(".venv-clients/bin"), Path("build/clients")  # as they stand in commands
ADDRESS = "http://127.0.0.1:8000"  # in commands, for the server's
PROMPT, LENGTH, SEED = "The ", 60, 3
TOLERANCE = 1e-3  # nats

OPENAI = f"""
from openai import OpenAI

client = OpenAI(base_url="{ADDRESS}/v1", api_key="none")
asked = {{"model": "MODEL", "prompt": "{PROMPT}", "max_tokens": {LENGTH}, "seed": {SEED}, "temperature": 1}}
text = client.completions.create(**asked).choices[0].text
streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
scored = client.completions.create(model="MODEL", prompt="The people", max_tokens=0, echo=True, logprobs=1)
scores = scored.choices[0].logprobs.token_logprobs
"""
LANGCHAIN = f"""
from langchain_openai import OpenAI

asked = {{"model": "MODEL", "max_tokens": {LENGTH}, "seed": {SEED}, "temperature": 1}}
model = OpenAI(base_url="{ADDRESS}/v1", api_key="none", **asked)
text = model.invoke("{PROMPT}")
streamed = "".join(model.stream("{PROMPT}"))
several = model.batch(["{PROMPT}", "And "])
"""
MODELS = f"""
- model_id: charlm
  model_name: MODEL
  api_base: {ADDRESS}/v1
  completion: true
"""
LLM = f"{CLIENTS}/llm -m charlm '{PROMPT}' -o max_tokens {LENGTH} -o seed {SEED} -o temperature 1"
BODY = json.dumps({"prompt": PROMPT, "max_tokens": LENGTH, "seed": SEED, "temperature": 1})
CURL = f"curl --http1.0 --no-buffer {ADDRESS}/v1/completions -d '{BODY}'"
STREAM = CURL.replace("}'", ', "stream": true}\'')
HARNESS = (
    f"{CLIENTS}/lm_eval run --model local-completions \\\n"
    f"    --model_args model=MODEL,base_url={ADDRESS}/v1/completions \\\n"
    "    --tasks charlm_choice,charlm_rolling,charlm_generation --include_path benchmarks/clients \\\n"
    f"    --log_samples --output_path {BUILD}/samples"
)
LINES = [
    {
        "context": "The people",
        "choices": [" of the", " zqzqxkkv"],
        "answer": 0,
        "text": "The name of the first is this.",
    },
    {"context": "If it", "choices": [" vvkqzzz", " is not"], "answer": 1, "text": "If it is not there, it is made."},
    {
        "context": "And when",
        "choices": [" the first", " the fqzx"],
        "answer": 0,
        "text": "And then they are all equal.",
    },
]
ASKED = [
    ("openai", "python", OPENAI),
    ("langchain-openai", "python", LANGCHAIN),
    ("llm, with this file `extra-openai-models.yaml` in the folder that `llm logs path` names", "yaml", MODELS),
    ("llm, then", "sh", LLM),
    ("lm-evaluation-harness", "sh", HARNESS),
    ("curl", "sh", f"{CURL}\n{STREAM}"),
]

Row = tuple[str, str, str, str, bool]


class Own:
    """What the model says itself."""

    def __init__(self, model: charlm.LanguageModel) -> None:
        self.model, self.tokenizer = model, model.tokenizer

    def text(self, prompt: str = PROMPT, **settings: Any) -> str:
        return str(self.model.generate(prompt, **{"length": LENGTH, "seed": SEED, "temperature": 1.0, **settings}))

    def scores(self, context: str, text: str) -> list[float]:
        """The log-probability of each symbol of a text; without a context, after what a text without a prompt has."""
        before = self.tokenizer.encode(context).tolist() or prompt_ids(self.tokenizer, "")
        ids = np.array([*before, *self.tokenizer.encode(text)], np.int32)
        logits, _ = self.model.model(ids[:-1, None], self.model.model.initial_state(1))
        told = tf.nn.log_softmax(logits[:, 0]).numpy()[np.arange(len(ids) - 1), ids[1:]]
        return told[len(before) - 1 :].tolist()


def ran(command: str | list[str], **environment: str) -> str:
    """What a command prints."""
    words = shlex.split(command.replace("\\\n", " ")) if isinstance(command, str) else command
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr}")
    return done.stdout


def values(program: str, names: str) -> list[Any]:
    """What a program in the clients' environment leaves in variables."""
    return json.loads(ran([f"{CLIENTS}/python", "-c", f"{program}\nimport json\nprint(json.dumps([{names}]))"]))


def version(package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    return f"{package} {ran([f'{CLIENTS}/python', '-c', code]).strip()}"


def near(found: list[float], expected: list[float]) -> bool:
    return len(found) == len(expected) and np.allclose(found, expected, rtol=0, atol=TOLERANCE)


def quoted(text: str) -> str:
    """A text's beginning, as it can stand in a table."""
    shown = json.dumps(text if len(text) <= 30 else text[:30] + "…", ensure_ascii=False)
    return f"`{shown}`".replace("|", "\\|")


def texts(client: str, own: str, **found: str) -> Iterator[Row]:
    for did, text in found.items():
        yield client, did.replace("_", " "), quoted(text), "the model's own text", text == own


def from_openai(own: Own, at: Callable[[str], str], client: str) -> Iterator[Row]:
    text, streamed, scores = values(at(OPENAI), "text, streamed, scores")
    yield from texts(client, own.text(), completed=text, streamed=streamed)
    equal = scores[0] is None and near(scores[1:], own.scores("T", "he people"))
    yield client, "scored a prompt", f"{sum(scores[1:]):.4f} nats", "the model's logits", equal


def from_langchain(own: Own, at: Callable[[str], str]) -> Iterator[Row]:
    client = version("langchain-openai")
    text, streamed, several = values(at(LANGCHAIN), "text, streamed, several")
    yield from texts(client, own.text(), completed=text, streamed=streamed)
    yield client, "two prompts", quoted(several[1]), "the model's own texts", several == [own.text(), own.text("And ")]


def from_llm(own: Own, at: Callable[[str], str]) -> Iterator[Row]:
    folder = ROOT / BUILD / "llm"
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text(at(MODELS), "utf-8")
    for did, more in ("streamed", ""), ("completed", " --no-stream"):
        text = ran(LLM + more, LLM_USER_PATH=str(folder)).removesuffix("\n")
        yield from texts(version("llm"), own.text(), **{did: text})


def from_curl(own: Own, at: Callable[[str], str]) -> Iterator[Row]:
    client = "curl " + ran("curl --version").split()[1]
    text = json.loads(ran(at(CURL)))["choices"][0]["text"]
    *events, last = [line.removeprefix("data: ") for line in ran(at(STREAM)).splitlines() if line]
    streamed = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    complete = streamed if last == "[DONE]" else "broken off"
    yield from texts(client, own.text(), **{"completed by HTTP/1.0": text, "streamed by HTTP/1.0": complete})


def from_harness(own: Own, at: Callable[[str], str]) -> Iterator[Row]:
    """A multiple choice, a rolling log-likelihood, and a text without sampling."""
    client = version("lm_eval")
    for line in LINES:
        line["written"] = own.text(line["context"], length=40, temperature=0, stop=["\n"])
    (ROOT / BUILD / "lines.jsonl").write_text("\n".join(map(json.dumps, LINES)) + "\n", "utf-8")
    ran(at(HARNESS), HF_HOME=str(ROOT / BUILD / "huggingface"), HF_HUB_OFFLINE="1")
    said = {kind: samples(kind) for kind in ("choice", "rolling", "generation")}

    choices = [[float(nats) for ((nats, _),) in one["resps"]] for one in said["choice"]]
    expected = [[sum(own.scores(line["context"], c)) for c in line["choices"]] for line in LINES]
    accuracy = np.mean([one["acc"] for one in said["choice"]])
    equal = all(map(near, choices, expected))
    yield client, "multiple choice", f"accuracy {accuracy:.2f}", "the model's logits", equal

    rolling = [float(one["resps"][0][0]) for one in said["rolling"]]
    expected = [sum(own.scores("", line["text"])) for line in LINES]
    count = sum(len(line["text"].encode()) for line in LINES)
    bits = -sum(rolling) / count / math.log(2)
    yield client, "rolling log-likelihood", f"{bits:.4f} bits per byte", "the model's logits", near(rolling, expected)

    written = [one["resps"][0][0] for one in said["generation"]]
    equal = written == [line["written"] for line in LINES] and all(one["exact_match"] for one in said["generation"])
    yield client, "generation, greedy, until a line's end", quoted(written[0]), "the model's own texts", equal


def samples(kind: str) -> list[dict]:
    """What the harness noted of each line of a task."""
    (file,) = (ROOT / BUILD / "samples").glob(f"**/samples_charlm_{kind}_*.jsonl")
    return sorted(map(json.loads, file.read_text("utf-8").splitlines()), key=lambda one: one["doc_id"])


def from_browser(own: Own, browser: Browser, url: str, where: str) -> Iterator[Row]:
    """Writes on the page, and tries an address in /docs."""
    client, page = f"Chromium {browser.version}{where}", browser.new_page()
    page.goto(f"{url}/")
    page.fill("#prompt", PROMPT)
    page.evaluate("document.getElementById('settings').open = true")
    for name, value in {"length": LENGTH, "seed": SEED, "temperature": 1}.items():
        page.fill(f"#{name}", str(value))
    page.click("#write")
    page.wait_for_function("document.getElementById('said').textContent.endsWith('written.')", timeout=60_000)
    text = page.evaluate("parts.map(part => part.text).join('')")
    yield from texts(client, own.text(), wrote_on_the_page=text)

    page.goto(f"{url}/docs")
    page.click("text=Text that goes on from a prompt")
    page.click("text=Try it out")
    page.fill("textarea.body-param__text", BODY)
    page.click("button.execute")
    page.wait_for_selector(".live-responses-table .microlight", timeout=60_000)
    answer = json.loads(page.inner_text(".live-responses-table .microlight >> nth=0"))
    yield from texts(client, own.text(), **{"tried an address in /docs": answer["choices"][0]["text"]})
    page.close()


def all_rows(own: Own, url: str) -> Iterator[Row]:
    def asked_at(address: str) -> Callable[[str], str]:
        return lambda text: text.replace(ADDRESS, address).replace("MODEL", own.model.checkpoint.run_name)

    for client in from_langchain, from_llm, from_harness, from_curl:
        yield from client(own, asked_at(url))
    number = subprocess.run([nginx.found(), "-v"], capture_output=True, text=True, check=True).stderr.split("/")[-1]
    proxy = f", nginx {number.strip()}"
    with nginx.before(url, ROOT / BUILD) as (bare, below), sync_playwright() as driver:
        places = [(url, ""), (bare, proxy), (below, f"{proxy} below /charlm")]
        for address, where in places:
            yield from from_openai(own, asked_at(address), version("openai") + where)
        browser = launched(driver)
        for address, where in places:
            yield from from_browser(own, browser, address, where)
        browser.close()


def main() -> None:
    shutil.rmtree(ROOT / BUILD, ignore_errors=True)
    (ROOT / BUILD).mkdir(parents=True)
    own, rows = Own(charlm.load(models=ROOT / "models")), []
    name = own.model.checkpoint.run_name
    with server(str(ROOT / "models")) as port:
        for row in all_rows(own, f"http://127.0.0.1:{port}"):
            rows.append(f"| {' | '.join(row[:-1])} | {'yes' if row[-1] else '**no**'} |")
            print(rows[-1], flush=True)
    different = sum("**no**" in row for row in rows)
    blocks = [
        f"{title}:\n\n<!-- not run here: `make clients` runs it -->\n```{language}\n{text.strip()}\n```"
        for title, language, text in ASKED
    ]
    page = TEXT.read_text("utf-8").format(
        measured=heading("make clients", "fastapi", "uvicorn"),
        rows="\n".join(rows),
        model=name,
        summary=f"{different} of {len(rows)} answers differ." if different else f"All {len(rows)} answers are equal.",
        asked="\n\n".join(blocks).replace("MODEL", name),
    )
    PAGE.write_text(page, "utf-8")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
