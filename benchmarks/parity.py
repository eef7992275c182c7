"""Writes docs/export.md: every format, cell and tokenizer, exported and checked: python benchmarks/parity.py PYDOCS

With MINUTES after it, only prints what becomes of an LSTM of 512 units in two layers that is trained for so long.
"""

import platform
import sys
import tempfile
from pathlib import Path

import charlm
from charlm.cells import CELL_NAMES
from charlm.export import FORMATS, export
from charlm.tokenizers import TOKENIZERS

PAGE = """# Exports

`make parity CORPUS=file` writes this page. Every model here (two layers of 128 units, 300 updates on {corpus})
was exported in every format and loaded again by the format's own engine, which read 1000 symbols and wrote the 500
likeliest ones after them. Both are held against the same weights in float64. The difference is the largest one between
their logits, as a share of the largest logit. What it may be depends on the model, for a recurrence may make much of a
rounding: float32's own rounding is the largest error, up to the symbol in question, of eight runs of the model in
float32 that differ in the last bits of their states. An export may be {bound:.0f} times as far from float64 and every
symbol that it writes has to be the likeliest one up to that, or nothing is written: processors and engines round each
in their own way and stay below 3, while a wrong gate order, a lost bias or weights in half precision are some hundred
times beyond it.

SavedModels run in a process that cannot import charlm, and their `step` in OpenVINO too. Their `prefill` has to give
the logits of `step`; `score` and `generate` take the text of the symbols, and have to give the model's nats, a
likeliest continuation and its text. The page in HTML has its weights in half precision, and is compared with the model
whose weights are rounded so.

Python {python}, TensorFlow {tensorflow}, Keras {keras}.

| format | cell | tokenizer | engine | largest difference | of float32's rounding | greedy symbols the likeliest |
|---|---|---|---|---|---|---|
{rows}
"""


def rows_of(model: charlm.LanguageModel, name: str, cell: str, tokenizer: str, folder: str) -> list[str]:
    rows = []
    destination = Path(folder, f"{name}-{cell}-{tokenizer}{FORMATS[name].suffix or ''}")
    for check in export(model, destination, name):
        found = f"not checked: {check.engine} | | |"
        if check.noise is not None:
            text = "all" if check.greedy else "not all"
            found = f"{check.engine} | {check.difference:.1e} | {check.noise:.1f} | {text}"
        rows.append(f"| {name} | {cell} | {tokenizer} | {found} |")
    return rows


def large(corpus: str, minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = charlm.train(corpus, models=folder, name="large", cell="lstm", layers=2, units=512, minutes=minutes)
        for name in FORMATS:
            print(*rows_of(model, name, "lstm", "char", folder), sep="\n", flush=True)


def main() -> None:
    if len(sys.argv) > 2:
        large(sys.argv[1], float(sys.argv[2]))
        return
    import keras
    import tensorflow

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in CELL_NAMES:
            for tokenizer in TOKENIZERS:
                settings = {"cell": cell, "tokenizer": tokenizer, "layers": 2, "units": 128, "steps": 300}
                model = charlm.train(sys.argv[1], preset="tiny", models=folder, name=f"{cell}-{tokenizer}", **settings)
                for name in (name for name, made in FORMATS.items() if not made.lacks(model.config)):
                    rows += rows_of(model, name, cell, tokenizer, folder)
                    print(rows[-1], flush=True)
    versions = {"python": platform.python_version(), "tensorflow": tensorflow.__version__, "keras": keras.__version__}
    from charlm.export.parity import BOUND

    rows.sort(key=lambda r: list(FORMATS).index(r.split()[1]))
    page = PAGE.format(bound=BOUND, corpus=Path(sys.argv[1]).name, rows="\n".join(rows), **versions)
    (Path(__file__).parent.parent / "docs/export.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
