"""The model's own evaluation transform, cut in two: pixels that can be stored, and normalisation.

The first half (resize, crop, RGB) needs PIL and runs once an image; its uint8 result is a quarter
of the size of the float one. The second half is arithmetic and runs on the device, every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.models.library import open_clip_module

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Preprocess"]


class Preprocess:
    """An image as a model wants it. Calling it is open_clip's `preprocess_val`, bit for bit.

    Args:
        preprocess_cfg: open_clip's, with `size`.

    Attributes:
        transform: open_clip's evaluation transform, PIL image → float [3, H, W].
        mean, std: [3, 1, 1] of the RGB channels, on the scale 0 to 1.

    Raises:
        ModelError: open_clip makes no transform of this configuration.
    """

    def __init__(self, preprocess_cfg: Mapping[str, Any]) -> None:
        transform = open_clip_module().transform
        try:
            cfg = transform.PreprocessCfg(**preprocess_cfg)
            self.transform = transform.image_transform_v2(cfg, is_train=False)
            # The last two turn the RGB image into a tensor and normalise it.
            *self._to_rgb, _, normalise = self.transform.transforms
            self.mean = torch.tensor(normalise.mean, dtype=torch.float32).view(3, 1, 1)
            self.std = torch.tensor(normalise.std, dtype=torch.float32).view(3, 1, 1)
        except Exception as error:  # asserts and type errors of a wrong configuration
            raise ModelError(
                f"The model's preprocess_cfg cannot be used: {type(error).__name__}: {error}"
            ) from error
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise ModelError(
                "The model's preprocess_cfg has a mean or std that is no number, or a std that is "
                "not above 0."
            )

    def __call__(self, image: Image) -> Tensor:
        """[3, H, W] float32, normalised."""
        pixels: Tensor = self.transform(image)
        return pixels

    def resize_to_uint8(self, image: Image) -> Tensor:
        """[3, H, W] uint8: everything of the transform that comes before normalisation."""
        for step in self._to_rgb:
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """[..., 3, H, W] float32 of uint8 pixels, on their device."""
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
