"""One policy: an ONNX graph as a pure step over an explicit carry.

    step(obs, prev_action, prev_reward, prev_done, noise, carry) -> action, carry, belief

Nothing is kept between calls. What the algorithm is, only the graph knows.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from runtime.errors import InvalidBundle
from runtime.graph import ORT_TYPES, load_graph
from runtime.history import Arrays
from runtime.learner import Learner
from runtime.spec import GOLDEN, STEP_INPUTS, Manifest

BATCHES = (2, 7, 64)
"""Batch sizes at which each row must be what it is alone."""


@dataclass(frozen=True)
class Step:
    """What one step gives, batch first; `carry` and `belief` by name without prefix."""

    action: NDArray[np.float32]  # (B, A)
    carry: Arrays
    belief: Arrays


class Policy:
    """A loaded bundle. Stateless, so threads may share it."""

    def __init__(self, manifest: Manifest, model: bytes):
        """Load the graph and check it against the manifest.

        Raises:
            InvalidBundle: the graph cannot be loaded, or its inputs or outputs disagree
                with the manifest in name, type or shape.
        """
        self.manifest = manifest
        self.label = f"{manifest.name}@{manifest.version}"
        self.session = load_graph(self.label, model)
        self._check_graph()
        self.learner: Learner | None = None
        """Runs the bundle's second graph, if it has one."""
        self.batch_invariant = False
        """Whether a row's bits do not depend on the batch here; `check_batches` finds out."""
        self.prior_belief: Arrays | None = None
        """Belief (1, ...) at the first step of the golden trace, when nothing is known."""
        self._inputs = frozenset(manifest.inputs)
        self._outputs = list(manifest.output_shapes())
        self._carry_names = [c.name for c in manifest.carry]
        self._belief_names = [b.name for b in manifest.belief]

    @classmethod
    def verified(
        cls, manifest: Manifest, model: bytes, golden: bytes, adapt: bytes | None = None
    ) -> "Policy":
        """Load a graph, replay its golden trace, which also warms it up, and try batches.

        Args:
            manifest: of the bundle.
            model, golden, adapt: the content of its files.

        Raises:
            InvalidBundle: as the constructor, `replay_golden` and `Learner`.
        """
        policy = cls(manifest, model)
        policy.prior_belief = replay_golden(policy, golden).first_belief
        policy.batch_invariant = batch_invariant(policy)
        if adapt is not None:
            policy.learner = Learner(manifest, adapt)
        return policy

    def initial_carry(self, batch: int = 1) -> Arrays:
        """The carry at the prior, (B, ...) per tensor."""
        return {c.name: np.repeat(c.prior()[None], batch, axis=0) for c in self.manifest.carry}

    def step(self, inputs: Arrays, carry: Arrays, options: dict[str, float] | None = None) -> Step:
        """One step of B independent rows.

        Args:
            inputs: `obs` (B, O), `prev_action` (B, A) as applied, `prev_reward` (B, 1),
                `prev_done` (B, 1), 1 where an episode ended before this observation, and,
                if the policy takes any, `noise` (B, N), standard normal. Those that the
                graph does not use may be left out and are not looked at.
            carry: (B, ...) per tensor.
            options: values that differ from the declared defaults.
        """
        feed = {name: value for name, value in inputs.items() if name in self._inputs}
        for option in self.manifest.options:
            value = (options or {}).get(option.name, option.default)
            feed[f"option.{option.name}"] = np.full((len(inputs["obs"]), 1), value, np.float32)
        for name in self._carry_names:
            feed[f"carry.{name}"] = carry[name]
        results: list[Any] = list(self.session.run(self._outputs, feed))
        action, rest = results[0], results[1:]
        carries, beliefs = rest[: len(self._carry_names)], rest[len(self._carry_names) :]
        return Step(
            action,
            dict(zip(self._carry_names, carries, strict=True)),
            dict(zip(self._belief_names, beliefs, strict=True)),
        )

    def _check_graph(self) -> None:
        manifest = self.manifest
        carry_types = {c.name: c.dtype for c in manifest.carry}

        def expected_type(name: str) -> str:
            kind, _, rest = name.partition(".")
            dtype = carry_types[rest] if kind in ("carry", "next") else "float32"
            return ORT_TYPES[dtype]

        for what, nodes, shapes in (
            ("input", self.session.get_inputs(), manifest.input_shapes()),
            ("output", self.session.get_outputs(), manifest.output_shapes()),
        ):
            found = {node.name: node for node in nodes}
            if set(found) != set(shapes):
                raise InvalidBundle(
                    f"{self.label}: the graph's {what}s are {sorted(found)}, "
                    f"the manifest's {sorted(shapes)}"
                )
            for name, shape in shapes.items():
                node = found[name]
                batch, *inner = node.shape or [1]
                if isinstance(batch, int) or inner != shape or node.type != expected_type(name):
                    raise InvalidBundle(
                        f"{self.label}: {what} {name!r} is {node.type} {node.shape}, expected "
                        f"{expected_type(name)} [batch, {', '.join(map(str, shape))}]"
                    )


class Replay(NamedTuple):
    """Largest difference from a golden trace, and the belief (1, ...) at its first step."""

    difference: float
    first_belief: Arrays


def replay_golden(policy: Policy, content: bytes) -> Replay:
    """Replay a recorded trace from the prior, each step on the carry of the one before.

    The trace holds ``input.<name>`` (steps, ...) for every input but carry and options,
    ``initial.<carry>``, which is the manifest's `init`, and ``output.<name>`` (steps, ...).

    Raises:
        InvalidBundle: the trace is incomplete or of other shapes, or an output differs by
            more than `atol` (`largest_difference`).
    """
    try:
        return _replay_trace(policy, _read_trace(policy, content))
    except InvalidBundle:
        raise
    except Exception as error:  # whatever a broken file makes of its readers
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidBundle(f"{policy.label}: {GOLDEN} cannot be replayed: {reason}") from None


def _replay_trace(policy: Policy, trace: "_Trace") -> Replay:
    carry, worst, first_belief = policy.initial_carry(), 0.0, {}
    for t in range(policy.manifest.golden.steps):
        inputs = {name: rows[t : t + 1] for name, rows in trace.inputs.items()}
        step = policy.step(inputs, carry)
        carry = step.carry
        worst = max(worst, _difference(policy, step, trace.outputs, t))
        if t == 0:
            first_belief = step.belief
    return Replay(worst, first_belief)


class _Trace(NamedTuple):
    inputs: Arrays  # (steps, ...) per input but the carry
    outputs: Arrays  # (steps, ...) per output


def _read_trace(policy: Policy, content: bytes) -> _Trace:
    """The arrays of a golden trace, of the names, shapes and types that the manifest says."""
    manifest, arrays = policy.manifest, load_arrays(content)
    types = {f"next.{c.name}": c.dtype for c in manifest.carry}
    steps = manifest.golden.steps

    def take(name: str, shape: list[int], dtype: str) -> NDArray[Any]:
        if name not in arrays:
            raise InvalidBundle(f"{policy.label}: {GOLDEN} is incomplete: {name!r} is missing")
        found = arrays[name]
        if list(found.shape) != shape or found.dtype != dtype:
            raise InvalidBundle(
                f"{policy.label}: {GOLDEN}: {name!r} is {found.dtype} {list(found.shape)}, "
                f"expected {dtype} {shape}"
            )
        return found

    for c in manifest.carry:
        if not np.array_equal(take(f"initial.{c.name}", c.shape, c.dtype), c.prior()):
            raise InvalidBundle(
                f"{policy.label}: {GOLDEN} starts from another {c.name!r} than the manifest's init"
            )
    inputs = {
        name: take(f"input.{name}", [steps, *shape], "float32")
        for name, shape in manifest.input_shapes().items()
        if name in STEP_INPUTS
    }
    outputs = {
        name: take(f"output.{name}", [steps, *shape], types.get(name, "float32"))
        for name, shape in manifest.output_shapes().items()
    }
    return _Trace(inputs, outputs)


def _difference(policy: Policy, step: Step, expected: Arrays, t: int) -> float:
    worst, atol = 0.0, policy.manifest.golden.atol
    for name, value in step_outputs(step).items():
        difference = largest_difference(value[0], expected[name][t])
        if not difference <= atol:
            raise InvalidBundle(
                f"{policy.label}: replaying the golden trace, {name!r} differs by "
                f"{difference:.3g} at step {t}, allowed {atol:.3g}"
            )
        worst = max(worst, difference)
    return worst


def largest_difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of any element; of its size, where that is more than 1.

    Float32 has seven digits, so that a large number may not agree to 1e-4.
    """
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max(initial=0.0))


def step_outputs(step: Step) -> Arrays:
    """A step's results under the names of the graph's outputs."""
    outputs = {"action": step.action}
    outputs |= {f"next.{name}": value for name, value in step.carry.items()}
    return outputs | {f"belief.{name}": value for name, value in step.belief.items()}


def batch_invariant(policy: Policy) -> bool:
    """Whether each row's bits are the same alone and in any of `BATCHES`, on this machine.

    ONNX Runtime does not promise it; it depends on the graph and on the processor.
    """
    rng = np.random.default_rng(0)
    n = max(BATCHES)
    inputs = {
        name: rng.standard_normal((n, *shape)).astype(np.float32)
        for name, shape in policy.manifest.input_shapes().items()
        if name in STEP_INPUTS
    }
    inputs.setdefault("obs", np.zeros((n, policy.manifest.obs_size), np.float32))
    carry = policy.initial_carry(n)
    for _ in range(2):  # the second step from carries that differ
        alone = [_row_bits(policy, inputs, carry, i, i + 1)[0] for i in range(n)]
        if any(_row_bits(policy, inputs, carry, 0, b) != alone[:b] for b in BATCHES):
            return False
        carry = policy.step(inputs, carry).carry
    return True


def _row_bits(policy: Policy, inputs: Arrays, carry: Arrays, a: int, b: int) -> list[bytes]:
    """The bits of rows a to b when they are stepped together."""
    some = {name: value[a:b] for name, value in inputs.items()}
    step = policy.step(some, {name: value[a:b] for name, value in carry.items()})
    parts = [step.action, *step.carry.values()]
    return [b"".join(part[i].tobytes() for part in parts) for i in range(b - a)]
