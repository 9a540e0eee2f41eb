"""The state folder: one slab per policy, and what a restart finds in them."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from runtime.errors import AdaptdError, InvalidConfig
from runtime.memory import Memory
from runtime.policy import Policy
from runtime.registry import Asleep
from runtime.slab import SUFFIX, Slab, SlabRefused
from runtime.stepper import Stepper

log = structlog.get_logger()


@dataclass(frozen=True)
class Served:
    """A policy with what it takes to serve it."""

    stepper: Stepper
    slab: Slab

    @property
    def policy(self) -> Policy:
        """The policy itself."""
        return self.stepper.policy


@dataclass
class StateFolder:
    """Slabs of all policies that have sessions."""

    folder: Path
    ring_size: int
    capacity: int
    set_aside: list[str] = field(default_factory=list)
    """What could not be gone on from, in words."""
    _served: dict[bytes, Served] = field(default_factory=dict)
    _lock: int = -1

    def take(self) -> None:
        """Make the folder and see that no other daemon uses it.

        Raises:
            InvalidConfig: it cannot be written, or is in use.
        """
        try:
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._lock = os.open(
                self.folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidConfig(f"another adaptd keeps its state in {self.folder}") from None
        except OSError as error:
            reason = f"{self.folder} cannot hold state: {error.strerror}"
            raise InvalidConfig(reason) from None

    def serve(self, policy: Policy) -> Served:
        """A policy with its slab, which is made if need be.

        Raises:
            NoRoom: the slab cannot be made.
        """
        digest = policy.manifest.digest
        served = self._served.get(digest)
        if served is None:
            path = self._path(policy)
            try:
                slab = Slab(path, policy.manifest, self.ring_size, self.capacity)
            except SlabRefused as refusal:
                self._put_aside(path, str(refusal))
                slab = Slab(path, policy.manifest, self.ring_size, self.capacity)
            served = self._served[digest] = Served(Stepper(policy), slab)
        return served

    def _path(self, policy: Policy) -> Path:
        return self.folder / f"{policy.label}-{policy.manifest.digest.hex()[:8]}{SUFFIX}"

    def recover(self, load: Callable[[str], Policy]) -> dict[int, Asleep]:
        """The sessions that a daemon before this one left, by id.

        Args:
            load: gives the policy of a reference, or raises an `AdaptdError`.
        """
        found: dict[int, Asleep] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            label = path.name.removesuffix(SUFFIX).rpartition("-")[0]
            try:
                policy = load(label)
                if path != self._path(policy):
                    raise SlabRefused("the policy has changed since, under the same version")
                served = self.serve(policy)
            except (AdaptdError, SlabRefused) as error:
                self._put_aside(path, str(error))
                continue
            memories = self._checked(path, served)
            for memory in memories:
                self._take_in(found, memory, self.serve(policy).stepper)
        return found

    def _checked(self, path: Path, served: Served) -> list[Memory]:
        """The sessions of a slab. If one is broken the file is put aside, the others move to a
        new one, and the broken one begins at the prior."""
        memories = [served.slab.record(i) for i in served.slab.used]
        troubles = [memory.recover() for memory in memories]
        for memory, trouble in zip(memories, troubles, strict=True):
            if trouble is not None:
                self._note(f"session {memory.session} of {served.policy.label}: {trouble}")
        if all(memory.commits for memory in memories):
            return memories
        del self._served[served.policy.manifest.digest]
        self._put_aside(path, "it is corrupt")
        fresh, moved = self.serve(served.policy), []
        for memory in memories:
            moved.append(fresh.slab.allocate())
            if memory.commits:
                moved[-1].copy(memory)
            else:
                stepper = fresh.stepper
                moved[-1].start_over(
                    memory.session, stepper.prior, stepper.default_options, memory.owner
                )
        return moved

    def _take_in(self, found: dict[int, Asleep], memory: Memory, stepper: Stepper) -> None:
        other = found.get(memory.session)
        if other is not None:  # killed in the middle of a swap: the later policy goes on
            if _age(other.memory) > _age(memory):
                memory.free()
                return
            other.memory.free()
        found[memory.session] = Asleep(stepper, memory, memory.committed().head.seen_s)

    def _put_aside(self, path: Path, reason: str) -> None:
        """Keep a file that cannot be used, for a person to look at."""
        if path.exists():
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            shutil.move(path, path.with_name(f"{path.name}.set-aside-{stamp}-{os.getpid()}"))
        self._note(f"{path.name}: {reason}")

    def _note(self, sentence: str) -> None:
        log.warning("state_loss", reason=sentence)
        self.set_aside.append(sentence)

    def record_bytes(self) -> dict[str, int]:
        """Bytes that one session takes, by policy."""
        return {s.policy.label: s.slab.layout.record_size for s in self._served.values()}

    def sync(self) -> None:
        """Wait until all slabs are on the disk."""
        for served in list(self._served.values()):
            served.slab.sync()


def _age(memory: Memory) -> tuple[int, int]:
    head = memory.committed().head
    return head.generation, head.next_seq
