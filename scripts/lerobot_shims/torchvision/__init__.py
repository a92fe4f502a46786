"""The few pieces of torchvision that LeRobot's dataset class uses, for machines whose torchvision does not load.

`scripts/lerobot_venv.sh` puts this folder on the path of its own virtual environment, and only if the real package
fails there (its wheels fit one build of torch each). It is no part of the product.
"""

from torchvision import io, transforms

__all__ = ["io", "set_video_backend", "transforms"]


def set_video_backend(backend: str) -> None:
    """Accept ``"pyav"``, the only backend here."""
    if backend != "pyav":
        raise ValueError(f"this stand-in for torchvision decodes with pyav only, not with {backend}")
