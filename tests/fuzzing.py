"""What reads the bytes of strangers, each as a function of any bytes: it raises nothing but what charlm documents.

Hypothesis calls them in tests/test_fuzzing.py, and atheris, guided by coverage, in benchmarks/trust/fuzz.py.
"""

import asyncio
import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import lzma
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zstandard

from charlm.config import KNOBS, Config, DataConfig, ModelConfig, SampleConfig, TrainConfig, read_toml, resolve
from charlm.corpus import open_corpus
from charlm.errors import CharlmError, DataError
from charlm.files import read_json, sealed, to_json, unsealed
from charlm.pairs.alphabet import Layout
from charlm.pairs.records import learnt_alphabet
from charlm.pairs.table import read_pairs
from charlm.progress import Progress
from charlm.reading import Reading, prompt_text, text_bytes
from charlm.runs import Run
from charlm.series.alphabet import SeriesAlphabet
from charlm.series.choice import choose
from charlm.series.records import records_of, training_values
from charlm.series.tables import Columns, read_table
from charlm.shelf import find_run
from charlm.tokenizer import StreamDecoder
from charlm.tokenizers import OTHERS, TOKENIZERS

Function = Callable[[bytes], None]
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7", "gb18030", "shift_jis")
ENCODINGS += ("cp1252", "iso2022_jp", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "big5hkscs")
ERRORS, NEWLINES = ("strict", "replace", "surrogateescape"), ("keep", "normalise")
SUFFIXES = ("", ".gz", ".bz2", ".xz", ".zst")
VALUES = (None, True, -1, 0, 2**63, 10**400, math.nan, math.inf, 1e308, "", "../..", "\ud800", "\x1b[2J", [], {}, [[]])
RECORDED, STANDING = (to_json(value) for value in (Config().to_dict(), vars(Progress())))
TEXT = "What is so, is so.\r\nGrüße, 世界! \U0001f642\tDer 3. Satz\n"


def pick(options: Sequence, byte: int):
    return options[byte % len(options)]


def corpus(folder: Path) -> Function:
    """Two bytes that choose how a file is read, and the file."""

    def function(data: bytes) -> None:
        how, content = data[:2].ljust(2, b"\0"), data[2:]
        kinds = list(itertools.product(ERRORS, NEWLINES, SUFFIXES))
        errors, newlines, suffix = pick(kinds, how[1])
        reading = Reading(pick(ENCODINGS, how[0]), errors, newlines)
        path = folder / f"a{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(DataError), open_corpus([str(path)], reading) as found:
            text = "".join(found.pieces())
            assert (len(text), hashlib.sha256(text_bytes(text)).hexdigest()) == (found.chars, found.sha256)
            assert (
                not reading.takes_any_bytes
                or reading.encoding != "utf-8"
                or suffix
                or newlines == "normalise"
                or (text_bytes(text) == content)
            )
        with contextlib.suppress(DataError):
            prompt_text(content, "prompt.txt")

    return function


def tables(folder: Path) -> Function:
    """A file of number series and one of pairs."""
    split = DataConfig().split

    def function(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        with contextlib.suppress(DataError):
            series = read_table(text, Columns(), "a.csv")
            known = training_values(series, split)
            chosen = choose(known, series[0].calendar.season, all((one.values > 0).all() for one in series))
            alphabet = SeriesAlphabet.learnt(known, chosen.scaling)
            assert SeriesAlphabet.from_content(alphabet.content()).fingerprint == alphabet.fingerprint
            records_of(series, alphabet, split, "all")
        with contextlib.suppress(DataError):
            learnt_alphabet(list(read_pairs([text], "a.tsv")), Layout("whole", 0))

    return function


def tokenizers(folder: Path) -> Function:
    """A text, as UTF-8 and as UTF-16."""
    learnt = [kind.train(lambda: iter([TEXT * 20]), 300) for kind in TOKENIZERS.values()]

    def function(data: bytes) -> None:
        for text in (
            data.decode("utf-8", "surrogateescape"),
            data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace"),
        ):
            own = TOKENIZERS["char"].train(lambda text=text: iter([text]), 0)
            for tokenizer in (own, *learnt):
                ids = tokenizer.encode(text)
                assert (tokenizer.name == "char" and tokenizer is not own) or tokenizer.decode_bytes(ids) == text_bytes(
                    text
                )
                decoder = StreamDecoder(tokenizer)
                streamed = "".join(decoder.feed([i]) for i in ids.tolist()) + decoder.flush()
                assert streamed == tokenizer.decode_bytes(ids).decode("utf-8", "replace")

    return function


def tokenizer_files(folder: Path) -> Function:
    """A tokenizer's file, as a checkpoint holds it."""

    def function(data: bytes) -> None:
        for kind in {**TOKENIZERS, **OTHERS}.values():
            (folder / kind.file_name).write_bytes(data)
            with contextlib.suppress(CharlmError):
                found = kind.load(folder)
                assert kind.from_content(found.content()).fingerprint == found.fingerprint
                if kind in TOKENIZERS.values():
                    found.decode(found.encode(TEXT))
                    found.decode(range(found.vocabulary))

    return function


def patched(document: bytes, change: bytes) -> bytes:
    """A JSON document with another value in one place: a byte says where, the others are the value."""
    value, places = json.loads(document), []
    parts = [value]
    for part in parts:
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            places.append((part, key))
            if isinstance(inner, dict | list):
                parts.append(inner)
    part, key = pick(places, change[0] if change else 0)
    try:
        part[key] = json.loads(change[1:])
    except (ValueError, RecursionError):
        part[key] = pick(VALUES, change[1] if change[1:] else 0)
    return to_json(value, indent=2)


def configuration(folder: Path) -> Function:
    """A file of settings in TOML, a recorded configuration, or the standing of a run: any, or one with a value changed.

    The first byte says which.
    """
    path = folder / "run.toml"

    def function(data: bytes) -> None:
        kind, content = data[0] if data else 0, data[1:]
        with contextlib.suppress(CharlmError):
            if kind % 4 == 0:
                path.write_bytes(content)
                tables = read_toml(path)
                Config.checked(tables, str(path))
                made = resolve(tables)
                assert Config.from_dict(made.to_dict(), "config.json") == made
                return
            path.write_bytes(content if kind % 4 == 1 else patched(STANDING if kind % 2 else RECORDED, content))
            values = read_json(path)
            if kind % 2:
                Progress.of(values, "progress.json")
            else:
                Config.recorded(values, "config.json")

    return function


def made_run(folder: Path) -> Run:
    """A small run with one checkpoint, which needs no TensorFlow."""
    tokenizer = TOKENIZERS["char"].train(lambda: iter([TEXT]), 0)
    model = ModelConfig(units=4, vocabulary=tokenizer.vocabulary)
    arrays = {"embedding": (model.vocabulary, 4), "bias": (model.vocabulary,), "projection": (4, model.vocabulary)}
    arrays |= {"layers.0.kernel": (4, 16), "layers.0.recurrent": (4, 16), "layers.0.bias": (16,)}
    weights = {name: np.zeros(shape, np.float32) for name, shape in arrays.items()}
    about = {"paths": ["a.txt"], "chars": 60, "bytes": 60, "sha256": "0" * 64, "files": 1}
    record = {"format": 2, "config": Config(model=model).to_dict(), "corpus": about, "versions": {"charlm": "0"}}
    progress = {**vars(Progress(step=1, best=1, best_nats=1.0, steps=1))}
    run = Run.create(folder / "run", record)
    run.save(1, weights, {"state": np.zeros(2, np.float32)}, progress, tokenizer)
    return run


def seal(checkpoint: Path) -> None:
    """Makes a manifest that agrees with whatever is there, as a stranger would."""
    contents = {f.name: f.read_bytes() for f in checkpoint.iterdir() if f.name != "MANIFEST.json"}
    files = {name: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in sorted(contents.items())}
    (checkpoint / "MANIFEST.json").write_bytes(to_json(sealed({"files": files, "written": 1.0}), indent=2))


def read_run(path: Path) -> None:
    """All that commands read of a run before TensorFlow starts."""
    from charlm.cli.info import command as info
    from charlm.cli.listing import described, row, table

    table([row(described(find_run(str(path), path.parent)))], 80)
    for command in (lambda: info.callback(str(path), path.parent, "best", False),):
        with contextlib.suppress(CharlmError), contextlib.redirect_stdout(io.StringIO()):
            command()
    with contextlib.suppress(CharlmError):
        found = Run(path).pick("best")
        found.check_shapes(found.config().model)
        found.standing()


def with_patched_header(content: bytes, change: bytes) -> bytes:
    """A safetensors file with another value in its header."""
    size = int.from_bytes(content[:8], "little")
    header = patched(content[8 : 8 + size], change)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def runs(folder: Path) -> Function:
    """A byte that chooses a file of a run, one that says whether it is changed or replaced, and by what."""
    run = made_run(folder)
    place = run.checkpoints()[0].path
    whole = {file: file.read_bytes() for file in (*place.iterdir(), run.path / "config.json")}
    files = sorted(whole)

    def function(data: bytes) -> None:
        which, how, content = data[0] if data else 0, data[1] if data[1:] else 0, data[2:]
        file = pick(files, which)
        if how % 2:
            content = (patched if file.suffix == ".json" else with_patched_header)(whole[file], content)
        file.write_bytes(content)
        if file.name == "MANIFEST.json" or file.parent != place:
            with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError):
                file.write_bytes(to_json(sealed(unsealed(json.loads(content))), indent=2))
        else:
            seal(place)
        try:
            read_run(run.path)
        finally:
            for one in (file, place / "MANIFEST.json"):
                one.write_bytes(whole[one])

    return function


PATHS = ("/v1/completions", "/v1/models/small:predict", "/tokenize", "/detokenize", "/v1/models/small", "/health")


def requests(folder: Path) -> Function:
    """A byte that chooses an address, and the body of a request to it; the engine ends every text at once."""
    from charlm.language_model import LanguageModel
    from charlm.serve.app import build
    from charlm.serve.engine import Engine
    from charlm.serve.limits import Limits
    from charlm.serve.slot import Piece

    model = LanguageModel(Run(Path(__file__).parent.parent / "models" / "kjv-small").pick("best"))
    engine = Engine(model)
    engine.ready.set()

    def submit(rows, deliver):
        for n in range(len(rows)):
            deliver(n, Piece("a", (1,), (0.5,), "length", ({1: -0.5},)))
        return lambda: None

    engine.submit = submit
    app, loop = build(model, "small", engine, Limits(body=1 << 16), None), asyncio.new_event_loop()

    async def asked(path: str, body: bytes) -> tuple[int, bytes]:
        said, sent = [], iter([{"type": "http.request", "body": body}])

        async def receive():
            if (message := next(sent, None)) is None:
                await asyncio.Event().wait()
            return message

        async def send(message):
            said.append(message)

        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        await app(
            {**scope, "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": ""}, receive, send
        )
        return said[0]["status"], b"".join(message.get("body", b"") for message in said)

    def function(data: bytes) -> None:
        path = pick(PATHS, data[0]) if data else PATHS[0]
        status, body = loop.run_until_complete(asked(path, data[1:]))
        assert status < 500, (status, body[:200])
        assert body.endswith(b"data: [DONE]\n\n") or isinstance(json.loads(body), dict)

    return function


TARGETS = {
    target.__name__: target for target in (corpus, tables, tokenizers, tokenizer_files, configuration, runs, requests)
}


def seeds(name: str) -> list[bytes]:
    """Inputs that a target takes, to begin with."""
    return {"corpus": _files, "tables": _tables, "tokenizer_files": _tokenizers, "runs": _run_files}.get(
        name, lambda: [one.encode() for one in SEEDS[name]]
    )()


def _files() -> list[bytes]:
    compress = (bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress)
    packed = [bytes([0, suffix]) + how(TEXT.encode()) for suffix, how in enumerate(compress)]
    coded = []
    for n, encoding in enumerate(ENCODINGS):
        with contextlib.suppress(UnicodeError):
            coded.append(bytes([n, 0]) + TEXT.encode(encoding, "ignore"))
    return [*packed, *coded]


def _tables() -> list[bytes]:
    days = [f"2024-01-{day:02}" for day in range(1, 32)]
    long = "unique_id,ds,y\n" + "".join(f"{name},{day},{n}\n" for name in "AB" for n, day in enumerate(days))
    wide = "month;north;south\n" + "".join(f"{n // 12 + 1990}-{n % 12 + 1};{n},5;{n * n}\n" for n in range(40))
    tsf = "@relation a\n@attribute series_name string\n@attribute start_timestamp date\n@frequency yearly\n"
    tsf += "@horizon 6\n@missing true\n@equallength false\n@data\nT1:1979-01-01 00-00-00:25092.2,24271.5,?,25828.9\n"
    others = [
        "y\n" + "1\n2\n3\n" * 9,
        "a b\tb a\n" * 3 + r"a\tb" + "\tc\n",
        "Q1 2020\t1\nQ2 2020\t2\n",
        "31.12.2020\t1\n1.1.2021\t2\n",
    ]
    return [one.encode() for one in (long, wide, tsf, *others)]


def _tokenizers() -> list[bytes]:
    learnt = [kind.train(lambda: iter([TEXT * 20]), 300).content() for kind in TOKENIZERS.values()]
    steps = np.random.default_rng(0).normal(size=200)
    series = SeriesAlphabet.learnt([steps], choose([steps], 1, False).scaling)
    pairs = learnt_alphabet([*read_pairs(["ab\tb\nba\ta\n"], "a")], Layout("aligned", 2))
    return [*learnt, series.content(), pairs.content()]


def _run_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        run = made_run(Path(folder))
        files = sorted((*run.checkpoints()[0].path.iterdir(), run.path / "config.json"))
        whole = [bytes([n, 0]) + file.read_bytes() for n, file in enumerate(files)]
        return [*whole, *(bytes([n, 1, 7 * n]) + b"[3]" for n in range(len(files)))]


_BODIES = (
    {"prompt": "a", "max_tokens": 5, "temperature": 0.5, "top_k": 3, "stop": ["b"], "seed": 1, "n": 2, "logprobs": 2},
    {"prompt": ["a", "b"], "echo": True, "stream": True, "stream_options": {"include_usage": True}},
    {"prompt": [[1, 2], [3]], "best_of": 1, "min_tokens": 1, "user": "u", "response_format": {"type": "text"}},
    {"instances": ["a", {"prompt": {"b64": "YQ=="}, "length": 3, "top_p": 0.5}], "signature_name": "generate"},
    {"inputs": {"prompt": ["a", "b"], "length": [3], "seed": 1}},
    {"prompt": "a", "add_special_tokens": True},
    {"tokens": [1, 2, 3], "model": "small"},
)
SEEDS = {
    "tokenizers": (f"\x07{TEXT}", "\1a▁b ⁇ <s>\0\x7f", "\3" + "ab" * 50),
    "configuration": (
        "\1" + STANDING.decode(),
        "\2\x07[3]",
        "\3\x05-1.5",
        '\0[model]\nunits = 8\ntie = true\n[train]\nsteps = 3\nlearning_rate = 1e-3\n[sample]\nstop = ["a"]\n',
        '\0[data]\nsplit = [0.8, 0.1, 0.1]\nreset_on = "a+"\nbins = 0x10\n[train]\nstride = 2\nminutes = inf\n',
    ),
    "requests": tuple(chr(n) + json.dumps(body) for body in _BODIES for n in range(4)),
}


def words(name: str) -> list[str]:
    """What is worth putting into an input of a target."""
    kinds = {"configuration": (ModelConfig, DataConfig, TrainConfig, SampleConfig, Progress)}
    fields = [one.name for kind in kinds.get(name, ()) for one in dataclasses.fields(kind)]
    json_words = ["null", "true", "1e999", "-0", "NaN", "\\ud800", "18446744073709551616", "[[[[[["]
    return {
        "requests": [*json_words, *KNOBS, "prompt", "instances", "inputs", "b64", "stream", "tokens", "logprobs"],
        "configuration": [*json_words, *fields],
        "runs": [*json_words, "F32", "BF16", "dtype", "shape", "data_offsets", "../", "__metadata__"],
        "tables": ["unique_id", "ds", "@data", "9999-12-31", "0001-01-01", "NaN", "1e308", "2020W53", "\\t"],
    }.get(name, [])
