#!/bin/sh
# Before the files go: stop what runs from them. Sessions stay in /var/lib/adaptd. An upgrade restarts the daemon when
# the new files are there, so that robots wait for a second and not for the whole upgrade.
set -eu
[ "${1:-remove}" = remove ] || exit 0
if ! command -v systemctl >/dev/null; then
	exit 0
fi
root=${DPKG_ROOT:-}
units="adaptd-recorder.service adaptd-exporter.service adaptd.service"
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl stop $units
fi
# For an installation after this removal; in a folder of root's, since root will go by it.
mkdir -p "$root/etc/adaptd"
for unit in $units; do
	! systemctl --root="${root:-/}" --quiet is-enabled "$unit" || echo "$unit"
done >"$root/etc/adaptd/.enabled"
systemctl --root="${root:-/}" disable $units
