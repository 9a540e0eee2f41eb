# make install, uninstall and deb: a robot host's files under DESTDIR (docs/systemd.md).
#
# The program is a virtual environment of its own in /usr/lib/adaptd, so that nothing of the host's Python packages is
# touched or depended on; only the interpreter is the host's.

DESTDIR ?=
# The interpreter of the host that adaptd will run on, at the same place there.
SYSTEM_PYTHON ?= /usr/bin/python3
# What is installed, as pip names it: the daemon with recorder, viewer, exporter and top.
PACKAGE ?= .[record,view,top,monitor]
# For a build without a network: WHEELS=FOLDER made by `pip download` on another machine of the same kind, or any PIP_ARGS.
WHEELS ?=
PIP_ARGS ?= -c constraints.txt $(if $(WHEELS),--no-index --find-links $(WHEELS))

HOME_DIR := /usr/lib/adaptd
UNIT_DIR := /usr/lib/systemd/system
SHARE_DIR := /usr/share/adaptd
DOC_DIR := /usr/share/doc/adaptd
UNITS := adaptd.service adaptd-exporter.service adaptd-recorder.service
DROP_INS := adaptd-tcp.conf adaptd-realtime.conf

.PHONY: install uninstall deb install-program install-files

install: install-program install-files  ## the daemon, its units and the shipped policies, under DESTDIR; as root
	@if [ -z "$(DESTDIR)" ]; then sh systemd/after_install.sh; else echo "staged under $(DESTDIR)"; fi

install-program: $(VENV)/bin/python
	sh systemd/install_program.sh "$(DESTDIR)$(HOME_DIR)" "$(HOME_DIR)" "$(SYSTEM_PYTHON)" "$(PACKAGE)" \
		"$(abspath $(BIN)/python)" $(PIP_ARGS)
	install -d "$(DESTDIR)/usr/bin"
	ln -sfn ../lib/adaptd/bin/adaptd "$(DESTDIR)/usr/bin/adaptd"

install-files:
	for unit in $(UNITS); do install -D -m 644 systemd/$$unit "$(DESTDIR)$(UNIT_DIR)/$$unit"; done
	for drop_in in $(DROP_INS); do install -D -m 644 systemd/$$drop_in "$(DESTDIR)$(SHARE_DIR)/systemd/$$drop_in"; done
	install -D -m 644 systemd/sysusers.conf "$(DESTDIR)/usr/lib/sysusers.d/adaptd.conf"
	install -D -m 644 systemd/tmpfiles.conf "$(DESTDIR)/usr/lib/tmpfiles.d/adaptd.conf"
	install -D -m 644 systemd/adaptd.toml "$(DESTDIR)$(SHARE_DIR)/adaptd.toml"
	[ -e "$(DESTDIR)/etc/adaptd/adaptd.toml" ] || install -D -m 644 systemd/adaptd.toml "$(DESTDIR)/etc/adaptd/adaptd.toml"
	install -d "$(DESTDIR)$(SHARE_DIR)/exported_models" "$(DESTDIR)$(DOC_DIR)"
	cp -R exported_models/. "$(DESTDIR)$(SHARE_DIR)/exported_models/"
	chmod -R u=rwX,go=rX "$(DESTDIR)$(SHARE_DIR)/exported_models"
	install -m 644 docs/*.md LICENSE "$(DESTDIR)$(DOC_DIR)/"

uninstall:  ## what install made; settings, keys, sessions and policies of /etc and /var stay
	@if [ -z "$(DESTDIR)" ]; then sh systemd/before_remove.sh; fi
	rm -rf "$(DESTDIR)$(HOME_DIR)" "$(DESTDIR)$(SHARE_DIR)" "$(DESTDIR)$(DOC_DIR)"
	rm -f "$(DESTDIR)/usr/bin/adaptd" $(UNITS:%="$(DESTDIR)$(UNIT_DIR)/%")
	rm -f "$(DESTDIR)/usr/lib/sysusers.d/adaptd.conf" "$(DESTDIR)/usr/lib/tmpfiles.d/adaptd.conf"
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

deb:  ## dist/adaptd_VERSION_ARCH.deb for hosts with this one's Python and processor
	rm -rf build/deb
	$(MAKE) --no-print-directory install DESTDIR="$(abspath build/deb)"
	PYTHON="$(SYSTEM_PYTHON)" sh systemd/build_deb.sh build/deb dist
