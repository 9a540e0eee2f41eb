"""`adaptd view --html`: what the page tells, and the page itself in a real browser."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.cli import main as adaptd
from runtime.errors import NotSaved
from runtime.view.beliefs import band, beliefs
from runtime.view.page import Thinned, content, page, write_page
from runtime.view.story import tell
from tests.browser import PROGRAM, Browser
from tests.recorded import (
    EPISODE,
    FRESH,
    GAP,
    SWAPPED,
    TASK,
    long_session,
    manifest_of,
    session,
    tick,
)

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="apt install chromium")
DRAWN = "document.documentElement?.dataset.drawn"


def test_a_belief_is_named_after_the_task_it_is_about():
    (target,) = beliefs(manifest_of())
    assert target == ("target", "m/s", 0, 1, 0.0, 1.0)
    mean, wide = band(target, np.array([[0.5, 0.04], [0.25, 0.0]]))
    assert mean.tolist() == [0.5, 0.25] and wide.tolist() == [0.4, 0.0]


def test_a_belief_of_other_things_than_the_task_goes_without_names():
    several = [{"name": "z", "shape": [2], "role": "mean"}]
    found = beliefs(manifest_of(belief=several))
    assert [(b.name, b.mean, b.variance) for b in found] == [
        ("belief 0", 0, None),
        ("belief 1", 1, None),
    ]
    assert math.isnan(band(found[1], np.array([1.0, 2.0]))[1])


def test_a_story_by_hand():
    told = [
        tick(0, 0.0, observation_flags=TASK, flags=FRESH),
        tick(1, 0.1),
        tick(2, 0.2, observation_flags=EPISODE, reward=3.0),
        tick(5, 0.5, flags=GAP),
        tick(6, 0.6, generation=1, policy="counter@2", flags=SWAPPED, limits=1,
             applied=np.array([10, 0.5], np.float32), requested=np.array([12, 0.5], np.float32)),
    ]  # fmt: skip
    event = {"event": "switch", "seq": 5, "frozen": True}
    story = tell(session(told, [event]))
    assert story.time_s.tolist() == pytest.approx([0, 0.1, 0.2, 0.5, 0.6])
    assert story.policies == ["counter@1", "counter@2"]
    assert story.episodes == [(pytest.approx(0.2), 4.0)]
    (belief,) = story.beliefs
    mean, low, high = (curve.values for curve in belief.curves)
    assert (mean[0], low[0], high[0]) == pytest.approx((0.5, 0.1, 0.9))
    assert math.isnan(mean[4])  # the manifest of counter@2 is not known
    push, _ = story.actions
    assert (push.title, push.low, push.high) == ("push", -10.0, 10.0)
    assert [curve.values[4] for curve in push.curves] == [10.0, 12.0]
    marks = [(mark["kind"], round(mark["at"], 1)) for mark in story.marks]
    assert marks == [("task", 0.0), ("episode", 0.2), ("gap", 0.5), ("event", 0.5), ("swap", 0.6)]
    assert story.marks[3]["text"] == "switch: frozen yes"
    assert story.marks[4]["text"] == "counter@2 acts"
    assert story.facts["missing"] == "2"
    assert story.facts["actions limited"] == "20.0 % (bounds)"


def test_the_last_minutes_and_a_recording_without_manifests():
    whole = long_session()
    story = tell(whole, last_s=10.0)
    assert len(story.time_s) == 201 and story.policies == ["counter@2"]
    whole.manifests.clear()
    bare = tell(whole)
    assert bare.beliefs == [] and [chart.title for chart in bare.actions] == [
        "action 0",
        "action 1",
    ]


def test_one_tick_is_a_story():
    told = content(tell(session([tick(3, 0.0)])))
    assert told["time"] == [0.0] and told["facts"]["rate"] == "-"


def test_thinning_keeps_extremes_and_breaks_where_nothing_came():
    """Ten ticks in buckets of five: lowest and highest of each, in their order."""
    thin = Thinned(np.arange(10.0) / 10, most=4)
    values = np.array([0, 5, 1, 1, -2, 3, 3, 9, 1, 2.0])
    assert thin.per_bucket == 5
    assert thin.time_s.tolist() == [0.0, 0.4, 0.5, 0.9]
    assert thin.extremes(values).tolist() == [5.0, -2.0, 9.0, 1.0]
    assert thin.last(values).tolist() == [0.0, -2.0, 3.0, 2.0]
    broken = Thinned(np.array([0.0, 1.0, 9.0, 10.0]))
    assert broken.time_s.tolist() == pytest.approx([0, 1, 1.001, 9, 10])
    assert np.isnan(broken.last(np.ones(4))).tolist() == [False, False, True, False, False]


def test_the_page_needs_nothing_else_and_cannot_be_broken_out_of():
    whole = long_session(200)
    whole.events[0]["new"] = "</script><b>counter"
    text = page(tell(whole))
    assert not re.search(r"(src|href)\s*=", text.split("<script>")[0])
    assert "</script><b>" not in text
    data = re.search(r'id="story">(.*?)</script>', text, re.DOTALL)[1]
    told = json.loads(data)
    assert any("</script><b>counter" in mark["text"] for mark in told["marks"])
    assert len(text) < 400_000


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(NotSaved, match="cannot be written"):
        write_page(tell(long_session(200)), tmp_path / "nowhere" / "page.html")


@needs_browser
def test_a_browser_draws_the_page_and_a_reader_can_look_closer(tmp_path):
    write_page(tell(long_session()), tmp_path / "report.html")
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "report.html", DRAWN)
        assert browser.run(DRAWN) == "6"  # belief, status, return, two actions, latency
        assert browser.run("document.title") == "adaptd: session 7"
        words = browser.run("document.body.innerText")
        for word in ("target [m/s]", "push [N]", "counter@1 → counter@2", "swap: new counter@2"):
            assert word in words
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert all(drawn_colours(browser, i) > 5 for i in range(6))

        over = "plots[0].over.getBoundingClientRect()"
        left, top, wide = (browser.run(f"{over}.{side}") for side in ("left", "top", "width"))
        browser.mouse("mouseMoved", left + wide / 2, top + 50)
        told = "document.querySelector('.chart output').textContent"
        wait(lambda: browser.run(told))
        assert re.match(r"7[45]\.\d+ s   mean 0\.\d+   low", browser.run(told))
        browser.drag(left + 0.25 * wide, top + 50, left + 0.5 * wide)
        ranges = "plots.map((p) => [p.scales.x.min, p.scales.x.max])"
        wait(lambda: browser.run(ranges)[0][0] > 30)
        shown = browser.run(ranges)
        assert all(limits == pytest.approx(shown[0]) for limits in shown)  # all charts zoom
        assert shown[0] == pytest.approx([0.25 * 150, 0.5 * 150], abs=2)
        for clicks in (1, 2):
            browser.mouse("mousePressed", left + 50, top + 50, clicks)
            browser.mouse("mouseReleased", left + 50, top + 50, clicks)
        wait(lambda: browser.run(ranges)[0][0] == 0)
        picture = browser.screenshot(tmp_path / "report.png")
        assert len(picture) > 50_000
        assert browser.complaints == []
        assert all(url.startswith(("file:", "about:", "data:")) for url in browser.requested)


def drawn_colours(browser, chart):
    """How many colours a chart's canvas has: one that is empty has one."""
    return browser.run(
        f"(() => {{ const c = plots[{chart}].ctx.canvas;"
        "const d = plots[%d].ctx.getImageData(0, 0, c.width, c.height).data;"
        % chart
        + "const seen = new Set(); for (let i = 0; i < d.length; i += 4)"
        "seen.add(d[i] + ',' + d[i+1] + ',' + d[i+2] + ',' + d[i+3]); return seen.size; })()"
    )


def wait(condition, timeout_s=10.0):
    """Until something comes true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(420, False), (1200, True)])
def test_it_fits_a_telephone_and_a_dark_room(tmp_path, width, dark):
    write_page(tell(long_session(400)), tmp_path / "report.html")
    with Browser(tmp_path, width, 900, dark) as browser:
        browser.open(tmp_path / "report.html", DRAWN)
        assert browser.run("document.documentElement.scrollWidth <= Math.max(innerWidth, 500)")
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(16, 20, 27)") == dark
        browser.screenshot(tmp_path / "report.png")
        assert browser.complaints == []


def test_settings_that_cannot_be(tmp_path, capsys):
    cases = {
        ("nothing.mcap", "--html", f"{tmp_path}/a.html"): "nothing.mcap",
        ("nothing.mcap",): "add --html FILE",
        ("--minutes", "0"): "--minutes must be above 0",
        ("--port", "70000"): "between 0 and 65535",
    }
    for arguments, complaint in cases.items():
        assert adaptd(["view", *arguments]) == 2
        assert complaint in capsys.readouterr().err


def test_a_page_of_the_recording_that_ships(tmp_path, capsys):
    recording = Path(__file__).parent / "recordings" / "halfcheetah-vel.mcap"
    assert adaptd(["view", str(recording), "--html", str(tmp_path / "report.html")]) == 0
    assert "ticks in the recording" in capsys.readouterr().out
    data = re.search(
        r'id="story">(.*?)</script>', (tmp_path / "report.html").read_text(), re.DOTALL
    )
    told = json.loads(data[1])
    assert told["beliefs"][0]["title"] == "target velocity" and told["beliefs"][0]["unit"] == "m/s"
    assert told["actions"][0]["title"] == "back thigh torque"
    assert told["episodes"]
