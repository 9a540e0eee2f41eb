"""The return of each episode, from the rewards and boundaries that a robot sends."""

from collections import deque

from runtime.messages import ObservationFlag

_NEW_TASK, _EPISODE_START = int(ObservationFlag.NEW_TASK), int(ObservationFlag.EPISODE_START)


class EpisodeReturns:
    """Adds up rewards between the boundaries of one session."""

    def __init__(self, kept: int):
        """
        Args:
            kept: how many returns of episodes that are over to keep, the last ones.
        """
        self.returns: deque[float] = deque(maxlen=kept)
        """Of episodes that were seen from their start to their end, oldest first."""
        self.running = 0.0
        """Rewards of the episode that is going on, as far as it was seen."""
        self.steps = 0
        """Rewards in `running`."""
        self._from_its_start = False

    def follow(self, seq: int, flags: int, reward: float) -> float | None:
        """Take a tick in; the return of the episode that ended before it, if one did.

        Args:
            seq: of the tick.
            flags: of its observation, `ObservationFlag`.
            reward: of the step that led to it: at an episode's start the last one of the
                episode before; at a new task and at seq 0 it means nothing.
        """
        new_task = bool(flags & _NEW_TASK) or seq == 0
        if not new_task:
            self.running += reward
            self.steps += 1
        if not (new_task or flags & _EPISODE_START):
            return None
        ended = self.running if self._from_its_start and self.steps else None
        if ended is not None:
            self.returns.append(ended)
        self.running, self.steps, self._from_its_start = 0.0, 0, True
        return ended

    def lose_track(self) -> None:
        """Ticks were missed: what is running will not be a whole return."""
        self._from_its_start = False
