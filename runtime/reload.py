"""SIGHUP: the configuration and the bundles, read again while sessions go on.

Everything is read and checked first; what cannot be used changes nothing. Sessions keep
their policies: a newer version waits in memory for those that open, and for `swap`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel

from runtime.config import ServeConfig
from runtime.errors import AdaptdError, InvalidBundle, InvalidConfig, UntrustedBundle
from runtime.notify import Notifier
from runtime.services import Services
from runtime.sessions import Rules
from runtime.spec import split_reference
from runtime.store import Store
from runtime.vetting.admission import Admission
from runtime.vetting.vet import PATIENCE
from runtime.watch import WatchLimits

log = structlog.get_logger()

AT_START = frozenset(
    [
        "endpoint", "models", "state", "durable", "max_sessions", "ring_size",
        "realtime.priority", "realtime.affinity", "realtime.mlock", "realtime.spin_us",
        "realtime.patient_io", "realtime.collect_garbage",
        "keys.folder", "keys.secret", "keys.handshake_s", "bundles.lesson_s",
    ]
)  # fmt: skip
"""Settings that sockets, files and threads were made with: they wait for a restart."""
SPARE_S = 60.0
"""How long a bundle may take besides its trial."""


def rules_of(config: ServeConfig) -> Rules:
    """What the configuration says of every session."""
    guard = config.guard
    return Rules(
        watch=WatchLimits(max_age_ns=int(1e9 * guard.max_age_s), stuck_ticks=guard.stuck_ticks),
        stop_after=guard.stop_after,
        min_rate=guard.min_rate,
    )


def load_s(config: ServeConfig) -> float:
    """How long the service manager is asked to wait for one bundle: its trial may take as long."""
    return PATIENCE * config.bundles.trial_s + SPARE_S


def load_policies(store: Store, config: ServeConfig, notifier: Notifier) -> str | None:
    """Load the default policy, and the others if asked.

    Returns:
        The default policy's reference; None where sessions have to name theirs. Where the
        highest version is broken and none is named, the highest that is sound.

    Raises:
        InvalidConfig: there is no bundle at all.
        UnknownName, InvalidBundle: the default policy does not exist or is broken, every version
            of it; one in memory may have become untrusted.
    """
    names = store.names()
    if not names:
        raise InvalidConfig(
            f"{config.models} holds no policy bundles (expected <name>/<version>/manifest.json); "
            f"choose another folder by --models"
        )
    default = config.policy or (names[0] if len(names) == 1 else None)
    if config.policy is not None:
        notifier.extend(load_s(config))
        default = _load_default(store, config.policy)
    for reference in store.references() if config.preload else []:
        notifier.extend(load_s(config))
        _try_to_load(store, reference)
    return default


def _load_default(store: Store, reference: str) -> str:
    """Load the default policy; its reference, or of the version before that is sound.

    A bad update must not keep robots from what served them until a restart.
    """
    try:
        store.load(reference)
        return reference
    except InvalidBundle as error:
        name, version = split_reference(reference)
        older = store.versions(name)[-2::-1] if version is None else []
        sound = next((f"{name}@{v}" for v in older if _try_to_load(store, f"{name}@{v}")), None)
        in_memory = name in {label.partition("@")[0] for label in store.loaded}
        # A key that was stolen has to go at once: new sessions are refused, others go on.
        if sound is None and not (isinstance(error, UntrustedBundle) and in_memory):
            raise
        _note_refusal(reference, error, instead=sound)
        return sound or reference


def _try_to_load(store: Store, reference: str) -> bool:
    """Load a policy if it can be; the others can still be served."""
    try:
        store.load(reference)
    except AdaptdError as error:
        _note_refusal(reference, error)
        return False
    return True


def _note_refusal(reference: str, error: AdaptdError, instead: str | None = None) -> None:
    kind = error.kind if isinstance(error, InvalidBundle) else "invalid"
    more = {"instead": instead} if instead else {}
    log.warning("bundle_refusal", policy=reference, kind=kind, reason=str(error), **more)


class Merged(NamedTuple):
    """A configuration that counts from now on."""

    config: ServeConfig
    changed: list[str]
    """Settings that are other than before."""
    waiting: list[str]
    """Settings that will be after a restart."""


def merge(before: ServeConfig, read: ServeConfig) -> Merged:
    """What counts after a reload: what was read, but for settings of `AT_START`."""
    differing = _differences(before, read)
    changed = {key: value for key, value in differing.items() if key not in AT_START}
    update: dict[str, Any] = {}
    for key, value in changed.items():
        section, _, inner = key.partition(".")
        if inner:
            old = update.get(section, getattr(before, section))
            value = old.model_copy(update={inner: value})
        update[section] = value
    waiting = sorted(set(differing) - set(changed))
    return Merged(before.model_copy(update=update), sorted(changed), waiting)


def _differences(before: BaseModel, after: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Settings that are not the same, by their name and their section's, as they are after."""
    found: dict[str, Any] = {}
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel):
            found |= _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found[prefix + name] = new
    return found


@dataclass
class Reload:
    """Carries a reload out, on the control thread."""

    read: Callable[[], ServeConfig]
    """Gives the configuration as files and environment have it now."""
    services: Services
    notifier: Notifier
    set_log_level: Callable[[str], None]

    def __call__(self) -> str:
        """Reload; why nothing was changed, or empty where it was."""
        store, before = self.services.store, self.services.store.admission
        try:
            merged = merge(self.services.config, self.read())
            rules = rules_of(merged.config)
            store.admission = Admission.of(merged.config, before.passed if before else None)
            default = load_policies(store, merged.config, self.notifier)
            self._load_newest(merged.config)
            access = self.services.access
            if access is not None:
                access.limit(merged.config.keys)
        except AdaptdError as error:
            store.admission = before
            log.warning("reload_failure", reason=str(error))
            return str(error)
        except Exception:  # our fault; what is serving goes on
            store.admission = before
            log.exception("reload_failure", reason="the daemon's own fault")
            return "the daemon's own fault; its log says which"
        self.services.config, self.services.default_policy = merged.config, default
        self.services.counters.enforced = not merged.config.signing.allow_downgrades
        self.set_log_level(merged.config.log_level)
        self.services.in_loop(lambda: self._apply(merged.config, rules))
        log.info(
            "reload", changed=merged.changed, waiting=merged.waiting,
            policies=sorted(self.services.store.loaded),
        )  # fmt: skip
        return ""

    def _load_newest(self, config: ServeConfig) -> None:
        """Have the newest version of every policy in memory that is there in any."""
        store = self.services.store
        for name in sorted({label.partition("@")[0] for label in store.loaded}):
            self.notifier.extend(load_s(config))
            _try_to_load(store, name)

    def _apply(self, config: ServeConfig, rules: Rules) -> None:
        """Between two ticks."""
        loop = self.services.loop
        loop.allow_variant_batches = config.allow_variant_batches
        loop.registry.rules = rules
        for session in loop.registry.live.values():
            session.follow(rules)
