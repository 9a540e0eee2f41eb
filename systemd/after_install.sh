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
# Once: an upgrade keeps what an administrator has disabled disabled.
if command -v systemctl >/dev/null && [ -z "$before" ]; then
	systemctl --root="${root:-/}" enable adaptd.service
fi
if [ -n "$root" ] || [ ! -d /run/systemd/system ]; then
	echo "systemd does not run here: adaptd starts with it, or by 'adaptd serve --config /etc/adaptd/adaptd.toml'"
	exit 0
fi
systemctl daemon-reload
# A daemon that does not start is no reason to leave the package half installed: the journal says why.
if [ -z "$before" ]; then
	systemctl restart adaptd.service || systemctl --no-pager --lines=5 status adaptd.service || true
else
	systemctl try-restart adaptd.service adaptd-exporter.service adaptd-recorder.service || true
fi
