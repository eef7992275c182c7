"""TensorFlow Serving's predictions, and the model as both kinds of client ask for it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, SkipValidation, ValidationError, model_validator

from charlm.config import KNOBS
from charlm.sampling import settings_of
from charlm.serve import answers, fields
from charlm.serve.refusals import sentence
from charlm.serve.service import VERSION, Service, Writing
from charlm.serve.slot import Piece
from charlm.serve.slot import Request as Row


class Instance(fields.Sampled):  # type: ignore[misc, valid-type]
    """One row of a prediction: the inputs of the exported model's `generate`."""

    prompt: fields.Bytes
    length: fields.Count = fields.OWN

    @model_validator(mode="before")
    @classmethod
    def _prompt(cls, row: Any) -> Any:
        """A row that is a string, or one in base 64, is its prompt."""
        return {"prompt": row} if isinstance(row, str) or fields.is_base64(row) else row


class Prediction(fields.Fields):
    """TensorFlow Serving's request: rows (`instances`) or columns (`inputs`). A text may be {"b64": ...}."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"instances": [{"prompt": "Once upon a time", "length": 100}]}]}
    )
    signature_name: str = ""
    instances: Annotated[list[Instance] | None, SkipValidation] = None  # looked at when their number is known
    inputs: Any = None


def add_models(app: FastAPI, service: Service) -> None:
    """Adds the addresses."""

    def described() -> dict[str, Any]:
        engine = service.engine
        state = "END" if engine.failure else "AVAILABLE" if engine.ready.is_set() else "LOADING"
        message = engine.failure or ("loading" if service.loading else "")
        code = {"error_code": "INTERNAL" if engine.failure else "OK", "error_message": message}
        status = {"version": VERSION, "state": state, "status": code}
        about = {"id": service.name, "object": "model", "created": service.created, "owned_by": "charlm"}
        return about | {"model_version_status": [status]}

    @app.get("/v1/models", summary="The models there are", tags=["OpenAI"])
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name}/versions/{version}", include_in_schema=False)
    @app.get("/v1/models/{name}", summary="The model and its state", tags=["OpenAI", "TensorFlow Serving"])
    async def model(name: str, request: Request) -> dict[str, Any]:
        service.known(**request.path_params)
        return described()

    @app.get("/v1/models/{name}/versions/{version}/metadata", include_in_schema=False)
    @app.get(
        "/v1/models/{name}/metadata", summary="What goes into a prediction and comes out", tags=["TensorFlow Serving"]
    )
    async def metadata(name: str, request: Request) -> dict[str, Any]:
        service.known(**request.path_params)
        kinds = {"prompt": "DT_STRING", "length": "DT_INT32", "seed": "DT_INT32"}
        kinds |= {name: "DT_INT32" if knob.kind is int else "DT_FLOAT" for name, knob in KNOBS.items()}
        out = {"text": "DT_STRING", "symbols": "DT_INT32"}
        wide = {"ids": "DT_INT32", "log_probabilities": "DT_FLOAT"}
        signature = {
            "inputs": {key: _tensor(key, kind, ["-1"]) for key, kind in kinds.items()},
            "outputs": {key: _tensor(key, kind, ["-1"]) for key, kind in out.items()}
            | {key: _tensor(key, kind, ["-1", "-1"]) for key, kind in wide.items()},
            "method_name": "tensorflow/serving/predict",
        }
        return {
            "model_spec": {"name": name, "signature_name": "", "version": VERSION},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature, "generate": signature}}},
        }


def _tensor(name: str, kind: str, shape: list[str]) -> dict[str, Any]:
    dimensions = [{"size": size, "name": ""} for size in shape]
    return {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}


def add_predictions(app: FastAPI, service: Service) -> None:
    """Adds the addresses."""

    @app.post("/v1/models/{name}/versions/{version}:predict", include_in_schema=False)
    @app.post(
        "/v1/models/{name}:predict",
        summary="Text for rows or columns of inputs",
        tags=["TensorFlow Serving"],
        responses={200: {"model": answers.Rows | answers.Columns}},
    )
    async def predict(name: str, body: Prediction, request: Request) -> Response:
        service.known(**request.path_params)
        if body.signature_name not in ("", "serving_default", "generate"):
            raise HTTPException(404, "there are no signatures but serving_default and generate")
        if (body.instances is None) == (body.inputs is None):
            raise HTTPException(400, "either instances or inputs must be there")
        name, given = ("instances", body.instances) if body.instances is not None else ("inputs", _rows_of(body.inputs))
        instances = _instances(name, given, service)
        asked = [instance.over(service.sample) for instance in instances]
        lengths = [one.length for one in asked]
        service.allowed(len(instances), max(lengths, default=0), sum(lengths))
        rows, read = [], await service.read([instance.prompt for instance in instances])
        for one, ids in zip(asked, read, strict=True):
            seed = secrets.randbelow(2**31) if one.seed is None else one.seed
            rows.append(Row(ids, one.length, seed, settings_of(one)))
        pieces = await Writing(service, rows, request).whole(request)
        warnings = await service.warnings([instance.prompt for instance in instances])
        return await asyncio.to_thread(_answer, pieces, body.instances is not None, warnings)


def _answer(pieces: list[list[Piece]], in_rows: bool, warnings: dict[str, list[str]]) -> Response:
    """In rows, or in columns, where what is shorter than the longest is followed by zeros."""
    found: list[dict[str, Any]] = [
        {
            "text": "".join(part.text for part in parts),
            "ids": [i for part in parts for i in part.ids],
            "log_probabilities": [-nats for part in parts for nats in part.nats],
            "symbols": sum(len(part.ids) for part in parts),
        }
        for parts in pieces
    ]
    if in_rows:
        return JSONResponse({"predictions": found, **warnings})
    longest = max((row["symbols"] for row in found), default=0)
    for row in found:
        for key in ("ids", "log_probabilities"):
            row[key] += [0] * (longest - row["symbols"])
    outputs = {key: [row[key] for row in found] for key in found[0]} if found else {}
    return JSONResponse({"outputs": outputs, **warnings})


def _instances(name: str, rows: Any, service: Service) -> list[Instance]:
    """The rows of a request, once there are not too many of them."""
    if not isinstance(rows, list):
        raise HTTPException(400, f"{name} must be a list of rows")
    service.checked("texts", len(rows), service.limits.texts)
    found = []
    for n, row in enumerate(rows):
        try:
            found.append(Instance.model_validate(row))
        except ValidationError as error:
            message, _ = sentence(error.errors()[0], [name, n] if name == "instances" else [name])
            raise HTTPException(400, message) from None
    return found


def _rows_of(inputs: Any) -> list[dict[str, Any]]:
    """The rows of columns; a column of one value, or a single value, is every row's."""
    columns = inputs if isinstance(inputs, dict) and not fields.is_base64(inputs) else {"prompt": inputs}
    columns = {key: column if isinstance(column, list) else [column] for key, column in columns.items()}
    count = len(columns.get("prompt", [None]))
    for key, values in columns.items():
        if len(values) not in (1, count):
            raise HTTPException(400, f"inputs.{key}: {len(values)} values for {count} prompts")
    return [{key: values[n if len(values) > 1 else 0] for key, values in columns.items()} for n in range(count)]
