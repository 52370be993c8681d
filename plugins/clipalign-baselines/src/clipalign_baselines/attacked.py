"""The images that rivals of the typographic task are fitted on: the same set that `train` sees."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipalign import DataError, StorageError
from clipalign.models.feature_cache import feature_path, read_features, write_features
from clipalign.models.loaded import LoadedModel
from clipalign.progress import Reporter
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.training.reference import image_features
from clipalign.training.streams import Pixels, Stream, build_stream, decode_pixels
from clipalign.transforms.context import FitContext

__all__ = ["Attacked"]

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Attacked:
    """One split of a preference set, as P rows over N images.

    Attributes:
        preferences: the set.
        split: of it.
        stream: indices of the rows: image, chosen (the true class), rejected (the written one) and
            clean (the clean partner), −1 where there is none.
    """

    preferences: PreferenceSet
    split: str
    stream: Stream

    @classmethod
    def of(
        cls,
        context: FitContext,
        split: str,
        *,
        seed: int,
        paired: bool,
        limit: int | None = None,
    ) -> Attacked:
        """The rows of a run's own preferences, or of the typographic task for what is no run.

        Args:
            context: of the fit.
            split: "train" or "validation".
            seed: of the preparation, where something is to be prepared, and of the drawing.
            paired: keep only rows with a rejected text and a clean partner.
            limit: rows to draw at random; None for all.

        Raises:
            DataError: no row is left.
        """
        preferences = context.preferences(seed=seed)
        stream = build_stream(preferences, split)
        keep = stream.chosen >= 0
        if paired:
            keep &= (stream.rejected >= 0) & (stream.clean >= 0)
        rows = keep.nonzero().flatten()
        if not len(rows):
            wanted = "a chosen text" + (", a rejected one and a clean image" if paired else "")
            raise DataError(
                f"No row of the split {split!r} of {preferences.root} has {wanted}, so there is "
                "nothing to fit to. The task typographic makes such rows."
            )
        if limit is not None and limit < len(rows):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
            rows = rows[order[:limit]]
        fields = {name: getattr(stream, name)[rows] for name in ("image", "chosen", "rejected")}
        return cls(preferences, split, replace(stream, **fields, clean=stream.clean[rows]))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The C texts that chosen and rejected index."""
        return self.preferences.candidates

    def pixels(self, model: LoadedModel, reporter: Reporter) -> Pixels:
        """[N, 3, H, W] uint8 of all images, as the model's preprocessing leaves them."""
        paths = self.stream.paths
        with reporter.progress(f"Decoding {self.split} images", len(paths)) as bar:
            return decode_pixels(
                self.preferences,
                paths,
                model.preprocess,
                model.image_size,
                advance=bar.advance,
                note=reporter.note,
            )

    def features(self, model: LoadedModel, reporter: Reporter) -> Tensor:
        """I of all images, [N, d] float32 on the CPU, from the cache where it can."""
        content = [self.preferences.content_sha256, self.split]
        path = feature_path(model, "images", content)
        found = read_features(path, len(self.stream.paths), model.embed_dim)
        if found is not None:
            return found
        pixels = self.pixels(model, reporter)
        with reporter.progress(f"Encoding {self.split} images", len(pixels)) as bar:
            features = image_features(model, pixels, _BATCH, bar.advance)
        with contextlib.suppress(StorageError):  # a cache that cannot be written is done without
            write_features(path, features)
        return features
