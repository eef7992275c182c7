"""Writes docs/translations.md: one string into another: python benchmarks/pairs.py SIGMORPHON_FOLDER [PART...]

The folder holds LANGUAGE_train.tsv, _dev.tsv and _test.tsv of SIGMORPHON 2021's first task, medium. Parts: addition2,
addition3, dates, words. What is measured is kept in docs/translations.json, from which the page is written.
"""

import datetime
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import heading

import charlm
from charlm.pairs.metrics import accuracy
from charlm.pairs.table import Pair, escaped, read_pairs
from charlm.questions import TranslationConfig

DOCS = Path(__file__).parent.parent / "docs"
PARTS = ("addition2", "addition3", "dates", "words")
MINUTES = {"dates": 8.0, "words": 5.0}
LANGUAGES = ("dut", "fre", "hun", "jpn_hira", "vie_hanoi")
PUBLISHED = {"dut": 14.7, "fre": 8.5, "hun": 1.8, "jpn_hira": 5.2, "vie_hanoi": 2.5}  # per cent, the task's baseline
LOCALES = (
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "sv",
    "da",
    "nb",
    "fi",
    "pl",
    "cs",
    "hu",
    "ro",
    "tr",
    "ru",
    "el",
    "id",
    "vi",
)
FORMS = ("medium", "long", "full")
DAYS = 1500
KERAS = {2: (5_000, 55), 3: (50_000, 100)}  # digits: pairs, and the epochs that Keras' example states
STEPS = {2: 1000, 3: 8000}


def trained(pairs, folder, **settings):
    """A model of pairs and the seconds that it took."""
    path = Path(folder, "pairs.tsv")
    path.write_text("".join(f"{escaped(pair.source)}\t{escaped(pair.target)}\n" for pair in pairs), "utf-8")
    start = time.monotonic()
    model = charlm.train(path, pairs=True, models=folder, progress=False, **settings)
    return model, time.monotonic() - start


def found(model, pairs, beam):
    """The target found for each source."""
    sources = list(dict.fromkeys(pair.source for pair in pairs))
    hypotheses = model.hypotheses(sources, TranslationConfig(beam=beam))
    return {source: own[0].text for source, own in zip(sources, hypotheses, strict=True)}


def exact(model, pairs, beam):
    return 100 * accuracy(found(model, pairs, beam), pairs).exact


# ---- addition


def sums(digits, count):
    """Sums as Keras' example makes them: numbers of up to so many digits, no two alike."""
    rng, seen, pairs = random.Random(0), set(), []
    while len(pairs) < count:
        one, other = (int("".join(rng.choices("0123456789", k=rng.randint(1, digits)))) for _ in range(2))
        if (key := tuple(sorted((one, other)))) not in seen:
            seen.add(key)
            pairs.append(Pair(f"{one}+{other}", str(one + other)))
    return pairs


def keras_addition(pairs, held_out, digits, epochs):
    """Keras' example of a recurrent net on strings, with the source reversed: exact match in per cent, and seconds."""
    import keras
    import numpy as np

    width, answer = 2 * digits + 1, digits + 1
    symbols = {symbol: n for n, symbol in enumerate("0123456789+ ")}

    def one_hot(texts, length):
        ids = np.array([[symbols[symbol] for symbol in text.ljust(length)] for text in texts])
        return np.eye(len(symbols), dtype=bool)[ids], ids

    x, _ = one_hot([pair.source.ljust(width)[::-1] for pair in pairs], width)
    y, _ = one_hot([pair.target for pair in pairs], answer)
    test, _ = one_hot([pair.source.ljust(width)[::-1] for pair in held_out], width)
    _, wanted = one_hot([pair.target for pair in held_out], answer)
    model = keras.Sequential(
        [
            keras.layers.Input((width, len(symbols))),
            keras.layers.LSTM(128),
            keras.layers.RepeatVector(answer),
            keras.layers.LSTM(128, return_sequences=True),
            keras.layers.Dense(len(symbols), activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    start = time.monotonic()
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    seconds = time.monotonic() - start
    right = (model.predict(test, verbose=0).argmax(-1) == wanted).all(1).mean()
    return 100 * right, seconds


def addition(digits):
    count, epochs = KERAS[digits]
    pairs = sums(digits, count)
    cut = count - count // 10
    with tempfile.TemporaryDirectory() as folder:
        network = {"units": 128, "embedding": 32, "dropout": 0.0}
        settings = {**network, "form": "reversed", "bptt": 32, "learning_rate": 1e-2, "steps": STEPS[digits]}
        model, seconds = trained(pairs[:cut], folder, **settings)
        symbols = sum(len(pair.source) + len(pair.target) + 3 for pair in pairs[:cut]) * 0.95
        row = {"digits": digits, "pairs": count, "charlm": exact(model, pairs[cut:], 1), "seconds": seconds}
    row["epochs"] = STEPS[digits] * 64 * 32 / symbols
    theirs, keras_seconds = keras_addition(pairs[:cut], pairs[cut:], digits, epochs)
    return row | {"keras": theirs, "keras_epochs": epochs, "keras_seconds": keras_seconds}


# ---- dates


def dates(_folder):
    """Dates in many languages to ISO 8601, held out by date."""
    from babel.dates import format_date

    rng = random.Random(0)
    days = rng.sample(range(datetime.date(1950, 1, 1).toordinal(), datetime.date(2050, 1, 1).toordinal()), DAYS)
    written = {
        locale: [
            Pair(format_date(day, form, locale=locale), day.isoformat())
            for day in map(datetime.date.fromordinal, days)
            for form in FORMS
        ]
        for locale in LOCALES
    }
    cut = {locale: len(pairs) * 9 // 10 for locale, pairs in written.items()}
    pairs = [pair for locale, own in written.items() for pair in own[: cut[locale]]]
    rng.shuffle(pairs)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, seconds = trained(pairs, folder, minutes=MINUTES["dates"])
        for locale, own in written.items():
            held_out = own[cut[locale] :]
            rows.append({"locale": locale, "greedy": exact(model, held_out, 1), "beam": exact(model, held_out, 4)})
            print(rows[-1], flush=True)
    return {"seconds": seconds, "layout": str(model.alphabet.layout), "rows": rows}


# ---- words


def words(folder):
    """Words to their pronunciation; the test words are asked once, for the table."""
    rows = []
    for language in LANGUAGES:
        parts = {
            part: list(read_pairs([Path(folder, f"{language}_{part}.tsv").read_text("utf-8")], part))
            for part in ("train", "dev", "test")
        }
        with tempfile.TemporaryDirectory() as models:
            model, seconds = trained(parts["train"], models, minutes=MINUTES["words"])
            errors = {
                f"{part}_{beam}": 100 - exact(model, parts[part], beam) for part in ("dev", "test") for beam in (1, 4)
            }
        rows.append({"language": language, "layout": str(model.alphabet.layout), "seconds": seconds, **errors})
        print(rows[-1], flush=True)
    return rows


# ---- the page


def page(measured):
    lines = [
        "# One string into another, measured\n",
        "`make pairs SIGMORPHON=folder` writes this page, or the parts that PARTS names. Each model is trained by",
        "`charlm train --pairs`, which chooses the layout by trial, on the pairs that are not held out.\n",
    ]
    sums_measured = [measured[part] for part in ("addition2", "addition3") if part in measured]
    if sums_measured:
        lines += [*dict.fromkeys(about["machine"] for about in sums_measured), "## Addition\n"]
        lines += [
            "Keras' own example of a recurrent net on strings, made by a script, one layer of 128 units; a tenth of the"
        ]
        lines += [
            "pairs is held out. Stock Keras runs the example's network, source reversed, in the same call; charlm"
        ]
        lines += ["is told the layout too (`--form reversed`), and a learning rate of 0.01.\n"]
        lines += ["| digits | pairs | charlm: exact | epochs | seconds | Keras: exact | epochs | seconds |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in (about["found"] for about in sums_measured):
            ours = f"{row['charlm']:.2f} % | {row['epochs']:.0f} | {row['seconds']:.0f}"
            theirs = f"{row['keras']:.2f} % | {row['keras_epochs']} | {row['keras_seconds']:.0f}"
            lines += [f"| {row['digits']} | {row['pairs']:,} | {ours} | {theirs} |"]
    if "dates" in measured:
        about = measured["dates"]
        lines += ["", about["machine"], "## Dates\n"]
        lines += ["Dates in medium, long and full form in 20 languages (Babel) to ISO 8601, no language named;"]
        lines += [f"held out by date. {about['found']['seconds'] / 60:.1f} minutes; {about['found']['layout']}.\n"]
        lines += ["| language | exact, greedy | exact, beam of 4 |", "|---|---|---|"]
        rows = about["found"]["rows"]
        means = {kind: statistics.mean(row[kind] for row in rows) for kind in ("greedy", "beam")}
        for row in [*rows, {"locale": "mean", **means}]:
            lines += [f"| {row['locale']} | {row['greedy']:.1f} % | {row['beam']:.1f} % |"]
    if "words" in measured:
        about = measured["words"]
        lines += ["", about["machine"], "## Words to their pronunciation\n"]
        lines += [
            "SIGMORPHON 2021, task 1, medium: 8,000 words to train on, 1,000 test words a language; word errors in per"
        ]
        lines += ["cent. The baseline is the task's, an ensemble of neural transducers.\n"]
        lines += ["| language | layout | minutes | dev, greedy | dev, beam | test, greedy | test, beam | baseline |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        rows = about["found"]
        kinds = ("dev_1", "dev_4", "test_1", "test_4")
        for row in rows:
            errors = " | ".join(f"{row[kind]:.1f}" for kind in kinds)
            published = PUBLISHED[row["language"]]
            lines += [f"| {row['language']} | {row['layout']} | {row['seconds'] / 60:.1f} | {errors} | {published} |"]
        means = " | ".join(f"{statistics.mean(row[kind] for row in rows):.2f}" for kind in kinds)
        lines += [f"| mean | | | {means} | {statistics.mean(PUBLISHED.values()):.2f} |"]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder, parts = sys.argv[1], sys.argv[2:] or PARTS
    kept = DOCS / "translations.json"
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for part in parts:
        command = f"make pairs SIGMORPHON=folder PARTS={part}"
        found = (
            addition(int(part[-1])) if part.startswith("addition") else {"dates": dates, "words": words}[part](folder)
        )
        measured[part] = {"machine": heading(command, "babel"), "found": found}
        print(found, flush=True)
        kept.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        (DOCS / "translations.md").write_text(page(measured), "utf-8")


if __name__ == "__main__":
    main()
