"""Names that LeRobot imports and does not use when it only reads."""

import torch


class Transform(torch.nn.Module):
    """Base class of image augmentations; there are none here."""


class functional:
    """No function is needed for reading."""
