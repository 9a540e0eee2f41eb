"""Collecting trials: simulations and policy in turn, or at once where they do not share cores.

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
from training.finite import check_simulated
from training.networks import Carry, TrialPolicy
from training.trials import Final, MetaInput, Trials, gaussian_log_prob, side_by_side


@dataclass(frozen=True)
class Shard:
    """A group of simulations with random streams of its own."""

    env: TrialEnv
    generator: torch.Generator
    """Of the action noise and of the order of learning; on the CPU, wherever the policy is, so
    that all devices act alike."""

    def seed(self, seed: int, number: int, stream: int) -> None:
        """Start all random streams anew, by the run's seed, the shard's number and a count."""
        sequence = np.random.SeedSequence(seed, spawn_key=(number, stream))
        world, change, noise = sequence.generate_state(3, np.uint64).tolist()
        self.env.np_random = np.random.default_rng(world)
        self.env.schedule.seed(change)
        self.generator.manual_seed(noise)


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
        self.t = 0
        self.finished = False
        obs, self.info = self.env.reset()
        self.meta = MetaInput(self.env.num_envs, len(self.env.family.action))
        self.over = np.zeros(self.env.num_envs, bool)  # whose trial is over
        self.just_over: NDArray[np.bool_] | None = None  # in the last step, not yet in `final`
        task = torch.from_numpy(self.info["task"])
        self._make_room(torch.from_numpy(obs), task)
        self.std = policy.log_std.exp()
        self.carry = policy.initial(task.to(self.device))
        self.carries: dict[int, Carry] = {}
        self._see(obs)

    def _make_room(self, obs: Tensor, task: Tensor) -> None:
        """The arrays, for observations and tasks like these, (b, O) and (b, D)."""
        (n, obs_size), action_size = obs.shape, len(self.env.family.action)
        memory, where, steps = self.policy.feature_size, self.device, self.steps
        self.widths = (obs_size, action_size, 1, 1)
        self.inputs = self._host(steps, n, sum(self.widths))  # obs and `MetaInput.values`
        self.noise = self._host(steps, n, action_size)  # standard normal
        self.told = {
            "task": self._host(steps, n, task.shape[1]),
            "mask": self._host(steps, n),
            "episode": self._host(steps, n, dtype=torch.int64),
            "reward": self._host(steps, n),
            "seen_reward": self._host(steps, n),
        }
        self.rows = {"inputs": self.inputs.numpy()}
        self.rows |= {name: values.numpy() for name, values in self.told.items()}
        self.features = torch.empty(steps, n, memory, device=where)
        self.action = torch.empty(steps, n, action_size, device=where)
        self.after = self._host(n, sum(self.widths))  # inputs after the last step, before resets
        self.final = Final(
            torch.zeros_like(obs),
            torch.zeros(n, memory, device=where),
            task.clone(),
            torch.zeros(n),
        )

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
        features, seen, self.carry = self._step(self.inputs[t])
        self.features[t] = features
        mean = self.policy.action_mean(features, seen)
        action = torch.add(mean, self.scaled_noise[begun], out=self.action[t])
        self.chosen = action.to("cpu", non_blocking=True)  # pinned, if it comes from a GPU
        if self.on_gpu:
            self.arrived = torch.cuda.current_stream(self.device).record_event()

    def _step(self, inputs: Tensor) -> tuple[Tensor, Tensor, Carry]:
        """The policy's `step` on inputs (b, O + A + 2) from the host."""
        inputs = inputs.to(self.device, non_blocking=True)
        obs, prev_action, prev_reward, prev_done = inputs.split(self.widths, dim=1)
        return self.policy.step(obs, prev_action, prev_reward, prev_done, self.carry)

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
        features, _, _ = self._step(self.after)
        ended = torch.from_numpy(self.just_over).to(self.device)
        self.final.features[ended] = features[ended]
        self.just_over = None

    def simulate(self) -> None:
        """Make step `t` with the chosen actions."""
        if self.on_gpu:
            self.arrived.synchronize()
        episode = self.info["episode"]
        obs, reward, died, truncated, self.info = self.env.step(self.chosen.numpy())
        check_simulated(self.env, self.t, "reward", reward)
        check_simulated(self.env, self.t, "obs", obs)
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
