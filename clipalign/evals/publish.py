"""`export`: write a model in another format with its card, and send it to a hub if asked to."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipalign.errors import UsageError
from clipalign.evals.card import card_of
from clipalign.files import check_writable
from clipalign.models.card import Card
from clipalign.models.formats import (
    beside,
    check_dtype,
    check_format,
    parse_format,
    write_model,
)
from clipalign.models.load import load_model, model_config
from clipalign.models.load_lines import load_lines
from clipalign.models.loaded import LoadedModel
from clipalign.models.push import check_push, parse_push_target, push_model
from clipalign.models.spec import parse_model_spec
from clipalign.progress import Reporter, heard_by

__all__ = ["ExportResult", "check_export", "export"]


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        model: the directory.
        format: open_clip, transformers or onnx.
        load: the Python lines that load it.
        pushed: address on the hub; None where nothing was sent.
    """

    model: Path
    format: str
    load: tuple[str, ...]
    pushed: str | None = None

    def __fspath__(self) -> str:
        """The directory, so that it stands wherever a path does: `load_model(result)`."""
        return str(self.model)

    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self) | {"model": str(self.model), "load": list(self.load)}


def check_export(
    model: str | os.PathLike[str] | LoadedModel, form: str | None, push: str | None
) -> None:
    """Everything that can be refused before the model is trained, edited or loaded.

    Raises:
        ModelError: there is no such model, or the format cannot hold it.
        UsageError: an unknown format, a missing package, or a push that cannot be.
    """
    if push is not None:
        check_push(push)
    if form is not None:
        config = model.config if isinstance(model, LoadedModel) else model_config(model)
        check_format(config, parse_format(form))


def export(
    model: str | os.PathLike[str] | LoadedModel,
    output: str | Path | None = None,
    *,
    format: str = "open_clip",
    push: str | None = None,
    private: bool = True,
    results: str | Path | None = None,
    licence: str | None = None,
    dtype: str = "fp32",
    reporter: Reporter | bool | None = None,
) -> ExportResult:
    """Write a model as a directory for open_clip, transformers or ONNX, with its card.

        clipalign.export("runs/dpo", format="transformers")
        clipalign.export("runs/dpo", push="hf-hub:me/apple-not-ipod")

    Args:
        model: any model spec, a run included, or a loaded model.
        output: directory to make; None for MODEL-FORMAT beside a run's or a local model, and for
            exports/NAME-FORMAT otherwise.
        format: open_clip, transformers or onnx.
        push: hf-hub:org/name, to send what was written there; None sends nothing.
        private: whether a repository that the push makes is.
        results: folder of results for the card; None for a run's own. Of no use to a model that is
            in memory, whose card says so.
        licence: of the weights, an SPDX name, for the card.
        dtype: fp32, fp16 or bf16 on the disk, for open_clip.
        reporter: hears what is being done; True prints it in plain lines on standard error.

    Raises:
        ModelError: there is no such model, or the format cannot hold it.
        StorageError: it cannot be written or sent.
        UsageError: an unknown format, a missing package, or a push that cannot be.
    """
    say = heard_by(reporter)
    form = parse_format(format)
    check_dtype(dtype, form)
    check_export(model, form, push)
    spec = model.spec if isinstance(model, LoadedModel) else parse_model_spec(model)
    target = Path(output) if output is not None else _default(spec, form)
    if spec.path is not None and target.resolve() == spec.path.resolve():
        raise UsageError(f"{target} is the model itself: choose another --output.")
    check_writable(target)
    loaded = model if isinstance(model, LoadedModel) else load_model(spec, announce=say.note)
    if isinstance(model, LoadedModel):
        base = spec.name if spec.path else str(spec)
        summary = f"Weights that were in memory, loaded from {base}."
        card = Card(spec.name, base, summary, licence=licence)
        if results:
            raise UsageError("Results belong to a model on disk, and this one is in memory.")
    else:
        found = Path(results) if results else None
        card = card_of(model, loaded.sha256, results=found, licence=licence)
    if push is not None:
        lines = tuple(load_lines(form, hub=parse_push_target(push)))
        card = dataclasses.replace(card, load=lines)
    say.note(f"Writing {form} to {target}…")
    written = write_model(loaded, target, form, card=card, dtype=dtype)
    pushed = None
    if push is not None:
        say.note(f"Sending it to {push}…")
        pushed = push_model(written, push, private=private)
    return ExportResult(target, form, tuple(load_lines(form, str(target))), pushed)


def _default(spec: Any, form: str) -> Path:
    local = spec.path if spec.kind in ("directory", "transformers") else None
    if local is not None:
        return beside(local, form)
    return beside(Path("exports") / spec.name.replace("/", "-").replace(":", "-"), form)
