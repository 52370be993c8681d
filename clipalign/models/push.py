"""Sending a written model to the Hugging Face hub. Nothing is sent unless it is asked for.

The token is the hub client's own business (`hf auth login`, HF_TOKEN): it is read here only to make
sure that no message and no file that is sent contains it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from clipalign.errors import StorageError, UsageError

__all__ = ["check_push", "parse_push_target", "push_model"]

_TEXT = {".json", ".md", ".txt", ".yaml"}
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")


def parse_push_target(text: str) -> str:
    """org/name of "hf-hub:org/name". Imports neither torch nor the hub's client.

    Raises:
        UsageError: it is not written so.
    """
    name = text.removeprefix("hf-hub:")
    if name == text or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"--push takes hf-hub:org/name, not {text!r}.")
    return name


def check_push(target: str) -> str:
    """org/name, after all that can be known of a push before there is something to send.

    Raises:
        UsageError: it is no name on the hub, HF_HUB_OFFLINE is set, or nobody is logged in.
    """
    name = parse_push_target(target)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise UsageError(
            f"HF_HUB_OFFLINE is set, so nothing is sent to {target}. Unset it to push."
        )
    if _token() is None:
        raise UsageError(
            "Nobody is logged in to the hub. Run `hf auth login`, or set HF_TOKEN, to push."
        )
    return name


def push_model(directory: Path, target: str, *, private: bool = True) -> str:
    """Send a model's directory to the hub, making the repository where there is none.

    Args:
        directory: as `write_model` wrote it.
        target: hf-hub:org/name.
        private: whether a new repository is.

    Returns:
        The address of the commit.

    Raises:
        UsageError: see `check_push`.
        StorageError: a file holds a token, or the hub refuses; the message holds no token.
    """
    name = check_push(target)
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.suffix in _TEXT:
            text = file.read_text(encoding="utf-8", errors="replace")
            if text != _redacted(text):
                raise StorageError(
                    f"{file} holds what looks like an access token, so nothing was sent. Remove it "
                    "from the file, and from the configuration that it came from."
                )
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            repo_type="model",
            folder_path=directory,
            commit_message="Model and card, written by clipalign",
        )
    except Exception as error:  # the client raises many kinds, of its own and of its transport
        reason = _redacted(str(error)).strip().split("\n")[0][:300]
        raise StorageError(
            f"{target} could not be written: {type(error).__name__}: {reason} The model is in "
            f"{directory}."
        ) from None  # the original may quote a token
    return _redacted(str(getattr(commit, "commit_url", commit)))


def _token() -> str | None:
    import huggingface_hub

    return huggingface_hub.get_token()


def _redacted(text: str) -> str:
    token = _token()
    if token:
        text = text.replace(token, "[token]")
    return _TOKEN.sub("[token]", text)
