"""Files on disk: JSON and manifests, written and read back; the files that systems leave among ours."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from charlm.errors import ModelError, visible

LARGEST_JSON, MOST_CONTAINERS = 1 << 24, 1 << 17  # else a small file could be parsed into gigabytes
NAMED = 5  # files, in a message
READ_BYTES = 1 << 20
MANIFEST = "MANIFEST.json"
EXPORT_TITLE = "A recurrent language model, exported from charlm"  # begins the README of an export, below its heading
# What file managers, network and sync folders leave among a person's files, besides hidden names.
_LEFT_BY_SYSTEMS = re.compile(
    r"Icon\r|Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information|lost\+found"
    r"|@eaDir|@Recycle|#recycle|.*:Zone\.Identifier|~\$.*|.*~|nohup\.out",
    re.IGNORECASE | re.DOTALL,
)
# What a file system without a feature answers; local ones have it.
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF}


def left_by_system(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or a system's own: neither a person's nor charlm's."""
    return name.startswith(".") or _LEFT_BY_SYSTEMS.fullmatch(name) is not None


def to_json(value: object, indent: int | None = None) -> bytes:
    """A line of JSON, or with an indent several, as UTF-8."""
    try:
        return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return (json.dumps(value, indent=indent) + "\n").encode()


def write_json(path: Path, value: object) -> None:
    """Writes JSON readable by people, synced to disk."""
    write_synced(path, to_json(value, indent=2))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: the file is missing, too large, or holds no JSON object.
    """
    try:
        with open_regular(path) as file:
            value = parsed(file.read(LARGEST_JSON + 1))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is missing, damaged, or not charlm's: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: is damaged: holds no JSON object")
    return value


def parsed(content: bytes) -> Any:
    """The value in JSON that charlm wrote; raises ValueError for any that is larger, or of deeper or more parts."""
    if len(content) > LARGEST_JSON or content.count(b"[") + content.count(b"{") > MOST_CONTAINERS:
        raise ValueError("larger than any such file that charlm writes")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("nested deeper than any such file that charlm writes") from None


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a file for reading; raises OSError for what may never end: a pipe, a device."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Is no regular file", str(path))
    return path.open("rb")


def real_path(path: str | os.PathLike[str]) -> Path:
    """Where links lead; unlike `Path.resolve`, a loop of links is no error before it is used."""
    return Path(os.path.realpath(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; raises OSError if it is none."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder and below it, however many there are; links to folders are not followed.

    Another process may remove some of them meanwhile.
    """
    size, folders = 0, [str(folder)]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file():
                        size += entry.stat().st_size
    return size


def is_replaced(state: os.stat_result, path: Path) -> bool:
    """True if a path leads to another file than the one of that state; False if it leads nowhere."""
    with suppress(FileNotFoundError):
        return not os.path.samestat(state, path.stat())
    return False


def cut_half_line(path: Path) -> None:
    """Cuts off the last line of a file if it has no end; the file need not be there."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        whole = 0
        while end and not whole:
            start = max(0, end - READ_BYTES)
            file.seek(start)
            if found := file.read(end - start).rfind(b"\n") + 1:
                whole = start + found
            end = start
        if whole < size:
            file.truncate(whole)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and syncs it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A path beside a file's place, where the file is written; it is then synced to disk and takes the place.

    After an error what was there before is there still. A device or a pipe is written to itself.
    """
    if place.exists() and not place.is_file():
        yield place
        return
    place = real_path(place)  # a link stays one
    beside = place.with_name(f".{secrets.token_hex(8)}-{place.name}")  # containers share numbers of processes
    try:
        yield beside
        sync(beside)
        beside.replace(place)
        sync(place.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Syncs a folder and all that is in it to disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Syncs a file, or the names in a folder, to disk, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Removes a folder from under its name, and what can be of its files; a network may keep open ones for a while."""
    gone = path.with_name(f".{path.name}.{os.getpid()}.gone")
    with suppress(OSError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def replace_folder(new: Path, place: Path) -> None:
    """Puts a folder in the place of another, if there is one; after a kill in between, `put_back` brings that back."""
    if place.exists():
        place.rename(_aside(place))
    new.rename(place)
    sync(place.parent)
    put_back(place)


def put_back(place: Path) -> None:
    """Puts back a folder that was moved aside for one that never came, or removes it if the other came."""
    if not place.exists() and _aside(place).exists():
        _aside(place).rename(place)
    shutil.rmtree(_aside(place), ignore_errors=True)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.charlm-before")


# ---- JSON with a digest of itself


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with a digest of itself."""
    return {**value, "digest": _own_digest(value)}


def is_sealed(path: Path, value: Mapping[str, Any]) -> bool:
    """True if an object's file is as it was written, byte by byte, and the object agrees with its digest."""
    as_written = path.read_bytes() == to_json(value, indent=2)
    return as_written and value.get("digest") == _own_digest(unsealed(value))


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without its digest."""
    return {name: part for name, part in value.items() if name != "digest"}


def _own_digest(value: Mapping[str, Any]) -> str:
    # The first manifests had no facts besides, and a digest of the files alone.
    covered = value["files"] if value.keys() == {"files"} else value
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


# ---- a folder's manifest: the size and SHA-256 of every file in it


def write_manifest(folder: Path, **facts: object) -> None:
    """Writes the manifest of what is in a folder, and of facts besides."""
    files = sorted(file for file in folder.iterdir() if not left_by_system(file.name))
    manifest = {"files": {file.name: _entry(file) for file in files}, **facts}
    write_json(folder / MANIFEST, sealed(manifest))


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Compares every file in a folder with its manifest, but those that systems leave.

    Returns:
        The manifest.

    Raises:
        ModelError: a file is missing, added, or differs in size or content.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    files = manifest.get("files")
    if b"\r\n" in path.read_bytes():
        raise ModelError(_line_ends(path))
    if not isinstance(files, dict) or not is_sealed(path, manifest):
        raise ModelError(f"{folder}: is damaged: {MANIFEST} does not match its own digest")
    if differ := _missing_or_added(folder, files.keys() | {MANIFEST}):
        raise ModelError(f"{folder}: is damaged: missing or added: {differ}")
    for name, entry in files.items():
        try:
            if entry != _entry(folder / name):
                raise ModelError(_changed(folder / name))
        except OSError as error:
            raise ModelError(f"{folder}: is damaged: {name} cannot be read: {error.strerror}") from None
    return manifest


def _missing_or_added(folder: Path, expected: Set[str]) -> str:
    """The names that a folder lacks or has beside those expected, however many; an empty text if there are none."""
    missing, added = set(expected), 0
    first: list[str] = []
    with os.scandir(folder) as entries:
        for name in (entry.name for entry in entries if not left_by_system(entry.name)):
            if name in missing:
                missing.remove(name)
            else:
                first, added = sorted([*first, name])[:NAMED], added + 1
    named, more = sorted([*first, *missing])[:NAMED], added + len(missing) - NAMED
    return ", ".join(map(visible, named)) + (f" and {more:,} more" if more > 0 else "")


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _changed(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096) if path.suffix == ".json" else b""
    if b"\r\n" in head:
        return _line_ends(path)
    return f"{path.parent}: is damaged: {path.name} has changed since it was written"


def _line_ends(path: Path) -> str:
    way_out = "copy it again as binary files; with git: git clone -c core.autocrlf=false"
    return f"{path.parent}: is damaged: the line ends of {path.name} were turned into CRLF; {way_out}"
