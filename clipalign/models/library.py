"""The one door to open_clip: imported once, when it is first needed, and not before.

Importing open_clip takes five to twenty seconds, so no module of clipalign imports it at its top.
transformers is not kept away from that import, though it costs seconds where it is installed:
hiding it would leave the process with an open_clip that has no Hugging Face text towers.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from clipalign import interrupts
from clipalign.errors import ModelError

__all__ = ["build_clip", "open_clip_module", "root_logger_kept"]

Announce = Callable[[str], None]


def open_clip_module(announce: Announce | None = None) -> Any:
    """The open_clip package.

    Args:
        announce: told in a few words what takes so long, before the first import only.
    """
    if "open_clip" not in sys.modules and announce is not None:
        announce("Loading open_clip…")
    with interrupts.postponed():
        return importlib.import_module("open_clip")


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Take away the handlers that the root logger is given meanwhile.

    open_clip speaks through `logging.info`, which gives a root logger that has none a handler: from
    then on whatever any library logs would be printed, and `logging.basicConfig` do nothing.
    """
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        for handler in list(root.handlers):
            if handler not in before:
                root.removeHandler(handler)


def build_clip(config: Mapping[str, Any]) -> Any:
    """An open_clip model of one architecture, random weights, float32, CPU, evaluation mode.

    The classes are those that open_clip.create_model picks for the same configuration, without its
    downloads: the towers' own pretrained weights (timm, Hugging Face) are never fetched.

    Args:
        config: `model_cfg` and `preprocess_cfg` as open_clip_config.json has them.

    Returns:
        open_clip's CLIP, CustomTextCLIP or CoCa; `visual.preprocess_cfg` is set.

    Raises:
        ModelError: open_clip cannot build this architecture.
    """
    open_clip = open_clip_module()
    model_cfg = deepcopy(dict(config["model_cfg"]))
    try:
        vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
            _refuse_remote_code(text["hf_model_name"])
        custom_text = model_cfg.pop("custom_text", False) or "hf_model_name" in text
        if custom_text and "multimodal_cfg" in model_cfg:
            kind = open_clip.CoCa
        else:
            kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        clip = kind(**model_cfg)
        if kind is open_clip.CoCa:  # it leaves a matrix of its decoder as the memory was
            decoder = clip.text_decoder
            decoder.text_projection.data.normal_(std=decoder.width**-0.5)
    except Exception as error:  # whatever a tower's constructor makes of a wrong configuration
        raise ModelError(
            f"open_clip cannot build this architecture: {type(error).__name__}: {error}. "
            "Check model_cfg in its open_clip_config.json."
        ) from error
    preprocess = {**config["preprocess_cfg"], "size": clip.visual.image_size}
    open_clip.set_model_preprocess_cfg(clip, preprocess)
    return clip.eval()


def _refuse_remote_code(name: str) -> None:
    """Let a text tower whose configuration brings code fail here, before open_clip reads it.

    Raises:
        ImportError: transformers is not installed.
        ValueError: it brings code; transformers says so.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise ImportError(
            f"the text tower {name} needs the package transformers; install it with: "
            "pip install 'clipalign[transformers]'"
        ) from error
    AutoConfig.from_pretrained(name, trust_remote_code=False)
