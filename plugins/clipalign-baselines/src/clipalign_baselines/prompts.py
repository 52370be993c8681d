"""Class names within candidate texts, and a vocabulary with one more word."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from clipalign import DataError, ModelError
from clipalign.models.load import open_clip_module
from clipalign.models.loaded import LoadedModel
from clipalign.models.spec import OWN_KEY

__all__ = ["class_names", "token_embedding", "with_word"]


def class_names(template: str, texts: Sequence[str]) -> list[str]:
    """What stands at the {} of a template in each of its texts.

    Raises:
        DataError: a text is not of the template.
    """
    head, _, tail = template.partition("{}")
    for text in texts:
        if not (
            text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)
        ):
            raise DataError(
                f"The candidate text {text!r} is not {template!r} with a class name in it, so it "
                "is not known where the prefix goes. Name the template of these preferences: "
                "--set 'template=a photo of a {}.'"
            )
    return [text[len(head) : len(text) - len(tail)] for text in texts]


def token_embedding(model: LoadedModel) -> tuple[str, nn.Embedding]:
    """The name and the module of a text tower's token embedding.

    Raises:
        ModelError: the text tower has none, or its tokeniser is not open_clip's own.
    """
    simple = open_clip_module().tokenizer.SimpleTokenizer
    clip: Any = model.clip
    prefix, text = ("text.", clip.text) if hasattr(clip, "text") else ("", clip)
    embedding = getattr(text, "token_embedding", None)
    if not isinstance(embedding, nn.Embedding) or not isinstance(model.tokenizer, simple):
        raise ModelError(
            f"{model.name} cannot learn a word: that takes open_clip's own text tower and "
            f"tokeniser, and it has {type(text).__name__} and {type(model.tokenizer).__name__}."
        )
    size = model.tokenizer.vocab_size
    if embedding.num_embeddings != size:
        raise ModelError(
            f"{model.name} cannot learn a word: its text tower embeds {embedding.num_embeddings} "
            f"tokens and its tokeniser knows {size}."
        )
    return f"{prefix}token_embedding.weight", embedding


def with_word(model: LoadedModel, word: str, vector: Tensor) -> LoadedModel:
    """The model with one more word in its vocabulary, which goes before class names.

    It is an ordinary open_clip model. Texts without the word, and images, are encoded as before.
    Where the text tower looks for the end of a text by the highest token, it now looks for the
    end token itself: the same place.

    Args:
        model: it is left as it is.
        word: lower-case, one token; not in use yet.
        vector: [width] of its embedding.

    Raises:
        ModelError: the text tower takes no new word, or the model has such a word already.
    """
    key, embedding = token_embedding(model)
    if model.class_prefix:
        raise ModelError(
            f"{model.name} has a word before class names already ({model.class_prefix.strip()!r}): "
            "fit to the model that it was made from."
        )
    tokenizer: Any = model.tokenizer
    config = deepcopy(model.config)
    text_cfg = config["model_cfg"]["text_cfg"]
    own = dict(text_cfg.get("tokenizer_kwargs") or {})
    own["additional_special_tokens"] = [*(own.get("additional_special_tokens") or []), word]
    text_cfg.update(vocab_size=embedding.num_embeddings + 1, tokenizer_kwargs=own)
    if text_cfg.get("pool_type", "argmax") == "argmax":
        text_cfg.update(pool_type="eos", eos_id=int(tokenizer.eot_token_id))
    config[OWN_KEY] = {**config.get(OWN_KEY, {}), "class_prefix": f"{word} "}
    state = dict(model.clip.state_dict())
    row = vector.detach().to(state[key]).reshape(1, -1)
    state[key] = torch.cat([state[key], row])
    words = open_clip_module().SimpleTokenizer(context_length=model.context_length, **own)
    return model.rebuilt(state, config, words)
