"""The references that show what knowing the task is worth."""

import json

import pytest

import sim
from benchmarks.references.__main__ import main, summary
from benchmarks.references.measure import SCRIPTED, scripted
from docs.reference_tables import FIGURES
from runtime.store import Store
from tests.conftest import SHIPPED
from training import checkpoint
from training.config import MultitaskConfig
from training.multitask import MultitaskTrainer

FOUND = json.loads(FIGURES.read_text())


@pytest.mark.parametrize("name", SCRIPTED)
def test_who_is_told_earns_more_than_who_is_not(name):
    row = scripted(name, tasks=12)
    told, not_told = row["told"][0]["mean"], row["not_told"][0]["mean"]
    assert told > not_told
    assert row["worth"]["mean"] == pytest.approx(told - not_told, rel=1e-3)
    assert row["worth"]["mean"] > row["worth"]["ci95"]
    assert len(row["adapting"]) == sim.family(name).episodes
    assert row["adapting"][-1]["mean"] > not_told


def test_the_shipped_figures_have_every_family_or_say_which_is_missing():
    assert sorted([*FOUND["families"], *FOUND["missing"]]) == sim.names()
    assert set(SCRIPTED) <= set(FOUND["families"])
    for row in FOUND["families"].values():
        assert row["tasks"] >= 30
        for way in ("told", "not_told", "random"):
            assert row[way] and all(episode.keys() == {"mean", "ci95"} for episode in row[way])
        assert row["how"] == "scripted" or row["env_steps"] > 0


def test_everything_is_measured_from_what_is_there(tmp_path, capsys):
    run = tmp_path / "runs" / "multitask-halfcheetah-dir-s0"
    trainer = MultitaskTrainer(MultitaskConfig(family="halfcheetah-dir", trials=2))
    checkpoint.save(run / "checkpoints", 0, trainer.tensors(), trainer.facts())
    path = tmp_path / "references.json"
    main(run.parent, path, SHIPPED, tasks=2, trained_tasks=2)
    found = json.loads(path.read_text())
    assert set(found["families"]) == {*SCRIPTED, "halfcheetah-dir"}
    row = found["families"]["halfcheetah-dir"]
    assert row["env_steps"] == 0 and row["finished"] is False and row["tasks"] == 2
    assert row["how"] == "metatrain train multitask halfcheetah-dir"
    assert len(row["told"]) == 1 and "adapting" not in row
    assert "ant-dir" in found["missing"]
    store = Store(SHIPPED)
    label, manifest = next((r, store.load(r).manifest) for r in store.references() if "vel" in r)
    policy, episodes = found["shipped"][label], manifest.evaluation.episodes
    for shown, measured in zip(policy["adapting"], episodes, strict=True):
        assert shown["mean"] == pytest.approx(measured.mean, rel=1e-3)
    assert f"halfcheetah-dir          {summary(row)}" in capsys.readouterr().out
