#!/bin/sh
# Make the virtual environment that adaptd runs from on a robot host.
#   install_program.sh PLACE FINAL SYSTEM_PYTHON PACKAGE PIP_PYTHON [PIP ARGUMENTS]
# PLACE is where it is written now, FINAL where it will be; PIP_PYTHON has a pip, which installs into it.
set -eu
place=$1 final=$2 python=$3 package=$4 pip_python=$5
shift 5
unset PYTHONPATH # what is found there would count as installed

# Beside the place until it is whole: an installation that fails leaves the program that was there.
staged=$place.new
trap 'rm -rf "$staged"' EXIT
rm -rf "$staged"
mkdir -p "$(dirname "$staged")"
"$python" -m venv --without-pip "$staged"
"$pip_python" -m pip --quiet --disable-pip-version-check --python "$staged/bin/python" \
	install --no-compile --no-warn-script-location "$@" "$package"

# One program, that of the daemon: the simulator and the trainer are not installed with what they need. Isolated (-I), so
# that no variable or folder of whoever calls it changes what it imports.
find "$staged/bin" -type f -delete
cat >"$staged/bin/adaptd" <<PROGRAM
#!$final/bin/python3 -I
import signal
import sys

if sys.argv[1:2] == ["serve"]:  # until the daemon listens to it: a reload that comes early is no end
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from runtime.cli import main

sys.exit(main())
PROGRAM
chmod 755 "$staged/bin/adaptd"
sed -i "s|$staged|$final|g" "$staged/pyvenv.cfg"
# Compiled under the names that the files will have: errors name them, and nothing need be written at run time.
"$staged/bin/python3" -m compileall -q -s "$staged" -p "$final" "$staged/lib"
rm -rf "$place"
mv "$staged" "$place"
