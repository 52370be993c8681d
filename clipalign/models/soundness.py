"""Whether a model's files can be what they claim, found out before anything is built of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clipalign.errors import ModelError
from clipalign.files import SUMS, changed_file
from clipalign.models.card import CARD_NAME
from clipalign.models.spec import CONFIG_NAME

__all__ = ["check_size", "check_sums"]

_MOST_LAYERS = 1000


def check_size(model_cfg: Mapping[str, Any], weights: Path | None) -> None:
    """Refuse an architecture that is far larger than its file of weights, before it is built.

    A wrong number in a configuration would take all memory, or hours.

    Args:
        model_cfg: open_clip's, of both towers.
        weights: the file that is to fill it; None where there is none.

    Raises:
        ModelError: it is.
    """
    if weights is None:
        return
    needed = 0
    for tower in ("vision_cfg", "text_cfg"):
        cfg = model_cfg[tower]
        sizes = cfg if isinstance(cfg, dict) else {}
        layers, width, words = (_whole(sizes.get(key)) for key in ("layers", "width", "vocab_size"))
        if layers > _MOST_LAYERS:
            raise ModelError(
                f"{tower} of {weights.parent} has {layers} layers, and {_MOST_LAYERS} is "
                f"the most. Check its {CONFIG_NAME}."
            )
        needed += 4 * layers * width**2 + words * width
    held = weights.stat().st_size
    if needed > held and weights.suffix == ".safetensors":
        raise ModelError(
            f"The architecture needs {needed:,} numbers at least, and {weights} has "
            f"{held:,} bytes: they do not belong together, or it was cut short."
        )


def _whole(value: Any) -> int:
    """A positive whole number, or the sum of a list of them; 0 for whatever else there is."""
    if isinstance(value, list):
        return sum(_whole(item) for item in value)
    return value if isinstance(value, int) and value > 0 else 0


def check_sums(folder: Path, names: Iterable[str] | None = None) -> None:
    """Refuse files of a model that changed after clipalign wrote them.

    Args:
        folder: of the model.
        names: of the files in question; None for all but the card, which people may edit.

    Raises:
        ModelError: one did, or cannot be read.
    """
    if names is None:
        names = (path.name for path in folder.iterdir() if path.name not in (CARD_NAME, SUMS))
    try:
        changed = changed_file(folder, names)
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error}") from error
    if changed:
        raise ModelError(f"{changed} Write the model again, or remove {folder / SUMS} to use it.")
