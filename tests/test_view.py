"""`adaptd view`: the bridge, the JSON and the scene over real sockets; layouts that fit them."""

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import zmq
from websockets.sync.client import connect

from runtime.cli import main as adaptd
from runtime.view.layout import layout
from runtime.view.named import schema
from runtime.view.scene import drawable
from runtime.view.scene_link import Part, SceneFollower, ScenePublisher, scene_address
from sim.robot import SimulatedRobot
from sim.scene_feed import SceneFeed, scene_of
from tests.recorded import manifest_of

ROOT = Path(__file__).parents[1]
ONE = np.array([1.0, 0.0])
SHIPPED_LAYOUT = ROOT / "monitoring" / "foxglove-layout.json"


@contextmanager
def viewing(endpoint, *settings):
    """`adaptd view` as a process; gives the line it says when it is ready."""
    command = [sys.executable, "-m", "runtime.cli", "view", "--endpoint", endpoint, *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


class Viewer:
    """A viewer as Foxglove is one: subscribes to all channels over its WebSocket protocol."""

    def __init__(self, port):
        self.connection = connect(
            f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"], max_size=None, legacy=True
        )
        self.channels = {}
        self.found = {}
        """The last message of each topic."""

    def look(self, *topics, timeout_s=15.0, act=lambda: None):
        """Take messages until each of these topics has one."""
        deadline = time.monotonic() + timeout_s
        while not set(topics) <= set(self.found):
            assert time.monotonic() < deadline, (sorted(self.found), self.channels)
            act()
            try:
                self.take(self.connection.recv(timeout=0.05))
            except TimeoutError:
                continue
        return self.found

    def take(self, message):
        if isinstance(message, str):
            told = json.loads(message)
            for channel in told.get("channels", ()) if told["op"] == "advertise" else ():
                self.channels[channel["id"]] = channel
                wanted = [{"id": channel["id"], "channelId": channel["id"]}]
                self.connection.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))
        else:
            (number,) = struct.unpack_from("<I", message, 1)
            self.found[self.channels[number]["topic"]] = message[13:]


def port_of(line):
    return int(re.search(r"ws://127\.0\.0\.1:(\d+)", line)[1])


def test_a_viewer_sees_names_bands_limits_and_events(daemon, client):
    session = client.open("counter@1", session=7)
    session.step(ONE)
    with viewing(daemon.endpoint, "--port", "0") as line:
        viewer = Viewer(port_of(line))
        far = np.array([500.0, 0.0])
        found = viewer.look("/7/named", "/7/action", "/7/timing", act=lambda: session.step(far))
        named, action = json.loads(found["/7/named"]), json.loads(found["/7/action"])
        assert named["action"]["push"]["applied"] == 10.0  # bounded
        assert named["action"]["push"]["requested"] > 10.0 and named["limited"] == 1
        assert (named["action"]["push"]["low"], named["action"]["push"]["high"]) == (-10.0, 10.0)
        assert named["observation"] == {"x": 500.0, "y": 0.0}
        assert action["limited_by"] == ["bounds"] and action["policy"] == "counter@1"
        client.request("freeze", session=7, frozen=True)
        event = json.loads(viewer.look("/7/event", act=lambda: session.step(ONE))["/7/event"])
        assert event["event"] == "switch" and event["frozen"] is True
        viewer.connection.close()


def test_a_viewer_that_stops_reading_costs_only_itself(daemon, client):
    session = client.open("counter@1", session=7)
    dropped = client.request("status")["dropped_messages"]
    with viewing(daemon.endpoint, "--port", "0") as line:
        stuck, well = Viewer(port_of(line)), Viewer(port_of(line))
        for viewer in (stuck, well):
            viewer.look("/7/named", act=lambda: session.step(ONE))
        for _ in range(1500):  # more than the bridge keeps for one viewer
            assert not session.step(ONE).silent
        well.found.clear()
        seq = session.next_seq
        found = well.look("/7/action", act=lambda: session.step(ONE))
        while json.loads(found["/7/action"])["seq"] < seq:
            well.take(well.connection.recv(timeout=10))
        assert client.request("status")["dropped_messages"] == dropped
        stuck.connection.close(), well.connection.close()


def test_json_as_plotjuggler_takes_it(daemon, client):
    session = client.open("counter@1", session=7)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with viewing(daemon.endpoint, "--json", "--port", str(port)) as line:
        assert f"tcp://127.0.0.1:{port}" in line
        context = zmq.Context()
        subscriber = context.socket(zmq.SUB)
        subscriber.subscribe(b"")
        subscriber.connect(f"tcp://127.0.0.1:{port}")
        deadline = time.monotonic() + 15
        while not subscriber.poll(20):
            assert time.monotonic() < deadline
            session.step(ONE, reward=2.0)
        frames = subscriber.recv_multipart()
        context.destroy(linger=0)
    assert len(frames) == 1  # each frame is a message to PlotJuggler
    content = json.loads(frames[0])
    assert content["timestamp"] > 0 and content["7"]["episode"]["reward"] == 2.0


def test_what_cannot_be_shown_is_a_sentence(daemon, client, capsys):
    def complaint(*arguments):
        assert adaptd(["view", "--endpoint", daemon.endpoint, *arguments]) == 2
        return capsys.readouterr().err

    assert "no session is open" in complaint()
    for session in range(1, 24):
        client.open("counter@1", session=session)
    assert "23 sessions are open and at most 20 are shown: choose by --session" in complaint()
    assert "at most 1 are shown" in complaint("--html", "a.html")
    assert "there is no session '99'" in complaint("--session", "99")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot be served" in complaint("--session", "1", "--port", port)
        assert "cannot be served" in complaint("--session", "1", "--json", "--port", port)


def test_a_live_page_of_the_next_moments(daemon, client, tmp_path):
    session = client.open("counter@1", session=7)
    session.step(ONE)
    page = tmp_path / "live.html"
    settings = ("--html", str(page), "--minutes", "0.05", "--session", "7")
    with viewing(daemon.endpoint, *settings) as line:
        assert "looking at session 7 for 0.05 minutes" in line
        deadline = time.monotonic() + 60
        while not page.exists():
            assert time.monotonic() < deadline
            session.step(ONE)
            time.sleep(0.02)
    assert '"policies":["counter@1"]' in page.read_text()


def test_a_live_page_of_a_silent_session_is_refused(daemon, client, tmp_path, capsys):
    client.open("counter@1", session=7)
    arguments = ["--html", str(tmp_path / "a.html"), "--minutes", "0.01"]
    assert adaptd(["view", "--endpoint", daemon.endpoint, *arguments]) == 2
    assert "session 7 made no tick while it was looked at" in capsys.readouterr().err


def paths_of(panels):
    """Every message path that a layout asks for."""
    return [path["value"] for panel in panels.values() for path in panel.get("paths", ())]


def leaves(tree):
    """The panels in a mosaic."""
    return [tree] if isinstance(tree, str) else leaves(tree["first"]) + leaves(tree["second"])


def test_a_layout_asks_for_what_the_bridge_tells():
    manifest = manifest_of()
    made = layout(7, manifest)
    panels = made["configById"]
    for path in paths_of(panels):
        topic, *fields = path.split(".")
        if topic != "/7/named":
            assert path == "/7/belief.adaptation"
            continue
        found = schema(manifest)
        for field in fields:
            found = found["properties"][field]
        assert found["type"] == "number"
    shown = leaves(made["layout"])
    for tab in panels["Tab!right"]["tabs"]:
        shown += leaves(tab["layout"])
    assert sorted(shown) == sorted(panels)  # each panel once
    assert any("push" in path for path in paths_of(panels))


def test_the_shipped_layout_is_the_one_of_the_shipped_policy():
    from runtime.store import Store

    manifest = Store(ROOT / "exported_models").manifest("halfcheetah-vel-rl2-gru")
    assert json.loads(SHIPPED_LAYOUT.read_text()) == layout(1, manifest)


def test_a_layout_is_written_for_the_session_that_is_open(daemon, client, tmp_path, capsys):
    client.open("counter@1", session=7)
    path = tmp_path / "layout.json"
    assert adaptd(["view", "--endpoint", daemon.endpoint, "--layout", str(path)]) == 0
    assert "/7/named.action.push.applied" in path.read_text()
    nowhere = str(tmp_path / "no" / "layout.json")
    assert adaptd(["view", "--endpoint", daemon.endpoint, "--layout", nowhere]) == 2


def test_a_scene_has_every_geom_where_mujoco_has_it():
    robot = SimulatedRobot("ant-goal", seed=1)
    model, data = robot.env.world.model, robot.env.world.batch.get_data(0)
    mujoco.mj_forward(model, data)
    markers = robot.env.family.markers(robot.env.world, 0)
    scene = scene_of(model, data, markers)
    geoms = [g for g in range(model.ngeom) if model.geom(g).name != "floor"]
    assert len(scene.parts) == len(geoms) + len(markers) and markers
    for part, geom in zip(scene.parts, geoms, strict=False):
        assert part.position == pytest.approx(tuple(data.geom_xpos[geom]))
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, np.array(part.rotation))
        assert matrix == pytest.approx(data.geom_xmat[geom])
    assert {part.shape for part in scene.parts} == {"sphere", "capsule"}


def test_a_capsule_is_a_cylinder_with_round_ends():
    """Along x after a quarter turn about y: half a metre to each side of (1, 2, 3)."""
    turn = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0)
    part = Part("capsule", (0.1, 0.1, 0.5), (1, 0, 0, 1), (1.0, 2.0, 3.0), turn)
    tube, *ends = drawable(part)
    assert tube == replace(part, shape="cylinder")
    assert [end.shape for end in ends] == ["ellipsoid", "ellipsoid"]
    assert sorted(end.position for end in ends) == [
        pytest.approx((0.5, 2, 3)),
        pytest.approx((1.5, 2, 3)),
    ]
    assert all(end.size == (0.1, 0.1, 0.1) for end in ends)


def test_a_robot_is_seen_only_while_somebody_looks(tmp_path):
    endpoint = f"ipc://{tmp_path}/a"
    robot = SimulatedRobot("halfcheetah-vel")
    feed, follower = SceneFeed(robot, endpoint, 7), SceneFollower(endpoint, 7)
    deadline = time.monotonic() + 10
    while (scene := follower.latest()) is None:
        assert time.monotonic() < deadline
        feed.update()
        time.sleep(0.01)
    assert len(scene.parts) == 8 and all(len(part.rotation) == 4 for part in scene.parts)
    follower.close()
    deadline = time.monotonic() + 10
    while feed._publisher.watched:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    feed.close()


def test_scene_addresses(tmp_path):
    assert scene_address("ipc:///run/adaptd/adaptd", 7) == "ipc:///run/adaptd/adaptd-scene-7"
    assert scene_address("tcp://127.0.0.1:5700", 7).endswith("/5700-scene-7")
    from runtime.errors import InvalidConfig

    with pytest.raises(InvalidConfig, match="nobody can look at the robot"):
        ScenePublisher(f"ipc://{tmp_path}/{'long' * 40}", 7)
    with pytest.raises(InvalidConfig, match="no physics"):
        SceneFeed(SimulatedRobot("bandit"), f"ipc://{tmp_path}/a", 7)
