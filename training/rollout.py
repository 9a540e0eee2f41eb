"""Collecting trials, and the only place that builds the meta-RL input.

Shapes: ``T`` steps of a trial, ``B`` trials in lock step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.trials import TrialEnv
from training.alternate import alternate, one_after_the_other
from training.networks import Carry, TrialPolicy

NAMED = 5
"""Simulations that an error names; of more it says how many."""


class MetaInput:
    """What a meta-RL policy sees besides the observation: the step before, as it was.

    At a task boundary all three are zero. At an episode boundary inside a task
    `prev_action` and `prev_reward` are those of the last step of the episode before and
    `prev_done` is one: the runtime's client sends the same.
    """

    def __init__(self, num_envs: int, action_size: int):
        self.values = np.zeros((num_envs, action_size + 2), np.float32)
        """prev_action, prev_reward and prev_done side by side, (B, A + 2); written in place."""

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """prev_action (B, A), prev_reward (B, 1), prev_done (B, 1), copied."""
        values = torch.from_numpy(self.values.copy())
        return values[:, :-2], values[:, -2:-1], values[:, -1:]

    def advance(self, applied_action: NDArray, reward: NDArray, done: NDArray[np.bool_]) -> None:
        """Remember the step just made: action (B, A) as applied, reward (B,), done (B,)."""
        self.values[:, :-2] = applied_action
        self.values[:, -2] = reward
        self.values[:, -1] = done


@dataclass
class Final:
    """What follows the last step of each trial, wherever in the batch that was."""

    obs: Tensor  # (B, O)
    features: Tensor  # (B, H), of the memory
    task: Tensor  # (B, D)
    terminated: Tensor  # (B,), 1 where the trial ended in a terminal state


@dataclass
class Trials:
    """One batch of whole trials, time first; everything the learner needs."""

    obs: Tensor  # (T, B, O)
    prev_action: Tensor  # (T, B, A)
    prev_reward: Tensor  # (T, B, 1)
    prev_done: Tensor  # (T, B, 1)
    task: Tensor  # (T, B, D)
    features: Tensor  # (T, B, H), of the memory when the trial was collected
    action: Tensor  # (T, B, A), as sampled
    log_prob: Tensor  # (T, B)
    reward: Tensor  # (T, B), to learn from
    seen_reward: Tensor  # (T, B), what the policy sees of it afterwards: that of a robot
    mask: Tensor  # (T, B), 1 while the trial runs
    episode: Tensor  # (T, B), which episode of the trial
    final: "Final"
    carries: dict[int, Carry]  # at the start of each chunk, by step


@dataclass
class Shard:
    """A group of simulations with random streams of its own."""

    env: TrialEnv
    generator: torch.Generator
    """Of the action noise; on the CPU, wherever the policy is, so that all devices act alike."""


def collect(
    shards: Sequence[Shard], policy: TrialPolicy, chunk: int, overlap: bool | None = None
) -> Trials:
    """One trial in every simulation, with actions sampled from the policy.

    What a shard's trials are does not depend on the other shards: several of them give those of
    each alone, side by side along B. Where one's trials all end before another's, its rows after
    that are zero.

    Args:
        shards: of one family, at least one. They are reset at the start; all their trials begin
            and end here.
        policy: acts; its carry starts at the prior. Where it is, the trials are.
        chunk: steps between the carries that are kept for truncated backpropagation.
        overlap: whether one shard is simulated while the policy infers for the next; nothing
            that is collected depends on it. None: with several shards and the policy on a GPU.

    Raises:
        FloatingPointError: what the simulator returned is not finite; names it.
    """
    if overlap is None:
        overlap = len(shards) > 1 and policy.log_std.device.type == "cuda"
    with torch.no_grad(), one_torch_thread():
        players = [_Player(shard, policy, chunk) for shard in shards]
        (alternate if overlap else one_after_the_other)(players)
        return side_by_side([player.trials() for player in players])


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Leave the other cores to the simulator.

    torch's threads spin for a while after each operation that they shared, which takes the cores
    from the simulator's; and batches of some hundred trials are too small to gain by sharing.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(parts: Sequence[Trials]) -> Trials:
    """Trials put together along B; rows after the end of a shorter part are zero."""
    if len(parts) == 1:
        return parts[0]
    steps = max(len(part.mask) for part in parts)

    def joined(name: str) -> Tensor:
        xs = [getattr(part, name) for part in parts]
        padded = [torch.cat((x, x.new_zeros(steps - len(x), *x.shape[1:]))) for x in xs]
        return torch.cat(padded, dim=1)

    per_step = {f.name: joined(f.name) for f in fields(Trials) if f.type is Tensor}
    final = {f.name: torch.cat([getattr(p.final, f.name) for p in parts]) for f in fields(Final)}
    # A part that is over has no carry any more; its first is as good as any, behind the mask.
    starts = max((part.carries for part in parts), key=len)
    carries = {
        t: {n: torch.cat([p.carries.get(t, p.carries[0])[n] for p in parts]) for n in starts[t]}
        for t in starts
    }
    return Trials(**per_step, final=Final(**final), carries=carries)


class _Player:
    """A shard's trials under way. `infer` is all that the policy does, `simulate` all else.

    What is collected is written into arrays made beforehand, a row per step. What the simulator
    says stays on the host, pinned where a GPU reads it, and what the policy says on its device,
    until `trials` brings everything there.
    """

    def __init__(self, shard: Shard, policy: TrialPolicy, chunk: int):
        self.env, self.generator = shard.env, shard.generator
        self.policy, self.chunk, self.device = policy, chunk, policy.log_std.device
        self.on_gpu = self.device.type == "cuda"
        self.steps = self.env.episodes * self.env.family.horizon
        n, action_size = self.env.num_envs, len(self.env.family.action)
        obs, self.info = self.env.reset()
        task = self.info["task"]
        self.meta = MetaInput(n, action_size)
        self.widths = (obs.shape[1], action_size, 1, 1)
        self.inputs = self._host(self.steps, n, sum(self.widths))
        self.noise = self._host(self.steps, n, action_size)
        self.features = torch.empty(self.steps, n, policy.feature_size, device=self.device)
        self.action = torch.empty(self.steps, n, action_size, device=self.device)
        self.told = {
            "task": self._host(self.steps, n, task.shape[1]),
            "mask": self._host(self.steps, n),
            "episode": self._host(self.steps, n, dtype=torch.int64),
            "reward": self._host(self.steps, n),
            "seen_reward": self._host(self.steps, n),
        }
        self.rows = {"inputs": self.inputs.numpy()}
        self.rows |= {name: values.numpy() for name, values in self.told.items()}
        self.finished = False
        self.t = 0
        self.over = np.zeros(n, bool)  # whose trial is over
        self.just_over: NDArray[np.bool_] | None = None  # those of the last step, not yet in final
        self.after = self._host(n, sum(self.widths))  # inputs after the last step, before resets
        self.final = Final(
            torch.zeros(obs.shape),
            torch.zeros(n, policy.feature_size, device=self.device),
            torch.from_numpy(task.copy()),
            torch.zeros(n),
        )
        self.std = policy.log_std.exp()
        self.carry = policy.initial(torch.from_numpy(task).to(self.device))
        self.carries: dict[int, Carry] = {}
        self._see(obs)

    def _host(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, pin_memory=self.on_gpu)

    def _see(self, obs: NDArray[np.float32]) -> None:
        """Note everything about step `t` that is known before it is made."""
        rows, t, width = self.rows, self.t, self.widths[0]
        rows["inputs"][t, :, :width] = obs
        rows["inputs"][t, :, width:] = self.meta.values
        rows["task"][t] = self.info["task"]
        rows["episode"][t] = self.info["episode"]
        np.logical_not(self.over, out=rows["mask"][t], casting="unsafe")

    def infer(self) -> None:
        """Choose the actions of step `t`; on a GPU they may still be under way."""
        self._infer_final()
        t, begun = self.t, self.t % self.chunk
        if begun == 0:
            self._begin_chunk()
        inputs = self.inputs[t].to(self.device, non_blocking=True)
        features, seen, self.carry = self.policy.step(*inputs.split(self.widths, 1), self.carry)
        self.features[t] = features
        mean = self.policy.action_mean(features, seen)
        action = torch.add(mean, self.scaled_noise[begun], out=self.action[t])
        self.chosen = action.to("cpu", non_blocking=True)  # pinned, if it comes from a GPU
        if self.on_gpu:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def _begin_chunk(self) -> None:
        """Keep the carry, and draw the noise of the chunk's steps."""
        self.carries[self.t] = self.carry
        noise = self.noise[self.t : self.t + self.chunk]
        for row in noise:  # one draw each, so that nothing that is drawn depends on the chunks
            torch.randn(row.shape, generator=self.generator, out=row)
        self.scaled_noise = self.std * noise.to(self.device, non_blocking=True)

    def _infer_final(self) -> None:
        """What the memory makes of the ends of the trials that ended in the last step."""
        if self.just_over is None:
            return
        inputs = self.after.to(self.device, non_blocking=True)
        features, _, _ = self.policy.step(*inputs.split(self.widths, 1), self.carry)
        ended = torch.from_numpy(self.just_over).to(self.device)
        self.final.features[ended] = features[ended]
        self.just_over = None

    def simulate(self) -> None:
        """Make step `t` with the chosen actions."""
        if self.on_gpu:
            self.arrived.synchronize()
        episode = self.info["episode"]
        obs, reward, died, truncated, self.info = self.env.step(self.chosen.numpy())
        self._check("reward", reward)
        self._check("obs", obs)
        seen_reward = self.info.get("test_reward", reward)
        self.rows["reward"][self.t] = reward
        self.rows["seen_reward"][self.t] = seen_reward
        done = died | truncated
        self.meta.advance(self.env.applied_action, seen_reward, done)
        if done.any():
            last = episode + 1 >= self.env.episodes
            obs = self._end_episodes(done & ~self.over, last, died, obs)
        self.t += 1
        self.finished = self.t == self.steps or bool(self.over.all())
        if not self.finished:
            self._see(obs)

    def _end_episodes(
        self,
        ended: NDArray[np.bool_],
        last: NDArray[np.bool_],
        died: NDArray[np.bool_],
        obs: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Begin the next episode where one `ended`, or note the end of its trial.

        Returns:
            The observations (B, O) after that.
        """
        over = ended & last
        if over.any():
            width = self.widths[0]
            after = self.after.numpy()
            after[:, :width], after[:, width:] = obs, self.meta.values
            self.final.obs.numpy()[over] = obs[over]
            self.final.task.numpy()[over] = self.rows["task"][self.t, over]
            self.final.terminated.numpy()[over] = died[over]
            self.just_over = over
            self.over |= over
            self.env.pause(self.over)
        again = ended & ~over
        if again.any():
            obs, self.info = self.env.reset(options={"reset_mask": again})
        return obs

    def _check(self, what: str, values: NDArray) -> None:
        """
        Raises:
            FloatingPointError: of which simulations `values` (B, ...) are not finite.
        """
        if np.isfinite(values.sum()):
            return
        finite = np.isfinite(values).reshape(len(values), -1).all(1)
        if finite.all():  # each is, and only their sum is beyond what a float holds
            return
        bad = np.flatnonzero(~finite)
        named = [f"{i}{self._task_of(i)}" for i in bad[:NAMED]]
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise FloatingPointError(
            f"at step {self.t} of the trial, in simulation {', '.join(named)}{more}, "
            f"the simulator's {what}"
        )

    def _task_of(self, simulation: np.intp) -> str:
        tasks = self.env.tasks
        values = [f"{name} {float(value[simulation]):.4g}" for name, value in tasks.items()]
        return f" ({', '.join(values)})" if values else ""

    def trials(self) -> Trials:
        """All that was collected, on the policy's device."""
        self._infer_final()
        inputs, noise, *told = (
            x[: self.t].to(self.device, non_blocking=True)
            for x in (self.inputs, self.noise, *self.told.values())
        )
        obs, prev_action, prev_reward, prev_done = inputs.split(self.widths, -1)
        final = {f.name: getattr(self.final, f.name).to(self.device) for f in fields(Final)}
        return Trials(
            obs=obs,
            prev_action=prev_action,
            prev_reward=prev_reward,
            prev_done=prev_done,
            features=self.features[: self.t],
            action=self.action[: self.t],
            log_prob=gaussian_log_prob(noise, self.std),
            **dict(zip(self.told, told, strict=True)),
            final=Final(**final),
            carries=self.carries,
        )


def gaussian_log_prob(noise: Tensor, std: Tensor) -> Tensor:
    """Log-density of mean + std * noise under N(mean, std^2), summed over the last axis."""
    return -(0.5 * noise**2 + std.log() + 0.5 * np.log(2 * np.pi)).sum(-1)
