"""From a model spec to a loaded model.

Every source comes down to the same four things: an architecture, its preprocessing, a tokeniser and
a file of weights. Only the kinds "pretrained" and "hub" ever reach for the network.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipalign.errors import ModelError
from clipalign.files import canonical_json, parse_json, read_regular
from clipalign.models.library import Announce, build_clip, open_clip_module, root_logger_kept
from clipalign.models.loaded import LoadedModel
from clipalign.models.soundness import check_size, check_sums
from clipalign.models.spec import (
    CONFIG_NAME,
    HF_CONFIG_NAME,
    OWN_KEY,
    ModelSpec,
    matching_architecture,
    parse_model_spec,
)
from clipalign.models.transformers_format import read_json, read_transformers_config
from clipalign.models.transformers_names import from_transformers, open_clip_model_cfg
from clipalign.models.weights import inspect_weights, read_weights, weights_in
from clipalign.seeding import seeded

__all__ = ["LoadedModel", "default_device", "load_model", "model_config", "open_clip_module"]

_METADATA_KEY = "open_clip_config"
_RANDOM_SEED = 0


@dataclass(frozen=True)
class _Source:
    """Where the parts of a model are.

    Attributes:
        tokenizer: a name that open_clip.get_tokenizer knows; None for CLIP's own.
        convert: renames the file's tensors, given the state that is wanted.
    """

    config: dict[str, Any]
    weights: Path | None
    tokenizer: str | None
    convert: Callable[..., dict[str, Tensor]] | None = None


def default_device(device: str | None = None) -> str:
    """The device that is named, or a GPU where there is one, or the CPU."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


@root_logger_kept()
def load_model(
    spec: str | os.PathLike[str] | ModelSpec,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    *,
    announce: Announce | None = None,
) -> LoadedModel:
    """Load a model by its spec.

        clipalign.load_model("ViT-B-32/openai")
        clipalign.load_model("random:ViT-B-32").rebuilt(module.state_dict())

    The second is how weights that are in memory become a model, as `evaluate` and `export` take it.

    Args:
        spec: see clipalign/models/spec.py.
        device: "cpu", "cuda", "cuda:1", …
        precision: fp32, bf16 or fp16: what the image tower computes in. The weights are float32.
        announce: told what takes long ("Loading open_clip…").

    Raises:
        ModelError: the spec names nothing, cannot be downloaded, or is not a sound model.
        UsageError: the device or the precision cannot be used.
    """
    parsed = spec if isinstance(spec, ModelSpec) else parse_model_spec(spec)
    open_clip_module(announce)
    if parsed.kind == "pretrained":
        matching_architecture(parsed)  # an unknown tag is refused before anything is fetched
    if parsed.kind in ("hub", "pretrained") and announce is not None:
        announce(f"Fetching {parsed}, where it is not in the cache…")
    with _hub_silent():
        source = _SOURCES[parsed.kind](parsed)
    check_size(source.config["model_cfg"], source.weights)
    with seeded(_RANDOM_SEED):
        # for the kind "random"; for the others every weight is overwritten below
        clip = build_clip(source.config)
    if source.weights is not None:
        _load_weights(clip, source, parsed)
        _check_finite(clip, source.weights)
    with _hub_silent():
        tokenizer = _tokenizer(source, parsed)
    return LoadedModel(parsed, clip, source.config, tokenizer, device=device, precision=precision)


@root_logger_kept()
def model_config(spec: str | os.PathLike[str] | ModelSpec) -> dict[str, Any]:
    """`model_cfg` and `preprocess_cfg` of a model, without loading its weights.

    Raises:
        ModelError: the spec names nothing, or cannot be downloaded.
    """
    parsed = spec if isinstance(spec, ModelSpec) else parse_model_spec(spec)
    open_clip_module()
    with _hub_silent():
        return _SOURCES[parsed.kind](parsed).config


def _from_architecture(spec: ModelSpec) -> _Source:
    open_clip = open_clip_module()
    architecture, weights, preprocess = spec.architecture, None, {}
    if spec.kind == "pretrained":
        architecture = matching_architecture(spec)
        preprocess = open_clip.get_pretrained_cfg(spec.architecture, spec.tag)
        _check_offline(open_clip, preprocess, spec)
        weights = _fetched(spec, lambda: open_clip.download_pretrained(preprocess))
    config = {"model_cfg": open_clip.get_model_config(architecture)}
    return _Source(_complete(config, preprocess), weights, architecture)


def _from_hub(spec: ModelSpec) -> _Source:
    download = open_clip_module().pretrained.download_pretrained_from_hf
    try:
        file = _fetched(spec, lambda: download(spec.name, filename=CONFIG_NAME))
    except ModelError as missing:
        return _from_hub_of_transformers(spec, missing)
    config = _read_config(file)
    return _Source(config, _fetched(spec, lambda: download(spec.name)), f"hf-hub:{spec.name}")


def _from_hub_of_transformers(spec: ModelSpec, missing: ModelError) -> _Source:
    """A model that has no configuration of open_clip's: perhaps one of transformers'.

    Raises:
        ModelError: it is none that can be read, which is said before weights are downloaded; or
            `missing`, where nothing can be had at all.
    """
    hub = importlib.import_module("huggingface_hub")
    unheard = importlib.import_module("huggingface_hub.errors").LocalEntryNotFoundError
    # where the hub has just not answered, only what is kept of it is looked at
    kept = isinstance(getattr(missing.__cause__, "__context__", None), unheard)
    try:
        config = Path(hub.hf_hub_download(spec.name, HF_CONFIG_NAME, local_files_only=kept))
    except Exception:  # no network, or no such file either
        raise missing from None
    open_clip_model_cfg(read_json(config), f"{HF_CONFIG_NAME} of {spec}")
    # a file of weights, or its parts with their index; configurations and vocabularies
    wanted = ["*.json", "merges.txt", "model*.safetensors"]
    folder = _fetched(
        spec,
        lambda: hub.snapshot_download(spec.name, allow_patterns=wanted, local_files_only=kept),
    )
    return _from_transformers(replace(spec, path=folder))


def _from_directory(spec: ModelSpec) -> _Source:
    assert spec.path is not None
    if spec.kind == "embedded" and not (spec.path / CONFIG_NAME).is_file():
        raise ModelError(
            f"The embedded model {spec} is missing from this installation. Install clipalign "
            "again, or name another model."
        )
    check_sums(spec.path)
    config = _read_config(spec.path / CONFIG_NAME)
    _check_beside(config, spec.path)
    return _Source(config, weights_in(spec.path), f"local-dir:{spec.path}")


def _from_transformers(spec: ModelSpec) -> _Source:
    assert spec.path is not None
    check_sums(spec.path)
    config = read_transformers_config(spec.path)
    return _Source(config, weights_in(spec.path, parts=True), None, from_transformers)


def _from_file(spec: ModelSpec) -> _Source:
    assert spec.path is not None
    check_sums(spec.path.parent, (spec.path.name, CONFIG_NAME))
    beside = spec.path.parent / CONFIG_NAME
    if beside.is_file():
        return _Source(_read_config(beside), spec.path, f"local-dir:{spec.path.parent}")
    recorded = inspect_weights(spec.path)[1].get(_METADATA_KEY)
    if recorded is None:
        raise ModelError(
            f"{spec} does not say which architecture it is: there is no {CONFIG_NAME} beside it "
            "and none in its metadata. Put the model's configuration beside it."
        )
    return _Source(_parse_config(recorded, str(spec)), spec.path, None)


_SOURCES: dict[str, Callable[[ModelSpec], _Source]] = {
    "embedded": _from_directory,
    "pretrained": _from_architecture,
    "random": _from_architecture,
    "hub": _from_hub,
    "directory": _from_directory,
    "transformers": _from_transformers,
    "file": _from_file,
}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return _parse_config(text, str(path))


def _parse_config(text: str, where: str) -> dict[str, Any]:
    try:
        config = parse_json(text)
        canonical_json(config)  # Python reads NaN and infinity; JSON has neither, nor has a model
    except ValueError as error:
        raise ModelError(f"{where} is not JSON: {error}") from error
    model_cfg = config.get("model_cfg") if isinstance(config, dict) else None
    needed = ("embed_dim", "vision_cfg", "text_cfg")
    missing = [key for key in needed if not isinstance(model_cfg, dict) or key not in model_cfg]
    if missing:
        raise ModelError(
            f"{where} does not describe an open_clip model: model_cfg lacks {', '.join(missing)}."
        )
    return _complete(config, config.get("preprocess_cfg") or {})


def _complete(config: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, Any]:
    """The configuration with open_clip's defaults for the preprocessing that it leaves open."""
    transform = open_clip_module().transform
    merged = transform.merge_preprocess_dict(transform.PreprocessCfg(), preprocess)
    own = {OWN_KEY: config[OWN_KEY]} if isinstance(config.get(OWN_KEY), dict) else {}
    return {"model_cfg": config["model_cfg"], "preprocess_cfg": merged, **own}


def _load_weights(clip: Any, source: _Source, spec: ModelSpec) -> None:
    """Fill the model, refusing what open_clip would stretch (position embeddings) or guess."""
    path = source.weights
    assert path is not None
    if source.convert is not None:
        _fill(clip, source.convert(read_weights(path), clip.state_dict()), path)
        return
    shapes, metadata = inspect_weights(path) if path.suffix != ".npz" else ({}, {})
    _check_activation(source, metadata)
    differing = _differences(clip.state_dict(), shapes)
    if differing and spec.kind != "pretrained":  # open_clip knows which of its tags to resize
        raise ModelError(f"{path} does not fit its architecture: {differing}")
    try:
        open_clip_module().load_checkpoint(clip, str(path), strict=True, weights_only=True)
    except Exception as error:  # conversions of other formats fail in many ways
        differing = _differences(clip.state_dict(), shapes, names=True)
        reason = differing or f"{type(error).__name__}: {str(error)[:300]}"
        raise ModelError(f"{path} does not fit its architecture: {reason}") from error


def _fill(clip: Any, state: dict[str, Tensor], path: Path) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    if differing := _differences(clip.state_dict(), shapes, names=True):
        raise ModelError(f"{path} does not fit its architecture: {differing}")
    clip.load_state_dict({n: t.reshape(clip.state_dict()[n].shape) for n, t in state.items()})


def _check_finite(clip: Any, path: Path) -> None:
    """Refuse weights that no export would take, before anybody trains from them."""
    for name, tensor in clip.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"{path}: {name} holds values that are not finite (NaN or infinity). The file is "
                "damaged, or the training that it comes from had diverged: use an earlier one."
            )


def _check_activation(source: _Source, metadata: dict[str, str]) -> None:
    recorded = metadata.get(_METADATA_KEY)
    if recorded is None:
        return
    trained = _parse_config(recorded, f"The metadata of {source.weights}")["model_cfg"]
    if bool(trained.get("quick_gelu")) != bool(source.config["model_cfg"].get("quick_gelu")):
        raise ModelError(
            f"{source.weights} was trained with quick_gelu={bool(trained.get('quick_gelu'))}, but "
            f"the {CONFIG_NAME} beside it says otherwise: every number would be wrong. Put the "
            "configuration back that belongs to these weights."
        )


def _check_beside(config: dict[str, Any], directory: Path) -> None:
    """A config.json of transformers in the same directory must name the same activation."""
    path = directory / HF_CONFIG_NAME
    try:
        found = parse_json(read_regular(path))
        theirs = open_clip_model_cfg(found, str(path))["quick_gelu"]
    except (OSError, ValueError, ModelError, AttributeError):  # none, or of another kind of model
        return
    if theirs != bool(config["model_cfg"].get("quick_gelu")):
        raise ModelError(
            f"{path} says quick_gelu={theirs}, and the {CONFIG_NAME} beside it says otherwise: "
            "with the wrong one every number is wrong. Remove the file that does not belong to the "
            "weights."
        )


def _differences(
    model: dict[str, Tensor], file: dict[str, list[int]], *, names: bool = False
) -> str:
    """The first three tensors that differ in shape, and (`names`) that one side lacks; or ""."""
    words = [
        f"{name} is {file[name]} in the file and {list(tensor.shape)} in the model"
        for name, tensor in model.items()
        # [] and [1] are two ways to write a number, such as the logit scale
        if name in file and [n for n in file[name] if n > 1] != [n for n in tensor.shape if n > 1]
    ]
    if names and file:
        words += [f"{name} is missing from the file" for name in model if name not in file]
        words += [f"{name} is in the file only" for name in file if name not in model]
    more = f" (and {len(words) - 3} more)" if len(words) > 3 else ""
    return "; ".join(words[:3]) + more


def _tokenizer(source: _Source, spec: ModelSpec) -> Callable[..., Tensor]:
    open_clip = open_clip_module()
    text_cfg = source.config["model_cfg"]["text_cfg"]
    if "trust_remote_code" in (text_cfg.get("tokenizer_kwargs") or {}):
        raise ModelError(
            f"The tokeniser of {spec} asks for code of its own to be run (trust_remote_code in "
            f"text_cfg of its {CONFIG_NAME}), which is never done."
        )
    if source.tokenizer is None:
        if text_cfg.get("hf_tokenizer_name"):
            raise ModelError(
                f"{spec} needs a Hugging Face tokeniser, whose files lie in its model's directory. "
                "Name the directory instead."
            )
        words = text_cfg.get("tokenizer_kwargs") or {}
        return open_clip.SimpleTokenizer(  # type: ignore[no-any-return]
            context_length=text_cfg.get("context_length", 77), **words
        )
    # Said outright, transformers neither runs a tokeniser's own code nor asks whether to.
    inert = {"trust_remote_code": False} if text_cfg.get("hf_tokenizer_name") else {}
    try:
        return open_clip.get_tokenizer(source.tokenizer, **inert)  # type: ignore[no-any-return]
    except ImportError as error:
        raise ModelError(
            f"The tokeniser of {spec} needs a package that is not installed: {error}. "
            "Install it with: pip install 'clipalign[transformers]'"
        ) from error
    except Exception as error:  # missing files, no network, a damaged tokeniser
        raise ModelError(
            f"The tokeniser of {spec} cannot be loaded: {error}{_offline_hint()}"
        ) from error


@contextlib.contextmanager
def _hub_silent() -> Iterator[None]:
    """The hub's client tells of every try in its own terms; what comes of them is said once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _offline_hint() -> str:
    if _offline():
        return " HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or name local files."
    return " On a machine without network, name local files: local-dir:PATH."


def _check_offline(open_clip: Any, weights: dict[str, Any], spec: ModelSpec) -> None:
    """HF_HUB_OFFLINE must hold for open_clip's downloads from other servers too."""
    if not _offline() or weights.get("hf_hub") or weights.get("file"):
        return
    cached = Path("~/.cache/clip").expanduser() / os.path.basename(weights.get("url", ""))
    if not cached.is_file():
        raise ModelError(f"{spec} is not on this machine.{_offline_hint()}")


def _fetched(spec: ModelSpec, fetch: Callable[[], str]) -> Path:
    try:
        return Path(fetch())
    except Exception as error:  # the hub's client and urllib raise many kinds
        raise ModelError(f"{spec} could not be downloaded: {error}{_offline_hint()}") from error
