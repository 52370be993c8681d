"""How good a model is on the validation split of a run's own preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from clipalign.errors import DataError, UsageError
from clipalign.models.feature_cache import text_features
from clipalign.models.loaded import LoadedModel
from clipalign.policy import log_policy
from clipalign.tasks.preference_set import PreferenceSet
from clipalign.tasks.prepare import preferences_of
from clipalign.training.reference import image_features
from clipalign.training.streams import build_stream, decode_pixels
from clipalign.transforms.context import FitContext

__all__ = ["preference_metric"]

_SPLIT = "validation"
_BATCH = 256
_AT_ONCE = 1 << 22  # log-probabilities in one block


def preference_metric(
    context: FitContext, reference: LoadedModel
) -> Callable[[LoadedModel], float]:
    """What was taught and what was to stay, alike: the mean of two shares.

    Of the preferences, how many hold: the chosen text before the rejected one (or before all, or
    the rejected one not before all, where there is one of them only). Of the images that are to
    stay, how many keep the reference's most probable text.

    Args:
        context: of a run.
        reference: the model that the images are to stay with.

    Raises:
        UsageError: it is no run, so it has no preferences.
        DataError: the preferences have no validation split.
    """
    preferences = _preferences(context)
    if _SPLIT not in preferences.splits:
        raise DataError(
            f"{preferences.root} has no validation split to choose α by (it has "
            f"{', '.join(preferences.splits)}). Give α as a number."
        )
    stream = build_stream(preferences, _SPLIT)
    with context.reporter.progress("Decoding validation images", len(stream.paths)) as bar:
        pixels = decode_pixels(
            preferences,
            stream.paths,
            reference.preprocess,
            reference.image_size,
            advance=bar.advance,
            note=context.reporter.note,
        )
    candidates = preferences.candidates
    kept_texts = preferences.regulariser_candidates or candidates
    kept = torch.cat([stream.clean[stream.clean >= 0], stream.spare]).unique()

    def favourites(model: LoadedModel, features: torch.Tensor) -> torch.Tensor:
        """The most probable text [S] of each image that is to stay."""
        texts = text_features(model, kept_texts).cpu()
        found = [(features[rows] @ texts.T).argmax(dim=1) for rows in _blocks(kept, len(texts))]
        return torch.cat(found)

    def held(model: LoadedModel, features: torch.Tensor) -> torch.Tensor:
        """Whether each preference holds [P]."""
        texts, scale = text_features(model, candidates).cpu(), model.logit_scale.cpu()
        found = []
        for rows in _blocks(torch.arange(len(stream)), len(texts)):
            log_probs = log_policy(features[stream.image[rows]], texts, scale)
            found.append(_holds(log_probs, stream.chosen[rows], stream.rejected[rows]))
        return torch.cat(found)

    stayed = favourites(reference, image_features(reference, pixels, _BATCH))

    def metric(model: LoadedModel) -> float:
        features = image_features(model, pixels, _BATCH)
        shares = [held(model, features).double().mean().item()]
        if len(kept):
            shares.append((favourites(model, features) == stayed).double().mean().item())
        return sum(shares) / len(shares)

    return metric


def _blocks(rows: torch.Tensor, texts: int) -> Sequence[torch.Tensor]:
    """Rows in pieces, so that rows × texts is never held whole."""
    pieces: Sequence[torch.Tensor] = rows.split(max(1, _AT_ONCE // max(1, texts)))
    return pieces


def _holds(log_probs: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Whether each preference holds [B], from log π [B, C]; −1 where there is no such text."""
    rows, best = torch.arange(len(log_probs)), log_probs.argmax(dim=1)
    both = log_probs[rows, chosen] > log_probs[rows, rejected]
    one = torch.where(rejected < 0, best == chosen, both)
    return torch.where(chosen < 0, best != rejected, one)


def _preferences(context: FitContext) -> PreferenceSet:
    config = context.config
    if config is None:
        raise UsageError(
            f"{context.path} is not a run, so it has no preferences to choose α by. Give α as a "
            "number, or a metric."
        )
    return preferences_of(config, context.reporter)
