"""A scene as Foxglove draws it."""

from dataclasses import replace
from typing import Any

from foxglove.messages import (
    Color,
    CubePrimitive,
    CylinderPrimitive,
    FrameTransform,
    Pose,
    Quaternion,
    SceneEntity,
    SceneUpdate,
    SpherePrimitive,
    Timestamp,
    Vector3,
)

from runtime.view.scene_link import Part, Scene

WORLD = "world"


def robot_frame(session: int) -> str:
    """The frame that moves with a session's robot, and does not turn."""
    return f"robot-{session}"


def transform(scene: Scene, session: int, at: Timestamp) -> FrameTransform:
    """Where the robot is, for a camera that follows it."""
    x, y, z = scene.centre
    return FrameTransform(
        timestamp=at, parent_frame_id=WORLD, child_frame_id=robot_frame(session),
        translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=0, y=0, z=0, w=1),
    )  # fmt: skip


def update(scene: Scene, session: int, at: Timestamp) -> SceneUpdate:
    """All parts, as one entity that replaces the one before."""
    drawn = [shape for part in scene.parts for shape in drawable(part)]
    entity = SceneEntity(
        timestamp=at, frame_id=WORLD, id=robot_frame(session),
        cubes=[CubePrimitive(**_placed(p)) for p in drawn if p.shape == "box"],
        spheres=[SpherePrimitive(**_placed(p)) for p in drawn if p.shape == "ellipsoid"],
        cylinders=[
            CylinderPrimitive(**_placed(p), bottom_scale=1.0, top_scale=1.0)
            for p in drawn if p.shape == "cylinder"
        ],
    )  # fmt: skip
    return SceneUpdate(entities=[entity])


def drawable(part: Part) -> list[Part]:
    """A part as Foxglove has it: boxes, ellipsoids and cylinders.

    A capsule, which it has not, is a cylinder with a sphere at each end.
    """
    if part.shape == "sphere":
        return [replace(part, shape="ellipsoid")]
    if part.shape != "capsule":
        return [part]
    radius, _, half = part.size
    axis = _turned_z(part.rotation)
    ends = []
    for side in (-half, half):
        x, y, z = (p + side * a for p, a in zip(part.position, axis, strict=True))
        ends.append(replace(part, shape="ellipsoid", size=(radius,) * 3, position=(x, y, z)))
    return [replace(part, shape="cylinder"), *ends]


def _turned_z(rotation: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """The z axis, turned by a quaternion w, x, y, z."""
    w, x, y, z = rotation
    return 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)


def _placed(part: Part) -> dict[str, Any]:
    """Pose, size and colour of a primitive."""
    (x, y, z), (w, i, j, k), (r, g, b, a) = part.position, part.rotation, part.rgba
    wide, deep, high = (2 * half for half in part.size)
    orientation = Quaternion(x=i, y=j, z=k, w=w)
    return {
        "pose": Pose(position=Vector3(x=x, y=y, z=z), orientation=orientation),
        "size": Vector3(x=wide, y=deep, z=high),
        "color": Color(r=r, g=g, b=b, a=a),
    }
