#!/bin/sh
# Before the files go: stop what runs from them. Sessions stay in /var/lib/adaptd. An upgrade restarts the daemon when
# the new files are there, so that robots wait for a second and not for the whole upgrade.
set -eu
[ "${1:-remove}" = remove ] || exit 0
if ! command -v systemctl >/dev/null; then
	exit 0
fi
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl stop adaptd-recorder.service adaptd-exporter.service adaptd.service
fi
systemctl --root="${DPKG_ROOT:-/}" disable adaptd-recorder.service adaptd-exporter.service adaptd.service
