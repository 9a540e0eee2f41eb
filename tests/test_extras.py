"""Commands whose libraries are not installed say what installs them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "top": ("textual", "adaptd[top]"),
    "exporter": ("prometheus_client", "adaptd[monitor]"),
    "view": ("foxglove", "adaptd[view]"),
}


HIDE = """
import importlib.machinery as machinery
import sys
found = machinery.PathFinder.find_spec
hide = {module!r}
machinery.PathFinder.find_spec = lambda name, *rest: None if name == hide else found(name, *rest)
from runtime.cli import main
sys.exit(main([{command!r}]))
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_extra_is_told_with_the_command_that_installs_it(command):
    module, extra = COMMANDS[command]
    script = HIDE.format(module=module, command=command)
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2, result.stderr
    assert f"needs {module}: install it by pip install '{extra}'" in result.stderr
