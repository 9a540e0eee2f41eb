"""Fuzzing that looks for new paths through the code, with atheris (`pip install atheris`).

python -m tests.fuzz.guided TARGET [-max_total_time=60 and other options of libFuzzer]
"""

import shutil
import sys
import tempfile

import atheris  # type: ignore[import-not-found]  # no dependency: it is for who fuzzes by hand

with atheris.instrument_imports(include=["runtime"]):
    from tests.fuzz.targets import CORPUS, make


def main() -> None:
    """Run libFuzzer; new inputs go to a folder of their own, failures to the current one."""
    name, *options = sys.argv[1:]
    target = make(name)
    grown = shutil.copytree(CORPUS / name, tempfile.mkdtemp(prefix=f"{name}-"), dirs_exist_ok=True)
    atheris.Setup([sys.argv[0], *options, grown], lambda data: target(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
