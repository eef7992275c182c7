"""What stands before the addresses: keys, pages of other sites, proxies, methods, bodies. No engine runs."""

import asyncio
import contextlib
import copy
import dataclasses
import gzip
import io
import json
import logging
import re

import pytest
from click.testing import CliRunner
from test_export import language_model

pytest.importorskip("fastapi")

from serving import LIMITS
from starlette.testclient import TestClient

from charlm.cli import cli
from charlm.cli.serve import _warn_of_strangers
from charlm.config import SampleConfig
from charlm.serve.app import build
from charlm.serve.engine import Engine, Full
from charlm.serve.guard import Guard
from charlm.serve.limits import Limits
from charlm.serve.refusals import answer
from charlm.serve.site import Site, host_of, origin_of

PAGE = "https://app.example"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("before"), units=8, layers=1)


@pytest.fixture(scope="module")
def asked(model):
    """Clients of applications, by their key and site."""
    engine, made = Engine(model), {}

    def client(key=None, **site):
        at = key, *site.values()
        made[at] = made.get(at) or TestClient(
            build(model, "m", engine, LIMITS, key, Site(**site)),
            base_url="http://127.0.0.1:8000",
            follow_redirects=False,
        )
        return made[at]

    return client


def message(answer):
    told = answer.json()["error"]
    return told if isinstance(told, str) else told["message"]


ALL = "whoever reaches this machine over the network can use the model, for there is no key"


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (["--host", "0.0.0.0"], [ALL]),
        (["--host", "0.0.0.0", "--api-key", "secret"], []),
        (["--host", "127.1.2.3"], []),
        ([], []),
    ],
)
def test_a_server_that_others_reach_without_a_key_says_so(monkeypatch, caplog, options, warnings):
    monkeypatch.setattr("charlm.machine.start_tensorflow", lambda: 1 / 0)  # far enough
    done = CliRunner().invoke(cli, ["serve", "--port", "0", *options])
    assert isinstance(done.exception, ZeroDivisionError)
    assert [record.message.split(": ")[0] for record in caplog.records] == warnings


def test_who_reaches_an_address_is_said_of_it(caplog):
    for address in ("192.168.1.7", "fe80::1", "::", "::1"):
        _warn_of_strangers(address)
    places = [record.message.split(" over ")[0].removeprefix("whoever reaches ") for record in caplog.records]
    assert places == ["192.168.1.7", "fe80::1", "this machine"]


WRONG = {"max_tokens": -1}  # refused after everything that stands before, by 400


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://example.com", "https://example.com", ""),
        ("https://Example.com:443/", "https://example.com", ""),
        ("http://example.com:8080/a/b/", "http://example.com:8080", "/a/b"),
        ("http://[::1]:8000", "http://[::1]:8000", ""),
        ("http://example.com:80", "http://example.com", ""),
    ],
)
def test_an_address_is_an_origin_as_browsers_write_it_and_a_path(url, origin, path):
    assert origin_of(url) == (origin, path)


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://a", "https://", "https://a/?q", "https://me@a", "http://a:b", "/charlm", "http://a b"]
)
def test_what_is_no_address_of_a_site_is_refused(url):
    with pytest.raises(ValueError, match=r".*"):
        origin_of(url)


def test_only_this_sites_pages_are_answered(asked):
    """A page of another site can have a browser send a text without asking."""
    here = "http://127.0.0.1:8000"
    for headers, status in (
        ({"Sec-Fetch-Site": "cross-site", "Origin": here}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxied.example"}, 400),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": here}, 400),
        ({}, 400),
    ):
        assert asked().post("/v1/completions", json=WRONG, headers=headers).status_code == status


OTHERS = ["rebound.example", "rebound.example:8000", "localhost.rebound.example", "127.0.0.1.rebound.example", "[::1"]
OWN = ["localhost", "LocalHost:8000", "localhost.", "a.localhost:1", "server.lan", "Server.LAN:8000", "other.lan"]
ADDRESSES = ["127.0.0.1", "127.1.2.3:8000", "[::1]:8000", "[::1]", "192.168.1.7:8000", "[fe80::1]"]
NO_HOSTS = ["http://server.lan", "server.lan/charlm", "me@server.lan", "server lan", "[::1", "a?b"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_name_that_was_led_here_is_not_answered(asked, name):
    """DNS rebinding: the page of a site, whose name leads here by now, is of this origin to a browser."""
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    for path in ("/", "/v1/models", "/metrics", "/health"):
        answer = asked().get(path, headers=headers)
        assert (answer.status_code, "charlm serve --allow-host" in message(answer)) == (421, True)
    assert asked().post("/v1/completions", json=WRONG, headers=headers).status_code == 421
    assert asked(key="secret").get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize("name", [*OWN, *ADDRESSES, "example.com", ""])
def test_own_names_and_addresses_are_answered_whatever_the_port(asked, name):
    client = asked(public="https://Example.com/charlm", origins=(), hosts=("server.lan", "other.lan"))
    assert client.get("/v1/models", headers={"Host": name}).status_code == 200


def test_old_http_says_no_host(model):
    """Nor does any browser speak it."""
    assert Site().misses({}) is None


@pytest.mark.parametrize(
    ("place", "host"), [("Server.LAN", "server.lan"), ("server.lan:8000", "server.lan"), ("[::1]:8000", "::1")]
)
def test_a_host_is_named_with_or_without_its_port(place, host):
    assert host_of(place) == host


@pytest.mark.parametrize("place", NO_HOSTS)
def test_what_is_no_host_is_refused(place):
    with pytest.raises(ValueError, match=r".*"):
        host_of(place)


def test_a_page_behind_a_bare_proxy_is_told_the_way_out(asked):
    headers = {"Origin": "http://proxy:8080", "Host": "127.0.0.1:8000"}
    told = message(asked().post("/v1/completions", json=WRONG, headers=headers))
    assert "a page of http://proxy:8080, which is another site than 127.0.0.1:8000" in told
    assert "--public-url http://proxy:8080" in told
    behind = asked(public="http://proxy:8080")
    assert behind.post("/v1/completions", json=WRONG, headers=headers).status_code == 400


def test_pages_of_sites_that_are_allowed_may_ask_and_ask_first_without_the_key(asked):
    client = asked(key="secret", origins=(PAGE, "null"))
    first = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/completions", headers=first | {"Access-Control-Request-Headers": "authorization,x-a"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert {"authorization", "x-a"} <= set(answer.headers["access-control-allow-headers"].split(","))
    other = client.options("/v1/completions", headers=first | {"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    keyless = client.post("/v1/completions", json={}, headers={"Origin": PAGE})
    assert (keyless.status_code, keyless.headers["access-control-allow-origin"]) == (401, PAGE)  # which it can read
    keyed = client.post("/v1/completions", json=WRONG, headers={"Origin": "null", "Authorization": "Bearer secret"})
    assert (keyed.status_code, keyed.headers["access-control-allow-origin"]) == (400, "null")
    for origins, status in (((PAGE,), 400), (("*",), 400), ((), 403)):
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        assert asked(origins=origins).post("/v1/completions", json=WRONG, headers=headers).status_code == status
    assert not [name for name in asked().get("/health").headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/charlm/v1/models", "/v1/models"])
def test_a_proxys_path_may_be_taken_off_or_not(asked, path):
    client = asked(public="https://example.com/charlm")
    assert client.get(path).json()["data"][0]["id"] == "m"
    assert client.get("/charlm").headers["location"] == "/charlm/"
    assert client.get("/charlm/").text.startswith("<!doctype html>")
    assert "/charlm/v1/completions" in message(client.post("/completions"))
    assert asked().get("/charlm/v1/models").status_code == 404


def test_the_addresses_are_grouped_introduced_and_their_limits_told(asked):
    page, described = asked().get("/docs").text, asked().get("/openapi.json").json()
    assert not re.search(r"""(?:href|src|url:)\s*=?\s*["']/""", page)  # nothing that a proxy's path would lose
    assert described["servers"] == [{"url": "."}]
    told = {code for how in described["paths"].values() for one in how.values() for code in one["responses"]}
    assert str(asked().post("/v1/completions", json={"n": 0}).status_code) in told
    assert "422" not in told
    tags = {tag["name"] for tag in described["tags"]}
    assert {tag for path in described["paths"].values() for how in path.values() for tag in how["tags"]} == tags
    for name in Limits.about():
        assert f"| {getattr(LIMITS, name):,} | `--max-{name}` |" in described["info"]["description"]
    assert "| 256 | `--queue` |" in described["info"]["description"]


def test_what_a_field_may_be_here_is_described(asked, model):
    document = asked().get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    completion, row = (schemas[name]["properties"] for name in ("Completion", "Instance"))
    null, most = {"type": "null"}, model.tokenizer.vocabulary - 1
    assert completion["max_tokens"]["anyOf"] == [
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31, "maximum": LIMITS.length},
        null,
    ]
    assert row["top_p"] | {"type": "number", "minimum": 1e-6, "maximum": 1} == row["top_p"]
    assert row["seed"]["anyOf"] == [{"type": "integer", "minimum": -1, "maximum": 2**31 - 1}, null]
    ids = {"type": "integer", "minimum": 0, "maximum": most}
    assert schemas["Detokenization"]["properties"]["tokens"]["items"] == ids
    assert not [name for name, field in completion.items() if null not in field["anyOf"]]
    assert schemas["Completion"]["additionalProperties"] == null
    refusals = [
        one["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        for path in ("/v1/completions", "/v1/models/{name}:predict")
        for one in [document["paths"][path]["post"]["responses"]["400"]]
    ]
    assert refusals == ["Refused", "RefusedPrediction"]
    assert list(document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]


def test_where_a_request_says_nothing_the_runs_own_settings_hold_within_the_limits(model, monkeypatch):
    own, engine, rows = copy.copy(model), Engine(model), []
    own.config = dataclasses.replace(model.config, sample=SampleConfig(9000, 4, 0.3, 7, 0.9, stop=("x",), seed=5))

    def submit(requests, deliver):
        rows.extend(requests)
        raise Full("far enough")

    monkeypatch.setattr(engine, "submit", submit)
    client = TestClient(build(own, "m", engine, Limits(length=800), None), base_url="http://localhost")
    assert client.post("/v1/completions", json={"prompt": "the "}).status_code == 429
    assert client.post("/v1/models/m:predict", json={"instances": ["the "]}).status_code == 429
    told = [(row.length, row.settings, row.seed) for row in rows]
    assert told == [(800, {"temperature": 0.3, "top_k": 7, "top_p": 0.9}, 5)] * 2
    assert rows[0].stop == ("x",)
    about = client.get("/openapi.json").json()["info"]["description"]
    assert (
        "by the model's own settings: 800 symbols, temperature 0.3, top_k 7, top_p 0.9, min_p 0, repetition_penalty 1."
        in about
    )


def test_a_key_is_asked_for(asked):
    client = asked(key="secret")
    for path in ("/health", "/docs", "/docs/", "/openapi.json", "/"):
        assert client.get(path).status_code == 200, path
    for path in ("/metrics", "/docs-files", "/v1/models", "//v1/models", "/tokenizer_info"):
        assert client.get(path).status_code == 401, path
    for borne in (None, "Bearer wrong", "Bearer sécret", "secret", "Basic secret"):
        headers = {"Authorization": borne.encode()} if borne else {}
        answer = client.post("/v1/completions", json={}, headers=headers | {"Api-Key": "secret"})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert message(answer).endswith("Authorization: Bearer KEY")
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/metrics", headers={"Authorization": "bearer secret"}).status_code == 200


def test_a_404_says_what_this_is_and_which_address_works(asked):
    for path in ("/v1/chat/completions", "/completions", "/v1/responses", "/v1/embeddings", "/anything"):
        answer = asked().post(path, json={})
        assert answer.status_code == 404
        assert "/v1/completions" in message(answer)
        assert answer.json()["error"]["code"] == "unknown_url"
    assert message(asked().get("/v1/completions")) == "/v1/completions takes POST, not GET"
    for path in ("/v1/completions", "/v1/models/m:predict"):
        assert asked().options(path).headers["allow"] == "POST"


def test_tensorflow_servings_addresses_answer_errors_in_its_shape(asked):
    for path, words in (
        ("/v1/models/none", "there is no model 'none', only 'm'"),
        ("/v1/models/m/versions/2", "there is no version '2' of 'm', only 1"),
        ("/v1/models/m/versions/2/metadata", "there is no version '2'"),
        ("/v1/models/m:predict", "predictions are POST /v1/models/m:predict"),
        ("/v1/models/m/labels/stable", "there is nothing at /v1/models/m/labels/stable"),
    ):
        answer = asked().get(path)
        assert answer.status_code == 404
        assert words in answer.json()["error"]
    assert (
        "there is no m:classify; predictions are POST" in asked().post("/v1/models/m:classify", json={}).json()["error"]
    )
    assert "API key" in asked(key="secret").get("/v1/models/m").json()["error"]
    assert asked().post("/v1/completions", json={"model": "none"}).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/v1/models", "/openapi.json", "/metrics"])
def test_what_can_be_got_can_be_asked_for_by_head(asked, path):
    assert asked().head(path).status_code == 200


def test_last_and_doubled_slashes_mean_the_same_address(asked):
    for path in ("/v1/completions/", "//v1/completions", "/v1//completions"):
        assert asked().post(f"http://127.0.0.1:8000{path}", json=WRONG).status_code == 400, path


def test_a_body_that_cannot_be_read_is_refused_in_words(asked):
    for content, headers, status, words in (
        (b"", {}, 400, "the request has to be a JSON object, {...}, and is empty"),
        (b"{", {}, 400, "the request is not JSON: "),
        (b"\xff", {}, 400, "the request cannot be read as JSON in UTF-8"),
        (b"[" * 15_000, {}, 400, "the request cannot be read as JSON in UTF-8"),
        (b'"x"', {"Content-Type": ""}, 400, "the request has to be a JSON object, {...}"),
        (gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, 415, "a body in gzip: send it as it is"),
        (b" " * 20_001, {}, 413, "a body of more than 20,000 bytes"),
    ):
        answer = asked().post("/v1/completions", content=content, headers=headers)
        assert (answer.status_code, message(answer)[: len(words)]) == (status, words)
    chunks = (b" " * 8000 for _ in range(4))  # a body that does not tell its length
    assert asked().post("/v1/completions", content=chunks).status_code == 413


def test_a_body_that_trickles_in_for_ever_is_refused():
    told = []

    async def trickle():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def tell(message):
        told.append(message)

    async def application(*asked):
        pytest.fail("a body that has not arrived was given on")

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    guard = Guard(application, Limits(arrival=0, body=10**9), None, Site(), answer)
    asyncio.run(guard(scope, trickle, tell))
    assert told[0]["status"] == 408
    assert (b"connection", b"close") in told[0]["headers"]
    assert b"a body that has not arrived within 0 seconds" in told[1]["body"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [{"prompt": "a", "top_k": 2**31}]}, "instances[0].top_k must be from 0 to 2147483647"),
        ({"instances": ["a", {"prompt": "a", "length": None}]}, "instances[1].length must be a whole number"),
        ({"instances": [""] * 3000}, "texts: 3,000 is more than 8"),
        ({"instances": [{"prompt": "a", "length": 90_000}] * 8 + ["a"]}, "texts: 9 is more than 8"),
        ({"instances": 7}, "instances must be a list of rows"),
        ({"inputs": {"prompt": [""] * 3000}}, "texts: 3,000 is more than 8"),
        ({"inputs": {"prompt": ["a", "b"], "length": [1, 2, 3]}}, "inputs.length: 3 values for 2 prompts"),
        ({"inputs": {"prompt": ["a", "b"], "\ud800": [1, 2, 3]}}, "inputs.?: 3 values for 2 prompts"),
        ({"inputs": {"prompt": ["a"], "seed": ["b"]}}, 'inputs.seed must be a whole number, not "b"'),
        ({"inputs": {"length": 3}}, "inputs.prompt is missing"),
        ({"inputs": 7}, "inputs.prompt must be a text, not 7"),
        ({"instances": ["a"], "inputs": ["a"]}, "either instances or inputs"),
        ({}, "either instances or inputs"),
        ({"instancs": []}, "there is no field 'instancs' here; did you mean instances?"),
        ({"instances": ["a"], "signature_name": "train"}, "there are no signatures but"),
    ],
)
def test_a_wrong_prediction_is_refused_by_name(asked, body, message):
    answer = asked().post("/v1/models/m:predict", content=json.dumps(body))
    assert answer.status_code == (404 if "signature" in message else 400)
    assert message in answer.json()["error"]


def test_who_asks_while_the_model_loads_can_see_why_it_takes_long(asked):
    assert asked().get("/ready").json() == {"ready": False, "status": "loading"}
    assert (asked().get("/ready").status_code, asked().get("/health").status_code) == (503, 200)
    assert asked().get("/health").json() == {"status": "loading"}
    state = asked().get("/v1/models/m").json()["model_version_status"][0]
    assert (state["state"], state["status"]["error_message"]) == ("LOADING", "loading")


def test_an_id_that_the_model_does_not_have_is_named(asked, model):
    most = model.tokenizer.vocabulary - 1
    for prompt, words in (
        ([0, most + 1], f"prompt: {most + 1} is no id of this model, whose ids are 0 to {most}"),
        ([[1], [-1]], "prompt[1]: -1 is no id"),
    ):
        answer = asked().post("/v1/completions", json={"prompt": prompt})
        assert answer.status_code == 400
        assert words in message(answer)
        assert answer.json()["error"]["param"] == "prompt"
    assert "9999 is no id" in message(asked().post("/detokenize", json={"tokens": [9999]}))


def test_ids_of_a_text_and_the_text_of_ids(asked):
    ids = asked().post("/tokenize", json={"prompt": "the dog", "add_special_tokens": False}).json()
    assert (ids["count"], len(ids["tokens"])) == (7, 7)
    assert asked().post("/detokenize", json={"tokens": ids["tokens"]}).json() == {"prompt": "the dog"}
    assert asked().get("/tokenizer_info").json()["eos_token"] is None


def test_a_line_of_the_log_has_its_time_and_its_client_and_no_text(asked, caplog):
    with caplog.at_level(logging.INFO, "charlm.access"), contextlib.redirect_stderr(io.StringIO()):
        asked().post("/v1/completions?x=secret", json={"prompt": "secret", "max_tokens": -1})
        asked().get("/health")
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "charlm.access"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert (line["client"], line["method"], line["status"]) == ("testclient", "POST", 400)
    assert "secret" not in str(line)
