"""The description of the addresses, /openapi.json: what FastAPI does not know of them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from charlm.serve import answers
from charlm.serve.service import Service

ANYWHERE = {  # statuses that any address may have
    401: "There is a key, and the request does not bear it.",
    403: "Another site's page asks, over a browser.",
    413: "The body is too large.",
    415: "The body is compressed.",
    421: "The server is asked for by a name that is not its own.",
}
OF_BODIES = {
    400: "A field is wrong; the message names it.",
    404: "There is no such model.",
    408: "The body has not arrived in time.",
}
OF_TEXTS = {429: "Too many texts wait.", 500: "The engine has died.", 503: "Nothing is taken any more."}
NULL, KIND = {"type": "null"}, {"type", "minimum", "maximum", "exclusiveMaximum", "maxLength", "items", "$ref", "anyOf"}
BYTES = {
    "type": "object",
    "properties": {"b64": {"type": "string"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def describe(app: FastAPI, service: Service) -> None:
    """Completes the description: the statuses of refusals and their shapes, and the limits of this server's fields."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for kind in (answers.Refused, answers.RefusedPrediction):
        schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {**schema.pop("$defs", {}), kind.__name__: schema}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            _refusals(path, operation)
            for parameter in operation.get("parameters", ()):
                parameter["schema"]["enum"] = [service.name]
    _limits(schemas, service)
    _columns(schemas, service)


def _refusals(path: str, operation: dict[str, Any]) -> None:
    known, responses = dict(ANYWHERE), operation["responses"]
    if responses.pop("422", None):
        known |= OF_BODIES
    if path.endswith((":predict", "completions")):
        known |= OF_TEXTS
    kind = answers.RefusedPrediction if path.startswith("/v1/models/") else answers.Refused
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    for status, about in sorted(known.items()):
        responses.setdefault(str(status), {"description": about, "content": content})


def _limits(schemas: dict[str, Any], service: Service) -> None:
    """What a field may have here; how much all fields together may ask for, no schema can say."""
    limits = service.limits
    ids = {"type": "integer", "minimum": 0, "maximum": service.tokenizer.vocabulary - 1}
    text = {"type": "string", "maxLength": limits.prompt}
    own = {"type": "array", "items": ids, "minItems": 1, "maxItems": limits.prompt}
    many = {"type": "array", "minItems": 1, "maxItems": limits.texts, "items": {"anyOf": [text, own]}}
    completion, row = (schemas[name]["properties"] for name in ("Completion", "Instance"))
    completion["prompt"]["anyOf"] = [text, own, many]
    completion["n"]["maximum"] = limits.texts
    completion["max_tokens"]["maximum"] = row["length"]["maximum"] = limits.length
    row["prompt"] = {"anyOf": [text, BYTES]}
    schemas["Tokenization"]["properties"]["prompt"] |= {"maxLength": limits.prompt}
    schemas["Detokenization"]["properties"]["tokens"] |= {"items": ids, "maxItems": limits.prompt}
    schemas["Completion"]["properties"] = {name: _or_null(field) for name, field in completion.items()}
    schemas["Completion"]["additionalProperties"] = {"type": "null"}


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """What is null is not given."""
    kinds = field.get("anyOf") or [{key: field[key] for key in field.keys() & KIND}]
    kinds = [kind for kind in kinds if kind != NULL]
    return {**{key: value for key, value in field.items() if key not in KIND}, "anyOf": [*kinds, NULL]}


def _columns(schemas: dict[str, Any], service: Service) -> None:
    """The rows or the columns of a prediction, of which there is either."""
    row, prediction = schemas["Instance"]["properties"], schemas["Prediction"]
    rows = {"$ref": "#/components/schemas/Instance"}

    def several(kind: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": kind, "maxItems": service.limits.texts}

    columns = {name: {"anyOf": [kind, several(kind)]} for name, kind in row.items()}
    inputs = {"type": "object", "properties": columns, "required": ["prompt"], "additionalProperties": False}
    prediction["properties"]["signature_name"]["enum"] = ["", "serving_default", "generate"]
    prediction["properties"]["instances"] = {"anyOf": [several({"anyOf": [rows, row["prompt"]]}), NULL]}
    prediction["properties"]["inputs"] = {"anyOf": [row["prompt"], several(row["prompt"]), inputs, NULL]}
    prediction["oneOf"] = [
        {"required": [name], "properties": {name: {"not": NULL}, other: NULL}}
        for name, other in (("instances", "inputs"), ("inputs", "instances"))
    ]
