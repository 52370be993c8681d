"""The anatomy of open_clip's image towers: stem, numbered blocks, head."""

from __future__ import annotations

import importlib
import re
from typing import Any

__all__ = ["group_of"]


def group_of(clip: Any) -> dict[str, tuple[str, int]]:
    """To which group each parameter of a model belongs.

    Returns:
        Parameter name → (group, number of the block, 1 being nearest to the pixels, or 0 outside
        the blocks). Groups are "image stem", "image blocks", "image head", "text tower" and
        "logit scale and bias"; "image tower" where the anatomy is not known.
    """
    image = _image_groups(clip.visual)
    groups: dict[str, tuple[str, int]] = {}
    for name, _ in clip.named_parameters():
        if name.startswith("visual."):
            groups[name] = image[name.removeprefix("visual.")]
        elif name in ("logit_scale", "logit_bias"):
            groups[name] = ("logit scale and bias", 0)
        else:
            groups[name] = ("text tower", 0)
    return groups


def _image_groups(visual: Any) -> dict[str, tuple[str, int]]:
    names = [name for name, _ in visual.named_parameters()]
    if hasattr(visual, "trunk"):
        return _timm_groups(visual, names)
    if hasattr(visual, "attnpool"):  # ModifiedResNet: its four stages
        block, stem = r"layer(\d)\.", r"(conv|bn)\d\."
    elif hasattr(visual, "transformer"):  # VisionTransformer
        block, stem = r"transformer\.resblocks\.(\d+)\.", r"class_emb|positional_emb|conv1|ln_pre"
    else:
        return dict.fromkeys(names, ("image tower", 0))
    first = 1 - min(int(match[1]) for name in names if (match := re.match(block, name)))
    groups: dict[str, tuple[str, int]] = {}
    for name in names:
        if match := re.match(block, name):
            groups[name] = ("image blocks", int(match[1]) + first)
        else:
            groups[name] = ("image stem" if re.match(stem, name) else "image head", 0)
    return groups


def _timm_groups(visual: Any, names: list[str]) -> dict[str, tuple[str, int]]:
    """By the layer groups that timm declares for layer-wise rates: 0 is the stem."""
    trunk = visual.trunk
    if not hasattr(trunk, "group_matcher"):
        return dict.fromkeys(names, ("image tower", 0))
    group_parameters = importlib.import_module("timm.models").group_parameters
    numbered: dict[int, list[str]] = group_parameters(trunk, trunk.group_matcher())
    groups = dict.fromkeys(names, ("image head", 0))
    block = 0
    for number, members in sorted(numbered.items()):
        # Norms, pools and classifiers after the last block are groups without a number in a name.
        inside = number > 0 and any(re.search(r"(^|\.)\d+\.", name) for name in members)
        block += inside
        for name in members:
            if inside:
                groups[f"trunk.{name}"] = ("image blocks", block)
            elif number == 0:
                groups[f"trunk.{name}"] = ("image stem", 0)
    return groups
