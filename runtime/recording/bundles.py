"""The bundles that a recording was made with, out of a folder."""

from runtime.errors import AdaptdError, InvalidRecording, UnknownName
from runtime.policy import Policy
from runtime.recording.ticks import RecordedSession
from runtime.store import Store


class Bundles:
    """The bundles that a recording was made with, out of a folder."""

    def __init__(self, recorded: RecordedSession, store: Store, notes: list[str]):
        """
        Args:
            recorded: with the manifests that it was recorded with.
            store: the folder.
            notes: takes what a person should know.
        """
        self._recorded, self._store, self._notes = recorded, store, notes

    def load(self, label: str) -> Policy:
        """A policy of the recording.

        Raises:
            InvalidRecording: the folder has none of this name and version, or another one.
        """
        try:
            policy = self._store.load(label)
        except UnknownName as error:
            raise InvalidRecording(
                f"{self._recorded.where} was recorded with {label}, which is not in "
                f"{self._store.folder}: {error} Another one's answers: --policy NAME"
            ) from None
        except AdaptdError as error:
            raise InvalidRecording(
                f"{label}, which was recorded, cannot be used: {error}"
            ) from None
        said = self._recorded.manifests.get(label)
        if said is None:
            note = (
                f"the recording has no manifest of {label}: whether the bundle in "
                f"{self._store.folder} is the same is not known"
            )
            if note not in self._notes:
                self._notes.append(note)
        elif said.digest != policy.manifest.digest:
            raise InvalidRecording(
                f"{self._recorded.where} was recorded with another {label} (manifest "
                f"{said.digest.hex()[:12]}) than the one in {self._store.folder} "
                f"({policy.manifest.digest.hex()[:12]}): bring that one back by --models, or see "
                f"how this one would have acted by --policy {label}"
            )
        return policy
