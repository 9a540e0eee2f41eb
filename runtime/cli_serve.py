"""`adaptd serve`."""

from functools import partial
from pathlib import Path

from runtime.config import load_config
from runtime.daemon import Daemon
from runtime.logs import Logging
from runtime.signals import Signals


def serve(
    config: Path | None = None,
    endpoint: str | None = None,
    models: Path | None = None,
    state: Path | None = None,
    keys: Path | None = None,
    policy: str | None = None,
    log_level: str | None = None,
) -> None:
    """Serve a folder of bundles until told to stop.

    Args:
        config: TOML file of settings; ADAPTD_<KEY> variables go over it, and these flags over both.
        endpoint: ipc://PATH, or tcp://HOST:PORT; beyond a loopback address with --keys only.
        models: folder of bundles.
        state: folder in which sessions survive.
        keys: folder of keys, as `adaptd keygen` makes it: only clients on its list may connect.
        policy: policy of sessions that name none.
        log_level: debug, info, warning or error.
    """
    flags = {
        "endpoint": endpoint, "models": models, "state": state, "policy": policy,
        "log_level": log_level, "keys": {"folder": keys} if keys else None,
    }  # fmt: skip
    signals = Signals()
    with signals.heard():
        settings = load_config(config, **flags)
        logs = Logging(settings.log_level)
        logs.configure()
        Daemon(settings, logs, partial(load_config, config, **flags), signals).run()
