"""A tick with the names of its elements: for plots that are asked for by name."""

import re
from typing import Any

import numpy as np

from runtime.episodes import EpisodeReturns
from runtime.messages import Adaptation
from runtime.spec import Manifest
from runtime.tap import Tick
from runtime.view.beliefs import band, beliefs


def path_name(name: str) -> str:
    """A name as it may stand in a path of Foxglove or PlotJuggler."""
    return re.sub(r"\W", "_", name)


class NamedTicks:
    """Names the ticks of one session, and adds up its episodes."""

    def __init__(self) -> None:
        self._episodes = EpisodeReturns(1)
        self._next_seq: int | None = None
        self._count = 0

    def name(self, tick: Tick, manifest: Manifest) -> dict[str, Any]:
        """A tick by names, as `schema` describes it.

        Args:
            tick: the session's next.
            manifest: of the policy that made it.
        """
        answer = tick.answer
        return {
            "seq": tick.seq,
            "belief": _belief(manifest, tick.belief),
            "action": {
                path_name(element.name): {
                    "applied": applied, "requested": requested,
                    "low": element.low, "high": element.high,
                }
                for element, applied, requested in zip(
                    manifest.action, answer.action.tolist(), answer.requested.tolist(), strict=False
                )
            },
            "observation": {
                path_name(element.name): value
                for element, value in zip(
                    manifest.observation, tick.observation.tolist(), strict=False
                )
            },
            "episode": self._episode(tick),
            "latency_us": (answer.queue_ns + answer.inference_ns) / 1000,
            "inference_us": answer.inference_ns / 1000,
            "adaptation": int(answer.adaptation),
            "status": Adaptation(answer.adaptation).name.lower(),
            "limited": int(answer.limits),
        }  # fmt: skip

    def _episode(self, tick: Tick) -> dict[str, Any]:
        episodes = self._episodes
        if self._next_seq not in (None, tick.seq):
            episodes.lose_track()
        self._next_seq = tick.seq + 1
        ended = episodes.follow(tick.seq, tick.flags, tick.reward)
        self._count += ended is not None
        last = episodes.returns[-1] if episodes.returns else None
        return {
            "reward": tick.reward, "running_return": episodes.running, "last_return": last,
            "count": self._count,
        }  # fmt: skip


def _belief(manifest: Manifest, values: np.ndarray) -> dict[str, Any]:
    """By name, the mean and the ends of the band; empty where no step was made."""
    if not values.size:
        return {}
    found = {}
    for belief in beliefs(manifest):
        mean, wide = (float(x) for x in band(belief, values.astype(float)))
        told = {"mean": mean}
        if wide == wide:
            told |= {"low": mean - wide, "high": mean + wide}
        found[path_name(belief.name)] = told
    return found


def schema(manifest: Manifest) -> dict[str, Any]:
    """The JSON schema of `NamedTicks.name` for one policy, so that a viewer can offer paths."""

    def record(*keys: str) -> dict[str, Any]:
        return {"type": "object", "properties": {key: {"type": "number"} for key in keys}}

    def by_name(names: list[str], each: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": {path_name(name): each for name in names}}

    action = record("applied", "requested", "low", "high")
    plain = record("seq", "latency_us", "inference_us", "adaptation", "limited")["properties"]
    return {
        "title": "adaptd.named",
        "type": "object",
        "properties": {
            **plain,
            "status": {"type": "string"},
            "belief": by_name([b.name for b in beliefs(manifest)], record("mean", "low", "high")),
            "action": by_name([a.name for a in manifest.action], action),
            "observation": by_name([o.name for o in manifest.observation], {"type": "number"}),
            "episode": record("reward", "running_return", "last_return", "count"),
        },
    }
