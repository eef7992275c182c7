"""What the fields of a request may be."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, LiteralString, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from charlm.config import KNOBS, SampleConfig
from charlm.errors import nearest
from charlm.settings import SEEDS, Allowed, Setting

Nothing: TypeAlias = Callable[[Any, Mapping[str, Any]], bool]  # whether a value asks for nothing, in this request


def wrong(message: str, name: str | None = None) -> PydanticCustomError:
    """An error whose message is a sentence; `name` is the field where the place of the error does not say it.

    Half of a surrogate pair in a client's word is escaped: pydantic wants messages that are UTF-8.
    """
    said = {"message": message, "name": name}
    said = {key: text and text.encode(errors="backslashreplace").decode() for key, text in said.items()}
    return PydanticCustomError("wrong", "{message}", said)


SHOWN = 100  # characters of what a client calls a field


class Fields(BaseModel):
    """A part of a request: unknown fields are refused by their names, others' fields taken where they ask for nothing.

    Attributes:
        foreign: fields that are not offered, each with what asks for nothing.
        instead: fields that go by another name here.
    """

    model_config = ConfigDict(extra="forbid")
    foreign: ClassVar[Mapping[str, Nothing]] = {}
    instead: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        names = {*cls.model_fields, *cls.foreign}
        for name in part.keys() - cls.model_fields.keys():
            if name in cls.foreign:
                if part[name] is not None and not cls.foreign[name](part[name], part):
                    raise wrong(f"{name} is not offered here", name)
            elif name in cls.instead:
                raise wrong(f"there is no field {name!r} here; {cls.instead[name]} is what says it", name)
            else:
                raise wrong(f"there is no field {name[:SHOWN]!r} here{nearest(name, names)}", name[:SHOWN])
        return {name: value for name, value in part.items() if name in cls.model_fields}

    def over(self, sample: SampleConfig) -> SampleConfig:
        """How its texts are drawn: as it says, and where it says nothing, as a run says."""
        said = {"length" if name == "max_tokens" else name: getattr(self, name) for name in self.model_fields_set}
        return dataclasses.replace(sample, **{key: value for key, value in said.items() if hasattr(sample, key)})


def encodable(text: str) -> str:
    """The text; raises PydanticCustomError if UTF-8 cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "half of a surrogate pair is no text") from None
    return text


def is_base64(value: Any) -> bool:
    """Whether it is bytes as TensorFlow Serving has them in JSON."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def _decoded(value: Any) -> Any:
    if not is_base64(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (binascii.Error, ValueError, TypeError):
        raise PydanticCustomError("b64", "what is in b64 is not a text in UTF-8, in base 64") from None


def is_number(kind: LiteralString) -> BeforeValidator:
    """JSON's true is no number, though Python's is, and a text that looks like a number is a text."""

    def checked(value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticCustomError(kind, "no number")
        return value

    return BeforeValidator(checked)


def _instead_of(nothing: Any, ours: Any) -> BeforeValidator:
    """Takes what others have for "nothing said" as ours."""
    return BeforeValidator(lambda value: ours if value == nothing and not isinstance(value, bool) else value)


def _as_generated(allowed: Allowed) -> AfterValidator:
    """Refuses what `charlm generate` refuses."""

    def checked(value: Any) -> Any:
        if value is not None and not allowed.holds(value):
            raise PydanticCustomError("allowed", "{words}", {"words": allowed.words})
        return value

    return AfterValidator(checked)


def _range(kind: str, *ranges: tuple[float, float]) -> dict[str, Any]:
    """The schema of numbers within one of some ranges."""
    bounds = [{"type": kind, "minimum": least, "maximum": most} for least, most in ranges]
    return bounds[0] if len(bounds) == 1 else {"anyOf": bounds}


Whole = Annotated[int, is_number("int")]
Real = Annotated[float, is_number("float")]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Field(ge=0, lt=2**31), is_number("int")]
Seed = Annotated[
    Whole | None,
    _instead_of(-1, None),
    _as_generated(SEEDS),
    WithJsonSchema({"anyOf": [_range("integer", (-1, SEEDS.ranges[0][1])), {"type": "null"}]}),
    Field(description="-1 or null is a random one."),
]
OWN: Any = Field(None, description="The model's own if it is not there.")
Text = Annotated[str, AfterValidator(encodable)]
Bytes = Annotated[Text, BeforeValidator(_decoded)]


def _knob(knob: Setting) -> Any:
    """The type of a field for a sampler's setting; -1 is neutral where a whole number is wanted, as others have it."""
    assert knob.allowed is not None
    about = Field(description=f"{knob.meaning}; {knob.neutral:g} is off. The model's own if it is not there.")
    if knob.kind is int:
        schema = WithJsonSchema(_range("integer", (-1, knob.allowed.ranges[0][1])))
        return Annotated[Whole, _instead_of(-1, knob.neutral), _as_generated(knob.allowed), schema, about]
    schema = WithJsonSchema(_range("number", *knob.allowed.ranges))
    return Annotated[Real, _as_generated(knob.allowed), schema, about]


_OF_SAMPLERS: dict[str, Any] = {name: (_knob(knob), None) for name, knob in KNOBS.items()}
# A part of a request that says how a text is drawn.
Sampled = create_model("Sampled", __base__=Fields, **_OF_SAMPLERS, seed=(Seed, None))
