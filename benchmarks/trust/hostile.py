"""Corpora that no person would write, through the real command line."""

import bz2
import codecs
import gzip
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import zstandard
from processes import Ended, charlm

TEXT = "What is so, is so. Grüße, 世界!\r\n" * 100
LINE_MB = 100
SIZES = "--units 8 --layers 1 --embedding 8 --lanes 2 --bptt 8 --dropout 0 --steps 1 --name run"
MOST_MEGABYTES = 512.0
KJV = Path(__file__).parent.parent.parent / "models" / "kjv-small"
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # root without its right to any file
NOTE = (
    "hostile: `charlm train --steps 1`, `tokenize` and `generate`. A failure is more memory than "
    f"{MOST_MEGABYTES:.0f} MB above that\nof a short text, two minutes, a traceback, or another exit code or number of "
    "characters than expected."
)


class Case(NamedTuple):
    """A corpus: what makes it, what may come out, and how many characters it has where it is read."""

    what: str
    make: Callable[[Path], object]  # of the path of the corpus
    codes: tuple[int, ...]
    options: str = ""
    chars: int | None = None
    command: str = "train"
    beside: Callable[[Path], object] | None = None  # done to it over and over, while it is read
    before: tuple[str, ...] = ()
    piped: bool = False


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def linked(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def long_line(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(LINE_MB):
            file.write(b"abcde fg. " * 100_000)


def bomb(form: str, block: bytes, count: int) -> Callable[[Path], object]:
    """Compressed blocks, made in a process of its own."""
    opened = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}[form]
    written = f"for _ in range({count}): file.write({block!r} * 65536)"
    script = f"import {opened}, sys\nwith {opened}.open(sys.argv[1], 'wb') as file:\n {written}"
    return lambda path: subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def wide_xz(path: Path) -> None:
    packed = lzma.compress(TEXT.encode(), format=lzma.FORMAT_ALONE)
    path.write_bytes(packed[:1] + (3 << 30).to_bytes(4, "little") + packed[5:])


def pipe(path: Path) -> None:
    os.mkfifo(path)
    threading.Thread(target=path.write_text, args=(TEXT,), daemon=True).start()


def folder_with(*makers: tuple[str, Callable[[Path], object]], mode: int = 0o755) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.mkdir()
        for name, maker in makers:
            maker(path / name)
        path.chmod(mode)

    return make


def closed_file(path: Path) -> None:
    path.write_text(TEXT)
    path.chmod(0)


def bound_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


def large(path: Path) -> None:
    path.write_bytes(TEXT.encode() * 5000)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(os.urandom(1).hex().encode())


WHOLE, CHARS = TEXT.encode(), len(TEXT)
MARK = codecs.BOM_UTF8
CASES = [
    Case("empty", holding(b""), (3,)),
    Case("one byte", holding(b"a"), (3,)),
    Case("NULs", holding(bytes(10**6)), (3,)),
    Case("NULs as bytes", holding(bytes(10**5)), (0,), "--tokenizer byte", 10**5),
    Case("a mark first", holding(MARK + WHOLE), (0,), chars=CHARS),
    Case("a mark inside", holding(WHOLE + MARK + WHOLE), (0,), chars=2 * CHARS + 1),
    Case("a mark last", holding(WHOLE + MARK), (0,), chars=CHARS + 1),
    Case("a mark alone", holding(MARK), (3,)),
    *(
        Case(
            f"{form}{' as such' if told else ''}",
            holding(TEXT.encode(form)),
            *((0,), f"--encoding {form}", CHARS) if told else ((3,),),
        )
        for form in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
        for told in (False, True)
    ),
    Case("half a character of UTF-16", holding(TEXT.encode("utf-16") + b"a"), (3,), "--encoding utf-16"),
    Case(
        "a lone surrogate of UTF-16",
        holding(TEXT.encode("utf-16-le") + b"\0\xd8a\0"),
        (3,),
        "--encoding utf-16-le",
    ),
    Case("a lone surrogate of UTF-8", holding(WHOLE + b"\xed\xa0\x80"), (3,)),
    Case("a lone surrogate, replaced", holding(WHOLE + b"\xed\xa0\x80"), (0,), "--errors replace", CHARS + 3),
    Case("a lone surrogate, as bytes", holding(WHOLE + b"\xed\xa0\x80"), (0,), "--tokenizer byte"),
    Case("a line of 100 MB", long_line, (0,), "", LINE_MB * 10**6),
    Case("a line of 100 MB, in pieces", long_line, (0,), "--tokenizer sentencepiece", LINE_MB * 10**6),
    Case("a line of 100 MB, of series", long_line, (3,), "--tokenizer series"),
    Case("a line of 100 MB, of pairs", long_line, (3,), "--pairs"),
    Case("a line of 100 MB, a prompt", long_line, (3,), command="generate", piped=True),
    Case("a line of 100 MB, to tokenize", long_line, (3,), command="tokenize", piped=True),
    Case("a pipe", pipe, (0,), chars=CHARS),
    Case("a folder with a pipe", folder_with(("a", os.mkfifo), ("b", holding(WHOLE))), (0,), chars=CHARS),
    Case("a loop of links", linked("corpus"), (2,)),
    Case(
        "a folder with a loop",
        folder_with(("a", linked("a")), ("b", linked(".")), ("c", holding(WHOLE))),
        (0,),
        chars=CHARS,
    ),
    Case("a socket", bound_socket, (2,)),
    *(Case(device, linked(device), (2,)) for device in ("/dev/zero", "/dev/urandom", "/dev/full")),
    Case("/dev/null", linked("/dev/null"), (3,)),
    Case("/dev/zero, piped", linked("/dev/zero"), (2,), command="train -", piped=True),
    Case("/dev/zero, a prompt", linked("/dev/zero"), (3,), command="generate", piped=True),
    Case("/dev/zero, to tokenize", linked("/dev/zero"), (3,), command="tokenize", piped=True),
    Case("a closed file", closed_file, (2,), before=AS_OTHERS),
    Case("a closed folder", folder_with(("a", holding(WHOLE)), mode=0), (2,), before=AS_OTHERS),
    Case("a folder that may only be listed", folder_with(("a", holding(WHOLE)), mode=0o644), (2,), before=AS_OTHERS),
    Case("a file that grows", large, (0, 3), beside=grown),
    Case("a file that changes", large, (0, 3), beside=rewritten),
    Case("a file that shrinks", large, (0, 3), beside=lambda path: os.truncate(path, 3_000_000)),
    Case("a file that vanishes", large, (0, 2), beside=lambda path: path.unlink(missing_ok=True)),
    Case("a dictionary of 3 GB.xz", wide_xz, (3,)),
    Case("an archive.zip", holding(b"PK\3\4" + bytes(1000)), (3,)),
    *(Case(f"a gigabyte of NULs{form}", bomb(form, bytes(16), 1000), (3,)) for form in (".gz", ".bz2", ".xz")),
    *(
        Case(f"100 MB of one line{form}", bomb(form, b"So it is, so it \n", 90), (0,), chars=90 * 17 * 65536)
        for form in (".gz", ".xz")
    ),
    Case(
        "100 MB in a few bytes.zst",
        lambda path: path.write_bytes(zstandard.compress(b"So it is. " * 10**7)),
        (0,),
        chars=10**8,
    ),
    Case("damaged.gz", holding(gzip.compress(WHOLE)[:-5]), (3,)),
    Case("damaged.bz2", holding(bz2.compress(WHOLE)[:-5]), (3,)),
]


def run(case: Case, folder: Path) -> tuple[Ended, int | None]:
    """Types the command; returns how it ended, and the characters that a new run's record has."""
    corpus = folder / ("corpus" + "".join(Path(case.what).suffixes[-1:] if "." in case.what else []))
    case.make(corpus)
    words = {
        "train": ["train", corpus.name, *SIZES.split(), *case.options.split()],
        "train -": ["train", "-", *SIZES.split()],
        "generate": ["generate", "--model", KJV, "--length", "5"],
        "tokenize": ["tokenize", "--model", KJV],
    }[case.command]
    over = threading.Event()

    def meddle() -> None:
        time.sleep(0.5)
        while case.beside and not over.wait(0.05):
            case.beside(corpus)

    meddling = threading.Thread(target=meddle, daemon=True)
    meddling.start()
    stdin = corpus.open("rb") if case.piped else subprocess.DEVNULL
    ended = charlm(*words, folder=folder, stdin=stdin, before=case.before)
    over.set()
    record = folder / "models" / "run" / "config.json"
    return ended, json.loads(record.read_text("utf-8"))["corpus"]["chars"] if record.exists() else None


def measure(folder: Path) -> list[dict[str, str]]:
    if shutil.which("setpriv") is None:
        raise SystemExit("the part hostile wants setpriv, of util-linux")
    places = iter(folder / f"case-{n}" for n in range(len(CASES) + 1))

    def tried(case: Case) -> tuple[Case, Ended, bool]:
        place = next(places)
        place.mkdir()
        ended, chars = run(case, place)
        right = ended.code in case.codes and (ended.refused if ended.code else "Traceback" not in ended.said)
        right = right and (case.chars is None or ended.code != 0 or chars == case.chars)
        subprocess.run(["chmod", "-R", "u+rwx", place], check=False)
        shutil.rmtree(place, ignore_errors=True)
        return case, ended, right

    bare = tried(Case("a short text", holding(WHOLE), (0,), chars=CHARS))[1].megabytes
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(tried, CASES))
    well = [case for case, ended, right in found if right and ended.megabytes <= bare + MOST_MEGABYTES]
    for case, ended, right in found:
        if case not in well:
            print("NOT", right, case.what, ended, flush=True)
    most = max(ended.megabytes for _, ended, _ in found) - bare
    slowest = max(ended.seconds for _, ended, _ in found)
    return [
        {
            "what": "a corpus that is hostile",
            "tried": f"{len(CASES)} corpora",
            "survived": f"{len(well)} of {len(CASES)}: read rightly, or refused in one line with the right exit code; "
            f"at most {max(0, most):.0f} MB above a short text's {bare:.0f} MB, and {slowest:.0f} s",
        }
    ]
