"""The panels of Foxglove, and of Lichtblick which reads the same files, for one session."""

from typing import Any

from runtime.recording.channels import topic
from runtime.spec import Manifest
from runtime.view.beliefs import beliefs
from runtime.view.named import path_name
from runtime.view.scene import WORLD, robot_frame

BAND, MEAN, LIMIT, APPLIED, REQUESTED = "#93c5fd", "#2563eb", "#b42318", "#0f766e", "#d97706"
MOST_ACTIONS = 12
"""Elements of an action that get a plot; the others are found in the topic."""
Panel = dict[str, Any]


def layout(session: int, manifest: Manifest) -> dict[str, Any]:
    """A layout: the scene, the belief, the returns, the actions, the latency, what happened.

    Args:
        session: whose topics it shows.
        manifest: of its policy: the names of beliefs and actions.
    """
    named = topic(session, "named")
    panels: dict[str, Panel] = {
        "3D!scene": _scene(session),
        "StateTransitions!adaptation": _states(topic(session, "belief") + ".adaptation"),
        "Plot!return": _plot("Return per episode", [
            (f"{named}.episode.last_return", "last episode", "#7c3aed"),
            (f"{named}.episode.running_return", "running", "#c4b5fd"),
        ]),
        "Plot!latency": _plot("Time in the daemon [us]", [
            (f"{named}.latency_us", "queue and inference", "#475467"),
            (f"{named}.inference_us", "inference", "#98a2b3"),
        ]),
        "RawMessages!event": {"topicPath": topic(session, "event"), "diffEnabled": False},
    }  # fmt: skip
    for i, belief in enumerate(beliefs(manifest)):
        path = f"{named}.belief.{path_name(belief.name)}"
        unit = f" [{belief.unit}]" if belief.unit else ""
        panels[f"Plot!belief{i}"] = _plot(f"Belief: {belief.name}{unit}", [
            (f"{path}.mean", "mean", MEAN), (f"{path}.low", "-2 deviations", BAND),
            (f"{path}.high", "+2 deviations", BAND),
        ])  # fmt: skip
    for i, element in enumerate(manifest.action[:MOST_ACTIONS]):
        path = f"{named}.action.{path_name(element.name)}"
        panels[f"Plot!action{i}"] = _plot(element.name, [
            (f"{path}.applied", "applied", APPLIED), (f"{path}.requested", "requested", REQUESTED),
            (f"{path}.low", "low", LIMIT), (f"{path}.high", "high", LIMIT),
        ])  # fmt: skip
    said = [p for p in panels if p.startswith("Plot!belief")]
    acted = [p for p in panels if p.startswith("Plot!action")]
    tabs = {
        "activeTabIdx": 0,
        "tabs": [
            {"title": "Adaptation", "layout": _stack([*said, "StateTransitions!adaptation",
                                                      "Plot!return"])},
            {"title": "Actions", "layout": _stack(acted)},
            {"title": "Time", "layout": _stack(["Plot!latency", "RawMessages!event"])},
        ],
    }  # fmt: skip
    return {
        "configById": {**panels, "Tab!right": tabs},
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": {"speed": 1},
        "layout": {
            "direction": "row",
            "first": "3D!scene",
            "second": "Tab!right",
            "splitPercentage": 42,
        },
    }


def _scene(session: int) -> Panel:
    return {
        "foxglovePanelTitle": "Robot (simrobot run --scene)",
        "followTf": robot_frame(session),
        "followMode": "follow-position",
        "cameraState": {
            "distance": 4, "phi": 70, "thetaOffset": 20, "fovy": 45, "near": 0.05, "far": 500,
            "perspective": True, "target": [0, 0, 0], "targetOffset": [0, 0, 0],
            "targetOrientation": [0, 0, 0, 1],
        },
        "scene": {"transforms": {"visible": False}},
        "transforms": {},
        "topics": {topic(session, "scene"): {"visible": True}},
        "layers": {
            "grid": {
                "layerId": "foxglove.Grid", "instanceId": "grid", "label": "Ground",
                "visible": True, "frameId": WORLD, "size": 200, "divisions": 200, "lineWidth": 1,
                "color": "#66728533", "position": [0, 0, 0], "rotation": [0, 0, 0], "order": 1,
            }
        },
    }  # fmt: skip


def _states(path: str) -> Panel:
    return {
        "foxglovePanelTitle": "Adaptation",
        "isSynced": True,
        "paths": [{"value": path, "timestampMethod": "receiveTime", "label": "adaptation"}],
    }


def _plot(title: str, paths: list[tuple[str, str, str]]) -> Panel:
    return {
        "foxglovePanelTitle": title,
        "paths": [
            {"value": value, "label": label, "color": color, "enabled": True,
             "timestampMethod": "receiveTime", "showLine": True, "lineSize": 1.5}
            for value, label, color in paths
        ],
        "xAxisVal": "timestamp",
        "isSynced": True,
        "showXAxisLabels": True,
        "showYAxisLabels": True,
        "showLegend": True,
        "legendDisplay": "floating",
        "followingViewWidth": 30,
    }  # fmt: skip


def _stack(panels: list[str]) -> Any:
    """Panels below each other, of equal height."""
    first, *rest = panels
    if not rest:
        return first
    return {
        "direction": "column",
        "first": first,
        "second": _stack(rest),
        "splitPercentage": 100 / len(panels),
    }
