"""Files of arrays whose header promises what it should not, under a manifest that agrees with them."""

import json
import os
import struct
from pathlib import Path

from fuzzing import seal

from attacks.links import checkpoint


def written(header: bytes, content: bytes = b"", size: int | None = None):
    def attack(run: Path, outside: Path) -> None:
        place = checkpoint(run)
        whole = struct.pack("<Q", len(header) if size is None else size) + header + content
        (place / "weights.safetensors").write_bytes(whole)
        seal(place)

    return attack


def arrays(content: int = 0, **shapes):
    """Of a dtype and a shape, at given offsets."""
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": place} for name, (shape, place) in shapes.items()}
    return written(json.dumps(header).encode(), bytes(content))


def many(count: int):
    entry = '"a%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return written(("{" + ",".join(entry % n for n in range(count)) + "}").encode())


def sparse(file: Path, name: str, gigabytes: int) -> None:
    """Adds an array of zeros, which takes no room on the disk, to a file of arrays."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, end, more = json.loads(content[8 : 8 + size]), len(content) - 8 - size, gigabytes << 30
    text = json.dumps({**header, name: {"dtype": "F32", "shape": [more // 4], "data_offsets": [end, end + more]}})
    whole = struct.pack("<Q", len(text)) + text.encode() + content[8 + size :]
    file.write_bytes(whole)
    os.truncate(file, len(whole) + more)


def added(file: str, name: str):
    def attack(run: Path, outside: Path) -> None:
        place = checkpoint(run)
        sparse(place / file, name, 2)
        seal(place)

    return attack


HEADERS = {
    "a header of 2^62 bytes": written(b"{}", size=1 << 62),
    "a header of 100 MB that is not there": written(b"{}", size=100_000_000),
    "a header of 100 MB of blanks": written(b"{" + b" " * 99_999_990 + b"}"),
    "a deep header": written(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a hundred thousand arrays": many(100_000),
    "arrays that overlap": arrays(8, embedding=([2], [0, 8]), bias=([1], [4, 8])),
    "arrays of nothing in one place": arrays(0, embedding=([0, 10**9], [0, 0]), bias=([0], [0, 0])),
    "a shape whose product overflows": arrays(4, embedding=([2**33, 2**31], [0, 4])),
    "2 GB of weights that no network has": added("weights.safetensors", "more"),
    "2 GB in a layer": added("weights.safetensors", "layers.0.more"),
    "2 GB that no training has": added("training.safetensors", "optimizer.more"),
    "offsets beyond the end": arrays(4, embedding=([10**9], [0, 4 * 10**9])),
    "offsets that go backwards": arrays(4, embedding=([1], [4, 0])),
    "a pickle": written(b"cos\nsystem\n(S'touch owned'\ntR.", size=0),
}
