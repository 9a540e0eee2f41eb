"""Choose how MuJoCo renders on a machine without a screen; to be imported before mujoco."""

import os
from ctypes.util import find_library


def choose_renderer() -> None:
    """Set MUJOCO_GL where there is no screen and the user has not: EGL, else OSMesa, if there."""
    if os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    for library, name in (("EGL", "egl"), ("OSMesa", "osmesa")):
        if find_library(library):
            os.environ["MUJOCO_GL"] = name
            return
