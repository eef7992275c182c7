"""What a request may say, and the words of a refusal: fields of every server's clients, without a model."""

import json

import pytest

pytest.importorskip("fastapi")

from pydantic import ValidationError

from charlm.config import SampleConfig
from charlm.serve.completions import Completion
from charlm.serve.foreign import FOREIGN, INSTEAD
from charlm.serve.predictions import Instance
from charlm.serve.refusals import nowhere, sentence

KNOWN = {"/", "/v1/completions", "/v1/models", "/tokenize"}


def refused(kind, body, above=()):
    with pytest.raises(ValidationError) as error:
        kind.model_validate(body)
    return sentence(error.value.errors()[0], above)


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1, "top_k": -1},
        {"n": 3, "best_of": 3},
        {"best_of": 1},
        {"ignore_eos": True, "min_tokens": 5, "max_tokens": 5},
        {"typical_p": 1, "cache_prompt": True, "id_slot": -1, "mirostat": 0, "mirostat_tau": 5.0, "tfs_z": 1},
        {"store": False, "metadata": {"team": "a"}, "user": "me", "service_tier": "auto"},
        {"skip_special_tokens": True, "stop_token_ids": [], "use_beam_search": False, "length_penalty": 1.0},
        {"response_format": {"type": "text"}},
        {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}},
        {"suffix": "", "stop": None, "logprobs": None, "echo": None, "top_n_sigma": -1},
        {"watermark": False, "details": False, "do_sample": True, "truncate": None, "repeat_penalty": 1.0},
        {"do_sample": False, "temperature": 0},
        {"stream_options": {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": False}},
        {"keep_alive": "5m", "options": {}, "template": ""},
        {"logprobs": False},
        {"stop": [f"{n}." for n in range(20)]},
        {"stop": ""},
    ],
)
def test_fields_that_ask_for_nothing_are_taken_whoevers_they_are(fields):
    own = {"seed": None, "top_k": 0} if "top_k" in fields else {}
    asked = Completion.model_validate({"prompt": "a", **fields})
    assert {name: getattr(asked, name) for name in own} == own
    assert asked.model_fields_set <= Completion.model_fields.keys()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"n": 2, "best_of": 3}, "best_of", "best_of is not offered here"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty is not offered here"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias is not offered here"),
        ({"min_tokens": 5}, "min_tokens", "min_tokens is not offered here"),
        ({"min_tokens": 5, "max_tokens": "x"}, "min_tokens", "min_tokens is not offered here"),
        ({"min_tokens": 300, "max_tokens": 200}, "min_tokens", "min_tokens is not offered here"),
        ({"min_tokens": 3, "max_tokens": 3, "stop": "x"}, "min_tokens", "min_tokens is not offered here"),
        ({"stop_token_ids": [5]}, "stop_token_ids", "stop_token_ids is not offered here"),
        ({"response_format": {"type": "json_object"}}, "response_format", "response_format is not offered here"),
        ({"do_sample": False}, "do_sample", "do_sample is not offered here"),
        ({"tempreature": 0.5}, "tempreature", "there is no field 'tempreature' here; did you mean temperature?"),
        ({"ignore_eso": 1}, "ignore_eso", "there is no field 'ignore_eso' here; did you mean ignore_eos?"),
        ({"qqqq": 1}, "qqqq", "there is no field 'qqqq' here"),
        ({"top\ud800k": 1}, r"top\ud800k", r"there is no field 'top\ud800k' here; did you mean top_k?"),
        (
            {"max_new_tokens": 5},
            "max_new_tokens",
            "there is no field 'max_new_tokens' here; max_tokens is what says it",
        ),
        ({"messages": []}, "messages", "there is no field 'messages' here; prompt is what says it"),
        (
            {"stream_options": {"include_usages": True}},
            "stream_options.include_usages",
            "there is no field 'include_usages' in stream_options; did you mean include_usage?",
        ),
        ({"prompt": []}, "prompt", 'prompt is an empty list, which asks for no text; an empty prompt is ""'),
        ({"prompt": 7}, "prompt", "prompt must be a text, or a list of ids with at least one"),
        ({"prompt": ["a", []]}, "prompt", "prompt[1] must be a text, or a list of ids with at least one"),
        ({"prompt": [float("inf")]}, "prompt", "prompt[0] must be a text, or a list of ids with at least one"),
        ({"prompt": [1.5]}, "prompt", "prompt[0] must be a text, or a list of ids with at least one"),
        ({"prompt": "\ud800"}, "prompt", "prompt: half of a surrogate pair is no text"),
        ({"stop": ["a", "x" * 201]}, "stop", "stop[1] may have at most 200 characters"),
        ({"stop": ["x"] * 65}, "stop", "stop may have at most 64 items"),
        ({"stop": [None]}, "stop", "stop[0] must be a text, not null"),
        ({"n": 0}, "n", "n must be at least 1, not 0"),
        ({"n": True}, "n", "n must be a whole number, not true"),
        ({"n": "many"}, "n", 'n must be a whole number, not "many"'),
        ({"n": "5"}, "n", 'n must be a whole number, not "5"'),
        ({"temperature": "0.5"}, "temperature", 'temperature must be a number, not "0.5"'),
        ({"stream": "no"}, "stream", 'stream must be true or false, not "no"'),
        ({"n": 10**4000}, "n", "n must be below 2,147,483,648, not 100000000000000000000000000000000000 ..."),
        ({"max_tokens": -1}, "max_tokens", "max_tokens must be at least 0, not -1"),
        ({"temperature": "hot"}, "temperature", 'temperature must be a number, not "hot"'),
        ({"temperature": 1e-38}, "temperature", "temperature must be 0, or from 0.001 to 1000, not 1e-38"),
        ({"top_p": 0}, "top_p", "top_p must be from 0.000001 to 1, not 0"),
        ({"top_k": 2**31}, "top_k", "top_k must be from 0 to 2147483647, not 2147483648"),
        ({"seed": -2}, "seed", "seed must be from 0 to 2147483647, not -2"),
        ({"logprobs": 6}, "logprobs", "logprobs must be at most 5, not 6"),
        ({"echo": "perhaps"}, "echo", 'echo must be true or false, not "perhaps"'),
        ({"model": 3}, "model", "model must be a text, not 3"),
    ],
)
def test_what_is_not_offered_or_misspelt_is_refused_in_a_sentence_that_names_it(fields, param, message):
    assert refused(Completion, fields) == (message, param)


@pytest.mark.parametrize("body", [[], None, "x", 7])
def test_a_request_that_is_no_object_is_told_so_without_words_of_python(body):
    assert refused(Completion, body) == ("the request has to be a JSON object, {...}", None)


def test_no_name_is_both_ours_and_anothers():
    assert not (FOREIGN.keys() & INSTEAD.keys())
    assert not ((FOREIGN.keys() | INSTEAD.keys()) & Completion.model_fields.keys())
    assert set(INSTEAD.values()) <= Completion.model_fields.keys()


def test_a_text_is_drawn_as_its_request_says_over_what_its_run_says():
    run = SampleConfig(
        length=30,
        temperature=0.3,
        top_k=7,
        top_p=0.9,
        min_p=0.2,
        repetition_penalty=2.0,
        stop=("x",),
        seed=5,
        samples=3,
    )
    for kind, length in (Completion, "max_tokens"), (Instance, "length"):
        assert kind.model_validate({"prompt": "a"}).over(run) == run
        said = {length: 2, "temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1, "seed": -1}
        assert kind.model_validate({"prompt": "a", **said}).over(run) == SampleConfig(2, 3, 0.0, stop=("x",))
    null = {"max_tokens": None, "temperature": None, "stop": None}
    assert Completion.model_validate(null).over(run) == run
    assert Completion.model_validate({"stop": ["", "y"]}).over(run).stop == ("y",)
    assert Completion.model_validate({"stop": ""}).over(run).stop == ()


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2.0], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["a", [3]], ["a", [3]]),
    ],
)
def test_a_prompt_is_a_text_or_ids_one_or_many(prompt, read):
    assert Completion.model_validate({"prompt": prompt}).prompt == read


@pytest.mark.parametrize("row", ["é", {"b64": "w6k="}, {"prompt": "é"}, {"prompt": {"b64": "w6k="}}])
def test_a_row_of_a_prediction_is_a_text_plain_or_in_base_64(row):
    assert Instance.model_validate(row).prompt == "é"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": {"b64": "/w=="}}, "instances[4].prompt: what is in b64 is not a text in UTF-8, in base 64"),
        ({"b64": "?"}, "instances[4].prompt: what is in b64 is not a text in UTF-8, in base 64"),
        ({"b64": 7}, "instances[4].prompt: what is in b64 is not a text in UTF-8, in base 64"),
        ({"length": 3}, "instances[4].prompt is missing"),
        ({"prompt": "a", "lenght": 3}, "there is no field 'lenght' in instances[4]; did you mean length?"),
        ({"prompt": "a", "length": None}, "instances[4].length must be a whole number, not null"),
        (7, "instances[4] must be an object, not 7"),
    ],
)
def test_a_wrong_row_is_refused_by_its_place(row, message):
    assert refused(Instance, row, ["instances", 4])[0] == message


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/chat/completions", "m goes on with a text and has no chats; POST a prompt to /x/v1/completions"),
        ("/v1/responses", "has no responses; POST a prompt"),
        ("/v1/embeddings", "has no embeddings; POST a prompt"),
        ("/completions", "did you mean /x/v1/completions? A client's base URL ends in /x/v1, once"),
        ("/v1/v1/completions", "did you mean /x/v1/completions? A client's base URL ends in /x/v1, once"),
        ("/models", "did you mean /x/v1/models?"),
        ("/v1/completion", "did you mean /x/v1/completions? (every address: /x/docs)"),
        ("/charlm/v1/models", "if a proxy puts /charlm before every address, start charlm serve with --public-url"),
        ("/charlm/", "texts are written at /v1/completions; if a proxy puts /charlm before every address, start"),
        ("/robots.txt", "texts are written at /v1/completions (every address: /docs)"),
        ("/api/generate", "texts are written at /x/v1/completions (every address: /x/docs)"),
    ],
)
def test_who_asks_at_a_wrong_address_is_told_the_right_one(path, words):
    assert words in nowhere(path, "/x" if "/x/" in words else "", "m", KNOWN)


def test_words_of_a_refusal_are_json():
    message, _ = refused(Completion, {"stop": {"a": "\ud800"}})
    json.dumps(message)
