"""A scene as Foxglove draws it."""

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
    cubes: list[CubePrimitive] = []
    spheres: list[SpherePrimitive] = []
    cylinders: list[CylinderPrimitive] = []
    for part in scene.parts:
        pose, size, color = _pose(part), _extent(part), _color(part)
        if part.shape == "box":
            cubes.append(CubePrimitive(pose=pose, size=size, color=color))
        elif part.shape in ("sphere", "ellipsoid"):
            spheres.append(SpherePrimitive(pose=pose, size=size, color=color))
        else:
            cylinders.append(
                CylinderPrimitive(
                    pose=pose, size=size, color=color, bottom_scale=1.0, top_scale=1.0
                )
            )
            spheres += _caps(part) if part.shape == "capsule" else []
    entity = SceneEntity(
        timestamp=at, frame_id=WORLD, id=robot_frame(session), cubes=cubes, spheres=spheres,
        cylinders=cylinders,
    )  # fmt: skip
    return SceneUpdate(entities=[entity])


def _caps(part: Part) -> list[SpherePrimitive]:
    """The round ends of a capsule, which Foxglove has not."""
    radius, _, half = part.size
    axis = _turned_z(part.rotation)
    ends = []
    for side in (-half, half):
        x, y, z = (p + side * a for p, a in zip(part.position, axis, strict=True))
        pose = Pose(position=Vector3(x=x, y=y, z=z), orientation=Quaternion(x=0, y=0, z=0, w=1))
        size = Vector3(x=2 * radius, y=2 * radius, z=2 * radius)
        ends.append(SpherePrimitive(pose=pose, size=size, color=_color(part)))
    return ends


def _turned_z(rotation: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """The z axis, turned by a quaternion w, x, y, z."""
    w, x, y, z = rotation
    return 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)


def _pose(part: Part) -> Pose:
    (x, y, z), (w, i, j, k) = part.position, part.rotation
    return Pose(position=Vector3(x=x, y=y, z=z), orientation=Quaternion(x=i, y=j, z=k, w=w))


def _extent(part: Part) -> Vector3:
    x, y, z = (2 * half for half in part.size)
    return Vector3(x=x, y=y, z=z)


def _color(part: Part) -> Color:
    r, g, b, a = part.rgba
    return Color(r=r, g=g, b=b, a=a)
