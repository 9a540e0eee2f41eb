"""The tap over Foxglove's WebSocket protocol: for Foxglove, Lichtblick and who else speaks it.

The channels are those of a recording (`runtime.recording.channels`), so that one layout
serves both, and besides ``/SESSION/named`` with names and bands, ``/SESSION/scene`` and the
transforms of simulated robots.
"""

import json
import time
from typing import Any

import foxglove
import orjson
from foxglove.channels import FrameTransformChannel, SceneUpdateChannel
from foxglove.messages import Timestamp

from runtime.errors import InvalidConfig
from runtime.recording.channels import topic
from runtime.recording.writer import RecordingWriter
from runtime.spec import Manifest
from runtime.tap import Tick
from runtime.view.named import NamedTicks, schema
from runtime.view.scene import transform, update
from runtime.view.scene_link import Scene

HOST = "127.0.0.1"
"""The only address: whoever may look from afar comes through a tunnel that asks who it is."""
BACKLOG = 2048
"""Messages that wait for one viewer; the oldest are dropped where it does not read."""


class Bridge:
    """Serves ticks to any number of viewers; one that stops reading costs only itself."""

    def __init__(self, port: int, name: str):
        """
        Args:
            port: on this machine alone; 0 for any free one.
            name: shown by viewers.

        Raises:
            InvalidConfig: the port is taken.
        """
        self._writer = RecordingWriter()
        self._named: dict[int, NamedTicks] = {}
        self._channels: dict[str, Any] = {}
        self._transforms = FrameTransformChannel("/tf", context=self._writer.context)
        try:
            self._server = foxglove.start_server(
                name=name, host=HOST, port=port, context=self._writer.context,
                message_backlog_size=BACKLOG,
            )  # fmt: skip
        except (OSError, RuntimeError) as error:
            raise InvalidConfig(f"{HOST}:{port} cannot be served: {error}") from None

    @property
    def port(self) -> int:
        """Where it serves."""
        return self._server.port

    def tick(self, tick: Tick, policy: str | None, manifest: Manifest | None) -> None:
        """Show one tick.

        Args:
            tick: as it came from the tap.
            policy: that made it, if known.
            manifest: of that policy, if known: without, there are no names.
        """
        self._writer.tick(tick, policy)
        if manifest is None:
            return
        named = self._named.setdefault(tick.session, NamedTicks())
        channel = self._channel_named(tick.session, manifest)
        content = orjson.dumps(named.name(tick, manifest))
        channel.log(content, log_time=self._writer.wall_ns(tick.received_ns))

    def event(self, event: dict[str, Any]) -> None:
        """Show what else happened to a session."""
        self._writer.event(event)

    def scene(self, session: int, scene: Scene) -> None:
        """Show a simulated robot."""
        at = Timestamp(*divmod(time.time_ns(), 1_000_000_000))
        where = topic(session, "scene")
        if where not in self._channels:
            self._channels[where] = SceneUpdateChannel(where, context=self._writer.context)
        self._transforms.log(transform(scene, session, at))
        self._channels[where].log(update(scene, session, at))

    def _channel_named(self, session: int, manifest: Manifest) -> foxglove.Channel:
        """The channel of a session's names; another one where a swap changes what there is."""
        where = topic(session, "named")
        content = json.dumps(schema(manifest))
        known = self._channels.get(where)
        if known is None or known[0] != content:
            if known is not None:
                known[1].close()
            shape = foxglove.Schema(
                name="adaptd.named", encoding="jsonschema", data=content.encode()
            )
            made = foxglove.Channel(
                where, schema=shape, message_encoding="json", context=self._writer.context
            )
            self._channels[where] = known = (content, made)
        return known[1]

    def close(self) -> None:
        """Serve no more."""
        self._server.stop()
