"""Writes docs/trust.md: what charlm survives: python benchmarks/trust [PART...]

What is measured is kept in docs/trust.json, from which the page is written.
"""

import importlib
import json
import logging
import signal
import sys
import tempfile
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
DOCS = BENCHMARKS.parent / "docs"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests")]

from machine import heading  # noqa: E402

# Each part is a module here: `measure(folder)` tries, in an empty folder, and returns the part's rows.
PARTS = (
    "kills",
    "disk",
    "full",
    "places",
    "damage",
    "divergence",
    "signals",
    "locks",
    "hostile",
    "fuzz",
    "strangers",
    "server",
    "large",
    "replicas",
    "versions",
)
HEAD = """\
# Trust: what charlm survives

`make trust` writes this page, or the parts that PARTS names.

| part | what happens | tried | survived | command |
|---|---|---|---|---|
"""


def page(measured: dict) -> str:
    known = [part for part in PARTS if part in measured]
    rows = [
        f"| {part} | {row['what']} | {row['tried']} | {row['survived']} | `make trust PARTS={part}` |\n"
        for part in known
        for row in measured[part]["rows"]
    ]
    versions: dict[str, dict[str, None]] = {}  # of the packages, by the machine
    for part in known:
        place, _, found = measured[part]["machine"].strip().rstrip(".").partition("; ")
        versions.setdefault(place, {}).update(dict.fromkeys(found.split(", ")))
    machines = [f"\n{place}; {', '.join(found)}.\n" for place, found in versions.items()]
    notes = [f"\n{note}\n" for part in known if (note := importlib.import_module(part).NOTE)]
    return HEAD + "".join([*rows, *machines, *notes])


def main() -> None:
    logging.disable(logging.WARNING)  # of damage, a thousand times
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and what it starts
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise under nohup
    kept = DOCS / "trust.json"
    measured = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for name in sys.argv[1:] or PARTS:
        part = importlib.import_module(name)
        with tempfile.TemporaryDirectory() as folder:
            rows = part.measure(Path(folder))
        packages = getattr(part, "PACKAGES", ())
        measured[name] = {"machine": heading("make trust", *packages), "rows": rows}
        print(name, *rows, sep="\n", flush=True)
        kept.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        (DOCS / "trust.md").write_text(page(measured), "utf-8")


if __name__ == "__main__":
    main()
