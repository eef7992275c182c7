"""Files of arrays whose header promises what it should not, under a manifest that agrees with them."""

import json
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


HEADERS = {
    "a header of 2^62 bytes": written(b"{}", size=1 << 62),
    "a header of 100 MB that is not there": written(b"{}", size=100_000_000),
    "a header of 100 MB of blanks": written(b"{" + b" " * 99_999_990 + b"}"),
    "a deep header": written(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a hundred thousand arrays": many(100_000),
    "arrays that overlap": arrays(8, embedding=([2], [0, 8]), bias=([1], [4, 8])),
    "arrays of nothing in one place": arrays(0, embedding=([0, 10**9], [0, 0]), bias=([0], [0, 0])),
    "a shape whose product overflows": arrays(4, embedding=([2**33, 2**31], [0, 4])),
    "offsets beyond the end": arrays(4, embedding=([10**9], [0, 4 * 10**9])),
    "offsets that go backwards": arrays(4, embedding=([1], [4, 0])),
    "a pickle": written(b"cos\nsystem\n(S'touch owned'\ntR.", size=0),
}
