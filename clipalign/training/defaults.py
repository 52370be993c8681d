"""What "the default" means for rates and weights, by what is trained and by which method.

Each objective states its λ beside its formula. On the embedded world, the rate of the image encoder
is that of kto with the highest attacked accuracy on concepts never seen, of 1e-4, 2e-4 and 4e-4
(four times the rate gives no more of it, and four times the drift). That of last:K is best on the
validation split for the last two blocks and the last three; that of lora:8 is within a point of
twice itself there, and drifts less. That of a head, and λ, are from sweeps on other concepts or the
validation split, some with an earlier embedded model. For other models the rates are the usual ones
for fine-tuning CLIP, where 1e-7 to 1e-5 keeps zero-shot accuracy (openai/CLIP issue 83).
"""

from __future__ import annotations

from clipalign.build import objective
from clipalign.config import RunConfig
from clipalign.models.trainable import Trainable, parse_trainable
from clipalign.objectives.base import Objective

_LR = {"image-encoder": 1e-5, "last": 1e-5, "lora": 1e-4, "head": 1e-3}
_EMBEDDED_LR = {"image-encoder": 1e-4, "last": 2e-4, "lora": 1e-3, "head": 1e-2}
_HEAD_SHARE = 0.5  # of λ: one map for all images bends less than a tower does
SANE_LR = 1e-3  # above it a full fine-tuning has never been seen to keep what CLIP knows


def default_lr(trainable: Trainable, model: str) -> float:
    """The learning rate where the configuration leaves it open."""
    table = _EMBEDDED_LR if model == "emoji-tiny" else _LR
    return table[trainable.kind]


def objective_of(config: RunConfig) -> Objective:
    """The objective of a run, or the weighted sum of several.

    Raises:
        UsageError: no objective has that name.
        ConfigError: it cannot use its options.
    """
    if config.objective:
        return objective(config.objective)
    return objective(config.method, **config.method_options)


def resolved(config: RunConfig) -> RunConfig:
    """The configuration with rate, λ and the method's options as they are used.

    A run keeps this one: what a method's default is may change, and what the run was may not.
    """
    lr = config.train.lr or default_lr(parse_trainable(config.trainable), config.model)
    known = {
        "train": config.train.model_copy(update={"lr": lr}),
        "regulariser_weight": regulariser_weight(config),
    }
    if not config.objective:  # whose terms hold their own
        known["method_options"] = objective_of(config).options.model_dump(mode="json")
    return config.model_copy(update=known)


def regulariser_weight(config: RunConfig) -> float:
    """λ of a run: as configured, or the method's own, of which a head takes half."""
    if config.regulariser_weight is not None:
        return config.regulariser_weight
    share = _HEAD_SHARE if config.trainable == "head" else 1.0
    return share * objective_of(config).regulariser_weight
