"""TensorFlow Serving's predictions, and the model as both kinds of client ask for it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from charlm.serve import fields
from charlm.serve.service import Service, Writing
from charlm.serve.slot import Piece
from charlm.serve.slot import Request as Row

VERSION = "1"


class Instance(BaseModel):
    """One row of a prediction: the inputs of the exported model's `generate`."""

    model_config = ConfigDict(extra="forbid")
    prompt: fields.Text
    length: fields.Count = fields.LENGTH
    temperature: fields.Temperature = fields.TEMPERATURE
    top_k: fields.Count = 0
    top_p: fields.Probability = 1.0
    seed: fields.Seed | None = None

    @model_validator(mode="before")
    @classmethod
    def _prompt(cls, row: Any) -> Any:
        """A row that is a string is its prompt."""
        return {"prompt": row} if isinstance(row, str) else row


class Prediction(BaseModel):
    """TensorFlow Serving's request: rows (`instances`) or columns (`inputs`)."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"instances": [{"prompt": "Once upon a time", "length": 100}]}]}
    )
    signature_name: str = ""
    instances: Annotated[list[Instance], Field(max_length=fields.MOST)] | None = None
    inputs: Any = None


def add_models(app: FastAPI, service: Service) -> None:
    """Adds the addresses."""

    def described() -> dict[str, Any]:
        engine = service.engine
        state = "END" if engine.failure else "AVAILABLE" if engine.ready.is_set() else "LOADING"
        code = {"error_code": "INTERNAL" if engine.failure else "OK", "error_message": engine.failure or ""}
        status = {"version": VERSION, "state": state, "status": code}
        about = {"id": service.name, "object": "model", "created": service.created, "owned_by": "charlm"}
        return about | {"model_version_status": [status]}

    @app.get("/v1/models", summary="The models there are (OpenAI)")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name}/versions/" + VERSION, include_in_schema=False)
    @app.get("/v1/models/{name}", summary="A model (OpenAI) and its state (TensorFlow Serving)")
    async def model(name: str) -> dict[str, Any]:
        service.known(name)
        return described()

    @app.get("/v1/models/{name}/versions/" + VERSION + "/metadata", include_in_schema=False)
    @app.get("/v1/models/{name}/metadata", summary="What goes into a prediction and comes out (TensorFlow Serving)")
    async def metadata(name: str) -> dict[str, Any]:
        service.known(name)
        kinds = {"prompt": "DT_STRING", "length": "DT_INT32", "temperature": "DT_FLOAT", "top_k": "DT_INT32"}
        kinds |= {"top_p": "DT_FLOAT", "seed": "DT_INT32"}
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

    @app.post("/v1/models/{name}/versions/" + VERSION + ":predict", include_in_schema=False)
    @app.post("/v1/models/{name}:predict", summary="Text for rows or columns of inputs (TensorFlow Serving)")
    async def predict(name: str, body: Prediction, request: Request) -> Response:
        service.known(name)
        if body.signature_name not in ("", "serving_default", "generate"):
            raise HTTPException(404, "there are no signatures but serving_default and generate")
        if (body.instances is None) == (body.inputs is None):
            raise HTTPException(400, "either instances or inputs must be there")
        instances = body.instances if body.instances is not None else _rows_of(body.inputs)
        lengths = [instance.length for instance in instances]
        service.allowed(len(instances), max(lengths, default=0), sum(lengths))
        rows, read = [], await service.read([instance.prompt for instance in instances])
        for instance, ids in zip(instances, read, strict=True):
            seed = secrets.randbelow(2**31) if instance.seed is None else instance.seed
            rows.append(Row(ids, instance.length, seed, instance.temperature, instance.top_k, instance.top_p))
        pieces = await Writing(service, rows).whole(request)
        return await asyncio.to_thread(_answer, pieces, body.instances is not None)


def _answer(pieces: list[list[Piece]], in_rows: bool) -> Response:
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
        return JSONResponse({"predictions": found})
    longest = max((row["symbols"] for row in found), default=0)
    for row in found:
        for key in ("ids", "log_probabilities"):
            row[key] += [0] * (longest - row["symbols"])
    return JSONResponse({"outputs": {key: [row[key] for row in found] for key in found[0]} if found else {}})


def _rows_of(inputs: Any) -> list[Instance]:
    """The rows of columns; a column of one value, or a single value, is every row's."""
    columns = inputs if isinstance(inputs, dict) else {"prompt": inputs}
    prompts = columns.get("prompt")
    if not isinstance(prompts, list):
        prompts = [prompts]
    if len(prompts) > fields.MOST:
        raise HTTPException(400, f"inputs.prompt: more than {fields.MOST:,} texts")
    rows = []
    for n in range(len(prompts)):
        row = {}
        for key, column in columns.items():
            values = column if isinstance(column, list) else [column]
            if len(values) not in (1, len(prompts)):
                raise HTTPException(400, f"inputs.{key}: {len(values)} values for {len(prompts)} prompts")
            row[key] = values[n if len(values) > 1 else 0]
        try:
            rows.append(Instance.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            raise HTTPException(400, f"{'.'.join(map(str, ('inputs', *first['loc'])))}: {first['msg']}") from None
    return rows
