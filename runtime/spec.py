"""The bundle contract: what a policy on disk says about itself.

A bundle is the folder ``<models>/<name>/<version>/`` with `policy.onnx`,
`manifest.json`, `golden.safetensors`, a model card and a picture. docs/bundle.md
describes it for people who write bundles in another language.

Shapes: ``B`` batch, ``O`` observation, ``A`` action, ``N`` noise.
"""

import hashlib
import json
import math
import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runtime.errors import InvalidBundle
from runtime.json_text import count_values

SCHEMA_VERSION = 1
MANIFEST, POLICY, GOLDEN = "manifest.json", "policy.onnx", "golden.safetensors"
ADAPT = "adapt.onnx"
"""Optional second graph: how the policy learns between episodes."""
SIGNATURE = MANIFEST + ".minisig"
"""Optional detached signature of the manifest, which lists the hashes of the other files."""
DOCUMENTS = ("README.md", "adaptation.png")
"""Files for people, which need not be listed."""
STEP_INPUTS = ("obs", "prev_action", "prev_reward", "prev_done", "noise")
"""Inputs a graph may have besides ``carry.*`` and ``option.*``."""
MAX_ELEMENTS = 4096
"""Limit on the length of an observation or action vector."""
MAX_CARRY_ELEMENTS = 1 << 24
MAX_ENTRIES = 256
"""Limit on the tensors of a carry, on options, beliefs and files."""
MAX_VALUES = 1 << 16
"""Limit on what a manifest says, in JSON values: the longest vectors fit in."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
Shape = Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=16)]
"""Of a tensor, without the batch."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""Of a file that lies in the bundle's folder itself."""
Finite = Annotated[float, Field(ge=-3e38, le=3e38)]
"""A number that stays finite as a float32."""


class Record(BaseModel):
    """Base of all parts of a manifest: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Element(Record):
    """One element of the observation; a bound of null means unbounded."""

    name: str
    unit: str
    low: Finite | None
    high: Finite | None


class ActionElement(Record):
    """One element of the action, with its limits."""

    name: str
    unit: str
    low: Finite
    high: Finite
    max_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Largest change per second, in units of the element; null: any."
    )


class TaskRange(Record):
    """Range of a task parameter in meta-training."""

    unit: str
    low: Finite
    high: Finite


class CarrySpec(Record):
    """One tensor of the policy's memory; `shape` is without the batch."""

    name: Name
    shape: Shape
    dtype: Literal["float32", "float64", "int64", "int32"]
    init: float | list[Any]
    transient: bool = Field(
        default=False,
        description=(
            "Whether it is about the observation just before: it goes back to `init` where that "
            "was not taken in."
        ),
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if math.prod(self.shape) > MAX_CARRY_ELEMENTS:
            raise ValueError(f"{self.shape} has more than {MAX_CARRY_ELEMENTS} elements")
        try:
            init = np.asarray(self.init, self.dtype)
            np.broadcast_to(init, self.shape)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"init: {error}") from None
        if not np.isfinite(init).all():
            raise ValueError("init is not finite")
        return self

    def prior(self) -> NDArray[Any]:
        """The value at a task boundary, of `shape`."""
        return np.broadcast_to(np.asarray(self.init, self.dtype), self.shape).copy()


class OptionSpec(Record):
    """Something an operator may set per session without retraining."""

    name: Name
    default: Finite
    low: Finite
    high: Finite
    help: str

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default {self.default} is not between {self.low} and {self.high}")
        return self


class BeliefSpec(Record):
    """What a belief output means."""

    name: Name
    shape: Shape
    role: Literal["mean", "variance", "doubt"] = Field(
        description=(
            "`doubt`: how many times the deviation was widened because the newest evidence "
            "contradicts the older; 1 if it does not."
        )
    )
    of: Literal["task", "latent"] = Field(
        default="task",
        description=(
            "What it is a belief about: the task's parameters, in the units and order of "
            "`task_ranges`, or a latent variable that only this policy knows the meaning of."
        ),
    )


class Boundaries(Record):
    """What an episode boundary, a task boundary and a gap in the sequence do to the carry."""

    episode: Literal["keep", "prior"]
    task: Literal["prior"]
    gap: Literal["keep", "prior"] = "keep"
    adapt: Literal["episode"] | None = None
    """When adapt.onnx is run: after each episode, on its transitions. None: there is none."""


class FileRecord(Record):
    """What a file must be."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class GoldenSpec(Record):
    """Length of the recorded trace and how far a replay may differ from it."""

    steps: Annotated[int, Field(ge=1)]
    atol: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ReturnStat(Record):
    """A mean over held-out tasks with the half-width of its 95 % interval."""

    mean: Finite
    ci95: Finite


class EvaluationRecord(Record):
    """Return per episode of a trial on held-out tasks, and of references."""

    episodes: list[ReturnStat]
    cleared_memory: list[ReturnStat]
    sampled: list[ReturnStat] = []
    random: list[ReturnStat] = []
    task_told: list[ReturnStat] = []
    tasks: int
    seeds: list[int]
    env_steps: int


class Manifest(Record):
    """A policy bundle's description of itself; docs/bundle.md explains each key."""

    schema_version: Literal[1]
    name: Name
    version: Annotated[int, Field(ge=1)]
    algorithm: str
    family: str
    task_ranges: dict[str, TaskRange]
    control_hz: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    observation: Annotated[list[Element], Field(min_length=1, max_length=MAX_ELEMENTS)]
    action: Annotated[list[ActionElement], Field(min_length=1, max_length=MAX_ELEMENTS)]
    fallback_action: list[Finite]
    inputs: list[str]
    needs_reward: bool
    carry: Annotated[list[CarrySpec], Field(max_length=MAX_ENTRIES)]
    options: Annotated[list[OptionSpec], Field(max_length=MAX_ENTRIES)]
    noise_size: Annotated[int, Field(ge=0)]
    boundaries: Boundaries
    belief: Annotated[list[BeliefSpec], Field(max_length=MAX_ENTRIES)]
    context_window: Annotated[int, Field(ge=1)] | None
    files: Annotated[dict[FileName, FileRecord], Field(max_length=MAX_ENTRIES)]
    golden: GoldenSpec
    evaluation: EvaluationRecord
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len(self.fallback_action) != len(self.action):
            raise ValueError(
                f"fallback_action has {len(self.fallback_action)} elements, "
                f"the action has {len(self.action)}"
            )
        for value, element in zip(self.fallback_action, self.action, strict=True):
            if not element.low < element.high:
                raise ValueError(f"action {element.name!r}: low is not below high")
            if not element.low <= value <= element.high:
                raise ValueError(f"fallback_action for {element.name!r} is out of its bounds")
        expected = {f"carry.{c.name}" for c in self.carry}
        expected |= {f"option.{o.name}" for o in self.options}
        given = {i for i in self.inputs if i not in STEP_INPUTS}
        if given != expected:
            raise ValueError(f"inputs name {sorted(given)}, carry and options {sorted(expected)}")
        if sum(math.prod(c.shape) for c in self.carry) > MAX_CARRY_ELEMENTS:
            raise ValueError(f"the carry has more than {MAX_CARRY_ELEMENTS} elements")
        if {MANIFEST, SIGNATURE} & set(self.files):
            raise ValueError(f"files cannot list {MANIFEST} or its signature")
        if {POLICY, GOLDEN} - set(self.files):
            raise ValueError(f"files must list {POLICY} and {GOLDEN}")
        if (ADAPT in self.files) != (self.boundaries.adapt is not None):
            raise ValueError(f"files must list {ADAPT} where boundaries.adapt says when it is run")
        return self

    @property
    def obs_size(self) -> int:
        """O."""
        return len(self.observation)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that identify the bundle: the manifest lists the hashes of its files."""
        said = self.model_dump(mode="json", exclude_unset=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()

    @cached_property
    def carry_digest(self) -> bytes:
        """32 bytes that identify the carry's tensors."""
        return hashlib.sha256(repr(self.carry_schema()).encode()).digest()

    @cached_property
    def transient(self) -> tuple[int, ...]:
        """Which tensors of the carry are about the observation just before, by their place."""
        return tuple(k for k, c in enumerate(self.carry) if c.transient)

    def carry_schema(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """Names, shapes and types of the carry: two policies that agree share a format."""
        return tuple((c.name, tuple(c.shape), c.dtype) for c in self.carry)

    def input_shapes(self) -> dict[str, list[int]]:
        """The shape of each input without the batch."""
        shapes = {
            "obs": [self.obs_size],
            "prev_action": [self.action_size],
            "prev_reward": [1],
            "prev_done": [1],
            "noise": [self.noise_size],
        }
        shapes |= {f"carry.{c.name}": c.shape for c in self.carry}
        shapes |= {f"option.{o.name}": [1] for o in self.options}
        return {name: shapes[name] for name in self.inputs}

    def output_shapes(self) -> dict[str, list[int]]:
        """The shape of each output without the batch."""
        shapes = {"action": [self.action_size]}
        shapes |= {f"next.{c.name}": c.shape for c in self.carry}
        shapes |= {f"belief.{b.name}": b.shape for b in self.belief}
        return shapes


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest from its JSON text.

    Raises:
        InvalidBundle: with the first thing that is wrong, and where.
    """
    found = count_values(text.encode() if isinstance(text, str) else text)
    if found > MAX_VALUES:
        raise InvalidBundle(f"{where}: it has {found} values, at most {MAX_VALUES} may be")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or MANIFEST
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InvalidBundle(f"{where}: {place}: {first['msg']}{more}") from None


def file_record(content: bytes) -> FileRecord:
    """Hash and size of a file's content."""
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def split_reference(reference: str) -> tuple[str, int | None]:
    """``name`` or ``name@3`` as (name, version or None).

    Raises:
        InvalidBundle: it is neither.
    """
    match = re.fullmatch(r"([a-z0-9][a-z0-9_.-]{0,99})(?:@([1-9][0-9]{0,8}))?", reference)
    if match is None:
        raise InvalidBundle(
            f"{reference[:120]!r} is not a policy: expected 'name' or 'name@version'"
        )
    return match[1], int(match[2]) if match[2] else None
