"""docs/results.md is what the manifests say, and learning curves are drawn as they are."""

import json

import numpy as np
import pytest

import sim
from runtime.errors import InvalidBundle, InvalidConfig
from runtime.spec import MANIFEST
from tests.bundles import write_bundle
from tests.conftest import SHIPPED
from training import checkpoint
from training.cli import main
from training.config import RL2Config
from training.curves import Curve, read_groups
from training.published import PUBLISHED
from training.results import results_page

PAGE = SHIPPED.parent / "docs" / "results.md"


def test_the_page_is_what_the_manifests_say():
    assert results_page(SHIPPED) == PAGE.read_text(), "run metatrain results"


def test_every_bundle_and_every_published_figure_is_on_the_page():
    page = PAGE.read_text()
    for path in SHIPPED.glob("*/*/manifest.json"):
        assert f"**`{path.parts[-3]}@" in page
    for row in PUBLISHED:
        for value in row.returns.values():
            assert f"{value:g}" in page
        assert row.source in page


def test_what_is_published_is_of_families_that_exist():
    for row in PUBLISHED:
        assert row.family in sim.names()
        assert row.returns and all(np.isfinite(v) for v in row.returns.values())
        assert row.last() == list(row.returns.values())[-1]


def edited(models, name: str, change) -> None:
    path = models / name / "1" / MANIFEST
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def test_a_bundle_that_nothing_is_published_beside_is_on_the_page(tmp_path):
    write_bundle(tmp_path, "mine", 1)
    section = results_page(tmp_path).partition("## none")[2].partition("\n## ")[0]
    assert "**`mine@1`**" in section and "PEARL" not in section
    assert "How they were trained is not recorded." in section
    assert "not measured" in section  # told the task


def test_several_seeds_are_a_row_of_their_own(tmp_path):
    write_bundle(tmp_path, "mine", 1)

    def more(facts):
        stats = [{"mean": -20.0 - k, "ci95": 1.0} for k in range(5)]
        facts["evaluation"] |= {"seeds": [7], "env_steps": 40_000_000, "episodes": stats}
        facts["evaluation"]["task_told"] = [{"mean": -9.0, "ci95": 0.5}]
        pooled = [{"mean": -30.0, "ci95": 3.0}]
        facts["provenance"] |= {
            "seeds": [{"seed": 8, "episodes": pooled, "env_steps": 39_500_000}],
            "over_seeds": {"seeds": [7, 8], "episodes": pooled},
            "reference": {"env_steps": 2_000_000},
            "wall_time_s": 600.0,
            "libraries": {"mujoco": "4.0.0"},
        }

    edited(tmp_path, "mine", more)
    page = results_page(tmp_path)
    assert "ours on MuJoCo 4.0.0" in page
    assert (
        "| -20.0 ± 1.0 | -21.0 ± 1.0 | -22.0 ± 1.0 | -23.0 ± 1.0 | 5: -24.0 ± 1.0 | 40 M " in page
    )
    assert "| **mean over seeds** | -30.0 ± 3.0 |  |  |  |  | 39.5 to 40 M | 2 (seeds 7, 8)" in page
    assert "-9.0 ± 0.5 after 2 M" in page and "10 min" in page


def test_the_command_writes_the_page(tmp_path, capsys):
    into = tmp_path / "results.md"
    assert main(["results", "--models", str(SHIPPED), "--into", str(into)]) == 0
    assert into.read_text() == PAGE.read_text()
    capsys.readouterr()
    nowhere = str(tmp_path / "no" / "results.md")
    assert main(["results", "--models", str(SHIPPED), "--into", nowhere]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_no_bundles_and_broken_ones_are_named(tmp_path):
    with pytest.raises(InvalidConfig, match="holds no policy bundles"):
        results_page(tmp_path / "nowhere")
    write_bundle(tmp_path, "mine", 1)
    edited(tmp_path, "mine", lambda facts: facts.pop("evaluation"))
    with pytest.raises(InvalidBundle, match=r"mine/1/manifest.json: evaluation: Field required"):
        results_page(tmp_path)
    (tmp_path / "mine" / "1" / MANIFEST).unlink()
    with pytest.raises(InvalidBundle, match=r"manifest\.json cannot be read: No such file"):
        results_page(tmp_path)


def test_only_the_newest_version_is_shown(tmp_path):
    for version in (9, 10, 2):
        write_bundle(tmp_path, "mine", version)
    page = results_page(tmp_path)
    assert "`mine@10`" in page and "@9" not in page and "@2" not in page


def curve(returns, step: float = 100.0) -> Curve:
    values = np.asarray(returns, float)
    return Curve(step * np.arange(1, values.shape[1] + 1), values)


def test_smoothing_averages_and_keeps_what_is_level_or_straight():
    level = curve(np.full((2, 500), 3.0))
    np.testing.assert_allclose(level.smooth(), 3.0)
    line = curve(np.arange(400.0)[None])
    np.testing.assert_allclose(line.smooth(0.05)[0, :390], np.arange(390.0))
    noisy = curve(np.random.default_rng(0).normal(size=(1, 5000)))
    assert noisy.smooth(0.02).std() == pytest.approx(0.1, rel=0.2)  # of 101 each
    assert curve([[1.0, 5.0, 3.0]]).smooth(1.0)[0].tolist() == [1.0, 3.0, 4.0]


def test_a_missing_return_is_as_its_neighbours():
    rows = [
        {"env_steps": 10, "return/episode_1": 1.0, "return/episode_2": 5.0},
        {"env_steps": 20, "return/episode_1": 2.0},
        {"env_steps": 30, "return/episode_1": 3.0, "return/episode_2": 7.0},
    ]
    assert Curve.of(rows).returns.tolist() == [[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]


def make_run(folder, config: RL2Config, level: float, rows: int = 20):
    """A run folder with a learning curve and the facts of a checkpoint."""
    checkpoint.save(
        folder / "checkpoints", 1, {}, {"method": "rl2", "config": config.model_dump(mode="json")}
    )
    lines = (
        {"iteration": k, "env_steps": 1000 * k, "return/episode_1": level, "return/episode_2": k}
        for k in range(1, rows + 1)
    )
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_of_one_setting_are_one_group(tmp_path):
    base = RL2Config(family="halfcheetah-vel", env_steps=40_000_000)
    changes = [{"seed": 1}, {"seed": 2, "threads": 1}, {"env_steps": 30_000_000}]
    runs = [
        make_run(tmp_path / str(k), base.model_copy(update=change), float(k), rows=20 + k)
        for k, change in enumerate(changes)
    ]
    both, other = read_groups(runs)
    assert (both.label, other.label) == ("rl2, env_steps 40 M", "rl2, env_steps 30 M")
    steps, returns = both.band()
    assert returns.shape[:2] == (2, 2) and (steps[0], steps[-1]) == (1000, 20_000)
    np.testing.assert_allclose(returns[:, 0], np.stack([0 * steps, 0 * steps + 1]))


def test_the_picture_is_written_whatever_is_published(tmp_path):
    families = ["halfcheetah-vel", "bandit", "halfcheetah-dir"]
    runs = [
        make_run(tmp_path / f, RL2Config(family=f), -100.0, rows=1 if f == "bandit" else 30)
        for f in families
    ]
    into = tmp_path / "curves.png"
    assert main(["curves", *map(str, runs), "--into", str(into)]) == 0
    assert into.read_bytes().startswith(b"\x89PNG")


def test_bad_curves_get_one_sentence(tmp_path, capsys):
    good = make_run(tmp_path / "good", RL2Config(family="bandit"), 1.0)
    empty = make_run(tmp_path / "empty", RL2Config(family="bandit"), 1.0, rows=0)
    broken = make_run(tmp_path / "broken", RL2Config(family="bandit"), 1.0)
    (broken / "curve.jsonl").write_text("nonsense\n")
    into = ["--into", str(tmp_path / "x.png")]
    for arguments, complaint in (
        ([str(tmp_path / "nowhere"), *into], "there is no run folder"),
        ([str(empty), *into], "holds no learning curve"),
        ([str(broken), *into], "holds no learning curve"),
        (into, "name run folders"),
        ([str(good), "--into", "x.pdf"], "ends in .png"),
        ([str(good), "--into", str(tmp_path / "no" / "x.png")], "no picture can be written"),
    ):
        assert main(["curves", *arguments]) == 2
        said = capsys.readouterr().err
        assert complaint in said and said.count("\n") == 1
