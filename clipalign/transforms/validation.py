"""How good a model is on the validation split of a run's own preferences."""

from __future__ import annotations

from collections.abc import Callable

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
        )
    candidates = preferences.candidates
    kept_texts = preferences.regulariser_candidates or candidates
    kept = torch.cat([stream.clean[stream.clean >= 0], stream.spare]).unique()

    def read(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of log π [P, C], and the favourite text [S] of each image that is to stay."""
        features = image_features(model, pixels, _BATCH)
        scale = model.logit_scale.cpu()
        texts, others = (text_features(model, t).cpu() for t in (candidates, kept_texts))
        log_probs = log_policy(features[stream.image], texts, scale)
        return log_probs, (features[kept] @ others.T).argmax(dim=1)

    stayed = read(reference)[1]
    rows = torch.arange(len(stream))
    chosen, rejected = stream.chosen, stream.rejected

    def metric(model: LoadedModel) -> float:
        log_probs, favourite = read(model)
        best = log_probs.argmax(dim=1)
        holds = torch.where(
            chosen < 0,
            best != rejected,
            torch.where(
                rejected < 0,
                best == chosen,
                log_probs[rows, chosen] > log_probs[rows, rejected],
            ),
        )
        shares = [holds.double().mean().item()]
        if len(kept):
            shares.append((favourite == stayed).double().mean().item())
        return sum(shares) / len(shares)

    return metric


def _preferences(context: FitContext) -> PreferenceSet:
    config = context.config
    if config is None:
        raise UsageError(
            f"{context.path} is not a run, so it has no preferences to choose α by. Give α as a "
            "number, or a metric."
        )
    return preferences_of(config, context.reporter)
