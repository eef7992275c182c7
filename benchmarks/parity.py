"""Writes docs/export.md: every format, cell and tokenizer, exported and checked: python benchmarks/parity.py PYDOCS"""

import platform
import sys
import tempfile
from pathlib import Path

import charlm
from charlm.config import CELL_NAMES, TOKENIZER_NAMES
from charlm.export import FORMATS, export

PAGE = """# Exports

`make parity` writes this page. Every model here (two layers of 128 units, 300 updates on the documentation of Python)
was exported in every format and loaded again by the format's own engine; both read the same 1000 symbols and wrote the
500 likeliest ones after them. The difference is the largest one between their logits, as a share of the largest logit;
1e-5 is the bound, beyond which nothing is written. SavedModels run in a process that cannot import charlm, and their
`step` in OpenVINO too. The page in HTML has its weights in half precision, and is compared with the model whose weights
are rounded so.

Python {python}, TensorFlow {tensorflow}, Keras {keras}.

| format | cell | tokenizer | engine | largest difference | greedy text |
|---|---|---|---|---|---|
{rows}
"""


def rows_of(model: charlm.LanguageModel, name: str, cell: str, tokenizer: str, folder: str) -> list[str]:
    rows = []
    destination = Path(folder, f"{name}-{cell}-{tokenizer}{FORMATS[name].suffix or ''}")
    for check in export(model, destination, name):
        text = "equal" if check.greedy else "different"
        found = f"not checked: {check.engine} | |"
        if check.difference is not None:
            found = f"{check.engine} | {check.difference:.1e} | {text}"
        rows.append(f"| {name} | {cell} | {tokenizer} | {found} |")
    return rows


def main() -> None:
    import keras
    import tensorflow

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cell in CELL_NAMES:
            for tokenizer in TOKENIZER_NAMES:
                settings = {"cell": cell, "tokenizer": tokenizer, "layers": 2, "units": 128, "steps": 300}
                model = charlm.train(sys.argv[1], preset="tiny", models=folder, name=f"{cell}-{tokenizer}", **settings)
                for name in (name for name, made in FORMATS.items() if not made.lacks(model.config)):
                    rows += rows_of(model, name, cell, tokenizer, folder)
                    print(rows[-1], flush=True)
    versions = {"python": platform.python_version(), "tensorflow": tensorflow.__version__, "keras": keras.__version__}
    page = PAGE.format(rows="\n".join(sorted(rows, key=lambda r: list(FORMATS).index(r.split()[1]))), **versions)
    (Path(__file__).parent.parent / "docs/export.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
