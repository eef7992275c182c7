"""docs/performance.md and its plot, out of docs/performance.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE, PLOT = DOCS / "performance.json", DOCS / "performance.md", DOCS / "performance.png"
TEXT = Path(__file__).with_name("performance.template.md")


def write(part: str, found: Mapping[str, Any]) -> None:
    """Replaces what the data says of one part, and makes the page and the plot anew."""
    data = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    data[part] = found
    DATA.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    page = TEXT.read_text("utf-8")
    for name, render in RENDER.items():
        part_of_page = (
            f"{data[name]['measured']}\n{render(data[name]['found'])}" if name in data else "Not measured yet."
        )
        page = page.replace(f"{{{name}}}", part_of_page)
    PAGE.write_text(page, "utf-8")
    if "training" in data:
        plot(data["training"]["found"])


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def k(rate: float) -> str:
    return f"{rate / 1000:.1f} k"


def best(rates: Mapping[str, float], peer: str) -> float:
    return max(rate for name, rate in rates.items() if name.startswith(peer))


def shape(row: Mapping[str, Any]) -> str:
    units, layers, *rest = row["sizes"]
    return f"{row['cell'].upper()} {units} × {layers}, {', '.join(map(str, rest))}"


def training(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["rates"])
    return table(
        ["cell, units × layers, lanes, window", *names, "charlm : PyTorch's best", "charlm : Keras' best"],
        [
            [
                shape(row),
                *(k(row["rates"][name]) for name in names),
                *(f"{row['rates']['charlm'] / best(row['rates'], peer):.2f}" for peer in ("PyTorch", "Keras")),
            ]
            for row in rows
        ],
    )


def generation(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["rates"])
    return table(
        ["cell, units × layers, samples", *names, "charlm's best : PyTorch's best"],
        [
            [
                shape(row),
                *(k(row["rates"][name]) for name in names),
                f"{best(row['rates'], 'charlm') / best(row['rates'], 'PyTorch'):.1f}",
            ]
            for row in rows
        ],
    )


def roofline(found: Mapping[str, float]) -> str:
    rows = [
        ("training, LSTM 512 × 2, 64 lanes", "GFLOP/s", found["training_flops"], found["product_flops"]),
        ("decoding, LSTM 512 × 2, batch 1", "GB/s", found["decoding_bytes"], found["read_bytes"]),
    ]
    return table(
        ["", "reached", "ceiling", "share"],
        [[what, f"{a / 1e9:.0f} {unit}", f"{b / 1e9:.0f} {unit}", f"{a / b:.0%}"] for what, unit, a, b in rows],
    )


def scaling(found: Mapping[str, Mapping[str, float]]) -> str:
    units = [[n, k(rate), f"{1e9 / rate:.0f}", f"{1e9 / rate / int(n) ** 2:.4f}"] for n, rate in found["units"].items()]
    window = [[n, k(rate), f"{1e9 / rate:.0f}"] for n, rate in found["window"].items()]
    return (
        table(["units, LSTM, 1 layer, 64 lanes, window 64", "symbols/s", "ns a symbol", "ns a symbol and unit²"], units)
        + "\n"
        + table(["window, LSTM 256 × 2, 32 lanes", "symbols/s", "ns a symbol"], window)
    )


def corpora(found: Mapping[str, Mapping[str, float]]) -> str:
    return table(
        ["characters", "training, symbols/s", "peak of anonymous memory"],
        [[f"{int(n):,}", k(r["rate"]), f"{r['peak_anonymous_bytes'] / 1e6:.0f} MB"] for n, r in found.items()],
    )


def startup(found: Mapping[str, float]) -> str:
    return table(
        ["", "seconds", "beyond the import"],
        [
            ["`import tensorflow`", f"{found['import']:.2f}", ""],
            [
                "first character of `charlm generate`",
                f"{found['first']:.2f}",
                f"{found['first'] - found['import']:.2f}",
            ],
            ["`charlm --help`", f"{found['help']:.2f}", ""],
        ],
    )


def precision(found: Mapping[str, float]) -> str:
    return table(["operands", "nats a symbol, carried"], [[name, f"{nats:.4f}"] for name, nats in found.items()])


def quality(rows: list[dict[str, Any]]) -> str:
    return table(
        ["`--minutes`", "seconds, whole command", "model", "nats, carried", "bits per character", "nats, cold:256"],
        [
            [
                r["minutes"],
                f"{r['seconds']:.1f}",
                r["model"],
                f"{r['carried']:.4f}",
                f"{r['bits_per_char']:.4f}",
                f"{r['cold']:.4f}",
            ]
            for r in rows
        ],
    )


RENDER = {
    function.__name__: function
    for function in (training, generation, roofline, scaling, corpora, startup, precision, quality)
}


def plot(rows: list[dict[str, Any]]) -> None:
    """Training speed, each shape relative to charlm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    names, width = list(rows[0]["rates"]), 0.16
    colours = ["#b5402c", "#7b9ac0", "#33567d", "#c9bfa5", "#8d8163"]
    for n, (name, colour) in enumerate(zip(names, colours, strict=True)):
        places = [at + (n - (len(names) - 1) / 2) * width for at in range(len(rows))]
        shares = [row["rates"][name] / row["rates"]["charlm"] for row in rows]
        bars = axes.bar(places, shares, 0.92 * width, color=colour, label=name)
        axes.bar_label(bars, [k(row["rates"][name]) for row in rows], fontsize=6.5, padding=2)
    axes.set_xticks(range(len(rows)), [shape(row).replace(", ", "\n", 1) for row in rows], fontsize=8)
    axes.set_ylabel("speed, charlm = 1")
    axes.set_title("Training, symbols per second (above each bar)", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    figure.savefig(PLOT, dpi=160)
    pyplot.close(figure)
