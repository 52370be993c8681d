"""The configuration of a run: one typed tree, checked as a whole.

A configuration comes from a YAML file, then the command's own flags, then `--set a.b=c`; each
overrides the one before. Unknown keys, wrong types and unknown names are reported together, one
line each. YAML is read without tags, aliases or repeated keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from clipalign.config_tree import assign, task_of_set, tree_of
from clipalign.dataset_specs import TABLES, is_shard_pattern, is_table, no_dataset
from clipalign.entries import TermEntry, TrackerEntry, sum_name
from clipalign.errors import ConfigError, ModelError, UsageError
from clipalign.named_options import as_written, place_of_option, problems_in_options
from clipalign.options import explain
from clipalign.plain_yaml import parse_yaml
from clipalign.plugins import registry
from clipalign.text import listed

_OWNED = re.compile(r"^(dataset|task|method)\.")
_TRAINABLE = re.compile(r"image-encoder|head|last:[1-9]\d{0,3}|lora:[1-9]\d{0,3}")

_REGISTER = "a name: clipalign.register gives one to a class or a function of yours"
_IN_MEMORY = {
    "model": "a model spec: write a model that is in memory with clipalign.export, and name that",
    "dataset": "a name or a path: prepare what is in memory, data=clipalign.prepare(TASK, "
    "clipalign.ImageList(…))",
    "data": "a path, of a preference set or a table file: prepare what is in memory, "
    "data=clipalign.prepare('preferences', clipalign.ImageList(…))",
    **dict.fromkeys(("method", "objective", "task", "regulariser"), _REGISTER),
}
"""What a key wants that was given a thing: a run has to be told by its configuration alone."""


class _Tree(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class TrainConfig(_Tree):
    """How training steps are taken."""

    epochs: int = Field(3, ge=1, description="Passes over the preference images.")
    steps: int | None = Field(
        None, ge=1, description="Optimiser steps in all; overrides epochs when given."
    )
    batch_size: int = Field(
        32, ge=1, description="Preference images a step; as many regulariser images go beside them."
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Parts that a batch is cut into, to save memory; under torchrun at least one a "
        "process. Equal parts give equal bits on 1, 2, 4 or 8 processes.",
    )
    lr: float | None = Field(
        None, gt=0, description="Learning rate; null for the default of what is trained."
    )
    optimizer: Literal["adamw", "adamax", "sgd"] = Field("adamw", description="Optimiser.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    orthogonality: float = Field(
        1e-4,
        ge=0,
        allow_inf_nan=False,
        description="c of the penalty c ‖WᵀW − I‖²_F that holds a head W near orthogonal. W acts "
        "on both sides, so to reverse a concept it must amplify what image and text disagree on, "
        "which a stiff penalty (1e-2) does not let it.",
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up: falling to 0, or constant."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up from 0.")
    clip_grad_norm: float | None = Field(
        1.0, gt=0, description="Largest norm of the whole gradient; null for none."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Of the forward pass; the weights that are trained stay fp32."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the rate from each block to the one below it."
    )
    lr_scales: dict[Literal["stem", "blocks", "head"], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Factors of the rate by part of the image tower; the text tower has none.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute blocks again on the way back: less memory, more time."
    )
    compile: bool = Field(False, description="torch.compile the image tower.")
    channels_last: bool | None = Field(
        None, description="Memory order of images; null for what the tower gains from."
    )
    averaging: Literal["bma", "ema", "none"] = Field(
        "bma", description="Average of the weights: the paper's Beta average, exponential, none."
    )
    averaging_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the averaging."
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; null for none by steps."
    )
    checkpoint_every_minutes: float | None = Field(
        10.0, gt=0, description="Minutes between checkpoints; null for none by time."
    )
    validate_every: int | None = Field(
        None, ge=1, description="Steps between validations; null for none."
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Validations without improvement before stopping; null for never."
    )
    workers: int = Field(0, ge=0, le=256, description="Processes that decode images; 0 for none.")
    cache_trunk: bool = Field(
        True, description="last:K: compute the frozen blocks once and keep their activations."
    )
    fsdp: bool = Field(
        False,
        description="Under torchrun, cut the image tower's weights among the processes: for towers "
        "too large for one.",
    )
    peer_timeout: float = Field(
        60.0, gt=0, description="Seconds a process waits for the others of a step before it stops."
    )
    log_every: int = Field(10, ge=1, description="Steps between lines of metrics.jsonl.")


class RunConfig(_Tree):
    """One training run: what is trained, on which preferences, how."""

    model: str = Field("emoji-tiny", min_length=1, description="Model spec to start from.")
    task: str = Field("typographic", description="What makes preferences of labelled images.")
    task_options: dict[str, Any] = Field(default_factory=dict, description="Options of the task.")
    dataset: str = Field(
        "emoji", description="Labelled images: a name, NAME:PATH, folder, table or shards."
    )
    dataset_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the dataset, such as its folder."
    )
    data: Path | None = Field(
        None,
        description="A prepared preference set, whose task is taken where none is named, or a "
        "table of judgements for the task preferences; null to prepare one from task and dataset.",
    )
    objective: tuple[TermEntry, ...] | None = Field(
        None,
        min_length=1,
        description="A weighted sum of objectives in place of method: "
        "[{dpo: {weight: 0.7, beta: 0.1}}, {kto: {weight: 0.3}}]; null for the one of method.",
    )
    method: str = Field(
        "kto", description="Objective: the preference loss. Of a sum, its names joined by +."
    )
    method_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the objective, such as beta."
    )
    regulariser: str = Field(
        "forward-kl", description="What holds the policy near the reference on clean images."
    )
    regulariser_weight: float | None = Field(
        None, ge=0, description="λ, its weight; null for the method's default."
    )
    trainable: str = Field(
        "image-encoder", description="image-encoder, last:K blocks, lora:R (its rank), or head."
    )
    train: TrainConfig = Field(
        default_factory=TrainConfig, description="How training steps are taken."
    )
    trackers: tuple[TrackerEntry, ...] = Field(
        (),
        description="Who hears the metrics beside metrics.jsonl: "
        "[tensorboard, {wandb: {project: clip}}].",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")
    output: Path | None = Field(
        None, description="Run directory; null for runs/<task>-<method>-<n>."
    )

    @model_validator(mode="before")
    @classmethod
    def _task_defaults(cls, tree: Any) -> Any:
        """A task may be registered with its own default `dataset`, `trainable` and `train`.

        Its `train` is by what is trained ({"head": {…}}): a head takes more steps than a tower. A
        dataset may be registered with `epochs`, which stand behind the task's.
        """
        tasks = registry("tasks")
        if not isinstance(tree, Mapping):
            return tree
        name = tree.get("task", cls.model_fields["task"].default)
        if not isinstance(name, str) or name not in tasks.names():
            return tree
        facts = tasks.entry(name).metadata
        tree = {k: facts[k] for k in ("dataset", "trainable") if k in facts} | dict(tree)
        part = str(tree.get("trainable", cls.model_fields["trainable"].default)).split(":")[0]
        own = {**cls._of_dataset(tree), **facts.get("train", {}).get(part, {})}
        given = tree.get("train", {})
        if own and isinstance(given, Mapping):
            tree["train"] = {**own, **given}
        return tree

    @classmethod
    def _of_dataset(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        name = tree.get("dataset", cls.model_fields["dataset"].default)
        known = registry("datasets")
        if tree.get("data") is not None or not (isinstance(name, str) and name in known.names()):
            return {}
        facts = known.entry(name).metadata
        return {"epochs": facts["epochs"]} if "epochs" in facts else {}

    @model_validator(mode="before")
    @classmethod
    def _name_of_a_sum(cls, tree: Any) -> Any:
        """`method` of a sum is its names joined, so that runs and tables have one name for it."""
        if isinstance(tree, Mapping) and "method" not in tree and tree.get("objective"):
            try:
                return {**tree, "method": sum_name(tree["objective"])}
            except (TypeError, ValueError):  # said where the list is validated
                return tree
        return tree

    @field_validator(*_IN_MEMORY, mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str | int | float | list | tuple | Mapping | os.PathLike | None):
            return value
        if info.field_name in ("method", "objective"):
            written = as_written("objectives", "method", value)
            if written is not None:
                raise ValueError(f"must be a name beside its options: {written}")
        raise ValueError(f"must be {_IN_MEMORY[str(info.field_name)]}")

    @field_validator("task", "dataset", "method", "regulariser")
    @classmethod
    def _registered(cls, name: str, info: ValidationInfo) -> str:
        parts = info.data.get("objective")
        if info.field_name == "method" and parts:
            if name != (joined := sum_name(parts)):
                raise ValueError(
                    f"{name!r} is given beside the list `objective` ({joined}): keep one of them"
                )
            return name
        kind = "objectives" if info.field_name == "method" else f"{info.field_name}s"
        if kind == "datasets" and (os.path.exists(name) or is_shard_pattern(name)):
            return name
        bare = name.partition(":")[0] if kind == "datasets" else name  # NAME or NAME:PATH
        try:
            registry(kind).entry(bare)
        except UsageError as error:
            if kind == "datasets":
                raise ValueError(no_dataset(name)) from None
            raise ValueError(str(error)) from None
        return name

    @field_validator("data")
    @classmethod
    def _set_or_table(cls, data: Path | None) -> Path | None:
        if data is not None and os.path.isfile(data) and not is_table(data):
            raise ValueError(
                f"{data} is neither a table of judgements ({', '.join(TABLES)}) nor a folder that "
                "`clipalign prepare` made"
            )
        return data

    @field_validator("method_options")
    @classmethod
    def _options_of_one(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if options and info.data.get("objective"):
            raise ValueError("each entry of the list `objective` holds its own options")
        return options

    @field_validator("trainable")
    @classmethod
    def _trainable(cls, value: str) -> str:
        if not _TRAINABLE.fullmatch(value):
            raise ValueError(
                "must be image-encoder, last:K, lora:R or head, with K and R from 1 to 9999"
            )
        return value


# --- Reading ------------------------------------------------------------------------------------


def load_config(
    path: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    check_options: bool = False,
    check_model: Callable[[str], object] | None = None,
    **flags: Any,
) -> RunConfig:
    """Read a configuration.

    Args:
        path: YAML file, or what it would hold; None for the defaults.
        overrides: "a.b=c", its value in YAML; "dataset.b=c" is an option of the dataset
            (dataset_options.b), and so for the task and the method.
        check_options: also check the options of the method, task and dataset, which imports them
            (and torch).
        check_model: also check the model spec with this (`parse_model_spec`).
        **flags: values by key, dots for inner keys; None is skipped, and what is a path is text.

    Raises:
        ConfigError: with one line for each thing that is wrong.
        ModelError: the model spec alone is wrong.
        UsageError: `path` is neither.
    """
    tree = tree_of(path)
    method, method_options = tree.get("method"), tree.get("method_options")
    problems = []
    for key, value in flags.items():
        if isinstance(value, os.PathLike):  # also a preference set
            value = os.fspath(value)
        if value is not None:
            problems += assign(tree, key, value, f"--{key.replace('_', '-')}")
    texts: list[Any] = listed(overrides)
    for override in texts:
        if not isinstance(override, str):
            problems.append(f"overrides: {override!r} must be text, such as 'train.epochs=3'")
            continue
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {override}: must be KEY=VALUE, such as train.epochs=3")
            continue
        try:
            value = parse_yaml(text)
        except ValueError as error:
            problems.append(f"--set {override}: {error}")
            continue
        key = _OWNED.sub(r"\1_options.", key.strip())
        problems += assign(tree, key, value, f"--set {override}")
    if method not in (None, tree.get("method")) and tree.get("method_options") is method_options:
        tree.pop("method_options", None)  # they are those of the file's method
    source = str(path) if isinstance(path, str | os.PathLike) else "the configuration"
    return build_config(
        tree, source, check_options=check_options, check_model=check_model, problems=problems
    )


def build_config(
    tree: Mapping[str, Any],
    source: str,
    *,
    check_options: bool = False,
    check_model: Callable[[str], object] | None = None,
    problems: Sequence[str] = (),
) -> RunConfig:
    """The configuration that a tree of plain values is.

    Args:
        tree: keys and values as YAML gives them; keys left out take their defaults.
        source: what the tree is, for the message.
        check_options: also check the options of what it names, which imports them (and torch).
        check_model: also check the model spec with this, which raises ModelError.
        problems: found before; they are reported with the rest.

    Raises:
        ConfigError: with one line for each thing that is wrong.
        ModelError: the model spec alone is wrong.
    """
    problems = list(problems)
    tree = {**task_of_set(tree), **tree}
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        of_option = partial(place_of_option, tree, RunConfig) if check_options else None
        problems += explain(error, RunConfig, of_option)
    if check_options:
        problems += problems_in_options(tree, RunConfig)
    if check_model is not None and isinstance(model := tree.get("model"), str):
        try:
            check_model(model)
        except ModelError as error:
            if not problems:
                raise
            problems.append(f"model: {error}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"There is something wrong in {source}:\n{lines}")
    return config
