#!/bin/sh
# Make the virtual environment that adaptd runs from on a robot host.
#   install_program.sh STAGED FINAL SYSTEM_PYTHON REQUIREMENT PIP_PYTHON [PIP ARGUMENTS]
# STAGED is where it is written now, FINAL where it will be; PIP_PYTHON has a pip, which installs into it.
set -eu
staged=$1 final=$2 python=$3 requirement=$4 pip_python=$5
shift 5

rm -rf "$staged"
mkdir -p "$(dirname "$staged")"
"$python" -m venv --without-pip "$staged"
"$pip_python" -m pip --quiet --disable-pip-version-check --python "$staged/bin/python" \
	install --no-compile --no-warn-script-location "$@" "$requirement"

# Programs and settings name the staged folder; what runs is at the final one.
grep -rlIF "$staged" "$staged/bin" "$staged/pyvenv.cfg" | while read -r file; do
	sed -i "s|$staged|$final|g" "$file"
done
# Only the daemon's own program is for people; the simulator and the trainer are not installed with what they need.
find "$staged/bin" -type f ! -name adaptd -delete
# Compiled with the paths that it will have, so that errors name them, and nothing need be written at run time.
"$staged/bin/python" -m compileall -q -s "$staged" -p "$final" "$staged/lib" || true
