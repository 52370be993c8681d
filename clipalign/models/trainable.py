"""What of a model trains.

    image-encoder   all of the image tower (the paper's method)
    last:K          its last K blocks and what follows them
    lora:R          low-rank adapters of rank R in the image tower, through peft
    head            a linear map W on both frozen embeddings (arXiv 2411.08923, §3.3)

The text tower, the logit scale and the logit bias never train.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from clipalign.errors import UsageError, near_matches

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clipalign.models.loaded import LoadedModel
    from clipalign.models.trunk import Trunk

__all__ = ["GroupRow", "Trainable", "TrainablePart", "apply_trainable", "parse_trainable"]

Kind = Literal["image-encoder", "last", "lora", "head"]
_EXAMPLES = {"image-encoder": "image-encoder", "last": "last:4", "lora": "lora:8", "head": "head"}


@dataclass(frozen=True)
class Trainable:
    """A parsed `trainable`: its kind, and the K of last:K or the R of lora:R."""

    kind: Kind
    amount: int = 0

    def __str__(self) -> str:
        """As it is written in a configuration."""
        return f"{self.kind}:{self.amount}" if self.amount else self.kind


@dataclass(frozen=True)
class GroupRow:
    """One row of the table of what trains."""

    group: str
    tensors: int
    parameters: int
    trained: bool


def parse_trainable(text: str) -> Trainable:
    """Read image-encoder, last:K, lora:R or head. Imports no torch.

    Raises:
        UsageError: it is none of these, or K or R is not a whole number above 0.
    """
    match = re.fullmatch(r"(image-encoder|head)|(last|lora):([1-9]\d{0,5})", text.strip())
    if match:
        kind: Any = match[1] or match[2]
        return Trainable(kind, int(match[3] or 0))
    name = text.split(":")[0].strip()
    if name in _EXAMPLES:
        raise UsageError(f"Cannot train {text!r}: write it like {_EXAMPLES[name]}.")
    near = near_matches(text, _EXAMPLES.values())
    raise UsageError(f"Unknown trainable part {text!r}.{near}")


class TrainablePart:
    """The part of a model that trains, and how the policy's features come from it.

    Attributes:
        model: the model; its parameters outside this part have requires_grad False.
        trainable: which part.
        rows: the table of what trains.
        weight: W [d, d] where the part is a head, else None. Features of both towers go through
            it, and `linear_map.orthogonality_penalty(weight)` keeps it near orthogonal.
        trunk: where it is set, `image_features` takes activations before the first trained block
            instead of pixels.
        zero_gradient_at_start: names whose gradient is exactly zero in the first step, by
            construction: LoRA's A, since B starts at zero.
    """

    def __init__(
        self,
        model: LoadedModel,
        trainable: Trainable,
        parameters: dict[str, nn.Parameter],
        rows: list[GroupRow],
        merge: Callable[[], LoadedModel],
    ) -> None:
        self.model, self.trainable, self.rows = model, trainable, rows
        self._parameters, self._merge = parameters, merge
        self.weight = parameters["W"] if trainable.kind == "head" else None
        self.trunk: Trunk | None = None
        self.zero_gradient_at_start = frozenset(n for n in parameters if ".lora_A." in n)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, in a fixed order: open_clip's names, or "W" for a head."""
        return dict(self._parameters)

    def refresh(self) -> None:
        """Take up the parameters again, after others have taken their places in the model."""
        found = dict(self.model.clip.named_parameters())
        self._parameters = {name: found[name] for name in self._parameters}

    @property
    def uses_cached_features(self) -> bool:
        """Whether `image_features` takes the reference's features instead of pixels."""
        return self.weight is not None

    def image_features(self, inputs: Tensor) -> Tensor:
        """The policy's image features, with gradient.

        Args:
            inputs: [B, 3, H, W] pixels as `LoadedModel.encode_image` takes them; for a head the
                reference's image features [B, d]; under `trunk` activations [B, …].

        Returns:
            [B, d] float32, unit norm.
        """
        if self.trunk is not None:
            return self.trunk.rest(inputs)
        return self.model.encode_image(inputs) if self.weight is None else self._mapped(inputs)

    def text_features(self, features: Tensor) -> Tensor:
        """The policy's text features of the reference's: the same, except under a head.

        Args:
            features: [C, d] as `LoadedModel.encode_text` gives them.

        Returns:
            [C, d] unit norm, with gradient under a head.
        """
        return features if self.weight is None else self._mapped(features)

    def merge(self) -> LoadedModel:
        """The trained model as an ordinary open_clip model.

        The model itself for image-encoder and last:K. For lora and head a new one, in whose weights
        the adapters or W are multiplied; training can go on with this part untouched.

        Raises:
            ModelError: W cannot be folded into this architecture.
        """
        return self._merge()

    def _mapped(self, features: Tensor) -> Tensor:
        import torch.nn.functional as F

        assert self.weight is not None
        return F.normalize(features @ self.weight.T, dim=-1)


def apply_trainable(
    model: LoadedModel, trainable: str | Trainable, *, seed: int = 0
) -> TrainablePart:
    """Freeze a model except for the part that trains.

    Args:
        model: changed in place: requires_grad, and adapters are put in for LoRA.
        trainable: image-encoder, last:K, lora:R or head.
        seed: of LoRA's random start.

    Raises:
        UsageError: the tower has fewer than K blocks or none that are known, peft is not installed,
            or the part is unknown.
    """
    import torch

    from clipalign.models.towers import group_of

    wanted = parse_trainable(trainable) if isinstance(trainable, str) else trainable
    _ = model.sha256  # names the weights as loaded: they are about to change
    groups = group_of(model.clip)
    trained = _trained_names(model, wanted, groups)  # every refusal is before the first change
    if wanted.kind == "lora":
        from clipalign.models.lora import add_adapters

        adapters = add_adapters(model, wanted.amount, seed)
    for name, parameter in model.clip.named_parameters():
        parameter.requires_grad_(name in trained or ".lora_" in name)
    parameters = {n: p for n, p in model.clip.named_parameters() if p.requires_grad}
    rows = _rows(model, groups)
    merge = _unchanged(model)
    if wanted.kind == "lora":
        merge = _with_adapters(model, adapters)
    elif wanted.kind == "head":
        weight = torch.nn.Parameter(torch.eye(model.embed_dim, device=model.device))
        parameters = {"W": weight}
        rows.append(GroupRow("linear map W", 1, weight.numel(), trained=True))
        merge = _with_map(model, weight)
    return TrainablePart(model, wanted, parameters, rows, merge)


def _unchanged(model: LoadedModel) -> Callable[[], LoadedModel]:
    return lambda: model


def _with_adapters(model: LoadedModel, adapters: Any) -> Callable[[], LoadedModel]:
    from clipalign.models.lora import merged_state

    return lambda: model.rebuilt(merged_state(model, adapters))


def _with_map(model: LoadedModel, weight: Tensor) -> Callable[[], LoadedModel]:
    from clipalign.models.linear_map import LinearMap

    return lambda: LinearMap(weight.detach().clone()).fold(model)


def _trained_names(
    model: LoadedModel, trainable: Trainable, groups: dict[str, tuple[str, int]]
) -> set[str]:
    """The model's own parameters that train, by name."""
    visual = {name for name in groups if name.startswith("visual.")} - model.fixed
    if trainable.kind == "image-encoder":
        return visual
    if trainable.kind != "last":
        return set()
    count = max(number for _, number in groups.values())
    if not count:
        raise UsageError(
            f"The blocks of {model.name}'s image tower are not known, so {trainable} cannot train. "
            "Train image-encoder, lora:R or head."
        )
    if trainable.amount > count:
        raise UsageError(
            f"{trainable} asks for more blocks than {model.name} has: its image tower has {count}."
            " Train image-encoder for the whole of it."
        )
    after = count - trainable.amount
    return {name for name in visual if groups[name][1] > after or groups[name][0] == "image head"}


def _rows(model: LoadedModel, groups: dict[str, tuple[str, int]]) -> list[GroupRow]:
    """Tensors and parameters by group and by whether they train, in the model's order."""
    order = ("image stem", "image blocks", "image head", "image tower", "adapters", "text tower")
    found: dict[tuple[str, bool], list[tuple[int, int]]] = {}
    for name, parameter in model.clip.named_parameters():
        plain = name.replace(".base_layer", "")
        group, number = groups.get(plain, ("adapters", 0))
        found.setdefault((group, parameter.requires_grad), []).append((number, parameter.numel()))
    rows = []
    rank = {group: place for place, group in enumerate(order)}
    for (group, trained), sizes in sorted(
        found.items(), key=lambda item: (rank.get(item[0][0], len(rank)), item[0][1])
    ):
        numbers = [number for number, _ in sizes if number]
        if numbers:
            first, last = min(numbers), max(numbers)
            group = f"image block {last}" if first == last else f"image blocks {first}–{last}"
        rows.append(GroupRow(group, len(sizes), sum(size for _, size in sizes), trained))
    return rows
