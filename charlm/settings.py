"""How settings are declared and read: once, as a field with its default, its range and its help.

Command-line options, keys of TOML files, keyword arguments and their documentation are made from the declaration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from charlm.errors import UsageError, did_you_mean, named, nearest, spelled

Function = typing.TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Allowed:
    """The values that a setting may have: in words, and as a test.

    Attributes:
        names: all values, where they are few.
        ranges: the least and the greatest of each range, where they are known.
    """

    words: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()


def at_least(least: float) -> Allowed:
    """Finite numbers of `least` or more."""
    return Allowed(f"at least {least:g}", lambda value: least <= value < math.inf)


def within(words: str, *ranges: tuple[float, float]) -> Allowed:
    """Numbers in any of some ranges [least, most], which words describe."""
    return Allowed(words, lambda value: any(least <= value <= most for least, most in ranges), ranges=ranges)


def between(least: float, most: float) -> Allowed:
    """Numbers in [least, most]."""
    words = (f"{limit:.6f}".rstrip("0").rstrip(".") for limit in (least, most))
    return within("from {} to {}".format(*words), (least, most))


def one_of(*names: str) -> Allowed:
    """One of these names."""
    return Allowed(f"one of {', '.join(names)}", lambda value: value in names, names)


LARGEST = 2**63 - 1  # that a computer counts to
ABOVE_0 = Allowed("above 0", lambda value: 0 < value < math.inf)
SEEDS = between(0, 2**31 - 1)


def setting(
    default: Any,
    allowed: Allowed | None,
    meaning: str,
    shown: str | None = None,
    neutral: float | None = None,
    slider: tuple[float, float] | None = None,
) -> Any:
    """A field of a configuration.

    Args:
        default: its value where nothing sets it.
        allowed: what it may be besides None; None for anything of its type.
        meaning: what it means, a phrase.
        shown: the default in words, where the value says too little.
        neutral: the value that changes nothing, of a sampler's setting.
        slider: from where to where a page offers it.
    """
    words = str(default) if shown is None else shown
    metadata = {"allowed": allowed, "meaning": meaning, "shown": words, "neutral": neutral, "slider": slider}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """A field's declaration."""

    table: str
    key: str
    kind: Any  # without None
    allowed: Allowed | None
    meaning: str
    shown: str  # its default, in words
    neutral: float | None = None
    slider: tuple[float, float] | None = None

    @property
    def help(self) -> str:
        """What it means, and its default."""
        return f"{self.meaning} [{self.shown}]." if self.shown else f"{self.meaning}."

    @property
    def entry(self) -> str:
        """A line of a docstring: its name, what it means, what it may be, and its default."""
        allowed = f"; {self.allowed.words}" if self.allowed else ""
        return f"{self.key}: {self.meaning}{allowed}{f' [{self.shown}]' if self.shown else ''}."

    @property
    def choices(self) -> tuple[str, ...]:
        """All values there are, if they are few."""
        return self.allowed.names if self.allowed else ()


def in_file(where: str, setting: str, value: object = None) -> str:
    """A setting as a key of a file."""
    table, _, key = setting.rpartition(".")
    return f"{f'[{table}] ' if table else ''}{key}{'' if value is None else f' = {value}'} in {where}"


def _spelled_in(where: str | None) -> contextlib.AbstractContextManager[None]:
    """Inside, settings are named as keys of a file, if there is one."""
    return contextlib.nullcontext() if where is None else spelled(functools.partial(in_file, where))


def _without_none(kind: Any) -> Any:
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def _typed(value: Any, kind: Any) -> Any:
    """`value` as the annotated type `kind`; TypeError if it is of another.

    An int is a float, and at most `LARGEST`; a bool is no int, one text is a tuple of texts, and
    NumPy's values are Python's.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    options = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if value is None else _typed(value, options[0])
    if typing.get_origin(kind) is tuple:
        if options == (str, ...) and isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple) or (options[-1] is not Ellipsis and len(value) != len(options)):
            raise TypeError
        return tuple(_typed(v, options[0]) for v in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is int and abs(value) > LARGEST):
        raise TypeError
    return value


def _wanted(kind: Any) -> str:
    kind = _without_none(kind)
    if typing.get_origin(kind) is tuple:
        return "a text or a list of texts" if kind == tuple[str, ...] else f"{len(typing.get_args(kind))} numbers"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]


class Strict:
    """A dataclass of settings, or of tables of them: JSON in and out, strictly, with errors that name the setting."""

    TABLE: ClassVar[str] = ""  # that a file has its settings in

    def __post_init__(self) -> None:
        self._check_ranges(vars(self))

    @classmethod
    def _check_ranges(cls, values: Mapping[str, Any]) -> None:
        """Holds each setting against its own range."""
        for one in cls.settings():
            value = values.get(one.key)
            if one.allowed is not None and value is not None and not one.allowed.holds(value):
                raise cls._refused(one.key, value, one.allowed.words, one.choices)

    def _check(self, key: str, holds: bool, wanted: str) -> None:
        """Holds a setting against others."""
        if not holds:
            raise self._refused(key, getattr(self, key), wanted)

    @classmethod
    def _refused(cls, key: str, value: object, wanted: str, names: Iterable[str] = ()) -> UsageError:
        meant = nearest(str(value), names)
        return UsageError(f"{named(f'{cls.TABLE}.{key}')} must be {wanted}, not {value!r}{meant}")

    @classmethod
    @functools.cache
    def settings(cls) -> list[Setting]:
        """What a user may set of it."""
        hints = typing.get_type_hints(cls)
        return [
            Setting(cls.TABLE, one.name, _without_none(hints[one.name]), **one.metadata)
            for one in dataclasses.fields(cls)  # type: ignore[arg-type]
            if one.metadata
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """Builds one from plain values.

        Args:
            values: by key; a mapping for a table.
            where: the file that they stand in, for messages; None if whoever called set them one by one.

        Raises:
            UsageError: as `checked`, or settings that do not go together.
        """
        with _spelled_in(where):
            return cls._of(cls.checked(values, where))

    @classmethod
    def _of(cls, checked: Mapping[str, Any]) -> Self:
        tables = cls._tables()
        return cls(**{key: tables[key]._of(value) if key in tables else value for key, value in checked.items()})

    @classmethod
    def _tables(cls) -> dict[str, type[Strict]]:
        hints = typing.get_type_hints(cls)
        return {key: kind for key, kind in hints.items() if isinstance(kind, type) and issubclass(kind, Strict)}

    @classmethod
    def checked(
        cls, values: Mapping[str, Any], where: str | None = None, beside: Sequence[type[Strict]] = ()
    ) -> dict[str, Any]:
        """Plain values of the right types, each in its own range; whether they go together is not asked.

        Args:
            values, where: as `from_dict`.
            beside: the tables next to it, which an unknown key may have been meant for.

        Raises:
            UsageError: a key is unknown, of the wrong type, or out of range; the message names it.
        """
        if where is not None:
            if not isinstance(values, Mapping):
                raise UsageError(f"{where} must hold tables of settings, not {values!r}")
            with _spelled_in(where):
                return cls.checked(values)
        hints, known = typing.get_type_hints(cls), [one.name for one in dataclasses.fields(cls)]  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        tables = list(cls._tables().values())
        for key, value in values.items():
            name = named(f"{cls.TABLE}.{key}")
            if key not in known:
                raise UsageError(f"{name}: there is no such setting{cls._meant(key, known, [*tables, *beside])}")
            kind = hints[key]
            if kind in tables:
                if not isinstance(value, Mapping):
                    raise UsageError(f"{name} must be a table of settings, not {value!r}")
                found[key] = kind.checked(value, beside=tables)
                continue
            try:
                found[key] = _typed(value, kind)
            except (TypeError, OverflowError):
                raise UsageError(f"{name} must be {_wanted(kind)}, not {value!r}") from None
        cls._check_ranges(found)
        return found

    @staticmethod
    def _meant(key: str, known: Sequence[str], tables: Sequence[type[Strict]]) -> str:
        """What an unknown key may have been meant for: the same key of another table, or one that reads like it."""
        elsewhere = (table for table in tables if any(one.key == key for one in table.settings()))
        table = next(elsewhere, None)
        return did_you_mean(key, known) if table is None else f"; did you mean {named(f'{table.TABLE}.{key}')}?"

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]


def without_none(table: type[Strict], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without those that are None where the setting cannot be: whoever calls leaves it as it is."""
    hints = typing.get_type_hints(table)
    return {
        key: value
        for key, value in values.items()
        if value is not None or key not in hints or isinstance(hints[key], types.UnionType)
    }


def lists(*tables: type[Strict]) -> Callable[[Function], Function]:
    """Writes the settings of tables where a function's docstring says SETTINGS."""
    entries = [textwrap.wrap(one.entry, 104, subsequent_indent=4 * " ") for table in tables for one in table.settings()]
    listed = "\n".join(12 * " " + line for entry in entries for line in entry).lstrip()

    def decorate(function: Function) -> Function:
        function.__doc__ = (function.__doc__ or "").replace("SETTINGS", listed)  # None under python -OO
        return function

    return decorate
