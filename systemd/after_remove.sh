#!/bin/sh
# `purge` takes all that adaptd has kept, too; `remove` leaves settings, keys, sessions, policies and recordings.
set -eu
root=${DPKG_ROOT:-}
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "${1:-}" = purge ]; then
	rm -rf "$root/var/lib/adaptd" "$root/var/lib/adaptd-recorder" "$root/etc/adaptd"
fi
