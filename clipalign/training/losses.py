"""The loss of a step:  L = L_pref(D_pref) + λ · L_reg(D_reg) [+ c ‖WᵀW − I‖²_F for a head].

arXiv 2411.08923, §3. Attacked and clean images go through the image tower in one batch; the text
features and the reference's image features were computed once, before training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clipalign.models.linear_map import orthogonality_penalty
from clipalign.models.trainable import TrainablePart
from clipalign.objectives.base import Objective, PolicyBatch, gather
from clipalign.policy import log_policy
from clipalign.regularisers import Regulariser
from clipalign.training.streams import Step, Stream


@dataclass(frozen=True)
class Problem:
    """Everything that stays as it is while training.

    Attributes:
        part: what trains.
        objective: L_pref.
        regulariser: L_reg.
        weight: λ.
        orthogonality: c, for a head.
        texts: [C, d] reference features of the candidates of D_pref.
        regulariser_texts: [R, d] of the candidates of D_reg.
    """

    part: TrainablePart
    objective: Objective
    regulariser: Regulariser
    weight: float
    orthogonality: float
    texts: Tensor
    regulariser_texts: Tensor


@dataclass(frozen=True)
class Data:
    """A stream with what the policy reads of its N images.

    Attributes:
        stream: which images belong together.
        reference: [N, d] the reference's image features.
        inputs: [N, 3, H, W] uint8 pixels, or for a head the same as `reference`.
    """

    stream: Stream
    reference: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Losses:
    """Per-image losses of (a part of) a step, and the batch that they came from."""

    preference: Tensor
    regulariser: Tensor
    penalty: Tensor
    batch: PolicyBatch

    def total(self, weight: float, rows: int, regularised: int) -> Tensor:
        """The part's share of the step's loss; shares of all parts add up to the whole batch's."""
        loss = self.preference.sum() / rows + self.penalty * (len(self.preference) / rows)
        if regularised:
            loss = loss + weight * self.regulariser.sum() / regularised
        return loss


def losses(problem: Problem, data: Data, step: Step) -> Losses:
    """Policy and losses of the given rows."""
    part, stream, model = problem.part, data.stream, problem.part.model
    device = model.device
    images = torch.cat([stream.image[step.rows], step.regularised])
    features = part.image_features(data.inputs[images].to(device))
    reference = data.reference[images].to(device)
    scale, bias, b = model.logit_scale, model.logit_bias, len(step.rows)
    with torch.no_grad():
        ref_pref = log_policy(reference[:b], problem.texts, scale, bias)
        ref_reg = log_policy(reference[b:], problem.regulariser_texts, scale, bias)
    texts = part.text_features(problem.texts)
    batch = PolicyBatch(
        policy=log_policy(features[:b], texts, scale, bias),
        reference=ref_pref,
        chosen=stream.chosen[step.rows].to(device),
        rejected=stream.rejected[step.rows].to(device),
    )
    regulariser_texts = part.text_features(problem.regulariser_texts)
    policy_reg = log_policy(features[b:], regulariser_texts, scale, bias)
    penalty = features.new_zeros(())
    if part.weight is not None:
        penalty = problem.orthogonality * orthogonality_penalty(part.weight)
    return Losses(
        problem.objective(batch), problem.regulariser(policy_reg, ref_reg), penalty, batch
    )


@torch.no_grad()
def measures(parts: list[Losses], weight: float, rows: int, regularised: int) -> dict[str, float]:
    """What is logged of a step, for people who ask "the chosen reward falls, is it broken?".

    Returns:
        loss and its parts; mean margin h = Δ log-ratio of chosen and rejected, in nats; the share
        of rows with h > 0 (implicit-reward accuracy); mean log-probabilities of both texts. Values
        that need a text that no row has are left out.
    """
    out = {
        "loss": float(sum(p.total(weight, rows, regularised) for p in parts)),
        "preference_loss": float(sum(p.preference.sum() for p in parts)) / rows,
    }
    if regularised:
        out["regulariser"] = float(sum(p.regulariser.sum() for p in parts)) / regularised
    policy = torch.cat([p.batch.policy for p in parts])
    reference = torch.cat([p.batch.reference for p in parts])
    for name in ("chosen", "rejected"):
        index = torch.cat([getattr(p.batch, name) for p in parts])
        if bool((index >= 0).any()):
            out[f"logp_{name}"] = float(gather(policy, index)[index >= 0].mean())
    chosen = torch.cat([p.batch.chosen for p in parts])
    rejected = torch.cat([p.batch.rejected for p in parts])
    pair = (chosen >= 0) & (rejected >= 0)
    if bool(pair.any()):
        ratio = policy - reference
        h = (gather(ratio, chosen) - gather(ratio, rejected))[pair]
        out["margin"] = float(h.mean())
        out["reward_accuracy"] = float((h > 0).float().mean())
    return out
