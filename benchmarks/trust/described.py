"""What schemathesis is told of the server: SCHEMATHESIS_HOOKS=described schemathesis run URL."""

import json
import os
import re
from pathlib import Path

import schemathesis
from schemathesis import GenerationMode

# What no schema can say: how much all fields ask for together, how long columns are beside each other, what is in b64.
UNSAYABLE = re.compile(r"\d is more than \d|\d values for \d+ prompts|is in b64 is not a text")


@schemathesis.check
def what_is_described_is_taken(ctx: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """A request that conforms is refused for its sum alone; notes every answer's status and seconds."""
    with Path(os.environ["ANSWERS"]).open("a") as file:
        file.write(json.dumps([response.status_code, response.elapsed]) + "\n")
    conforms = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if conforms and response.status_code == 400 and not UNSAYABLE.search(response.text):
        raise AssertionError(f"refused: {response.text}")
