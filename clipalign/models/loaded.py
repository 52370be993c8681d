"""A loaded model: one open_clip model with its tokeniser and preprocessing, in evaluation mode.

BatchNorm statistics are never updated and dropout never drops, training included, so that the
policy equals the reference exactly where it starts.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipalign.errors import ModelError, UsageError, from_machine, near_matches
from clipalign.models.devices import refused_device
from clipalign.models.library import build_clip
from clipalign.models.preprocess import Preprocess
from clipalign.models.spec import OWN_KEY, ModelSpec

__all__ = ["LoadedModel", "usable_device"]

_SHOWN = 100  # characters of a text that is too long
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def usable_device(device: str | torch.device) -> torch.device:
    """The device of a name, when it can hold a tensor.

    Raises:
        UsageError: there is no such device here.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UsageError(refused_device(device, error)) from error
    return found


class LoadedModel:
    """An open_clip model and all that is needed to use it.

    Weights are float32 whatever the precision; "bf16" and "fp16" run the image tower under
    autocast. The text tower runs in float32 always: its features are computed once.

    Attributes:
        spec: what it was loaded from; `name` is its short form.
        clip: open_clip's CLIP, CustomTextCLIP or CoCa.
        config: `model_cfg` and `preprocess_cfg` as open_clip_config.json holds them, and
            `clipalign` where the model says something about itself.
        tokenizer: open_clip's tokeniser, which cuts long texts; see `tokenize`.
        preprocess: the evaluation transform, PIL image → float32 [3, H, W].
        embed_dim: d, the size of the features.
        context_length: the most tokens a text may have.
        fixed: names of the parameters that are constants by construction (sin-cos positions).

    Raises:
        ModelError: the text tower fits neither the tokeniser nor the image tower, or a tower cannot
            encode what it is for.
        UsageError: the device or the precision cannot be used.
    """

    def __init__(
        self,
        spec: ModelSpec,
        clip: Any,
        config: Mapping[str, Any],
        tokenizer: Callable[..., Tensor],
        *,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
    ) -> None:
        if precision not in _AUTOCAST:
            raise UsageError(
                f"Unknown precision {precision!r}.{near_matches(precision, _AUTOCAST)}"
            )
        self.spec, self.name, self.precision = spec, spec.name, precision
        self.device = usable_device(device)
        self.clip = clip.to(device=self.device, dtype=torch.float32).eval()
        # only image towers are trained. Of weights that require a gradient torch computes texts to
        # other last bits, even where it keeps none: `eval` and `train` would not share a cache
        for name, parameter in self.clip.named_parameters():
            if not name.startswith("visual."):
                parameter.requires_grad_(False)
        self.set_memory_format(_memory_format(self.clip.visual))
        self.config = {key: dict(value) for key, value in config.items()}
        self.config["preprocess_cfg"] = dict(clip.visual.preprocess_cfg)
        self.tokenizer = tokenizer
        self.preprocess = Preprocess(self.config["preprocess_cfg"])
        self.embed_dim = int(config["model_cfg"]["embed_dim"])
        # A Hugging Face text tower has room for more than the texts that the model was trained on.
        own = getattr(tokenizer, "context_length", None) or clip.context_length
        self.context_length = min(int(own), int(clip.context_length))
        self.fixed = frozenset(n for n, p in clip.named_parameters() if not p.requires_grad)
        self._check_towers()

    def __repr__(self) -> str:
        """What it was loaded from, its size, and where it computes."""
        millions = sum(p.numel() for p in self.clip.parameters()) / 1e6
        return (
            f"<LoadedModel {self.spec}: {millions:.1f} million parameters, {self.precision} on "
            f"{self.device}>"
        )

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Lay the image tower's convolutions, and the pixels that go in, out in another order."""
        self._memory_format = memory_format
        self.clip.visual.to(memory_format=memory_format)

    @property
    def logit_scale(self) -> Tensor:
        """τ itself, not its logarithm. [ ]"""
        log_scale: Tensor = self.clip.logit_scale
        return log_scale.detach().float().exp().reshape(())

    @property
    def logit_bias(self) -> Tensor | None:
        """SigLIP's constant, added to every logit, or None. [ ]"""
        bias = getattr(self.clip, "logit_bias", None)
        return None if bias is None else bias.detach().float().reshape(())

    @property
    def class_prefix(self) -> str:
        """What goes before a class name in this model's prompts; empty for most models.

        It is `clipalign.class_prefix` of the model's configuration: the word of a learned token.
        """
        return str(self.config.get(OWN_KEY, {}).get("class_prefix", ""))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image tower's input, in pixels."""
        size = self.config["preprocess_cfg"]["size"]
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the RGB channels that the pixels are normalised with, on the scale 0 to 1."""
        return tuple(self.preprocess.mean.flatten().tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the RGB channels, on the scale 0 to 1."""
        return tuple(self.preprocess.std.flatten().tolist())

    @cached_property
    def sha256(self) -> str:
        """Hash of all weights by name, shape, type and bytes, whatever their order in a file.

        Computed when first asked for and then kept: it names the weights as loaded, so ask before
        they change (`apply_trainable` does), or ask `as_it_is`.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.clip.state_dict().items()):
            digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()

    def as_it_is(self) -> LoadedModel:
        """The same model under the hash of its present weights, whoever may have changed them."""
        model = copy(self)
        model.__dict__.pop("sha256", None)
        return model

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """Token ids of texts, on the CPU.

        Args:
            texts: C texts.
            truncate: cut texts that are too long instead of refusing them.

        Returns:
            [C, context_length] int64.

        Raises:
            ModelError: a text has more tokens than the text tower takes.
        """
        texts = list(texts)
        if not truncate:
            self._check_lengths(texts)
        tokens: Tensor = self.tokenizer(texts, context_length=self.context_length)
        return tokens.to(torch.int64)

    @torch.no_grad()
    def encode_text(
        self, texts: Sequence[str], batch: int = 256, *, truncate: bool = False
    ) -> Tensor:
        """T(y) of texts, computed in float32.

        Args:
            texts: C texts.
            batch: how many go through the text tower at once.
            truncate: see `tokenize`.

        Returns:
            [C, d] float32, unit norm, on the model's device, without gradient.

        Raises:
            ModelError: a text is too long, or the text tower does not fit its tokeniser.
        """
        if not texts:
            return torch.zeros(0, self.embed_dim, device=self.device)
        tokens = self.tokenize(texts, truncate=truncate)
        vocabulary = getattr(self.clip, "vocab_size", None)
        if vocabulary and int(tokens.max()) >= vocabulary:
            raise ModelError(
                f"The tokeniser of {self.name} gives token {int(tokens.max())}, but its text tower "
                f"embeds {vocabulary}. They do not belong together: check text_cfg (vocab_size, "
                "hf_tokenizer_name) in its open_clip_config.json."
            )
        with self._sound("text", "its tokeniser's texts"):
            rows = [self.clip.encode_text(part.to(self.device)) for part in tokens.split(batch)]
            features = torch.cat(rows).float()
        return self._unit(features, "text")

    def encode_image(self, pixels: Tensor) -> Tensor:
        """I(x) of images. Gradient flows where it is enabled.

        Args:
            pixels: [B, 3, H, W] on the model's device: normalised floats, or uint8 as
                `preprocess.resize_to_uint8` gives them.

        Returns:
            [B, d] float32, unit norm.

        Raises:
            ModelError: the image tower's output has another size than the text tower's.
        """
        return self.unit_image(self.run_image_tower(self.clip.encode_image, pixels))

    def run_image_tower(self, part: Callable[[Tensor], Any], inputs: Tensor) -> Any:
        """Run (a part of) the image tower in the model's precision.

        Args:
            part: the tower, or a part of it.
            inputs: [B, …] on the model's device: pixels as `encode_image` takes them, or what the
                part before gave. B may be 0, though open_clip's towers take no empty batch: a
                process may have no row of a batch of which all must take part.
        """
        if not len(inputs):
            return self.run_image_tower(part, inputs.new_zeros(1, *inputs.shape[1:]))[:0]
        if inputs.dtype == torch.uint8:
            inputs = self.preprocess.normalise(inputs)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._memory_format)
        dtype = _AUTOCAST[self.precision]
        autocast = torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()
        with autocast:
            return part(inputs)

    def unit_image(self, features: Any) -> Tensor:
        """What the image tower gave, as [B, d] float32 of unit norm.

        Raises:
            ModelError: it has another size than the text tower's.
        """
        return self._unit(features, "image")

    def rebuilt(
        self,
        state: Mapping[str, Tensor],
        config: Mapping[str, Any] | None = None,
        tokenizer: Callable[..., Tensor] | None = None,
    ) -> LoadedModel:
        """A new model with other weights, built from its configuration as open_clip builds it.

        Args:
            state: every weight, by the names of `clip.state_dict()`.
            config: `model_cfg` and `preprocess_cfg` where they changed.
            tokenizer: another than this model's, where the vocabulary changed.

        Raises:
            ModelError: the weights do not fit the architecture.
        """
        config = config or self.config
        with torch.random.fork_rng(devices=[]):  # the random weights that are overwritten
            clip = build_clip(config)
        try:
            clip.load_state_dict(state)
        except RuntimeError as error:
            raise ModelError(f"These weights do not fit {self.name}: {error}") from error
        return LoadedModel(
            self.spec,
            clip,
            config,
            tokenizer or self.tokenizer,
            device=self.device,
            precision=self.precision,
        )

    def _unit(self, features: Any, tower: str) -> Tensor:
        if not isinstance(features, Tensor) or features.shape[1:] != (self.embed_dim,):
            shape = list(features.shape) if isinstance(features, Tensor) else "several outputs"
            raise ModelError(
                f"The {tower} tower of {self.name} gives {shape} where one row of {self.embed_dim} "
                "features an input is needed. Check embed_dim, the pooling and output_tokens in "
                "its open_clip_config.json."
            )
        return F.normalize(features.float(), dim=-1)

    def _check_towers(self) -> None:
        """Let towers that do not fit fail now, before data is read."""
        known = getattr(self.tokenizer, "vocab_size", None)
        embedded = getattr(self.clip, "vocab_size", None)
        if known and embedded and known > embedded:
            raise ModelError(
                f"The tokeniser of {self.name} knows {known} tokens, but its text tower embeds "
                f"{embedded}. Check text_cfg (vocab_size, hf_tokenizer_name) in its "
                "open_clip_config.json."
            )
        self.encode_text(["a"])
        pixels = torch.zeros(1, 3, *self.image_size, device=self.device)
        with torch.no_grad(), self._sound("image", f"an image of {list(pixels.shape[2:])} pixels"):
            self.encode_image(pixels)

    @contextlib.contextmanager
    def _sound(self, tower: str, what: str) -> Iterator[None]:
        """Say in words that a tower fails at what it is for, whatever its layers raise."""
        try:
            yield
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if from_machine(error) or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ModelError(
                f"The {tower} tower of {self.name} cannot encode {what}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _check_lengths(self, texts: Sequence[str]) -> None:
        counts = [(self._token_count(text), text) for text in texts]
        long = [(count, text) for count, text in counts if count > self.context_length]
        if long:
            most, text = max(long, key=lambda found: found[0])
            half = _SHOWN // 2
            shown = text if len(text) <= _SHOWN else f"{text[:half]}…{text[-half:]}"
            raise ModelError(
                f"{self.name} takes {self.context_length} tokens, and {len(long):,} of "
                f"{len(texts):,} texts have more. Shorten them; the longest has {most:,}: "
                f"{shown!r}."
            )

    def _token_count(self, text: str) -> int:
        """How many tokens a text has with the marks around it, uncut."""
        tokenizer: Any = self.tokenizer
        if hasattr(tokenizer, "encode"):  # open_clip's own: one mark at either end
            return len(tokenizer.encode(text)) + 2
        clean = getattr(tokenizer, "clean_fn", str)  # Hugging Face: the marks are counted in,
        count = len(tokenizer.tokenizer(clean(text)).input_ids)
        # except the class token that the mode "clips" appends.
        return count + (getattr(tokenizer, "tokenizer_mode", "") == "clips")


def _memory_format(visual: torch.nn.Module) -> torch.memory_format:
    """Channels last for a tower of convolutions, which ran 1.15 to 1.4 times as fast in it.

    A transformer has one convolution, whose stride is its kernel: nothing to gain.
    """
    convolutions = [m for m in visual.modules() if isinstance(m, torch.nn.Conv2d)]
    overlapping = any(m.kernel_size != m.stride and max(m.kernel_size) > 1 for m in convolutions)
    return torch.channels_last if overlapping else torch.contiguous_format
