"""The places where adaptd reads what others wrote, and what must be so whatever they wrote.

A target is made once and called with many inputs; it gives a word for what became of one, for
the count, and fails by any exception. That it returns at all is looked at by who calls it.
"""

import json
import os
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.access.allowlist import parse_allowlist
from runtime.access.authoriser import authorise
from runtime.errors import InvalidBundle, InvalidConfig, UnsafeBundle
from runtime.messages import HEADER_SIZE, Kind, unpack
from runtime.policy import Policy
from runtime.requests import Refusal, parse_request
from runtime.sessions import Rules
from runtime.spec import GOLDEN, MANIFEST, POLICY, file_record, parse_manifest
from runtime.vetting.bundle_files import BundleFolder
from runtime.vetting.child import Task, _limit
from runtime.vetting.onnx_model import check_model
from tests.bundles import write_bundle
from tests.loops import ID, Bench, frame, make_loop, session_of, state
from tests.test_state import leave

CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], str]


def _sentence(error: Exception) -> str:
    """Refusals are one sentence, without a traceback."""
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text, text
    return "refused"


class Frame:
    """An observation: answered by an action or an error, which changes nothing.

    Its sequence number counts from three before the session's next one, wherever that is by now.
    """

    SEQ = struct.Struct("<Q")
    SEQ_AT = 16

    def __init__(self, folder: Path):
        write_bundle(folder, "counter")
        self.loop = make_loop(folder, rules=Rules(stop_after=sys.maxsize))

    def _placed(self, data: bytes) -> bytes:
        frame = bytearray(data)
        if len(frame) >= HEADER_SIZE:
            (seq,) = self.SEQ.unpack_from(frame, self.SEQ_AT)
            seq = (seq + session_of(self.loop).next_seq - 3) % 2**64
            self.SEQ.pack_into(frame, self.SEQ_AT, seq)
        return bytes(frame)

    def __call__(self, data: bytes) -> str:
        before = state(self.loop)
        reply = self.loop.tick(self._placed(data), 0).reply
        header = unpack(reply)
        if header.kind == Kind.ERROR:
            assert state(self.loop) == before
            reply[HEADER_SIZE:].decode()
            return "refused"
        assert header.kind == Kind.ACTION and header.session == ID
        action = np.frombuffer(reply, np.float32, header.first, HEADER_SIZE)
        assert np.isfinite(action).all() and (np.abs(action) <= [10, 1]).all()
        return "answered"


class Request:
    """A control message: a request, or refused."""

    def __init__(self, folder: Path):
        pass

    def __call__(self, data: bytes) -> str:
        try:
            parse_request(data)
        except Refusal as refusal:
            json.dumps(refusal.record)
            return "refused"
        return "taken"


class ManifestText:
    """manifest.json: a manifest, or refused."""

    def __init__(self, folder: Path):
        pass

    def __call__(self, data: bytes) -> str:
        try:
            parse_manifest(data, "here")
        except InvalidBundle as error:
            return _sentence(error)
        return "taken"


class Model:
    """An ONNX file: let in or refused, before ONNX Runtime sees it."""

    def __init__(self, folder: Path):
        pass

    def __call__(self, data: bytes) -> str:
        try:
            check_model(data, control_flow=True)
        except UnsafeBundle as error:
            return _sentence(error)
        return "taken"


class Slab:
    """A state file: gone on from, whole or in part, or set aside; what is gone on from ticks."""

    def __init__(self, folder: Path):
        self.models, self.state = folder / "models", folder / "state"
        write_bundle(self.models, "counter")
        self.store = Bench(self.models).store

    def __call__(self, data: bytes) -> str:
        shutil.rmtree(self.state, ignore_errors=True)
        bench = Bench(self.models, ring=4, folder=self.state, store=self.store, capacity=2)
        path = bench.state._path(self.store.load("counter"))
        path.write_bytes(data)
        try:
            registry = bench.loop.registry
            registry.asleep = bench.state.recover(self.store.load)
            kept = sorted(registry.asleep)
            for session_id in kept:
                seq = registry.asleep[session_id].head().next_seq
                sent = frame(min(seq, 2**64 - 1), session=session_id)
                reply = bench.loop.tick(sent, 0).reply
                assert unpack(reply).kind in (Kind.ACTION, Kind.ERROR)
        finally:
            leave(bench.state)
            for served in bench.state._served.values():
                served.slab.close()
        return f"{len(kept)} kept"


class Question:
    """libzmq's question whether somebody may come in: frames of one byte of length each."""

    def __init__(self, folder: Path):
        pass

    def __call__(self, data: bytes) -> str:
        frames = []
        while data:
            frames.append(data[1 : 1 + data[0]])
            data = data[1 + data[0] :]
        verdict = authorise(frames, lambda key: "unknown_key")
        assert len(verdict.reply) == 6 and verdict.reply[2] == b"400" and verdict.refused
        return verdict.refused


class AllowList:
    """clients.toml: a list, or refused whole."""

    def __init__(self, folder: Path):
        pass

    def __call__(self, data: bytes) -> str:
        try:
            parse_allowlist(data, Path("clients.toml"))
        except InvalidConfig as error:
            assert "Traceback" not in str(error)
            return "refused"
        return "taken"


class Bundle:
    """A whole bundle, with one file changed: which one, the first byte of the input says.

    The manifest's hashes are those of the changed files, as a hostile maker would have them. What
    gets past the checks is tried in a fork of this process, with the limits of a real trial.
    """

    FILES = (MANIFEST, POLICY, GOLDEN)
    LIMITS = Task("fuzzed", 0, {}, cpu_s=5, memory_bytes=256 << 20)

    def __init__(self, folder: Path):
        self.folder = write_bundle(folder / "models", "counter")
        self.sound = {name: (self.folder / name).read_bytes() for name in self.FILES}

    def __call__(self, data: bytes) -> str:
        name = self.FILES[data[0] % len(self.FILES)] if data else MANIFEST
        files = self.sound | {name: data[1:]}
        if name != MANIFEST:
            facts = json.loads(files[MANIFEST])
            facts["files"][name] = file_record(files[name]).model_dump()
            files[MANIFEST] = json.dumps(facts).encode()
        for each, content in files.items():
            (self.folder / each).write_bytes(content)
        try:
            with BundleFolder(self.folder) as folder:
                manifest = parse_manifest(folder.manifest(), "here")
                found = folder.listed(manifest)
            check_model(found[POLICY])
        except InvalidBundle as error:
            return _sentence(error)
        except KeyError:
            return "refused"  # a manifest that lists no graph is refused by the trial
        return self._tried(manifest, found)

    def _tried(self, manifest: object, found: dict[str, bytes]) -> str:
        child = os.fork()
        if child == 0:
            try:
                _limit(self.LIMITS)
                Policy.verified(manifest, found[POLICY], found[GOLDEN])  # type: ignore[arg-type]
                os._exit(0)
            except (InvalidBundle, MemoryError):
                os._exit(1)
            except BaseException:
                os._exit(2)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status != 2, "the trial failed by an exception that is no refusal"
        if status < 0:  # contained: what the real trial refuses as unsafe
            return f"killed by {signal.Signals(-status).name} in its trial"
        return ("taken", "refused in its trial")[status]


TARGETS: dict[str, Callable[[Path], Target]] = {
    "frame": Frame,
    "request": Request,
    "manifest": ManifestText,
    "model": Model,
    "slab": Slab,
    "question": Question,
    "allowlist": AllowList,
    "bundle": Bundle,
}


def corpus(name: str) -> list[bytes]:
    """The inputs that a target begins with."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def make(name: str) -> Target:
    """A target, in a folder of its own in memory if there is one."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return TARGETS[name](Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=memory)))
