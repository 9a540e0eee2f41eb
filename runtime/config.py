"""The daemon's configuration: defaults, then a TOML file, then ADAPTD_* variables, then flags."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runtime.errors import InvalidConfig, UnknownName
from runtime.keyfile import SERVER_KEY
from runtime.keyfile import VARIABLE as CLIENT_KEY
from runtime.messages import default_endpoint

PREFIX = "ADAPTD_"


class Section(BaseModel):
    """Base of the configuration's sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GuardConfig(Section):
    """[guard]: when an observation must not be acted on, and when to stop. 0 switches off."""

    max_age_s: NonNegativeFloat = Field(
        default=1.0, description="Oldest observation that is acted on [s]."
    )
    min_rate: float = Field(
        default=0.0, ge=0, le=1, description="Least rate, as a fraction of the control rate."
    )
    stuck_ticks: NonNegativeInt = Field(
        default=0, description="Ticks without any change after which a sender is stuck."
    )
    stop_after: NonNegativeInt = Field(
        default=50, description="Fallback actions in a row that stop a session until re-armed."
    )


class SwapConfig(Section):
    """[swap]: how a new policy begins."""

    probation_ticks: NonNegativeInt = Field(
        default=100, description="Ticks in which a policy that misbehaves is sent back."
    )
    blend_ticks: NonNegativeInt = Field(
        default=0, description="Ticks over which the old action becomes the new one."
    )


class KeysConfig(Section):
    """[keys]: who may connect over tcp, and how much of the daemon one client may have."""

    folder: Path | None = Field(
        default=None,
        description="Holds server.key and clients.toml, as `adaptd keygen` makes them.",
    )
    secret: Path | None = Field(
        default=None, description="The daemon's key file, if it is not in the folder."
    )
    sessions: PositiveInt = Field(default=128, description="Sessions of one client.")
    messages_per_s: PositiveFloat = Field(
        default=10_000.0, description="Observations of one client a second, and in one burst."
    )
    requests_per_s: PositiveFloat = Field(
        default=500.0, description="Control requests of one client a second, and in one burst."
    )
    handshake_s: PositiveFloat = Field(
        default=2.0, description="A connection that has shown no key for so long is ended [s]."
    )

    @property
    def secret_file(self) -> Path:
        """Where the daemon's own key is."""
        assert self.folder is not None
        return self.secret or self.folder / SERVER_KEY


class SigningConfig(Section):
    """[signing]: whose bundles are served. Needs the extra `sign`."""

    trusted_keys: list[str] = Field(
        default=[], description="Public keys, one line of base64 each; two while one replaces."
    )
    require_signature: bool = Field(
        default=False, description="Refuse bundles that none of the trusted keys has signed."
    )
    allow_downgrades: bool = Field(
        default=False, description="Serve bundles signed before those that have been in use."
    )


class BundlesConfig(Section):
    """[bundles]: what trying a bundle may take, before it is served."""

    max_file_mib: PositiveInt = Field(
        default=256, description="Largest file [MiB]; twice that, all together."
    )
    trial_s: PositiveInt = Field(default=30, description="Processor time of a trial [s].")
    trial_memory_mib: PositiveInt = Field(default=1024, description="Memory of a trial [MiB].")
    lesson_s: PositiveFloat = Field(default=10.0, description="Longest lesson in service [s].")


class RealtimeConfig(Section):
    """[realtime]: what to ask of the operating system. Each refusal is reported."""

    priority: int | None = Field(
        default=None, ge=1, le=99, description="SCHED_FIFO priority of the control loop."
    )
    affinity: list[NonNegativeInt] = Field(
        default=[], description="Cores that the control loop may use; empty: any."
    )
    mlock: bool = Field(default=False, description="Keep all memory from being paged out.")
    spin_us: NonNegativeInt = Field(
        default=100, description="How long to look for the next request before sleeping [us]."
    )
    patient_io: bool = Field(
        default=False, description="Messages in bulk: for fleets, on cores that are not contended."
    )
    collect_garbage: bool = Field(
        default=True, description="Let Python look for reference cycles while serving."
    )


class ServeConfig(BaseSettings):
    """How `adaptd serve` runs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    endpoint: str = Field(
        default_factory=default_endpoint,
        description="ipc://PATH, or tcp://HOST:PORT; beyond a loopback address with [keys] only.",
    )
    models: Path = Field(default=Path("exported_models"), description="Folder of policy bundles.")
    state: Path | None = Field(
        default=None,
        description="Folder in which sessions survive; if not given, the user's own.",
    )
    durable: bool = Field(
        default=False, description="Write state through to the disk, about ten times a second."
    )
    policy: str | None = Field(
        default=None,
        description="Policy of sessions that name none; if there is only one, that one.",
    )
    preload: bool = Field(default=False, description="Load every bundle at the start.")
    max_sessions: PositiveInt = Field(default=1024, description="Sessions open at once.")
    ring_size: PositiveInt = Field(default=1024, description="Transitions kept per session.")
    idle_after_s: PositiveFloat = Field(
        default=600.0, description="A session that has not ticked for so long goes to sleep."
    )
    forget_after_s: PositiveFloat = Field(
        default=30 * 86400.0, description="A session that has not ticked for so long is closed."
    )
    allow_variant_batches: bool = Field(
        default=False, description="Batch policies whose bits then depend on who else is ticking."
    )
    guard: GuardConfig = GuardConfig()
    swap: SwapConfig = SwapConfig()
    signing: SigningConfig = SigningConfig()
    bundles: BundlesConfig = BundlesConfig()
    realtime: RealtimeConfig = RealtimeConfig()
    keys: KeysConfig = KeysConfig()
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe event that is logged."
    )

    def state_folder(self) -> Path:
        """Where sessions survive: as configured, or under systemd's or the user's state folder."""
        if self.state is not None:
            return self.state
        home = os.environ.get("STATE_DIRECTORY") or os.environ.get("XDG_STATE_HOME")
        base = Path(home) if home else Path.home() / ".local" / "state"
        base = base if os.environ.get("STATE_DIRECTORY") else base / "adaptd"
        return base / re.sub(r"[^A-Za-z0-9.]+", "-", self.endpoint)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags go over the environment, which goes over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(path: Path | None = None, **flags: Any) -> ServeConfig:
    """The configuration from flags, the environment and a TOML file, in that order.

    Args:
        path: the file, if any.
        flags: values that go over all others; None for those that were not given.

    Raises:
        InvalidConfig: the file cannot be read or a value is wrong.
        UnknownName: a key that does not exist, with the nearest one.
    """
    known = ServeConfig.model_fields
    told = [k for k in os.environ if k.startswith(PREFIX) and k != CLIENT_KEY]
    names = [k.removeprefix(PREFIX).lower() for k in told]
    for key in [*_keys(_read(path) if path else {}), *names, *flags]:
        section, _, inner = key.partition("__")
        if section not in known:
            raise UnknownName("configuration key", section, known)
        inside = getattr(known[section].annotation, "model_fields", {})
        if inner and inner not in inside:
            raise UnknownName(f"key in [{section}]", inner, inside)

    class FromFile(ServeConfig):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FromFile(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise InvalidConfig(_first_sentence(error)) from None


def _keys(content: dict[str, Any]) -> list[str]:
    """The keys of a file, those of a section after its name and two underscores."""
    return [
        f"{key}__{inner}" if inner else key
        for key, value in content.items()
        for inner in (value if isinstance(value, dict) and value else [""])
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not TOML: {error}") from None


def _first_sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"configuration key {place!r}: {first['msg']}, got {first.get('input')!r}"
