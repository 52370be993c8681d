"""Registers three trackers with clipalign. A library is imported only when its tracker is used."""

from __future__ import annotations

from typing import Any

from clipalign import hookimpl

CLIPALIGN_API = 1


@hookimpl
def register_trackers(register: Any) -> None:
    """Offer "tensorboard", "wandb" and "mlflow"."""
    home = "clipalign_trackers"
    register("tensorboard", f"{home}.tensorboard:TensorBoard", summary="Event files in the run.")
    register("wandb", f"{home}.wandb:WandB", summary="Weights & Biases, online or offline.")
    register("mlflow", f"{home}.mlflow:MLflow", summary="An MLflow server, database or folder.")
