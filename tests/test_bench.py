"""`adaptd bench` on hand-made bundles, for moments only: it tells what it did, not speed."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from runtime.benchmark.command import ALWAYS, as_table
from runtime.benchmark.pacing import pace
from runtime.benchmark.setting import Figure
from runtime.benchmark.spread import percentiles_us, slope
from runtime.cli import main as adaptd

BRIEF = ["--repeats", "1", "--ticks", "30", "--seconds", "0.3", "--sessions", "1,4"]
BRIEF += ["--minutes", "0.02"]


def bench(capsys, models, scenarios, *arguments):
    """Run it with --json; its one line."""
    chosen = ["--policy", "counter@1", "--models", str(models), "--scenarios", scenarios]
    assert adaptd(["bench", "--json", *chosen, *BRIEF, *arguments]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1 and not said.err
    return json.loads(said.out)


def test_one_json_line_tells_what_was_measured(capsys, models):
    found = bench(capsys, models, "lone,swap,sessions,keys", "--repeats", "2")
    assert set(ALWAYS) <= set(found) and None not in [found[key] for key in ALWAYS]
    assert found["scenarios"] == ["lone", "swap", "sessions", "keys"]
    assert found["keys_ratio_p50"] > 0 and "keys_ratio_p50" in found["reached"]
    assert found["repeats"] == 2 and found["ticks"] == 2 * 30 and found["sessions"] == 4
    assert found["fleet_steps"] == 2 * 15 and found["swaps_asked"] == found["swaps_seen"] == 2
    assert found["swaps_refused"] == found["unanswered_4"] == found["fallback_answers"] == 0
    low, high = found["spread"]["ratio_p50"]
    assert 0 < low <= found["ratio_p50"] <= high
    assert found["actions_per_s"] == found["actions_per_s_4"] > 0 and found["swap_gap_us"] > 0


def test_the_other_scenarios(capsys, models):
    found = bench(capsys, models, "paced,tap,restart,soak")
    assert found["paced_ratio_p50"] > 0 and found["paced_fallback_answers"] == 0
    assert all(found[f"tap_{count}_p50_us"] > 0 for count in (0, 1, 3))
    assert 0 <= found["restart_lost"] <= 4
    assert found["soak_samples"] >= 3 and found["soak_rss_mb_at_100"] > 10
    assert found["floor_p50_us"] is None and "ratio_p50" not in found["reached"]


def test_a_storm_is_held_to_an_offline_reference(capsys, models, monkeypatch):
    for name, mean_s in (("KILL_S", 2.0), ("SWAP_S", 0.5), ("FAULT_S", 0.5)):
        monkeypatch.setattr(f"runtime.benchmark.weather.{name}", mean_s)
    found = bench(capsys, models, "storm", "--minutes", "0.12")
    assert found["storm_ticks"] > 5 and found["storm_kills"] >= 1
    assert found["storm_swaps"] + found["storm_swaps_cut_short"] >= 1
    for key in ("unanswered", "wrong", "other", "lost", "stale"):
        assert found[f"storm_{key}"] == 0, key


def test_recorder_view_and_exporter_on_the_tap(capsys, models):
    found = bench(capsys, models, "watched")
    assert found["watched_alone_p99_us"] > 0 and found["watched_p99_us"] > 0
    ratio = found["watched_p99_us"] / found["watched_alone_p99_us"]
    assert found["watched_ratio_p99"] == pytest.approx(ratio)
    assert found["watched_watchers_percent"] >= 0 and found["left_out"] == {}


def test_a_scenario_that_cannot_be_had_is_left_out_with_its_reason(capsys, models):
    found = bench(capsys, only(models, "counter", "1"), "swap")
    assert found["swap_gap_us"] is None and "nothing to swap to" in found["left_out"]["swap"]


def only(models, name, version):
    """A folder with one of the bundles alone."""
    (folder := models.parent / "one" / name).mkdir(parents=True)
    (folder / version).symlink_to(models / name / version)
    return folder.parent


def test_figures_stand_beside_their_targets():
    figures = [
        Figure("ratio", "ratio", np.array([1.1, 1.2, 1.5]), ".2f", 1.3),
        Figure("missed", "ticks missed", np.array([1.0, 2.0]), target=0, total=True),
        Figure("p50", "p50 [us]", np.array([90.0])),
    ]
    assert [figure.cells() for figure in figures] == [
        ("ratio", "1.20 (1.10 to 1.50)", "<= 1.30 reached"),
        ("ticks missed", "3", "<= 0 MISSED"),
        ("p50 [us]", "90", ""),
    ]
    console = Console(record=True, width=100, quiet=False, file=StringIO())
    console.print(as_table("a title", figures))
    said = console.export_text()
    assert "<= 1.30 reached" in said and "p50 [us]" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scenarios", "lone,swop"], "there is no scenario 'swop'. Did you mean 'swap'?"),
        (["--sessions", "ten"], "are not numbers"),
        (["--repeats", "0"], "--repeats must be greater than 0"),
        (["--policy", "conter"], "Did you mean 'counter'?"),
    ],
)
def test_it_refuses_settings_that_cannot_be(models, capsys, arguments, complaint):
    base = ["bench", "--models", str(models), "--policy", "counter", *BRIEF]
    assert adaptd([*base, *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_held_up_tick_is_missed_and_those_it_ran_over_are_left_out():
    """Tick 3 takes 4.5 periods: it and ticks 4, 5 and 6 are missed, 7 is asked late."""
    asked, now = [], 0.0

    def sleep(seconds):
        nonlocal now
        now += seconds

    def ask(i):
        asked.append(i)
        sleep(0.09 if i == 3 else 0.001)
        return i != 9

    found = pace(ask, 12, 0.02, lambda: now, sleep)
    assert asked == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert np.flatnonzero(np.isnan(found.trips)).tolist() == [4, 5, 6]
    assert found.missed == 4 + 1  # and tick 9 was not answered
    assert found.longer_than(0.02) == 1


def test_a_line_and_its_error_by_hand():
    """Through 0, 1, 1, 2 the slope is 3/5; deviations 0.1, -0.3 ... leave sqrt(0.2/2/5)."""
    rise, error = slope(np.arange(4.0), np.array([0.0, 1.0, 1.0, 2.0]))
    assert (rise, error) == pytest.approx((0.6, np.sqrt(0.2 / 2 / 5)))
    assert np.isnan(slope(np.arange(2.0), np.arange(2.0))).all()


def test_percentiles_leave_out_what_was_never_asked():
    assert percentiles_us(np.array([1e-6, np.nan, 3e-6]), 50) == pytest.approx((2.0,))


def test_a_figure_that_was_not_had_reaches_nothing():
    nothing = Figure("x", "x", np.array([np.nan]), target=1.0)
    assert nothing.number is None and nothing.reached is False
    counted = Figure("x", "x", np.array([1.0, 2.0]), target=3.0, total=True)
    assert counted.number == 3 and counted.reached
    assert Figure("x", "x", np.array([5.0]), target=6.0, better="high").reached is False
