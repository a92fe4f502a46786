"""How good, and how expensive, pictures are; ``docs/simulation/rendering.md`` has what each option costs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_sim.mesh_detail import reduced_mesh


@dataclass(frozen=True, kw_only=True)
class RenderQuality:
    """What a picture is drawn with.

    Attributes:
        shadow_size: Side of the shadow map of every light that casts shadows [px]; 0 draws no shadows. MuJoCo's
            default is 4096, whatever the size of the picture.
        samples: Samples per pixel for smooth edges; 0 takes one. MuJoCo's default is 4.
        reflections: Whether shiny floors mirror the scene, which draws it a second time.
        mesh_detail: Share of the triangles of visual meshes to keep, in (0, 1].
    """

    shadow_size: int = 0
    samples: int = 0
    reflections: bool = False
    mesh_detail: float = 0.1


#: What observations are drawn with unless told otherwise, and MuJoCo's own default.
FAST = RenderQuality()
FULL = RenderQuality(shadow_size=4096, samples=4, reflections=True, mesh_detail=1.0)


def apply_to_spec(scene: Any, quality: RenderQuality) -> None:
    """Set the quality of a scene that is not compiled yet; physics is untouched.

    Args:
        scene: ``mujoco.MjSpec`` whose mesh files have absolute paths.
        quality: What to draw with.
    """
    scene.visual.quality.shadowsize = quality.shadow_size
    scene.visual.quality.offsamples = quality.samples
    if quality.shadow_size == 0:
        for light in scene.lights:
            light.castshadow = False
    if not quality.reflections:
        for material in scene.materials:
            material.reflectance = 0.0
    colliding = {geom.meshname for geom in scene.geoms if geom.contype or geom.conaffinity}
    for mesh in scene.meshes:
        if mesh.file and mesh.name not in colliding:
            mesh.file = str(reduced_mesh(Path(mesh.file), quality.mesh_detail))


def apply_to_xml(xml: str, quality: RenderQuality) -> str:
    """Return MJCF with this quality; physics is untouched.

    Args:
        xml: MJCF of the whole scene, includes resolved; meshes are reduced where their paths are absolute and the
            geoms that use them say ``contype="0" conaffinity="0"``.
        quality: What to draw with.
    """
    root = ElementTree.fromstring(xml)
    visual = root.find("visual")
    if visual is None:
        visual = ElementTree.SubElement(root, "visual")
    settings = visual.find("quality")
    if settings is None:
        settings = ElementTree.SubElement(visual, "quality")
    settings.set("shadowsize", str(quality.shadow_size))
    settings.set("offsamples", str(quality.samples))
    if quality.shadow_size == 0:
        for light in root.iter("light"):
            light.set("castshadow", "false")
    if not quality.reflections:
        for material in root.iter("material"):
            material.set("reflectance", "0")
    if quality.mesh_detail < 1.0:
        _reduce_meshes(root, quality.mesh_detail)
    return ElementTree.tostring(root, encoding="unicode")


def _reduce_meshes(root: ElementTree.Element, detail: float) -> None:
    geoms = [geom for geom in root.iter("geom") if "mesh" in geom.attrib]
    seen = {g.get("mesh") for g in geoms if g.get("contype") == "0" and g.get("conaffinity") == "0"}
    colliding = {g.get("mesh") for g in geoms if g.get("contype") != "0" or g.get("conaffinity") != "0"}
    for mesh in root.iter("mesh"):
        path = Path(mesh.get("file", ""))
        if mesh.get("name") in seen - colliding and path.is_absolute() and path.is_file():
            mesh.set("file", str(reduced_mesh(path, detail)))
