"""The daemon's configuration: defaults, then a TOML file, then ADAPTD_* variables, then flags."""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runtime.errors import InvalidConfig, UnknownName
from runtime.messages import default_endpoint

PREFIX = "ADAPTD_"


class ServeConfig(BaseSettings):
    """How `adaptd serve` runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    endpoint: str = Field(
        default_factory=default_endpoint,
        description="ipc://PATH, or tcp://HOST:PORT on a loopback address.",
    )
    models: Path = Field(default=Path("exported_models"), description="Folder of policy bundles.")
    policy: str | None = Field(
        default=None,
        description="Policy of sessions that name none; if there is only one, that one.",
    )
    preload: bool = Field(default=False, description="Load every bundle at the start.")
    max_sessions: PositiveInt = Field(default=1024, description="Sessions open at once.")
    ring_size: PositiveInt = Field(default=1024, description="Transitions kept per session.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe event that is logged."
    )

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
    names = [k.removeprefix(PREFIX).lower() for k in os.environ if k.startswith(PREFIX)]
    for key in [*(_read(path) if path else {}), *names, *flags]:
        if key not in known:
            raise UnknownName("configuration key", key, known)

    class FromFile(ServeConfig):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FromFile(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        raise InvalidConfig(_first_sentence(error)) from None


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
