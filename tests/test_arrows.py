"""Dependencies run one way: training -> sim -> runtime, and a robot imports little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "mujoco", "gymnasium", "onnx", "onnxscript", "matplotlib", "sim", "training"}
ALLOWED = {
    "runtime": {"numpy", "onnxruntime", "zmq", "pydantic", "pydantic_settings", "structlog",
                "safetensors", "tyro", "rich", "runtime"},
    "sim": {"numpy", "mujoco", "gymnasium", "matplotlib", "imageio", "PIL", "tyro", "rich", "sim"},
    "training": {"numpy", "torch", "onnx", "onnxscript", "safetensors", "matplotlib", "pydantic",
                 "tyro", "rich", "sim", "training"},
}  # fmt: skip
EXTRAS = {
    "recording": {"foxglove", "mcap", "orjson", "pyarrow", "matplotlib"},
    "view": {"foxglove", "orjson"},
    "top": {"textual"},
    "exporter": {"prometheus_client"},
    "signing": {"minisign"},
}
"""What a part of the runtime may import besides, which a robot does without."""
RUNTIME_PARTS = {
    "sim": {
        "answer",
        "benchmark",
        "client",
        "commandline",
        "daemon_process",
        "messages",
        "spec",
        "errors",
        "extras",
        "keyfile",
        "recording",
        "view",
    },
    "training": {"benchmark", "client", "commandline", "messages", "spec", "errors", "policy"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", ["runtime", "sim", "training"])
def test_a_package_imports_only_what_it_may(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        more = EXTRAS.get(path.parent.name, set()) if package == "runtime" else set()
        for module in imports(path):
            top, _, rest = module.partition(".")
            if top in sys.stdlib_module_names or top in ALLOWED[package] | more:
                continue
            assert top == "runtime", f"{path} imports {module}"
            assert rest.split(".")[0] in RUNTIME_PARTS[package], f"{path} imports {module}"


def modules_after(statement: str) -> set[str]:
    """What is loaded in a fresh interpreter after a statement."""
    script = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in result.stdout.split()}


def test_the_daemon_loads_neither_torch_nor_mujoco():
    extras = set.union(*EXTRAS.values())
    assert not modules_after("import runtime.daemon, runtime.cli") & (HEAVY | extras)


def test_the_client_needs_only_numpy_and_zmq():
    loaded = modules_after("import runtime.client")
    assert not loaded & (HEAVY | {"pydantic", "onnxruntime", "structlog", "safetensors", "tyro"})


CLIENTS = ("client.py", "fleet.py", "handshake.py", "stream.py")
CLIENT_PARTS = ("answer.py", "fleet_answer.py", "keyfile.py", "observation_frame.py", "tap.py")


@pytest.mark.parametrize(
    "name", [*CLIENTS, *CLIENT_PARTS, "__init__.py", "messages.py", "errors.py"]
)
def test_the_client_is_python_3_10(name):
    source = (ROOT / "runtime" / name).read_text()
    ast.parse(source, feature_version=(3, 10))


def test_only_the_transport_and_the_clients_know_zeromq():
    users = {p.name for p in (ROOT / "runtime").glob("*.py") if "zmq" in imports(p)}
    assert users == {"transport.py", *CLIENTS}
