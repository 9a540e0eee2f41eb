"""One MCAP file after another: ticks, events, status, manifests and checkpoints."""

import time
from pathlib import Path
from typing import Any

import foxglove
import orjson
from foxglove.mcap import MCAPCompression, MCAPWriteOptions

from runtime.messages import ActionFlag, Adaptation, Limit, ObservationFlag
from runtime.recording.channels import (
    CHECKPOINT_MEDIA,
    FORMAT,
    MACHINE,
    MANIFEST_MEDIA,
    PER_TICK,
    PROFILE,
    SPARSE,
    schema,
    this_machine,
    topic,
)
from runtime.spec import Manifest
from runtime.tap import Tick

CHUNK_BYTES = 1 << 20
"""A killed writer loses the chunk it was filling, which is also closed by `flush`."""
SAME_CLOCK_NS = 60_000_000_000
_EPISODE_START, _NEW_TASK = int(ObservationFlag.EPISODE_START), int(ObservationFlag.NEW_TASK)
_GAP, _FRESH = int(ActionFlag.GAP), int(ActionFlag.FRESH)
_ADAPTATIONS = [a.name.lower() for a in Adaptation]
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class RecordingWriter:
    """Writes one file at a time; `start` begins the next."""

    def __init__(self) -> None:
        self.context = foxglove.Context()
        """Where the channels are; a viewer may listen to them too (`runtime.view.bridge`)."""
        self._channels: dict[int, dict[str, foxglove.Channel]] = {}
        self._daemon_channels: dict[str, foxglove.Channel] = {}
        self._writer: foxglove.MCAPWriter | None = None
        self._limit_names: dict[int, list[str]] = {}
        self._wall_offset_ns: int | None = None
        self._attached: set[str] = set()

    def start(self, path: Path) -> None:
        """Finish the file before, if any, and begin another."""
        self.close()
        options = MCAPWriteOptions(
            compression=MCAPCompression.Zstd,
            compression_threads=0,
            chunk_size=CHUNK_BYTES,
            profile=PROFILE,
        )
        self._writer = foxglove.open_mcap(path, context=self.context, writer_options=options)
        self._writer.write_metadata("adaptd", {"format": FORMAT})
        self._writer.write_metadata(MACHINE, this_machine())
        self._attached.clear()

    def tick(self, tick: Tick, policy: str | None) -> None:
        """Write one tick, on all of its channels.

        Args:
            tick: as it came from the tap.
            policy: that made it, if known.
        """
        channels = self._of_session(tick.session)
        at, seq, answer = self.wall_ns(tick.received_ns), tick.seq, tick.answer
        flags, limits = int(answer.flags), int(answer.limits)
        observation = {
            "seq": seq, "values": tick.observation, "flags": tick.flags, "sent_ns": tick.sent_ns,
        }  # fmt: skip
        if tick.echo.size:
            observation["echo"] = tick.echo
        said = {
            "observation": observation,
            "action": {
                "seq": seq, "requested": answer.requested, "applied": answer.action,
                "limited_by": self._names(limits), "limits": limits, "flags": flags,
                "generation": answer.generation, "policy": policy,
            },
            "reward": {"seq": seq, "reward": tick.reward},
            "belief": {
                "seq": seq, "values": tick.belief, "level": int(answer.adaptation),
                "adaptation": _ADAPTATIONS[answer.adaptation],
            },
            "timing": {
                "seq": seq, "received_ns": tick.received_ns, "queue_us": answer.queue_ns / 1000,
                "inference_us": answer.inference_ns / 1000,
            },
        }  # fmt: skip
        for name, content in said.items():
            channels[name].log(orjson.dumps(content, option=_NUMPY), log_time=at)
        kinds = _boundaries(tick.flags, flags)
        if kinds:
            line = orjson.dumps({"seq": seq, "kinds": kinds})
            channels["boundary"].log(line, log_time=at)

    def event(self, event: dict[str, Any]) -> None:
        """Write what happened to a session."""
        at = self.wall_ns(event["time_ns"])
        self._of_session(event["session"])["event"].log(orjson.dumps(event), log_time=at)

    def daemon(self, where: str, content: dict[str, Any]) -> None:
        """Write on a topic that is not of one session."""
        if where not in self._daemon_channels:
            self._daemon_channels[where] = self._channel(where, where.strip("/"))
        self._daemon_channels[where].log(orjson.dumps(content), log_time=time.time_ns())

    def manifest(self, label: str, manifest: Manifest) -> None:
        """Attach a bundle's manifest, once per file."""
        if label not in self._attached:
            self._attached.add(label)
            content = manifest.model_dump_json(exclude_unset=True).encode()
            self._attach(f"manifest/{label}.json", MANIFEST_MEDIA, content)

    def checkpoint(self, session: int, next_seq: int, content: bytes) -> None:
        """Attach a snapshot of a session, from which a replay may begin."""
        self._attach(f"checkpoint/{session}/{next_seq}", CHECKPOINT_MEDIA, content)

    def _attach(self, name: str, media: str, content: bytes) -> None:
        assert self._writer is not None
        now = time.time_ns()
        self._writer.attach(
            log_time=now, create_time=now, name=name, media_type=media, data=content
        )

    def flush(self) -> None:
        """Close the chunk, so that a killed writer loses nothing before."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def forget(self, session: int) -> None:
        """Let go of a session that is closed."""
        for channel in self._channels.pop(session, {}).values():
            channel.close()

    def _of_session(self, session: int) -> dict[str, foxglove.Channel]:
        if session not in self._channels:
            names = [*PER_TICK, *SPARSE]
            self._channels[session] = {n: self._channel(topic(session, n), n) for n in names}
        return self._channels[session]

    def _channel(self, where: str, name: str) -> foxglove.Channel:
        content = foxglove.Schema(name=f"adaptd.{name}", encoding="jsonschema", data=schema(name))
        return foxglove.Channel(
            where, schema=content, message_encoding="json", context=self.context
        )

    def _names(self, limits: int) -> list[str]:
        if limits not in self._limit_names:
            self._limit_names[limits] = [(x.name or "").lower() for x in Limit(limits)]
        return self._limit_names[limits]

    def wall_ns(self, monotonic_ns: int) -> int:
        """When that was, by the calendar: of this machine's clock, or of another's."""
        if self._wall_offset_ns is None:
            ago = time.monotonic_ns() - monotonic_ns
            here = time.monotonic_ns() if 0 <= ago < SAME_CLOCK_NS else monotonic_ns
            self._wall_offset_ns = time.time_ns() - here
        return monotonic_ns + self._wall_offset_ns


def _boundaries(observation_flags: int, action_flags: int) -> list[str]:
    found = []
    if observation_flags & _NEW_TASK:
        found.append("new_task")
    if observation_flags & _EPISODE_START:
        found.append("episode_start")
    if action_flags & _GAP:
        found.append("gap")
    if action_flags & _FRESH:
        found.append("fresh")
    return found
