"""The bundles in exported_models/: sound, described truthfully, and able to adapt."""

import json

import numpy as np
import pytest

import sim
from runtime.policy import Policy
from runtime.store import Store
from tests.conftest import SHIPPED

STORE = Store(SHIPPED)
REFERENCES = STORE.references()
EXPECTED = {
    "ant-dir-rl2-gru", "halfcheetah-dir-rl2-gru", "halfcheetah-vel-rl2-gru",
    "halfcheetah-vel-rl2-lstm",
}  # fmt: skip


def test_the_promised_bundles_are_there():
    assert set(STORE.names()) >= EXPECTED


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_bundle_is_sound_and_its_card_true_to_its_manifest(reference):
    policy = STORE.load(reference)
    manifest, folder = policy.manifest, STORE.find(reference)
    card = (folder / "README.md").read_text()
    assert manifest.provenance["command"] in card
    for stat in manifest.evaluation.episodes + manifest.evaluation.cleared_memory:
        assert f"{stat.mean:.1f} ± {stat.ci95:.1f}" in card
    assert (folder / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    family = sim.family(manifest.family)
    assert [e.name for e in manifest.observation] == [c.name for c in family.observation]
    assert [e.name for e in manifest.action] == [c.name for c in family.action]
    assert "/" not in json.dumps(manifest.provenance["command"])


def returns(policy: Policy, family: str, tasks: int, cleared: bool) -> np.ndarray:
    """Return of each episode (2, tasks) with the graph that is served, memory kept or cleared."""
    env = sim.make(family, tasks, seed=1, episodes=2)
    obs, _ = env.reset(options={"tasks": env.family.held_out(tasks, seed=1)})
    inputs = {"obs": obs} | {
        name: np.zeros((tasks, size), np.float32)
        for name, size in (
            ("prev_action", len(policy.manifest.action)), ("prev_reward", 1), ("prev_done", 1)
        )
    }  # fmt: skip
    prior = carry = policy.initial_carry(tasks)
    totals, episode = np.zeros((3, tasks)), np.zeros(tasks, int)  # the third is not looked at
    while (episode < 2).any():
        step = policy.step(inputs, prior if cleared else carry)
        carry = step.carry
        obs, reward, terminated, truncated, _ = env.step(step.action)
        totals[episode, np.arange(tasks)] += reward
        done = terminated | truncated
        applied = env.applied_action.copy()
        episode = np.minimum(episode + done, 2)
        if done.any():
            obs, _ = env.reset(options={"reset_mask": done})
        inputs = {
            "obs": obs,
            "prev_action": applied,
            "prev_reward": reward[:, None].astype(np.float32),
            "prev_done": done[:, None].astype(np.float32),
        }
    return totals[:2]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_bundle_adapts_as_its_manifest_says(name):
    """On other held-out tasks than the card's: memory is what makes the return."""
    policy = STORE.load(name)
    told = policy.manifest.evaluation
    adapting = returns(policy, policy.manifest.family, 20, cleared=False).mean(axis=1)
    cleared = returns(policy, policy.manifest.family, 20, cleared=True).mean(axis=1)
    for episode in range(2):
        claimed, reference = told.episodes[episode], told.cleared_memory[episode]
        gain = claimed.mean - reference.mean
        assert adapting[episode] - cleared[episode] > 0.6 * gain > 0
        assert abs(adapting[episode] - claimed.mean) < 0.2 * gain
