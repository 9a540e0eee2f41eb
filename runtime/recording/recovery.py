"""Repairing a recording whose writer was killed: all whole chunks, in a new file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from mcap.records import Attachment, Channel, Header, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from runtime.errors import InvalidRecording, NotSaved
from runtime.recording.channels import PROFILE, split_topic
from runtime.recording.reading import MAGIC


class Recovered(NamedTuple):
    """What was got out of a broken file."""

    messages: int
    ticks: int
    sessions: int
    attachments: int
    seconds: float
    """From the first message to the last."""
    lost_bytes: int
    """At the end of the file, that are no whole record."""
    reason: str
    """Why reading ended there; empty if the file was whole."""


def recover(source: Path, target: Path) -> Recovered:
    """Copy all that can be read of a recording into a finished one.

    Args:
        source: stays as it is.
        target: must not exist.

    Raises:
        InvalidRecording: nothing can be read, or `target` exists.
        NotSaved: `target` cannot be written.
    """
    if target.exists():
        raise InvalidRecording(f"{target} exists already; choose another name by --into")
    part = target.with_name(f".{target.name}.part")
    try:
        with open(source, "rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                size = source.stat().st_size
                what = "is empty" if not size else "does not begin as an MCAP file"
                raise InvalidRecording(f"{source} {what}: nothing can be recovered")
            stream.seek(0)
            with open(part, "wb") as output:
                found = _copy(stream, source.stat().st_size, output)
        if not found.messages and not found.attachments:
            raise InvalidRecording(
                f"{source} holds no whole chunk: its writer was killed within its first second"
            )
        os.replace(part, target)
    except OSError as error:
        raise NotSaved(f"{target} cannot be made from {source}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return found


def _copy(stream: IO[bytes], size: int, output: IO[bytes]) -> Recovered:
    records = _Records(stream)
    copy = _Copy(output)
    for record in records:
        copy.take(record)
    copy.finish()
    span = (copy.last_ns - copy.first_ns) / 1e9 if copy.messages else 0.0
    return Recovered(
        copy.messages, copy.ticks, len(copy.sessions), copy.attachments, span,
        size - records.end if records.reason else 0, records.reason,
    )  # fmt: skip


class _Records:
    """The records of a stream, up to the first that is not whole."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.reason = ""
        self.end = 0
        """Bytes up to the last whole record."""

    def __iter__(self) -> Iterator[Any]:
        try:
            for record in StreamReader(self._stream, validate_crcs=True).records:
                self.end = self._stream.tell()
                yield record
        except Exception as error:  # whatever half a record makes of the reader
            self.reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__


class _Copy:
    """Writes records to a new file, with numbers of its own for schemas and channels."""

    def __init__(self, output: IO[bytes]):
        self._writer = Writer(output, compression=CompressionType.ZSTD)
        self._started = False
        self._schemas: dict[int, int] = {0: 0}
        self._channels: dict[int, int] = {}
        self._ticking: set[int] = set()
        self.sessions: set[int] = set()
        self.messages = self.ticks = self.attachments = 0
        self.first_ns, self.last_ns = 2**63, 0

    def take(self, record: Any) -> None:
        if isinstance(record, Header):
            self._start(record.profile, record.library)
        elif isinstance(record, Schema) and record.id not in self._schemas:
            new = self._writer.register_schema(record.name, record.encoding, record.data)
            self._schemas[record.id] = new
        elif isinstance(record, Channel) and record.id not in self._channels:
            self._channels[record.id] = self._writer.register_channel(
                record.topic, record.message_encoding, self._schemas[record.schema_id],
                record.metadata,
            )  # fmt: skip
            self._note(record)
        elif isinstance(record, Message):
            self._message(record)
        elif isinstance(record, Attachment):
            self._writer.add_attachment(
                record.create_time, record.log_time, record.name, record.media_type, record.data
            )
            self.attachments += 1
        elif isinstance(record, Metadata):
            self._writer.add_metadata(record.name, record.metadata)

    def _start(self, profile: str = PROFILE, library: str = "") -> None:
        if not self._started:
            self._started = True
            self._writer.start(profile, library)

    def _note(self, channel: Channel) -> None:
        part = split_topic(channel.topic)
        if part is not None:
            self.sessions.add(part[0])
            if part[1] == "action":
                self._ticking.add(channel.id)

    def _message(self, record: Message) -> None:
        self._writer.add_message(
            self._channels[record.channel_id], record.log_time, record.data, record.publish_time,
            record.sequence,
        )  # fmt: skip
        self.messages += 1
        self.ticks += record.channel_id in self._ticking
        self.first_ns = min(self.first_ns, record.log_time)
        self.last_ns = max(self.last_ns, record.log_time)

    def finish(self) -> None:
        self._start()
        self._writer.finish()
