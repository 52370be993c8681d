"""How an option is given on the command line, for messages of the core that ask for one."""

from __future__ import annotations

__all__ = ["dataset_option", "task_option"]


def task_option(setting: str) -> str:
    """The flags that set an option of a task: "attribute=COLUMN"."""
    return (
        f"`--set task_options.{setting}` of train, `--set {setting}` of prepare, or the option of "
        "the task in Python"
    )


def dataset_option(setting: str) -> str:
    """The flags that set an option of a dataset: "label_column=COLUMN"."""
    return (
        f"`--set dataset_options.{setting}` of train, `--dataset-set {setting}` of prepare, `--set "
        f"dataset.{setting}` of eval and others, or the option of the dataset in Python"
    )
