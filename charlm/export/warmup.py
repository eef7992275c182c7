"""Requests that TensorFlow Serving runs as it loads a SavedModel, so that the first reader does not wait.

TensorFlow Serving reads a TFRecord file of PredictionLogs. Their definitions (prediction_log.proto, predict.proto and
model.proto of its `apis`) come with no package here: what a request needs of them is told to protobuf below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FILE = Path("assets.extra/tf_serving_warmup_requests")  # in a SavedModel's directory
PACKAGE = "tensorflow.serving"
# Each message's fields: the name, the number, and what it is. `Input` is an entry of `map<string, TensorProto> inputs`;
# a message in a message is written as its bytes are.
MESSAGES = {
    "ModelSpec": (("signature_name", 3, "string"),),
    "Input": (("key", 1, "string"), ("value", 2, "bytes")),
    "PredictRequest": (("model_spec", 1, "ModelSpec"), ("inputs", 2, "Input")),
    "PredictLog": (("request", 1, "PredictRequest"),),
    "PredictionLog": (("predict_log", 6, "PredictLog"),),
}
REPEATED = ("inputs",)


class Request(NamedTuple):
    """A question to a signature: its inputs by name."""

    signature: str
    inputs: Mapping[str, npt.NDArray[Any]]


def _message_class(name: str) -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="requests.proto", package=PACKAGE, syntax="proto3")
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for field, number, kind in fields:
            label = kinds.LABEL_REPEATED if field in REPEATED else kinds.LABEL_OPTIONAL
            plain = {"string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES}.get(kind, kinds.TYPE_MESSAGE)
            of = None if plain != kinds.TYPE_MESSAGE else f".{PACKAGE}.{kind}"
            added.field.add(name=field, number=number, label=label, type=plain, type_name=of)
    pool = descriptor_pool.DescriptorPool()  # its own: the whole definitions may be in the common one
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def write(path: Path, requests: Iterable[Request]) -> None:
    """Writes requests into a SavedModel's directory."""
    log_class = _message_class("PredictionLog")
    (path / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(path / FILE)) as file:
        for signature, inputs in requests:
            log = log_class()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs.add(key=name, value=tf.make_tensor_proto(np.asarray(value)).SerializeToString())
            file.write(log.SerializeToString())
