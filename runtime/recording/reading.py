"""Reading recordings: what is in a file, and one session out of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from mcap.exceptions import McapError
from mcap.reader import McapReader, make_reader
from mcap.records import Attachment, Message

from runtime.errors import AdaptdError, InvalidBundle, InvalidRecording, UnknownName
from runtime.recording.channels import (
    FORMAT,
    MACHINE,
    PER_TICK,
    STATUS_TOPIC,
    split_topic,
    topic,
)
from runtime.recording.ticks import (
    DEFAULT_RING,
    Checkpoint,
    RecordedSession,
    RecordedTick,
    Vector,
)
from runtime.spec import parse_manifest

MAGIC = b"\x89MCAP0\r\n"


class Recording:
    """The files of one recording, in their order; each is opened only while it is read."""

    def __init__(self, paths: Sequence[Path]):
        """
        Args:
            paths: files, or folders whose ``*.mcap`` are meant.

        Raises:
            InvalidRecording: there is none, or one is empty, unfinished or of another kind;
                the message says what can be done.
        """
        self.paths = [file for path in paths for file in _files(path)]
        for path in self.paths:
            check(path)
        self.where = ", ".join(str(path) for path in paths)

    def sessions(self) -> dict[int, int]:
        """Ticks in the recording, by session."""
        found: dict[int, int] = {}
        for path in self.paths:
            with open(path, "rb") as stream:
                summary = _reader(stream, path).get_summary()
                assert summary is not None  # `_reader` has seen to it
                counts = summary.statistics.channel_message_counts if summary.statistics else {}
                for channel in summary.channels.values():
                    part = split_topic(channel.topic)
                    if part is not None and part[1] == "action":
                        found[part[0]] = found.get(part[0], 0) + counts.get(channel.id, 0)
        return found

    def session(self, session: int | None = None) -> RecordedSession:
        """One session.

        Args:
            session: which; None for the only one.

        Raises:
            InvalidRecording: it holds several and none is named, or no whole tick at all.
            UnknownName: it does not hold that one.
        """
        known = {number: count for number, count in self.sessions().items() if count}
        if not known:
            raise InvalidRecording(
                f"{self.where} holds no tick of any session: nobody drove a robot while it was "
                f"recorded, or it was cut before the first chunk"
            )
        if session is None and len(known) > 1:
            listing = ", ".join(f"{n} ({count} ticks)" for n, count in sorted(known.items())[:12])
            raise InvalidRecording(
                f"{self.where} holds {len(known)} sessions; choose one by --session: {listing}"
            )
        if session is not None and session not in known:
            raise UnknownName("session in the recording", str(session), map(str, known))
        return self._read(next(iter(known)) if session is None else session)

    def _read(self, session: int) -> RecordedSession:
        parts: dict[int, dict[str, Any]] = {}
        found = RecordedSession(session, self.where, [])
        topics = [topic(session, name) for name in (*PER_TICK, "event")]
        for path in self.paths:
            with open(path, "rb") as stream:
                reader = _reader(stream, path)
                for where, message in _messages(reader, path, [*topics, STATUS_TOPIC]):
                    _take(found, parts, where, message)
                for attachment in _guarded(reader.iter_attachments(), path):
                    _attach(found, attachment, path)
                for said in _guarded(reader.iter_metadata(), path):
                    found.machine = said.metadata if said.name == MACHINE else found.machine
        found.ticks = [_tick(seq, part) for seq, part in sorted(parts.items()) if _whole(part)]
        found.events.sort(key=lambda event: event.get("seq", 0))
        found.checkpoints.sort(key=lambda checkpoint: checkpoint.next_seq)
        return found


def check(path: Path) -> None:
    """Whether a file is a whole recording of ours.

    Raises:
        InvalidRecording: it is not; with what can be done.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(MAGIC))
            stream.seek(0, 2)
            size = stream.tell()
            stream.seek(max(0, size - len(MAGIC)))
            tail = stream.read()
    except OSError as error:
        raise InvalidRecording(f"{path} cannot be read: {error.strerror}") from None
    if not size:
        raise InvalidRecording(f"{path} is empty: nothing can be got from it")
    if head != MAGIC:
        raise InvalidRecording(f"{path} is not an MCAP file: it does not begin with its magic")
    if tail != MAGIC or size < 2 * len(MAGIC):
        raise InvalidRecording(
            f"{path} is not finished: its writer was killed, or it was cut; "
            f"`adaptd recover {path}` makes a whole file of what is there"
        )
    _check_format(path)


def _check_format(path: Path) -> None:
    with open(path, "rb") as stream:
        said = {m.name: m.metadata for m in _guarded(_reader(stream, path).iter_metadata(), path)}
    found = said.get("adaptd", {}).get("format")
    if found is None:
        raise InvalidRecording(
            f"{path} is an MCAP file, and not of `adaptd record`: it has no record of its format "
            f"(expected {FORMAT!r}); its topics can be looked at in Foxglove"
        )
    if found != FORMAT:
        raise InvalidRecording(
            f"{path} has the format {found!r}, this adaptd reads {FORMAT!r}: read it with the "
            f"version that wrote it"
        )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.mcap"))
    if not found:
        raise InvalidRecording(f"{path} holds no *.mcap file")
    return found


def _reader(stream: IO[bytes], path: Path) -> McapReader:
    reader = make_reader(stream, validate_crcs=True)
    try:
        if reader.get_summary() is None:
            raise McapError("it has no summary")
    except (McapError, ValueError, KeyError, EOFError) as error:
        raise _broken(path, error) from None
    return reader


def _guarded(items: Iterator[Any], path: Path) -> Iterator[Any]:
    """What an iterator over a file gives; a broken file as one sentence."""
    try:
        yield from items
    except AdaptdError:
        raise
    except Exception as error:  # whatever broken bytes make of their readers
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> InvalidRecording:
    said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return InvalidRecording(
        f"{path} is broken ({said}); `adaptd recover {path}` keeps what can be read"
    )


def _messages(reader: McapReader, path: Path, topics: list[str]) -> Iterator[tuple[str, Message]]:
    found = reader.iter_messages(topics=topics, log_time_order=False)
    for _, channel, message in _guarded(found, path):
        yield channel.topic, message


def _take(
    found: RecordedSession, parts: dict[int, dict[str, Any]], where: str, message: Message
) -> None:
    content = orjson.loads(message.data)
    if where == STATUS_TOPIC:
        found.ring_size = content.get("ring_size", DEFAULT_RING)
        return
    _, name = split_topic(where) or (0, "")
    if name == "event":
        found.events.append(content)
        return
    part = parts.setdefault(content["seq"], {})
    part[name] = content
    part["at_ns"] = message.log_time


def _attach(found: RecordedSession, attachment: Attachment, path: Path) -> None:
    kind, _, rest = attachment.name.partition("/")
    session, _, seq = rest.partition("/")
    if kind == "manifest":
        label = rest.removesuffix(".json")
        try:
            found.manifests[label] = parse_manifest(attachment.data, label)
        except InvalidBundle as error:
            found.notes.append(f"{path}: the manifest of {error}")
    elif kind == "checkpoint" and session == str(found.session) and seq.isdigit():
        found.checkpoints.append(Checkpoint(int(seq), attachment.data))


def _whole(part: dict[str, Any]) -> bool:
    return all(name in part for name in PER_TICK)


def _tick(seq: int, part: dict[str, Any]) -> RecordedTick:
    observation, action, belief = part["observation"], part["action"], part["belief"]
    timing = part["timing"]
    return RecordedTick(
        seq, part["at_ns"], vector(observation["values"]), vector(observation.get("echo", ())),
        observation["flags"], observation["sent_ns"], part["reward"]["reward"],
        timing["received_ns"], vector(action["requested"]), vector(action["applied"]),
        action["limits"], action["flags"], action["generation"], action.get("policy"),
        vector(belief["values"]), belief["level"], timing["queue_us"], timing["inference_us"],
    )  # fmt: skip


def vector(values: Any) -> Vector:
    """float32 from JSON numbers, where null is NaN.

    To the bit, but for denormals in a process in which ONNX Runtime has run: it makes the
    processor flush them, as it does where policies are served.
    """
    return np.asarray(values, np.float64).astype(np.float32) if len(values) else _NOTHING


_NOTHING = np.empty(0, np.float32)
