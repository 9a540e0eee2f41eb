"""A bundle's second graph: what the policy learns from an episode, apart from its steps.

    adapt(episode.obs, episode.action, episode.reward, carry) -> next carry

The graph takes any of ``episode.obs`` (T, O), ``episode.action`` (T, A) as applied,
``episode.reward`` (T, 1) and ``carry.<n>`` (1, ...); it gives those ``next.<n>`` (1, ...)
that it changes. MAML and its kin ship their inner gradient step this way.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.errors import InvalidBundle
from runtime.graph import ORT_TYPES, load_graph
from runtime.history import Arrays, History
from runtime.spec import ADAPT, Manifest

Shapes = dict[str, tuple[str, list[int | None]]]
"""Type and shape by name; a size of None is free."""


class LessonOverrun(Exception):
    """A lesson was stopped because it took longer than it may."""


class Learner:
    """A loaded adapt.onnx. Stateless, so threads may share it."""

    def __init__(self, manifest: Manifest, model: bytes):
        """Load the graph, check it against the manifest, and try it on zeros.

        Raises:
            InvalidBundle: it cannot be loaded or run, or disagrees with the manifest.
        """
        self.manifest = manifest
        where = f"{manifest.name}@{manifest.version}: {ADAPT}"
        self._session = load_graph(where, model, control_flow=True)
        shapes: Shapes = {f"carry.{c.name}": (c.dtype, [1, *c.shape]) for c in manifest.carry}
        steps = {"obs": manifest.obs_size, "action": manifest.action_size, "reward": 1}
        shapes |= {f"episode.{name}": ("float32", [None, size]) for name, size in steps.items()}
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        for node in self._session.get_inputs():
            self._check(where, node, shapes)
        changed: Shapes = {f"next.{c.name}": (c.dtype, [1, *c.shape]) for c in manifest.carry}
        for node in self._session.get_outputs():
            self._check(where, node, changed)
        try:
            self._try()
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise InvalidBundle(f"{where} cannot be run: {reason}") from None

    @staticmethod
    def _check(where: str, node: Any, known: Shapes) -> None:
        if node.name not in known:
            raise InvalidBundle(f"{where}: {node.name!r} is unknown. Known: {sorted(known)}")
        dtype, shape = known[node.name]
        found = [None if not isinstance(size, int) else size for size in node.shape]
        fits = len(found) == len(shape) and all(
            a is None or b is None or a == b for a, b in zip(found, shape, strict=True)
        )
        if not fits or node.type != ORT_TYPES[dtype]:
            raise InvalidBundle(
                f"{where}: {node.name!r} is {node.type} {node.shape}, "
                f"expected {ORT_TYPES[dtype]} {['T' if s is None else s for s in shape]}"
            )

    def _try(self) -> None:
        m = self.manifest
        empty = np.zeros((2, m.obs_size + m.action_size + 2), np.float32)
        nothing = np.zeros(2, np.uint64), np.zeros(2, np.uint32)
        self.learn(History(*nothing, empty, m.obs_size), {c.name: c.prior()[None] for c in m.carry})

    def learn(self, episode: History, carry: Arrays, limit_s: float | None = None) -> Arrays:
        """The tensors of the carry that an episode changes.

        Args:
            episode: its T transitions and the one after: that one tells the last action
                and reward.
            carry: (1, ...) per tensor.
            limit_s: how long it may take: a trial on zeros does not show how often a loop goes
                round on what a robot sees. None: as long as it likes.

        Returns:
            (1, ...) for each tensor that is changed.

        Raises:
            LessonOverrun: it was stopped at the limit.
        """
        o, end = episode.obs_size, episode.rows.shape[1]
        told = {
            "episode.obs": episode.rows[:-1, :o],
            "episode.action": episode.rows[1:, o : end - 2],
            "episode.reward": episode.rows[1:, end - 2 : end - 1],
        }
        told |= {f"carry.{name}": value for name, value in carry.items()}
        feed = {name: np.ascontiguousarray(told[name]) for name in self._inputs}
        with _stopped_after(limit_s) as options:
            results = self._session.run(self._outputs, feed, options)
        names = (name.removeprefix("next.") for name in self._outputs)
        return {name: np.asarray(value) for name, value in zip(names, results, strict=True)}


@contextmanager
def _stopped_after(limit_s: float | None) -> Iterator[ort.RunOptions]:
    """Options of a run that ONNX Runtime ends, between two operators, once the time is over."""
    options = ort.RunOptions()
    if limit_s is None:
        yield options
        return
    timer = threading.Timer(limit_s, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception:
        if options.terminate:
            raise LessonOverrun(f"it took longer than {limit_s:g} s") from None
        raise
    finally:
        timer.cancel()
