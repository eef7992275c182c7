"""Runs the warm-up requests of a SavedModel as TensorFlow Serving does: in a session, by the names of the signature.

python -I replay.py api|numbers SAVEDMODEL...

It prints a line of JSON for each request, and does not use charlm. The requests are read by the definitions of the
package tensorflow-serving-api, or by the numbers of their fields in TensorFlow Serving's .proto files.
"""

import json
import sys
import time

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

sys.modules["charlm"] = None


def fields(data):
    """The fields of a message, as (number, bytes), in their order: all of those that requests have are bytes."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key, length = varint(), varint()
        assert key & 7 == 2, "not bytes"
        assert at + length <= len(data), "cut off"
        found.append((key >> 3, data[at : at + length]))
        at += length
    return found


def by_numbers(record):
    """The signature and the inputs of a PredictionLog's predict_log.request."""
    ((number, log),) = fields(record)
    assert number == 6
    ((number, request),) = fields(log)
    assert number == 1
    (first, spec), *rest = fields(request)
    assert first == 1
    assert {number for number, _ in rest} == {2}
    entries = [dict(fields(entry)) for _, entry in rest]
    return dict(fields(spec))[3].decode(), {
        entry[1].decode(): tensor_pb2.TensorProto.FromString(entry[2]) for entry in entries
    }


def by_api(record):
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    request = PredictionLog.FromString(record).predict_log.request
    return request.model_spec.signature_name, dict(request.inputs)


def replay(path, read):
    file = f"{path}/assets.extra/tf_serving_warmup_requests"
    requests = [read(record.numpy()) for record in tf.data.TFRecordDataset(file)]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def
        for name, tensors in requests:
            signature = signatures[name]
            assert signature.method_name == "tensorflow/serving/predict"
            assert tensors.keys() == signature.inputs.keys(), name
            feeds = {signature.inputs[key].name: tf.make_ndarray(tensor) for key, tensor in tensors.items()}
            began = time.perf_counter()
            found = session.run({key: info.name for key, info in signature.outputs.items()}, feeds)
            seconds = time.perf_counter() - began
            rows = [len(value) for value in (*feeds.values(), *found.values())]
            yield {"signature": name, "signatures": sorted(signatures), "rows": rows, "seconds": seconds}


if __name__ == "__main__":
    definitions, *paths = sys.argv[1:]
    for path in paths:
        for answer in replay(path, {"api": by_api, "numbers": by_numbers}[definitions]):
            print(json.dumps(answer))
