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
from clipalign.training.distributed import ALONE, World
from clipalign.training.streams import Pixels, Step, Stream


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

    def penalty(self) -> float:
        """C ‖WᵀW − I‖²_F at the weights as they are; 0 for parts that are no head."""
        weight = self.part.weight
        if weight is None:
            return 0.0
        return self.orthogonality * float(orthogonality_penalty(weight.detach()))


@dataclass(frozen=True)
class Data:
    """A stream with what the policy reads of its N images.

    Attributes:
        stream: which images belong together.
        reference: [N, d] the reference's image features.
        inputs: [N, 3, H, W] uint8 pixels; for a head the same as `reference`; under last:K perhaps
            the activations [N, …] before the first trained block.
    """

    stream: Stream
    reference: Tensor
    inputs: Pixels


@dataclass(frozen=True)
class Losses:
    """Per-image losses of (a part of) a step, and the batch that they came from.

    Attributes:
        preference: [B] of `batch`.
        regulariser: [R] of this part.
        penalty: [ ] of a head; 0 for other parts.
        batch: this part's rows, or all processes' where the objective needs the whole batch.
        own: which rows of `batch` are this part's: gradient reaches no others.
    """

    preference: Tensor
    regulariser: Tensor
    penalty: Tensor
    batch: PolicyBatch
    own: slice

    def total(self, weight: float, rows: int, regularised: int) -> Tensor:
        """The part's share of the step's loss; shares of all parts add up to the whole batch's."""
        share = (self.own.stop - self.own.start) / rows
        loss: Tensor = self.preference.sum() / rows + self.penalty * share
        if regularised:
            loss = loss + weight * self.regulariser.sum() / regularised
        return loss

    @torch.no_grad()
    def table(self) -> Tensor:
        """What `measures` needs of this part: one row an image, [b + R, 5] float64.

        Columns: 0 for a preference and 1 for the regulariser; its loss; log π_θ of the chosen and
        of the rejected text, and their margin in nats, NaN where a text is missing.
        """
        batch, own = self.batch, self.own
        columns = [self.preference[own]]
        there = []
        for index in (batch.chosen[own], batch.rejected[own]):
            columns.append(gather(batch.policy[own], index))
            there.append(index >= 0)
        ratio = (batch.policy - batch.reference)[own]
        h = gather(ratio, batch.chosen[own]) - gather(ratio, batch.rejected[own])
        missing = [~there[0], ~there[1], ~(there[0] & there[1])]
        values = [
            value.double().masked_fill(gone, torch.nan)
            for value, gone in zip([*columns[1:], h], missing, strict=True)
        ]
        kind = torch.zeros_like(values[0])
        preferences = torch.stack([kind, columns[0].double(), *values], dim=1)
        regularised = torch.full((len(self.regulariser), 5), torch.nan, dtype=torch.float64)
        regularised[:, 0] = 1
        regularised[:, 1] = self.regulariser.cpu()
        return torch.cat([preferences.cpu(), regularised])


def losses(problem: Problem, data: Data, step: Step, world: World = ALONE) -> Losses:
    """Policy and losses of the given rows, which are this process's part of the step.

    An objective that needs the whole batch sees the rows of all processes.
    """
    part, stream, model = problem.part, data.stream, problem.part.model
    device = model.device
    images = stream.images(step)
    features = part.image_features(data.inputs[images].to(device))
    known = torch.cat([stream.image[step.rows], step.held_to])
    reference = data.reference[known].to(device)
    scale, bias, b = model.logit_scale, model.logit_bias, len(step.rows)
    choice = _choice(stream, step)
    common = problem.texts if step.texts is None else problem.texts[step.texts.to(device)]
    pref_texts = common if choice.pairs is None else problem.texts[choice.pairs.to(device)]
    reg_texts = common if problem.regulariser_texts is None else problem.regulariser_texts
    with torch.no_grad():
        ref_pref = log_policy(reference[:b], pref_texts, scale, bias)
        ref_reg = log_policy(reference[b:], reg_texts, scale, bias)
    batch = PolicyBatch(
        policy=log_policy(features[:b], part.text_features(pref_texts), scale, bias),
        reference=ref_pref,
        chosen=choice.chosen.to(device),
        rejected=choice.rejected.to(device),
        reward=_reward(stream, step, choice, ref_pref),
    )
    policy_reg = log_policy(features[b:], part.text_features(reg_texts), scale, bias)
    penalty = features.new_zeros(())
    if part.weight is not None:
        penalty = problem.orthogonality * orthogonality_penalty(part.weight)
    batch, own = _whole(batch, world) if needs_whole(problem.objective) else (batch, slice(0, b))
    return Losses(
        problem.objective(batch), problem.regulariser(policy_reg, ref_reg), penalty, batch, own
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


def _reward(stream: Stream, step: Step, choice: _Choice, like: Tensor) -> Tensor | None:
    """[B, C] as `like`: what a row says of its own texts, and 0 for all others."""
    if stream.reward is None:
        return None
    reward = torch.zeros_like(like, device="cpu")
    given = stream.reward[step.rows].unbind(1)
    for index, value in zip((choice.chosen, choice.rejected), given, strict=True):
        there = (index >= 0).nonzero().squeeze(1)
        reward[there, index[there]] = value[there]
    return reward.to(like.device)


def needs_whole(objective: Objective) -> bool:
    """Whether an objective must see the whole batch: it compares images, or keeps a state."""
    return not objective.per_image or any(True for _ in objective.buffers())


def _whole(batch: PolicyBatch, world: World) -> tuple[PolicyBatch, slice]:
    """The batch of all processes, in the step's order, and which rows are this process's."""
    if world.size == 1:
        return batch, slice(0, len(batch.chosen))
    policy, own = world.gather_with_gradient(batch.policy)
    rest = (batch.reference, batch.chosen, batch.rejected)
    reference, chosen, rejected = (world.gather_with_gradient(t)[0] for t in rest)
    reward = None if batch.reward is None else world.gather_with_gradient(batch.reward)[0]
    return PolicyBatch(policy, reference, chosen, rejected, reward), own


def measures(table: Tensor, penalty: float, weight: float) -> dict[str, float]:
    """What is logged of a step, for people who ask "the chosen reward falls, is it broken?".

    Args:
        table: the rows of all parts, as `Losses.table` gives them.
        penalty: of a head.
        weight: λ.

    Returns:
        loss and its parts; mean margin h = Δ log-ratio of chosen and rejected, in nats; the share
        of rows with h > 0 (implicit-reward accuracy); mean log-probabilities of both texts. Values
        that need a text that no row has are left out.
    """
    rows, regularised = table[table[:, 0] == 0], table[table[:, 0] == 1]
    out = {"loss": float(rows[:, 1].mean()) + penalty, "preference_loss": float(rows[:, 1].mean())}
    if len(regularised):
        out["regulariser"] = float(regularised[:, 1].mean())
        out["loss"] += weight * out["regulariser"]
    for column, name in ((2, "logp_chosen"), (3, "logp_rejected"), (4, "margin")):
        values = rows[:, column]
        if bool((there := ~values.isnan()).any()):
            out[name] = float(values[there].mean())
            if name == "margin":
                out["reward_accuracy"] = float((values[there] > 0).double().mean())
    return out
