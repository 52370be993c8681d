"""Where clipalign keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(kind: str) -> Path:
    """The folder for one kind of cached thing: "features", "preferences", ….

    It lies in the user's cache folder, or below the environment variable CLIPALIGN_CACHE where that
    is set. It is not made here: a reader needs none, and writers make the parents of what they
    write. Everything in it may be deleted at any time.
    """
    root = os.environ.get("CLIPALIGN_CACHE")
    base = Path(root).expanduser() if root else platformdirs.user_cache_path("clipalign", False)
    return base / kind
