"""A server in a thread, asked by the clients that it is for."""

import codecs
import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from test_export import language_model

httpx, openai, _ = (pytest.importorskip(name) for name in ("httpx", "openai", "uvicorn"))
pytest.importorskip("fastapi")

from serving import Server, wait_for  # noqa: E402

from charlm.api import load  # noqa: E402
from charlm.export.savedmodel import Served  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture
def server(served):
    return served


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openais_client_completes(server, client):
    made = client.completions.create(model="run", prompt="the ", max_tokens=60, seed=3, temperature=0.7, top_p=0.9)
    assert made.choices[0].text == server.text("the ", 60, 3, temperature=0.7, top_p=0.9)
    assert made.choices[0].finish_reason == "length"
    assert made.object == "text_completion"
    assert made.model == "run"
    usage = made.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 60, 64)


def test_openais_client_streams(server, client):
    settings = {"max_tokens": 3000, "seed": 3, "temperature": 1.0, "stream": True}
    with client.completions.create(
        model="run", prompt="é世", stream_options={"include_usage": True}, **settings
    ) as stream:
        chunks = list(stream)
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == server.text("é世", 3000, 3)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].usage.completion_tokens == 3000
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])


def test_a_stream_is_server_sent_events_and_ends_in_done(server):
    body = {"prompt": "the ", "max_tokens": 20, "stream": True}
    with server.http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in lines[:-1])


@pytest.mark.parametrize("stream", [False, True])
def test_prompts_times_samples_have_seeds_of_their_own(server, client, stream):
    asked = {"prompt": ["the ", "dog"], "n": 3, "max_tokens": 50, "seed": 9, "temperature": 1.0, "echo": True}
    made = client.completions.create(model="run", stream=stream, **asked)
    texts = [""] * 6
    for choices in [chunk.choices for chunk in made] if stream else [made.choices]:
        for choice in choices:
            texts[choice.index] += choice.text
    assert texts == [p + server.text(p, 50, 9 + n) for p in ("the ", "dog") for n in range(3)]


def test_stop_texts(server):
    whole = server.text("the ", 200, 3)
    stop = whole[40:43]
    choice = server.complete(prompt="the ", max_tokens=200, seed=3, temperature=1, stop=[stop, "\0"])["choices"][0]
    assert choice["text"] == whole[: whole.find(stop)]
    assert choice["finish_reason"] == "stop"
    assert server.complete(prompt="the ", max_tokens=200, seed=3, temperature=1, stop=stop)["choices"][0] == choice


def test_logprobs_are_the_models(server):
    made = server.complete(prompt="the ", max_tokens=30, seed=3, temperature=0.0, logprobs=2, echo=True)["choices"][0]
    told = {key: values[4:] for key, values in made["logprobs"].items()}  # after the prompt
    assert "the " + "".join(told["tokens"]) == made["text"]
    assert [made["text"][at : at + 1] for at in told["text_offset"]] == told["tokens"]
    for symbol, p, best in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True):
        assert len(best) == 2
        drawable = {symbol: told for symbol, told in best.items() if symbol != "\ufffd"}  # the unknown is never drawn
        assert drawable[symbol] == max(drawable.values()) == pytest.approx(p, abs=1e-5)
    assert (
        server.complete(prompt="the ", max_tokens=30, seed=3, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"]
        is None
    )
    assert server.complete(prompt="the ", max_tokens=30, seed=3)["choices"][0]["logprobs"] is None


def test_a_prompt_is_scored_as_the_savedmodel_scores_it(server, tmp_path):
    """What evaluation harnesses ask: the prompt's log probabilities, and nothing or one symbol more."""
    prompts = ["the quick brown fox", "dog", "t", ""]
    asked = {"prompt": prompts, "echo": True, "logprobs": 1, "temperature": 0, "seed": 1}
    model = Served(server.model, tmp_path)
    scored = model.score(tf.constant(prompts))["nats"].numpy()
    for more in 0, 1:
        choices = server.complete(**asked, max_tokens=more)["choices"]
        for prompt, choice, nats in zip(prompts, choices, scored, strict=True):
            told = choice["logprobs"]
            assert "".join(told["tokens"]) == choice["text"]
            assert choice["text"][: len(prompt)] == prompt
            assert {len(values) for values in told.values() if values} <= {len(prompt) + more}
            if prompt:
                assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
                assert sum(told["token_logprobs"][1 : len(prompt)]) == pytest.approx(-nats, abs=1e-4)
            assert told["text_offset"] == list(range(len(prompt) + more))
    ids = [server.http.post("/tokenize", json={"prompt": prompt}).json()["tokens"] for prompt in prompts[:3]]
    by_ids = server.complete(**asked | {"prompt": ids}, max_tokens=1)["choices"]
    assert by_ids == choices[:3]


def test_an_evaluation_harness_finds_the_likelihood_of_a_continuation(server):
    """As lm-evaluation-harness asks and reads: it leaves out the context, and the symbol that is written."""
    context, likely = "the quick ", server.text("the quick ", 8, 1, temperature=0.0)
    for continuation, greedy in ((likely, True), ("zzz", False)):
        ids = server.http.post("/tokenize", json={"prompt": context + continuation, "add_special_tokens": False}).json()
        body = {"model": "run", "prompt": [ids["tokens"]], "temperature": 0, "max_tokens": 1, "logprobs": 1}
        told = server.complete(**body, seed=1234, echo=True)["choices"][0]["logprobs"]
        costs, places = (told[key][len(context) : -1] for key in ("token_logprobs", "top_logprobs"))
        assert len(costs) == len(continuation)
        assert all(cost == max(place.values()) for cost, place in zip(costs, places, strict=True)) == greedy


def test_a_stream_with_the_prompt_and_its_log_probabilities_is_the_whole_answer_in_parts(server):
    asked = {"prompt": ["the dog", "fox"], "n": 2, "echo": True, "logprobs": 2, "max_tokens": 40, "seed": 3}
    whole = server.complete(**asked)["choices"]
    with server.http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert not any("usage" in event for event in events)
    for choice in whole:
        parts = [event["choices"][0] for event in events if event["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        for key, told in choice["logprobs"].items():
            assert [one for part in parts for one in part["logprobs"][key] or []] == told


def test_text_offsets_count_from_the_prompts_beginning_whether_or_not_it_is_told(server):
    asked = {"prompt": "é世 the ", "max_tokens": 5, "seed": 3, "logprobs": 0}
    for echo in True, False:
        told = server.complete(**asked, echo=echo)["choices"][0]["logprobs"]
        assert told["text_offset"][-5:] == [7, 8, 9, 10, 11]


def test_prompts_that_are_scored_count_as_symbols(server):
    message = server.complete(400, prompt=["x" * 3000] * 4, n=2, max_tokens=99_000, echo=True, logprobs=1)["error"]
    assert message["message"] == "symbols to score and to write in all texts: 816,000 is more than 800,000"


@pytest.mark.parametrize("tokenizer", ["byte", "sentencepiece"])
def test_tokens_that_are_no_text_are_told_as_bytes(tokenizer, tmp_path):
    server = Server(language_model(tmp_path, tokenizer=tokenizer, units=32))
    try:
        asked = {"prompt": "été ", "max_tokens": 300, "seed": 5, "temperature": 1.4, "logprobs": 5}
        made = server.complete(**asked)["choices"][0]
        told, written = made["logprobs"], b""
        for token, best, at in zip(told["tokens"], told["top_logprobs"], told["text_offset"], strict=True):
            content = bytes.fromhex(token[6:].replace("\\x", "")) if token.startswith("bytes:") else token.encode()
            assert at == 4 + len(codecs.getincrementaldecoder("utf-8")("replace").decode(written))
            assert list(best.values()) == sorted(best.values(), reverse=True)
            assert len(best) == 5 or tokenizer == "sentencepiece"
            written += content
        assert made["text"] == written.decode("utf-8", "replace")
        assert any(token.startswith("bytes:") for token in told["tokens"])
        with server.http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
        parts = [event["choices"][0]["logprobs"] for event in events]
        assert {key: [one for part in parts for one in part[key] or []] for key in told} == told
    finally:
        server.close()


def test_top_k_of_one_is_greedy(server):
    made = server.complete(prompt="dog", max_tokens=40, seed=3, temperature=1.5, top_k=1)["choices"][0]
    assert made["text"] == server.text("dog", 40, 3, temperature=0.0)


def test_many_clients_at_once_do_not_change_each_others_texts(server):
    found, threads = {}, []

    def ask(n):
        found[n] = server.complete(prompt="dog", max_tokens=80, seed=n, temperature=1.0)["choices"][0]["text"]

    for n in range(40):
        threads.append(threading.Thread(target=ask, args=[n]))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert found == {n: server.text("dog", 80, n) for n in range(40)}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"max_tokens": 100_001}, "symbols to write: 100,001 is more than 100,000"),
        ({"max_tokens": 100_001, "n": 8}, "symbols to write in all texts: 800,008 is more than 800,000"),
        ({"prompt": "x" * 3001}, "characters of a prompt: 3,001 is more than 3,000"),
        ({"n": 9}, "texts: 9 is more than 8"),
        ({"prompt": ["a"] * 5, "n": 2}, "texts: 10 is more than 8"),
    ],
)
def test_what_is_too_much_or_wrong_is_refused_by_name(server, body, named):
    error = server.complete(400, **body)["error"]
    assert named in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] in body or error["param"] in ("n", "max_tokens")


def test_what_is_null_or_neutral_is_not_there(server):
    fields = ("temperature", "top_p", "n", "echo", "stream", "suffix", "logit_bias", "stop", "logprobs")
    asked = {"prompt": "the ", "max_tokens": 20, "seed": 3}
    choices = server.complete(**asked)["choices"]
    assert server.complete(**asked, **dict.fromkeys(fields))["choices"] == choices
    neutral = {
        "best_of": 1,
        "presence_penalty": 0.0,
        "repetition_penalty": 1,
        "frequency_penalty": 0,
        "logit_bias": {},
        "suffix": "",
        "user": "me",
    }
    assert server.complete(**asked, **neutral)["choices"] == choices


def test_a_prediction_in_rows(server):
    instances = [
        {"prompt": "the ", "length": 20, "seed": 4, "temperature": 1.0},
        {"prompt": "", "length": 5, "top_k": 1},
    ]
    found = server.http.post("/v1/models/run:predict", json={"instances": instances}).json()["predictions"]
    assert [row["text"] for row in found] == [server.text("the ", 20, 4), server.text("", 5, 0, temperature=0.0)]
    assert [row["symbols"] for row in found] == [20, 5] == [len(row["log_probabilities"]) for row in found]
    form = {
        "content": '{"instances": ["the ", "dog"]}',
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    }
    plain = server.http.post("/v1/models/run:predict", **form).json()["predictions"]  # as `curl -d` sends it
    assert [row["symbols"] for row in plain] == [500, 500]  # as the run says


def test_characters_that_the_model_has_never_seen_are_told(server):
    warning = "the model has never seen '☃' (U+2603), '☂' (U+2602) in the prompt; it reads the unknown symbol there"
    asked = {"prompt": ["the ☃", "☂ ☃"], "max_tokens": 3}
    assert server.http.post("/v1/completions", json=asked).json()["warnings"] == [warning]
    body = server.http.post("/v1/completions", json=asked | {"stream": True}).text
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert all(event["warnings"] == [warning] for event in events)
    predicted = server.http.post("/v1/models/run:predict", json={"instances": asked["prompt"]}).json()
    assert predicted["warnings"] == [warning]
    assert "warnings" not in server.http.post("/v1/completions", json={"prompt": "the ", "max_tokens": 1}).json()


def test_a_prediction_in_columns(server):
    inputs = {"prompt": ["the ", "dog"], "length": [20, 5], "seed": 4, "temperature": [1.0]}
    body = {"signature_name": "serving_default", "inputs": inputs}
    found = server.http.post("/v1/models/run:predict", json=body).json()["outputs"]
    assert found["text"] == [server.text("the ", 20, 4), server.text("dog", 5, 4)]
    assert [len(row) for row in found["ids"]] == [20, 20]
    for wrong in ({}, {"instances": ["a"], "inputs": ["a"]}, {"inputs": {"prompt": ["a", "b"], "length": [1, 2, 3]}}):
        answer = server.http.post("/v1/models/run:predict", json=wrong)
        assert answer.status_code == 400
        assert isinstance(answer.json()["error"], str)
    assert server.http.post("/v1/models/other:predict", json={"instances": ["a"]}).status_code == 404


def test_the_model_is_described_for_both_kinds_of_client(server, client):
    assert [model.id for model in client.models.list()] == ["run"]
    assert client.models.retrieve("run").owned_by == "charlm"
    assert server.http.get("/v1/models/run/versions/1").json() == server.http.get("/v1/models/run").json()
    assert server.http.get("/v1/models/run/versions/2").status_code == 404
    state = server.http.get("/v1/models/run").json()["model_version_status"][0]
    assert (state["version"], state["state"]) == ("1", "AVAILABLE")
    signature = server.http.get("/v1/models/run/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signature["serving_default"]["inputs"]["prompt"]["dtype"] == "DT_STRING"
    assert server.http.get("/v1/models/other").status_code == 404


def test_health_and_metrics(server):
    assert server.http.get("/health").json() == {"status": "ok"}
    assert server.http.get("/ready").json()["status"].startswith("ready after ")
    assert [server.http.head(path).status_code for path in ("/", "/health", "/ready")] == [200] * 3
    server.http.request("INVENTED", "/health")
    assert server.http.get("/ready").json()["ready"]
    server.complete(prompt="the ", max_tokens=7)
    lines = server.http.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values["charlm_symbols_total"]) >= 7
    assert float(values['charlm_requests_total{method="POST",status="200"}']) >= 1
    assert float(values["charlm_first_symbol_seconds_count"]) >= 1
    assert 'charlm_requests_total{method="other",status="405"}' in values
    assert {"charlm_queue", "charlm_slots_busy", "charlm_request_seconds_count"} <= values.keys()
    assert "/v1/completions" in server.http.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("stream", [False, True])
def test_work_stops_when_the_client_goes_away(server, stream):
    body = {"prompt": "the ", "max_tokens": 100_000, "stream": stream, "n": 8}
    gone = threading.Event()

    def leave():
        """After the first piece, or without one after a second."""
        with (
            contextlib.suppress(httpx.ReadTimeout),
            httpx.Client(base_url=server.url) as http,
            http.stream("POST", "/v1/completions", json=body, timeout=60 if stream else 1) as answer,
        ):
            next(answer.iter_lines())
            gone.set()

    leaving = threading.Thread(target=leave)
    leaving.start()
    wait_for(lambda: server.engine.busy)
    leaving.join()
    wait_for(lambda: not server.engine.busy)
    assert gone.is_set() == stream


def test_a_full_queue_answers_429_and_a_dead_engine_503(tmp_path, monkeypatch):
    server = Server(language_model(tmp_path), waiting=0)
    try:
        monkeypatch.setattr(server.engine._batch, "sizes", (0,))
        refused = server.http.post("/v1/completions", json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        monkeypatch.undo()
        server.engine.failure = "the engine is gone"
        assert server.http.get("/health").json() == {"status": "the engine is gone"}
        assert server.http.get("/health").status_code == server.http.get("/ready").status_code == 503
        assert "gone" in server.complete(503)["error"]["message"]
        assert server.http.get("/v1/models/run").json()["model_version_status"][0]["state"] == "END"
    finally:
        server.engine.failure = None
        server.close()


def test_an_engine_that_dies_tells_who_waits(tmp_path, monkeypatch):
    server, body = Server(language_model(tmp_path)), {"prompt": "the ", "max_tokens": 100_000}
    try:
        found = {}

        def ask(name, **more):
            found[name] = server.http.post("/v1/completions", json={**body, **more})

        threads = [threading.Thread(target=ask, args=(name,), kwargs={"stream": name}) for name in (False, True)]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.engine.busy == 2)
        monkeypatch.setattr(server.engine._batch, "advance", lambda *a: 1 / 0)
        for thread in threads:
            thread.join(60)
        assert found[False].status_code == 500
        assert found[False].json()["error"]["message"] == "the engine has died"
        last = found[True].text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the engine has died"
        health = server.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, server.engine.failure)
        assert "ZeroDivisionError" not in health.text
        assert "charlm_slots_busy 0.0" in server.http.get("/metrics").text
    finally:
        server.close()


def test_the_addresses_are_described_without_the_internet(server, browser):
    asked, page = [], browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url + "/docs")
    page.wait_for_selector("text=OpenAI")
    assert {url.startswith((server.url, "data:")) for url in asked} == {True}
    page.close()


def test_the_readmes_requests_have_these_answers():
    """Of the model that comes with the clone, asked as the page says."""
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme[readme.index("## Serving") :]
    code, told = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", section, re.S).groups()
    server = Server(load(ROOT / "models/kjv-small"))
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code.replace("http://localhost:8000", server.url), {})
        assert printed.getvalue().rstrip() == told.rstrip()
        for command, answer in re.findall(r"^\$ (curl .*)\n(.*)$", section, re.M):
            words, given = shlex.split(command), json.loads(answer)
            address, content = words[-1].removeprefix("http://localhost:8000"), words[2] if "-d" in words else None
            found = server.http.request("POST" if content else "GET", address, content=content).json()
            assert found.keys() == given.keys()
            for answer in found, given:
                answer.pop("created", None)
            for ours, shown in zip(tf.nest.flatten(found), tf.nest.flatten(given), strict=True):
                assert ours == (pytest.approx(shown, rel=1e-4) if isinstance(shown, float) else shown)
    finally:
        server.close()


# ---- the command


CHARLM = [sys.executable, "-c", "from charlm.cli import main; main()", "serve", "--models", str(ROOT / "models")]


def test_the_command_serves_until_it_is_told_to_end():
    """What it has begun when it is told, it writes."""
    with subprocess.Popen([*CHARLM, "--port", "0", "--name", "docs"], stderr=subprocess.PIPE, text=True) as process:
        try:
            first = process.stderr.readline()
            url = re.search(r"as docs at (http://127\.0\.0\.1:\d+) ", first)[1]
            taken = subprocess.run([*CHARLM, "--port", url.split(":")[-1]], capture_output=True, text=True, check=False)
            assert taken.returncode == 1
            assert re.fullmatch(
                r"charlm: 127\.0\.0\.1, port \d+: cannot listen \(Address already in use\)\n", taken.stderr
            )
            with httpx.Client(base_url=url, timeout=600) as http:
                wait_for(lambda: http.get("/ready").status_code == 200)
                body = {"model": "docs", "prompt": "The ", "max_tokens": 3000, "stream": True}
                with http.stream("POST", "/v1/completions", json=body) as answer:
                    lines = answer.iter_lines()
                    next(lines)
                    process.send_signal(signal.SIGTERM)
                    *_, last = [line for line in lines if line]
            assert last == "data: [DONE]"
            process.wait(60)
            log = process.stderr.read().splitlines()
        finally:
            process.kill()
    assert re.fullmatch(r"ready after \d+ s", log.pop(0))
    line = json.loads(log[-1])
    assert line.keys() == {"time", "client", "method", "path", "status", "seconds", "read", "written"}
    assert (line["client"], line["read"], line["written"]) == ("127.0.0.1", 4, 3000)
    assert "The " not in "".join(log)
    assert not [line for line in log if not line.startswith("{")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--api-key", ""], "'--api-key': is empty"),
        (["--name", "a/b"], "'--name': is part of addresses"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid, port 8000: cannot listen"),
        (["--host", "a..b"], "a..b, port 8000: cannot listen"),
        (["--model", "none"], "none"),
        (["--public-url", "example.com"], "'--public-url': 'example.com' is no address of a site"),
        (["--allow-origin", "https://example.com/page"], "'--allow-origin': 'https://example.com/page' is no site"),
        (["--allow-host", "a", "--allow-host", "http://a"], "'--allow-host': 'http://a' is no name of a host"),
        (["--max-length", "20000", "--max-symbols", "100"], "--max-length 20000 is more than --max-symbols 100"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(options, message):
    done = subprocess.run([*CHARLM, *options], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_empty_key_in_the_environment_is_refused():
    environment = {**os.environ, "CHARLM_SERVE_API_KEY": ""}
    done = subprocess.run(CHARLM, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, "'--api-key': is empty" in done.stderr) == (2, True)
