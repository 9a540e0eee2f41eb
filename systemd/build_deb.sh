#!/bin/sh
# Make a Debian package of a staged installation.
#   PYTHON=/usr/bin/python3 build_deb.sh STAGED INTO
# It carries its Python packages with it, in one virtual environment: Debian's are older, and robots are often offline.
# What it needs of the host is the same minor version of Python, and systemd.
set -eu
staged=$1 into=$2
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
minor=$("$PYTHON" -c 'import sys; print(sys.version_info.minor)')
architecture=$(dpkg --print-architecture)
size=$(du -sk "$staged" | cut -f1)

mkdir -p "$staged/DEBIAN" "$into"
cat >"$staged/DEBIAN/control" <<CONTROL
Package: adaptd
Version: $version
Architecture: $architecture
Maintainer: adaptd developers <adaptd@localhost>
Installed-Size: $size
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), libstdc++6, procps
Recommends: systemd (>= 250)
Section: science
Priority: optional
Description: serves policies that keep learning on the robot
 A daemon that serves meta-trained policies to robots and simulators, keeps each
 session's adaptation through crashes and restarts, and swaps policies between
 two ticks.
CONTROL
echo /etc/adaptd/adaptd.toml >"$staged/DEBIAN/conffiles"
install -m 755 systemd/after_install.sh "$staged/DEBIAN/postinst"
install -m 755 systemd/before_remove.sh "$staged/DEBIAN/prerm"
install -m 755 systemd/after_remove.sh "$staged/DEBIAN/postrm"
(cd "$staged" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)

dpkg-deb --root-owner-group -Zgzip --build "$staged" "$into/adaptd_${version}_$architecture.deb"
