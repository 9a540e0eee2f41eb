"""Loading an ONNX graph the way all of the runtime does: one thread, no spinning."""

import onnxruntime as ort

from runtime.errors import InvalidBundle, UnsafeBundle
from runtime.vetting.onnx_model import check_model

ORT_TYPES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
}


def load_graph(label: str, model: bytes, control_flow: bool = False) -> ort.InferenceSession:
    """A session for a graph.

    Args:
        label: of the policy, for the error.
        model: the content of the file.
        control_flow: whether it may hold loops and branches.

    Raises:
        UnsafeBundle: it holds more than a plain graph of allowed operators.
        InvalidBundle: it cannot be loaded.
    """
    try:
        check_model(model, control_flow)
    except UnsafeBundle as error:
        raise UnsafeBundle(f"{label}: the graph cannot be loaded: it has {error}") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Otherwise a file that can be read as ONNX and as ORT's own format is read as the latter.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
        for node in (*session.get_inputs(), *session.get_outputs()):
            _ = node.name, node.shape  # fails where one holds bytes that are no text
        return session
    except Exception as error:  # ORT's own errors share no public base class
        reason = str(error).splitlines()[0][:200]
        raise InvalidBundle(f"{label}: the graph cannot be loaded: {reason}") from None
