"""Transform `defense-prefix`: one learned token before the class name, encoders frozen.

Azuma and Matsui 2023, "Defense-Prefix for Preventing Typographic Attacks on CLIP" (arXiv
2304.04512). With T' the text features of prompts that have the token before the class name,

    loss = CE(attacked image over T', true class) + λ KL(π(·|clean image) over T ‖ over T'),

λ = 3, by SGD. The token joins the vocabulary, so the result is an ordinary open_clip model, and
its configuration says that the token goes before class names, which clipalign's suites do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clipalign import DataError, TrainingError, UsageError
from clipalign.datasets.locate import load_dataset
from clipalign.models.loaded import LoadedModel
from clipalign.policy import log_policy
from clipalign.transforms.base import FittedTransform, Transform, TransformOptions
from clipalign.transforms.context import FitContext
from clipalign_baselines.attacked import Attacked
from clipalign_baselines.prompts import class_names, token_embedding, with_word

__all__ = ["DefensePrefix", "Prefix", "prefix_loss"]

WORD = "<prefix>"
_TEXTS_AT_ONCE = 128
_STD = 0.02  # of a random start, that of CLIP's own token embedding


@dataclass(frozen=True, eq=False)
class Prefix(FittedTransform):
    """A learned token.

    Attributes:
        vector: its embedding, [width] float32.
        template: of the prompts that it was learned in.
        steps: taken.
        losses: mean of the first and of the last epoch; empty where nothing was learned.
        model_sha256: the model that it was fitted to.
    """

    name: ClassVar[str] = "defense-prefix"
    what: ClassVar[str] = "prefix"

    vector: Tensor
    template: str
    steps: int
    losses: tuple[float, ...]
    model_sha256: str

    def apply(self, model: LoadedModel) -> LoadedModel:
        """The model with the token in its vocabulary and before its class names.

        Raises:
            ModelError: it is another model, or its text tower takes no new token.
        """
        self.check(model)
        return with_word(model, WORD, self.vector)

    @property
    def label(self) -> str:
        """The word prefix."""
        return "prefix"

    def statement(self) -> str:
        """How the loss went, and how the token is used with open_clip alone."""
        went = f", loss {self.losses[0]:.4f} → {self.losses[-1]:.4f}" if self.losses else ""
        prompt = self.template.format(f"{WORD} dog")
        return (
            f"Learned in {self.steps} steps{went}. clipalign's suites put the token before class "
            f"names by themselves; with open_clip alone, write it: {prompt!r}."
        )

    def describe(self) -> dict[str, Any]:
        """Word, template, steps, losses and the model."""
        return {
            "word": WORD,
            "template": self.template,
            "steps": self.steps,
            "losses": list(self.losses),
            "model_sha256": self.model_sha256,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The embedding of the token, [width]."""
        return {"vector": self.vector}

    @classmethod
    def rebuild(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The transform that was described."""
        d = description
        losses = tuple(float(loss) for loss in d["losses"])
        return cls(
            tensors["vector"], d["template"], int(d["steps"]), losses, str(d["model_sha256"])
        )


class DefensePrefix:
    """Defense-Prefix: learns one token that goes before class names; both encoders stay."""

    frozen: ClassVar[type[Transform]] = Prefix

    class Options(TransformOptions):
        """Options of the transform."""

        epochs: int = Field(
            10, ge=0, le=10_000, description="Passes over the attacked train images."
        )
        lr: float = Field(0.002, gt=0, description="Learning rate of SGD.")
        momentum: float = Field(0.0, ge=0, lt=1, description="Of SGD.")
        batch_size: int = Field(
            32, ge=1, description="Attacked images a step, each with its clean."
        )
        kl: float = Field(3.0, ge=0, description="λ, weight of the KL on clean images.")
        init: str | None = Field(
            None, description="Word, of one token, to start from; null for a random start."
        )
        template: str | None = Field(
            None,
            pattern=r"^[^{}]*\{\}[^{}]*$",
            description="Prompt with {} that the preferences were made with; null for what their "
            "task and dataset say.",
        )
        seed: int = Field(0, ge=0, lt=2**32, description="Of the data, the order and the start.")

    options: Options

    def __init__(self, **options: Any) -> None:
        self.options = self.Options(**options)

    def fit(self, context: FitContext) -> Prefix:
        """The token, learned on the attacked images of the train split.

        Raises:
            UsageError: the word to start from is not one token.
            DataError: the preferences are not of attacked images and class prompts.
            ModelError: the text tower takes no new token.
            TrainingError: the loss is not finite.
        """
        options, model = self.options, context.trained
        token_embedding(model)
        attacked = Attacked.of(context, "train", seed=options.seed, paired=True)
        template = options.template or _template(attacked)
        names = class_names(template, attacked.candidates)
        generator = torch.Generator().manual_seed(options.seed)
        start = _start(model, options.init, generator)
        student = with_word(model, WORD, start)
        student.clip.requires_grad_(False)
        tokens = student.tokenize([template.format(f"{student.class_prefix}{n}") for n in names])
        vector = start.clone().requires_grad_()
        features = attacked.features(model, context.reporter)
        with torch.no_grad():
            scale = model.logit_scale
            texts = model.encode_text(attacked.candidates)
            clean_policy = log_policy(features.to(model.device), texts, scale)
        losses = []
        optimizer = torch.optim.SGD([vector], lr=options.lr, momentum=options.momentum)
        stream, rows = attacked.stream, len(attacked.stream)
        size = options.batch_size
        with context.reporter.progress("Learning the prefix", options.epochs) as bar:
            for _ in range(options.epochs):
                total = 0.0
                for batch in torch.randperm(rows, generator=generator).split(size):
                    prefixed = encode_with(student, tokens, vector)
                    image, clean = stream.image[batch], stream.clean[batch]
                    loss = prefix_loss(
                        log_policy(features[image].to(model.device), prefixed, scale),
                        stream.chosen[batch].to(model.device),
                        log_policy(features[clean].to(model.device), prefixed, scale),
                        clean_policy[clean.to(model.device)],
                        options.kl,
                    )
                    if not loss.isfinite():
                        raise TrainingError(
                            "The loss of the prefix is not finite. Use a smaller lr."
                        )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += loss.item() * len(batch)
                losses.append(total / rows)
                bar.advance(1, loss=losses[-1])
        ends = (losses[0], losses[-1]) if losses else ()
        steps = options.epochs * -(-rows // size)
        return Prefix(vector.detach().cpu(), template, steps, ends, model.sha256)


def prefix_loss(
    attacked: Tensor, true: Tensor, clean: Tensor, reference: Tensor, kl: float
) -> Tensor:
    """CE of attacked images + λ KL(reference ‖ prefixed) of clean ones, means over the batch.

    Args:
        attacked: [B, C] log-probabilities of attacked images over the prefixed prompts.
        true: [B] index of the true class.
        clean: [B, C] log-probabilities of clean images over the prefixed prompts.
        reference: [B, C] log-probabilities of clean images over the plain prompts.
        kl: λ.

    Returns:
        A scalar, with gradient.
    """
    divergence = F.kl_div(clean, reference, reduction="batchmean", log_target=True)
    return F.nll_loss(attacked, true) + kl * divergence


def encode_with(student: LoadedModel, tokens: Tensor, vector: Tensor) -> Tensor:
    """T of prompts whose last vocabulary token has another embedding, with gradient to it.

    Args:
        student: a model with the word in its vocabulary.
        tokens: [C, L] of the prompts.
        vector: [width].

    Returns:
        [C, d] unit norm.
    """
    _, embedding = token_embedding(student)
    number = embedding.num_embeddings - 1

    def encode(part: Tensor, own: Tensor) -> Tensor:
        def put(_: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return torch.where((inputs[0] == number).unsqueeze(-1), own, output)

        handle = embedding.register_forward_hook(put)
        try:
            features: Tensor = student.clip.encode_text(part)
        finally:
            handle.remove()
        return F.normalize(features.float(), dim=-1)

    parts = tokens.to(student.device).split(_TEXTS_AT_ONCE)
    if len(parts) == 1:
        return encode(parts[0], vector)
    # what lies between is computed again on the way back: thousands of classes fit into memory
    return torch.cat([checkpoint(encode, part, vector, use_reentrant=False) for part in parts])


def _start(model: LoadedModel, word: str | None, generator: torch.Generator) -> Tensor:
    """[width]: the embedding of a word, or random."""
    _, embedding = token_embedding(model)
    if word is None:
        return (_STD * torch.randn(embedding.embedding_dim, generator=generator)).to(model.device)
    tokenizer: Any = model.tokenizer
    tokens = tokenizer.encode(word)
    if len(tokens) != 1:
        raise UsageError(
            f"init {word!r} is {len(tokens)} tokens to {model.name}, and the prefix is one. Name a "
            "common word, such as real."
        )
    return embedding.weight[tokens[0]].detach().clone()


def _template(attacked: Attacked) -> str:
    """The template that a set's candidates were made with."""
    made = attacked.preferences.manifest
    named = made.options.get("template")
    if isinstance(named, str):
        return named
    templates = load_dataset(made.dataset, made.dataset_options).templates
    if not templates:
        raise DataError(f"The dataset {made.dataset!r} has no templates: --set 'template=…{{}}…'")
    return templates[0]
