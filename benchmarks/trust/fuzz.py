"""Fuzzing guided by coverage, by atheris: FUZZ_SECONDS (3600) of a processor's time for each target.

FUZZ_PROCESSES (1) run at a time. FUZZ_FOLDER keeps the inputs and the time spent, and the next call goes on with them.
`python benchmarks/trust/fuzz.py TARGET FOLDER SECONDS` is the process of one target.
"""

import json
import logging
import os
import re
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "tests"))

TARGETS = ("requests", "runs", "corpus", "configuration", "tokenizers", "tokenizer_files", "tables")
PACKAGES = ("atheris",)
NOTE = (
    "fuzz: a finding is anything but charlm's own errors, or for a request anything but its documented answers: an\n"
    "exception, a signal, more than 2 GB, or a minute for one input. What atheris begins with is in `tests/fuzzing.py`."
)
MOST_BYTES, MOST_MEGABYTES, MOST_SECONDS = 8192, 2048, 60
ROUND_SECONDS = 300


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzzes one target; each kind of finding is a file in the folder."""
    import atheris

    logging.disable(logging.CRITICAL)
    work = folder / "work" / str(os.getpid())
    for place in (work, folder / "found", folder / "inputs"):
        place.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["charlm"]):
        import fuzzing

        function = fuzzing.TARGETS[name](work)
    for n, seed in enumerate(fuzzing.seeds(name)):
        (folder / "inputs" / f"seed-{n}").write_bytes(seed)
    (folder / "words").write_text("".join(f"{json.dumps(word)}\n" for word in ("a", *fuzzing.words(name))))

    def once(data: bytes) -> None:
        try:
            function(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            frame = next((f for f in reversed(frames) if "/charlm/" in f.filename), frames[-1])
            kept = folder / "found" / f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}"
            if not kept.exists():
                kept.write_bytes(data)
                kept.with_suffix(".txt").write_text(traceback.format_exc())

    limits = f"-max_len={MOST_BYTES} -rss_limit_mb={MOST_MEGABYTES} -timeout={MOST_SECONDS} -max_total_time={seconds}"
    kept = f"-dict={folder / 'words'} -artifact_prefix={folder / 'found'}/ -print_final_stats=1"
    atheris.Setup([name, *limits.split(), *kept.split(), str(folder / "inputs")], once)
    atheris.Fuzz()


def fuzzed(name: str, folder: Path, seconds: int) -> dict[str, str]:
    """The row of a target, fuzzed until it has had so much of a processor's time.

    A process that dies has a finding, and another one goes on. What was spent is kept in the folder after each round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, log = folder / "spent.json", folder / "log"
    spent = json.loads(kept.read_text()) if kept.exists() else {"inputs": 0, "seconds": 0.0, "died": 0}
    while (left := seconds - int(spent["seconds"])) > 0:
        command = [sys.executable, __file__, name, str(folder), str(min(left, ROUND_SECONDS))]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
        said = log.read_bytes()
        inputs = sum(map(int, re.findall(rb"stat::number_of_executed_units: (\d+)", said)))
        assert inputs, said[-2000:].decode(errors="replace")
        spent["inputs"] += inputs
        spent["seconds"] += usage.ru_utime + usage.ru_stime
        spent["died"] += status != 0
        kept.write_text(json.dumps(spent))
    findings = [*(folder / "found").glob("*.txt")]
    return {
        "what": f"any bytes, guided by coverage: {name.replace('_', ' ')}",
        "tried": f"{spent['inputs']:,} inputs in {spent['seconds'] / 60:,.0f} minutes of a processor",
        "survived": "all" if not findings and not spent["died"] else f"NOT: {spent['died'] + len(findings)} failures",
    }


def measure(folder: Path) -> list[dict[str, str]]:
    seconds, kept = int(os.environ.get("FUZZ_SECONDS", "3600")), Path(os.environ.get("FUZZ_FOLDER", folder))
    with ThreadPoolExecutor(int(os.environ.get("FUZZ_PROCESSES", "1"))) as pool:
        return list(pool.map(lambda name: fuzzed(name, kept / name, seconds), TARGETS))


if __name__ == "__main__":
    fuzz(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
