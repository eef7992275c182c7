"""What the fields of a request may be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from charlm.config import SampleConfig
from charlm.errors import UsageError

LENGTH, TEMPERATURE = 200, 0.8  # where a request says nothing
MOST = 1000  # texts that a request may list, to be refused for the limit


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "Half of a surrogate pair is no text") from None
    return text


def _as_generated(name: str) -> AfterValidator:
    """Refuses what `charlm generate` refuses."""

    def checked(value: Any) -> Any:
        try:
            SampleConfig(**{name: value})
        except UsageError as error:
            raise PydanticCustomError("refused", "{error}", {"error": str(error)}) from None
        return value

    return AfterValidator(checked)


Temperature = Annotated[float, _as_generated("temperature")]
Probability = Annotated[float, _as_generated("top_p")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, AfterValidator(_encodable)]
