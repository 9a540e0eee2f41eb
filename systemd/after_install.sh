#!/bin/sh
# After the files are there: users, folders, and the service. As Debian's postinst, `configure` and, at an upgrade, the
# version before; DPKG_ROOT is another root, as dpkg --root sets it.
set -eu
root=${DPKG_ROOT:-}
before=${2:-}

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers ${root:+--root="$root"} adaptd.conf
fi
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles ${root:+--root="$root"} --create adaptd.conf
fi
# Once: an upgrade keeps what an administrator has disabled disabled, and an installation after a removal enables what was
# enabled before that (before_remove.sh).
kept=$root/etc/adaptd/.enabled
units=
if [ -e "$kept" ]; then
	units=$(cat "$kept")
	rm "$kept"
elif [ -z "$before" ]; then
	units=adaptd.service
fi
if command -v systemctl >/dev/null && [ -n "$units" ]; then
	# One that an administrator has masked stays so.
	systemctl --root="${root:-/}" enable $units || true
fi
if [ -n "$root" ] || [ ! -d /run/systemd/system ]; then
	echo "systemd does not run here: adaptd starts with it, or by 'adaptd serve --config /etc/adaptd/adaptd.toml'"
	exit 0
fi
systemctl daemon-reload
# A daemon that does not start is no reason to leave the package half installed: the journal says why.
if [ -n "$units" ]; then
	systemctl restart $units || systemctl --no-pager --lines=5 status $units || true
else
	systemctl try-restart adaptd.service adaptd-exporter.service adaptd-recorder.service || true
fi
