"""The control path's way to run a policy: bound buffers, whole batches, no copies by ORT.

`Policy.step` takes and gives arrays; a `Stepper` writes a session's bytes into buffers that
are bound to the graph once, one binding per batch size. Only the loop's thread uses it.
"""

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.guard import all_finite
from runtime.policy import Policy
from runtime.spec import STEP_INPUTS, Manifest

MAX_BATCH = 64
"""Most sessions that are stepped by one run of a graph."""
MAX_BUFFER_BYTES = 128 << 20
"""Of the buffers of all batch sizes: policies with a large carry are stepped fewer at once."""

_ENDS = ("carry", "next")


class _Bound:
    """The buffers of one batch size, bound to the graph."""

    def __init__(self, policy: Policy, batch: int):
        manifest = policy.manifest
        types = {f"carry.{c.name}": c.dtype for c in manifest.carry}
        types |= {f"next.{c.name}": c.dtype for c in manifest.carry}
        self.inputs = {
            name: np.zeros((batch, *shape), types.get(name, "float32"))
            for name, shape in manifest.input_shapes().items()
        }
        self.row: memoryview | None = None
        """For a batch of one: all of a row lies together, to be written at once."""
        if batch == 1:
            self._lay_out_row(manifest.obs_size, manifest.action_size)
        self.outputs = {
            name: np.zeros((batch, *shape), types.get(name, "float32"))
            for name, shape in manifest.output_shapes().items()
        }
        self.binding = policy.session.io_binding()
        for name, array in self.inputs.items():
            self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, array in self.outputs.items():
            self.binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        carry = [c.name for c in manifest.carry]
        self.carry_in = _by_row([self.inputs[f"carry.{n}"] for n in carry], batch)
        self.carry_out = _by_row([self.outputs[f"next.{n}"] for n in carry], batch)
        results = [self.outputs["action"], *(self.outputs[f"next.{n}"] for n in carry)]
        # Zero times NaN or infinity is NaN: a dot product with zeros finds both.
        self.checks = [(r.reshape(-1), np.zeros(r.size, r.dtype)) for r in results]
        self.row_checks = [r.reshape(batch, -1) for r in results]
        self.action = self.outputs["action"]
        self.belief = {b.name: self.outputs[f"belief.{b.name}"] for b in manifest.belief}
        self.noise = self.inputs.get("noise")
        sizes = zip(_row_inputs(manifest.obs_size, manifest.action_size), STEP_INPUTS, strict=False)
        self.row_parts = [
            (_bytes(self.inputs[name]), start, size)
            for (start, size), name in sizes
            if name in self.inputs
        ]
        self.options = [_bytes(self.inputs[f"option.{o.name}"]) for o in manifest.options]

    def _lay_out_row(self, obs: int, action: int) -> None:
        whole = np.zeros(obs + action + 2, np.float32)
        for (start, size), name in zip(_row_inputs(obs, action), STEP_INPUTS, strict=False):
            if name in self.inputs:
                self.inputs[name] = whole[start // 4 : (start + size) // 4][None]
        self.row = _bytes(whole)


class Stepper:
    """Steps up to `most` sessions of one policy at once, `MAX_BATCH` if its carry is small.

    After `run`, row i of `action` (n, A), of each of `carry_out` and of `belief` is
    session i's; they are overwritten by the next run.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        self.prior = [c.prior().tobytes() for c in policy.manifest.carry]
        self.transient = policy.manifest.transient
        self.default_options = struct.pack(
            f"<{len(policy.manifest.options)}f", *(o.default for o in policy.manifest.options)
        )
        self.noise_size = policy.manifest.noise_size
        self.most = _most_rows(policy.manifest)
        """Largest batch."""
        self._bounds: dict[int, _Bound] = {}
        self._run = policy.session.run_with_iobinding
        self._warm_up()

    def _warm_up(self) -> None:
        """Make and use all buffers now: what is made later holds a tick up."""
        largest = self.most if self.policy.batch_invariant else 1
        for batch in range(largest, 0, -1):
            self.choose(batch)
            self.run()

    def choose(self, batch: int) -> None:
        """Use the buffers of a batch size."""
        bound = self._bounds.get(batch)
        if bound is None:
            bound = self._bounds[batch] = _Bound(self.policy, batch)
        self._bound = bound
        self.action, self.belief = bound.action, bound.belief

    def load(
        self,
        i: int,
        row: bytes,
        carry: Sequence[bytes | memoryview],
        options: bytes,
        noise: NDArray[np.float32] | None,
    ) -> None:
        """Put one session's inputs into row i.

        Args:
            i: below the batch size.
            row: obs, prev_action, prev_reward, prev_done as float32.
            carry: bytes of each tensor.
            options: float32 values.
            noise: (1, N), if the graph takes any.
        """
        bound = self._bound
        if bound.row is not None:
            bound.row[:] = row
        else:
            for place, start, size in bound.row_parts:
                place[i * size : (i + 1) * size] = row[start : start + size]
        for place, value in zip(bound.carry_in[i], carry, strict=True):
            place[:] = value
        for k, place in enumerate(bound.options):
            place[4 * i : 4 * i + 4] = options[4 * k : 4 * k + 4]
        if noise is not None and bound.noise is not None:
            bound.noise[i] = noise[0]

    def run(self) -> None:
        """Step all rows."""
        self._run(self._bound.binding)

    def carry_of(self, i: int) -> list[memoryview]:
        """The bytes of row i's next carry."""
        return self._bound.carry_out[i]

    def whole(self) -> bool:
        """Whether every action and next carry of the last run is finite."""
        for values, zeros in self._bound.checks:  # noqa: SIM110 - a generator costs a microsecond
            if values.dot(zeros) != 0.0:
                return False
        return True

    def row_whole(self, i: int) -> bool:
        """Whether row i's action and next carry are."""
        return all(all_finite(rows[i]) for rows in self._bound.row_checks)


def _most_rows(manifest: Manifest) -> int:
    """The largest batch for which the buffers of it and of all smaller ones have room."""
    sizes = {f"{end}.{c.name}": np.dtype(c.dtype).itemsize for c in manifest.carry for end in _ENDS}
    shapes = [*manifest.input_shapes().items(), *manifest.output_shapes().items()]
    row_bytes = sum(sizes.get(name, 4) * math.prod(shape) for name, shape in shapes)
    rows = range(MAX_BATCH, 1, -1)
    return next((n for n in rows if row_bytes * n * (n + 1) // 2 <= MAX_BUFFER_BYTES), 1)


def _row_inputs(obs: int, action: int) -> list[tuple[int, int]]:
    """Start and size in bytes of obs, prev_action, prev_reward and prev_done in a row."""
    ends = np.cumsum([0, obs, action, 1, 1]) * 4
    return [(int(a), int(b - a)) for a, b in itertools.pairwise(ends)]


def _by_row(tensors: list[NDArray[Any]], batch: int) -> list[list[memoryview]]:
    """The bytes of each tensor's row i, for each i."""
    return [[_bytes(tensor[i : i + 1]) for tensor in tensors] for i in range(batch)]


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
