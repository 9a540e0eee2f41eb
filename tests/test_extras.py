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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_extra_is_told_with_the_command_that_installs_it(command):
    module, extra = COMMANDS[command]
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from runtime.cli import main; sys.exit(main([{command!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert f"is not installed here: pip install '{extra}'" in result.stderr
