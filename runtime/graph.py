"""Loading an ONNX graph the way all of the runtime does: one thread, no spinning."""

import onnxruntime as ort

from runtime.errors import InvalidBundle

ORT_TYPES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
}


def load_graph(label: str, model: bytes) -> ort.InferenceSession:
    """A session for a graph.

    Args:
        label: of the policy, for the error.
        model: the content of the file.

    Raises:
        InvalidBundle: it cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        return ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # ORT's own errors share no public base class
        reason = str(error).splitlines()[0][:200]
        raise InvalidBundle(f"{label}: the graph cannot be loaded: {reason}") from None
