"""Transform `head-ablation`: zero the attention heads that read text. Nothing is trained.

In the manner of Dyslexify (Hufe et al. 2025). Heads are ranked by what they do, to first order, to
the margin of the written word over the true class, on attacked images less on their clean
partners; they are taken out from the top as long as clean validation accuracy holds, and as many
are as gives the highest attacked accuracy.

The ablation is in the weights, so that the result is an ordinary model: the head's contribution is
zeroed for every token. In an attention pool, and in the last block of a ViT that is pooled at CLS,
only CLS is read, so that is the contribution to CLS and nothing else. In earlier blocks the other
tokens lose the head too, which Dyslexify spares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from pydantic import Field
from torch import Tensor

from clipalign import UsageError
from clipalign.models.loaded import LoadedModel
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign_baselines.attacked import Attacked
from clipalign_baselines.heads import (
    AttentionLayer,
    attention_layers,
    encoder,
    head_scores,
    without_heads,
)

__all__ = ["AblatedHeads", "Head", "HeadAblation", "Trial"]

_BATCH = 256


@dataclass(frozen=True)
class Head:
    """An attention head.

    Attributes:
        layer: name of its layer within the image tower.
        number: from 0.
        score: what it adds to the margin of the written word, attacked less clean, in logits.
    """

    layer: str
    number: int
    score: float


@dataclass(frozen=True)
class Trial:
    """What validation said of the first n heads taken out.

    Attributes:
        heads: n.
        attacked: accuracy on attacked images.
        clean: accuracy on their clean partners.
    """

    heads: int
    attacked: float
    clean: float


@dataclass(frozen=True, eq=False)
class AblatedHeads(FittedTransform):
    """Heads whose contribution is zero.

    Attributes:
        heads: those, the strongest reader first.
        looked_at: how many heads were candidates.
        only_pooled: whether all of them give the pooled token alone.
        trials: what was tried; empty where the number of heads was given.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "head-ablation"
    what: ClassVar[str] = "ablation"

    heads: tuple[Head, ...]
    looked_at: int
    only_pooled: bool
    trials: tuple[Trial, ...]
    model_sha256: str

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model without these heads.

        Raises:
            ModelError: it is another model.
        """
        self.check(model)
        return without_heads(model, self._by_layer())

    @property
    def label(self) -> str:
        """How many heads are gone."""
        return f"without-{len(self.heads)}-heads"

    def statement(self) -> str:
        """Which heads were ablated, for which tokens, and what validation said."""
        where = "; ".join(
            f"{layer} {', '.join(map(str, sorted(numbers)))}"
            for layer, numbers in self._by_layer().items()
        )
        tokens = (
            "the pooled token, which is all the layer gives" if self.only_pooled else "all tokens"
        )
        said = f"Ablated {len(self.heads)} of {self.looked_at} heads"
        said += f" ({where}), for {tokens}." if where else ": none."
        if self.trials:
            before, after = self.trials[0], self.trials[len(self.heads)]
            said += (
                f" Validation: attacked {before.attacked:.3f} → {after.attacked:.3f}, clean "
                f"{before.clean:.3f} → {after.clean:.3f}."
            )
        return said

    def describe(self) -> dict[str, Any]:
        """The heads with their scores, what was tried, and the model."""
        return {
            "heads": [asdict(head) for head in self.heads],
            "looked_at": self.looked_at,
            "only_pooled": self.only_pooled,
            "trials": [asdict(trial) for trial in self.trials],
            "model_sha256": self.model_sha256,
        }

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        d = description
        return cls(
            tuple(Head(**head) for head in d["heads"]),
            int(d["looked_at"]),
            bool(d["only_pooled"]),
            tuple(Trial(**trial) for trial in d["trials"]),
            str(d["model_sha256"]),
        )

    def _by_layer(self) -> dict[str, list[int]]:
        return by_layer(self.heads)


class HeadAblation:
    """Zeroes the attention heads that read what is written on images, without training."""

    frozen: ClassVar[type[Transform]] = AblatedHeads

    class Options(TransformOptions):
        """Options of the transform."""

        count: int | None = Field(
            None, ge=0, description="Heads to ablate; null for as many as validation says."
        )
        epsilon: float = Field(
            0.01, ge=0, le=1, description="Largest drop of clean accuracy on validation."
        )
        last: int | None = Field(
            None, ge=1, description="Attention layers to look at, from the last; null for half."
        )
        max_heads: int = Field(64, ge=1, description="Most heads that are tried.")
        images: int | None = Field(
            2000, ge=1, description="Attacked images of each split to look at; null for all."
        )
        seed: int = Field(0, ge=0, lt=2**32, description="Of the data and the drawing of images.")

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> AblatedHeads:
        """The heads, ranked on the train split; their number from the validation split.

        Raises:
            UsageError: more layers or heads are asked for than there are.
            DataError: the preferences are not of attacked images with clean partners.
            ModelError: the image tower has no heads.
        """
        options, model = self.options, context.trained
        layers = attention_layers(model)
        last = options.last or -(-len(layers) // 2)
        if last > len(layers):
            raise UsageError(f"last = {last}, and {model.name} has {len(layers)} attention layers.")
        layers = layers[-last:]
        total = sum(layer.heads for layer in layers)
        if options.count is not None and options.count > total:
            raise UsageError(
                f"count = {options.count}, and the layers looked at have {total} heads. Look at "
                "more with last."
            )
        ranked = self._ranked(context, model, layers) if options.count != 0 else []
        trials: list[Trial] = []
        if options.count is None:
            readers = [head for head in ranked if head.score > 0][: options.max_heads]
            trials = list(self._tried(context, model, readers))
            count = max(trials, key=lambda trial: (trial.attacked, -trial.heads)).heads
        else:
            count = options.count
        pooled = all(layer.only_pooled for layer in layers)
        heads = tuple(ranked[:count])
        return AblatedHeads(heads, total, pooled, tuple(trials), model.sha256)

    def _ranked(
        self, context: FitContext, model: LoadedModel, layers: Sequence[AttentionLayer]
    ) -> list[Head]:
        """All heads, the strongest reader first."""
        attacked = self._attacked(context, "train")
        pixels, stream = attacked.pixels(model, context.reporter), attacked.stream
        texts = model.encode_text(attacked.candidates)
        written, true = texts[stream.rejected], texts[stream.chosen]
        context.reporter.note(f"Attributing what {len(stream)} attacked images are taken for…")
        on_attacked = head_scores(model, layers, pixels[stream.image], written, true)
        on_clean = head_scores(model, layers, pixels[stream.clean], written, true)
        heads = [
            Head(layer.name, number, float(score))
            for layer, a, c in zip(layers, on_attacked, on_clean, strict=True)
            for number, score in enumerate(a - c)
        ]
        return sorted(heads, key=lambda head: -head.score)

    def _tried(
        self, context: FitContext, model: LoadedModel, readers: Sequence[Head]
    ) -> Iterator[Trial]:
        """Accuracies with 0, 1, 2 … readers taken out, until clean accuracy drops too far."""
        attacked = self._attacked(context, "validation")
        pixels, stream = attacked.pixels(model, context.reporter), attacked.stream
        texts = model.encode_text(attacked.candidates).cpu()
        least = 0.0
        encode = encoder(model, pixels, _BATCH)
        with context.reporter.progress("Taking heads out", len(readers)) as bar:
            for n in range(len(readers) + 1):
                without = without_heads(model, by_layer(readers[:n]))
                guess = (encode(without) @ texts.T).argmax(dim=1)
                shares = [
                    float((guess[images] == stream.chosen).double().mean())
                    for images in (stream.image, stream.clean)
                ]
                trial = Trial(n, *shares)
                least = least if n else trial.clean - self.options.epsilon
                if trial.clean < least - 1e-12:
                    return
                bar.advance(int(n > 0), attacked=trial.attacked, clean=trial.clean)
                yield trial

    def _attacked(self, context: FitContext, split: str) -> Attacked:
        options = self.options
        return Attacked.of(context, split, seed=options.seed, paired=True, limit=options.images)


def by_layer(heads: Sequence[Head]) -> dict[str, list[int]]:
    """Name of the layer → numbers of its heads."""
    found: dict[str, list[int]] = {}
    for head in heads:
        found.setdefault(head.layer, []).append(head.number)
    return found
