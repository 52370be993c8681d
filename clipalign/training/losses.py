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
        regulariser_texts: [R, d] of the candidates of D_reg; None for those of D_pref.
    """

    part: TrainablePart
    objective: Objective
    regulariser: Regulariser
    weight: float
    orthogonality: float
    texts: Tensor
    regulariser_texts: Tensor | None


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
    choice = _choice(stream, step)
    common = problem.texts if step.texts is None else problem.texts[step.texts.to(device)]
    own = problem.regulariser_texts
    pref_texts = common if choice.pairs is None else problem.texts[choice.pairs.to(device)]
    reg_texts = common if own is None else own
    with torch.no_grad():
        ref_pref = log_policy(reference[:b], pref_texts, scale, bias)
        ref_reg = log_policy(reference[b:], reg_texts, scale, bias)
    batch = PolicyBatch(
        policy=log_policy(features[:b], part.text_features(pref_texts), scale, bias),
        reference=ref_pref,
        chosen=choice.chosen.to(device),
        rejected=choice.rejected.to(device),
    )
    policy_reg = log_policy(features[b:], part.text_features(reg_texts), scale, bias)
    penalty = features.new_zeros(())
    if part.weight is not None:
        penalty = problem.orthogonality * orthogonality_penalty(part.weight)
    return Losses(
        problem.objective(batch), problem.regulariser(policy_reg, ref_reg), penalty, batch
    )


@dataclass(frozen=True)
class _Choice:
    """What the rows of a step choose among.

    Attributes:
        chosen, rejected: [B] indices into the row's candidates, −1 where there is none.
        pairs: [B, 2] each row's candidates, where each has its own; else None.
    """

    chosen: Tensor
    rejected: Tensor
    pairs: Tensor | None = None


def _choice(stream: Stream, step: Step) -> _Choice:
    chosen, rejected = stream.chosen[step.rows], stream.rejected[step.rows]
    if step.texts is None:
        return _Choice(chosen, rejected)
    if stream.scope == "row":
        first = torch.zeros_like(chosen)
        return _Choice(first, first + 1, torch.stack([chosen, rejected], dim=1))
    place = torch.searchsorted(step.texts, torch.stack([chosen, rejected]))
    return _Choice(
        torch.where(chosen < 0, chosen, place[0]), torch.where(rejected < 0, rejected, place[1])
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
    batches = [p.batch for p in parts]  # of candidates that may differ in number
    for name in ("chosen", "rejected"):
        index = torch.cat([getattr(b, name) for b in batches])
        if bool((index >= 0).any()):
            logp = torch.cat([gather(b.policy, getattr(b, name)) for b in batches])
            out[f"logp_{name}"] = float(logp[index >= 0].mean())
    pair = torch.cat([(b.chosen >= 0) & (b.rejected >= 0) for b in batches])
    if bool(pair.any()):
        h = torch.cat([b.log_ratio(b.chosen) - b.log_ratio(b.rejected) for b in batches])[pair]
        out["margin"] = float(h.mean())
        out["reward_accuracy"] = float((h > 0).float().mean())
    return out
