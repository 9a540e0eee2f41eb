"""Bundles of PEARL policies at random weights: what they serve can be told without training."""

from pathlib import Path

import torch

import sim
from runtime.policy import Policy
from runtime.spec import GOLDEN, POLICY, Manifest, file_record
from tests.bundles import STEPS, make_manifest, write_bundle
from training.exported_step import ExportedStep, to_onnx
from training.pearl_config import ContextNetworkConfig
from training.pearl_export import PosteriorStep
from training.pearl_networks import ContextPolicy

SMALL = {"latent": 3, "context": 8, "encoder_sizes": (16,), "actor_sizes": (16,)}


def random_policy(family: str, seed: int = 0, **sizes) -> ContextPolicy:
    """A policy whose normalisers, factors and actions are not at their first values either."""
    body = sim.family(family)
    config = ContextNetworkConfig(**(SMALL | sizes))
    torch.manual_seed(seed)
    policy = ContextPolicy(config, len(body.observation), len(body.action))
    policy.obs_normaliser.update(torch.randn(50, policy.observation_size) * 3 + 1)
    policy.reward_normaliser.update(torch.randn(50, 1) * 2 - 1)
    for network in (policy.encoder.layers, policy.actor):
        last = network[-1]
        torch.nn.init.normal_(last.weight, std=1.5 / last.in_features**0.5)
        torch.nn.init.normal_(last.bias, std=0.5)
    return policy.eval()


def manifest_facts(step: ExportedStep, name: str = "posterior") -> dict:
    """A manifest for a step, without its files."""
    return make_manifest(name, 1, 1, noisy=True) | step.facts()


def load(step: ExportedStep) -> Policy:
    """A step as the runtime runs it, without a bundle on disk."""
    model = to_onnx(step)
    files = {POLICY: file_record(model), GOLDEN: file_record(b"")}
    manifest = Manifest.model_validate(
        manifest_facts(step) | {"files": {k: v.model_dump() for k, v in files.items()}}
    )
    return Policy(manifest, model)


def write_posterior(
    models: Path, name: str = "posterior", family: str = "halfcheetah-vel", **sizes
) -> Path:
    """A whole bundle of a random policy; see `random_policy`."""
    step = PosteriorStep(random_policy(family, **sizes), sim.family(family), usual_disagreement=1.0)
    facts = manifest_facts(step, name) | {"golden": {"steps": STEPS, "atol": 1e-4}}
    del facts["name"], facts["version"]
    return write_bundle(models, name, model=to_onnx(step), **facts)
