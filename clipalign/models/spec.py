"""Model specs: the strings that name a model.

    emoji-tiny                 the embedded model
    ViT-B-16/laion2b_s34b_b88k an open_clip architecture and the tag of its weights (downloaded)
    hf-hub:org/name            a model on the Hugging Face hub (downloaded)
    local-dir:PATH             a directory as open_clip writes it, the prefix being optional
    hf-dir:PATH                a directory of transformers' CLIPModel, the prefix being optional
    runs/dpo                   a run: the model in its model/
    PATH/model.safetensors     a checkpoint, its open_clip_config.json beside it or in its metadata
    PATH/model.pt              the same as a pickle, if it holds weights and nothing else
    random:ViT-B-32            an architecture with random weights, for tests and benchmarks

What exists on the disk is taken before what open_clip knows. A directory with both an
open_clip_config.json and a config.json of transformers is open_clip's, unless hf-dir: says
otherwise; their activations must agree. Pickles are opened by `torch.load(weights_only=True)`,
which runs no code, or not at all (see clipalign/models/weights.py). This module imports neither
torch nor open_clip, except to list the tags in an error message.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from clipalign.errors import ModelError, near_matches
from clipalign.models.library import open_clip_module

__all__ = [
    "CONFIG_NAME",
    "EMBEDDED",
    "HF_CONFIG_NAME",
    "OWN_KEY",
    "PICKLES",
    "WEIGHTS_NAME",
    "ModelSpec",
    "check_archive",
    "is_run",
    "matching_architecture",
    "parse_model_spec",
    "run_around",
    "runs_within",
]

EMBEDDED = "emoji-tiny"
CONFIG_NAME = "open_clip_config.json"
HF_CONFIG_NAME = "config.json"  # transformers' own
WEIGHTS_NAME = "open_clip_model.safetensors"
OWN_KEY = "clipalign"
"""In a model's configuration, what is clipalign's own and open_clip passes over."""

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
_KINDS = (
    f"A model spec is {EMBEDDED}, an open_clip ARCHITECTURE/TAG, hf-hub:org/name, local-dir:PATH, "
    "hf-dir:PATH, a run directory or a .safetensors file."
)


@dataclass(frozen=True)
class ModelSpec:
    """A parsed model spec.

    Attributes:
        text: the spec as it was given; `str(spec)` is the same.
        kind: where the model comes from.
        name: a short name for tables and plots.
        path: the directory or the file, absolute, where there is one.
        architecture: open_clip's name of it, for the kinds "pretrained" and "random".
        tag: open_clip's tag of the weights, for the kind "pretrained".
    """

    text: str
    kind: Literal["embedded", "pretrained", "hub", "directory", "transformers", "file", "random"]
    name: str
    path: Path | None = None
    architecture: str = ""
    tag: str = ""

    def __str__(self) -> str:
        """The spec as it was given."""
        return self.text

    @property
    def run(self) -> Path | None:
        """The run directory that is named, by itself or by its model/; None where none is."""
        return run_around(self.path) if self.kind == "directory" and self.path else None


def is_run(directory: Path) -> bool:
    """Whether a directory is that of a run, finished or not."""
    return (directory / "config.yaml").is_file()


def runs_within(directory: Path) -> str:
    """Which runs a directory holds that is none itself, for the end of a message; "" for none."""
    names = [str(path) for path in sorted(directory.glob("*")) if is_run(path)][:5]
    return f" It holds runs: name one, such as {' or '.join(names)}." if names else ""


def run_around(directory: Path) -> Path | None:
    """The run whose model/ a directory is; None where it is no run's."""
    return directory.parent if directory.name == "model" and is_run(directory.parent) else None


def parse_model_spec(spec: str | os.PathLike[str]) -> ModelSpec:
    """Say what a model spec names, without loading anything.

    A tag is not checked here (see `matching_architecture`): the list of tags needs open_clip.

    Raises:
        ModelError: nothing is named so, or what is named cannot be a model.
    """
    if not isinstance(spec, str | os.PathLike):
        raise ModelError(
            f"A model is named by text or a path, and this is of type {type(spec).__name__}. A "
            "module of your own becomes a model with load_model('random:ARCHITECTURE').rebuilt("
            "MODULE.state_dict())."
        )
    text = os.fspath(spec).strip()
    if not text:
        raise ModelError(f"The model spec is empty. {_KINDS}")
    prefix, colon, rest = text.partition(":")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise ModelError(f"Nothing follows {prefix}: in the model spec {text!r}. {_KINDS}")
        return _PREFIXES[prefix](text, rest)
    if text == EMBEDDED:
        return ModelSpec(text, "embedded", text, path=Path(__file__).parent / "emoji_tiny")
    expanded = os.path.expanduser(text)
    if os.path.isdir(expanded):
        return _directory(text, expanded)
    suffix = Path(expanded).suffix.lower()
    if os.path.exists(expanded):
        return _file(text, expanded)
    if suffix in {".safetensors", *PICKLES} or _path_like(text):
        raise ModelError(f"There is no file or directory {text}.")
    return _pretrained(text)


def matching_architecture(spec: ModelSpec) -> str:
    """The architecture that the weights of a "pretrained" spec were trained in; imports open_clip.

    `ViT-B-32/openai` names a GELU architecture and QuickGELU weights. open_clip loads that with a
    warning and every number silently wrong; here it means what was surely meant,
    `ViT-B-32-quickgelu`. Weights with no such sibling keep the one architecture that they have.

    Raises:
        ModelError: open_clip has no such weights.
    """
    open_clip = open_clip_module()
    name = spec.architecture
    weights = open_clip.get_pretrained_cfg(name, spec.tag)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ModelError(
            f"open_clip has no weights {spec.tag!r} for {name}."
            + (near_matches(spec.tag, tags) or " It has none for this architecture.")
        )
    quick = bool(weights.get("quick_gelu"))
    if quick != bool(open_clip.get_model_config(name).get("quick_gelu")):
        sibling = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        if sibling in open_clip.list_models():
            return sibling
        if quick:  # the other way round the tag says nothing, and the configuration is right
            raise ModelError(
                f"The weights {spec.tag!r} were trained with QuickGELU, and open_clip's {name} has "
                "another activation: every number would be wrong. Name an architecture that has "
                "quick_gelu."
            )
    return name


def _random(text: str, name: str) -> ModelSpec:
    if name not in _architectures():
        raise ModelError(f"open_clip has no architecture {name!r}.{_near(name)}")
    return ModelSpec(text, "random", text, architecture=name)


def _hub(text: str, name: str) -> ModelSpec:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelError(f"{text!r} does not name a model on the hub: write hf-hub:org/name.")
    return ModelSpec(text, "hub", name)


def _local_dir(text: str, path: str) -> ModelSpec:
    if not os.path.isdir(os.path.expanduser(path)):
        raise ModelError(f"There is no directory {path} (model spec {text!r}).")
    return _directory(text, os.path.expanduser(path))


def _hf_dir(text: str, path: str) -> ModelSpec:
    directory = Path(os.path.abspath(os.path.expanduser(path)))
    if not (directory / HF_CONFIG_NAME).is_file():
        raise ModelError(f"There is no {HF_CONFIG_NAME} in {path} (model spec {text!r}).")
    return ModelSpec(text, "transformers", directory.name, path=directory)


_PREFIXES = {"random": _random, "hf-hub": _hub, "local-dir": _local_dir, "hf-dir": _hf_dir}


def _directory(text: str, path: str) -> ModelSpec:
    """A directory that open_clip can read, or a run that holds one."""
    directory = Path(os.path.abspath(path))
    if (directory / CONFIG_NAME).is_file():
        name = (run_around(directory) or directory).name
        return ModelSpec(text, "directory", name, path=directory)
    if (directory / "model" / CONFIG_NAME).is_file():
        return ModelSpec(text, "directory", directory.name, path=directory / "model")
    if is_run(directory):
        raise ModelError(
            f"The run {path} has no model yet: it did not finish. "
            f"Continue it with: clipalign train --resume {path}"
        )
    if (directory / HF_CONFIG_NAME).is_file():
        return ModelSpec(text, "transformers", directory.name, path=directory)
    raise ModelError(
        f"The directory {path} is not a model: it has neither {CONFIG_NAME} nor model/{CONFIG_NAME}"
        f" (a run) nor {HF_CONFIG_NAME} (transformers)."
        + (
            runs_within(Path(path))
            or " Name the directory that open_clip, transformers or clipalign wrote."
        )
    )


def _file(text: str, path: str) -> ModelSpec:
    file = Path(os.path.abspath(path))
    if file.suffix.lower() not in {".safetensors", *PICKLES}:
        raise ModelError(f"{text} is not a .safetensors checkpoint. {_KINDS}")
    if file.suffix.lower() in PICKLES:
        check_archive(file)
    return ModelSpec(text, "file", file.stem, path=file)


def check_archive(path: Path) -> None:
    """Refuse a pickle that is not in the archive that torch.save has written since 2020.

    What `torch.load(weights_only=True)` takes is always such an archive, so anything else need not
    be opened to be refused.

    Raises:
        ModelError: it is none.
    """
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is a pickled checkpoint ({path.suffix}) that torch.save of a state_dict did "
            "not write. Opening one can run code that somebody hid in it, so it was not read. "
            "Convert it to .safetensors where you trust its source, and put its "
            f"{CONFIG_NAME} beside it."
        )


def _pretrained(text: str) -> ModelSpec:
    """ARCHITECTURE/TAG. A name without a tag is refused: it would be a random model unasked."""
    name, slash, tag = text.partition("/")
    if name in _architectures():
        if slash and tag:
            return ModelSpec(text, "pretrained", text, architecture=name, tag=tag)
        tags = open_clip_module().list_pretrained_tags_by_model(name)
        weights = f"one of {', '.join(tags)}" if tags else "open_clip has none"
        raise ModelError(
            f"{name} is an architecture; say which weights: {name}/TAG ({weights}), or "
            f"random:{name} for random ones."
        )
    dashed = re.sub("[:/]", "-", text)  # ViT-B/32 and ViT-B-32:openai are common ways to write it
    for known in sorted(_architectures(), key=len, reverse=True):
        if dashed == known or dashed.startswith(f"{known}-"):
            tag = dashed[len(known) + 1 :] or "TAG"
            raise ModelError(f"Unknown model {text!r}. Did you mean '{known}/{tag}'?")
    raise ModelError(
        f"Unknown model {text!r}: it is no file or directory, and open_clip has no architecture "
        f"{name!r}.{_near(name)}"
    )


def _path_like(text: str) -> bool:
    return text.startswith((".", "/", "~", "\\")) or text.count("/") > 1 or os.path.isabs(text)


def _near(name: str) -> str:
    """The near matches, without the whole list of 140 architectures where nothing is near."""
    words = near_matches(name, [EMBEDDED, *_architectures()])
    return words if "Did you mean" in words else f" {_KINDS}"


def _architectures() -> frozenset[str]:
    """open_clip's architectures; those that a program added are known once it is imported."""
    if "open_clip" in sys.modules:
        return _shipped_architectures().union(open_clip_module().list_models())
    return _shipped_architectures()


@cache
def _shipped_architectures() -> frozenset[str]:
    """The architectures in open_clip's files: importing it to ask would take seconds."""
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise ModelError("open_clip is not installed. Install it with: pip install open_clip_torch")
    directory = Path(package.submodule_search_locations[0]) / "model_configs"
    return frozenset(file.stem for file in directory.glob("*.json"))
