"""Writes a new package that extends clipalign: one thing of one kind, with its test.

The templates lie beside this file, `templates/<kind>.py.txt` and `templates/test_<kind>.py.txt`;
`$name` and its like are filled in by `string.Template`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from clipalign._version import __version__
from clipalign.errors import StorageError, UsageError, near_matches
from clipalign.files import atomic_write_text, storage_errors
from clipalign.hookspecs import API_VERSION
from clipalign.plugins import registry

__all__ = ["KINDS", "NewPackage", "new_package"]

KINDS = {
    "objective": "clipalign train --method $name",
    "regulariser": "clipalign train --regulariser $name",
    "task": "clipalign train --task $name",
    "dataset": "clipalign eval emoji-tiny --suite retention --dataset $name",
    "suite": "clipalign eval emoji-tiny --suite $name",
    "transform": "clipalign transform emoji-tiny --method $name",
    "tracker": "clipalign train --set 'trackers=[$name]'",
}
"""Kinds that there is a template of, each with the command that uses a thing of it."""

_FACTS = {"suite": 'axes=("accuracy",),  # what `clipalign compare` shows'}
"""What is said of a thing when it is registered, by kind."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class NewPackage:
    """What was written.

    Attributes:
        folder: of the package.
        name: what users type.
        files: written, relative to the folder.
        use: the command that uses it once it is installed.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    use: str


def new_package(name: str, kind: str, folder: Path | None = None) -> NewPackage:
    """Write a package that registers `name`, installs, and passes its own tests.

    Args:
        name: what users will type; "clipalign-" before it is the package's and is taken off.
        kind: one of `KINDS`, or its plural.
        folder: to make; None for ./clipalign-NAME.

    Raises:
        UsageError: there is no such kind, the name cannot be used or is taken, or the folder
            exists.
        StorageError: it cannot be written.
    """
    kind = kind[:-1] if kind[:-1] in KINDS else kind
    if kind not in KINDS:
        raise UsageError(f"There is no template of kind {kind!r}.{near_matches(kind, KINDS)}")
    name = name.removeprefix("clipalign-")
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise UsageError(
            f"{name!r} cannot name a package: lower-case letters and digits, beginning with a "
            "letter, with single '-', '_' or '.' between them."
        )
    found = registry(f"{kind}s")
    if name in found.names():
        owner = found.entry(name).package
        raise UsageError(f"There is {_a(kind)} {name!r} already, of {owner}. Choose another name.")
    target = folder or Path(f"clipalign-{name}")
    words = _words(name, kind)
    plan = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"src/{words['module']}/__init__.py": "init.py.txt",
        f"src/{words['module']}/{words['file']}.py": f"{kind}.py.txt",
        f"tests/test_{words['file']}.py": f"test_{kind}.py.txt",
    }
    with storage_errors(target):
        try:
            target.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(
                f"{target} exists, and nothing is written over. Choose another name, or another "
                "folder with --output."
            ) from None
        except NotADirectoryError:
            raise StorageError(f"Cannot write {target}: a part of the path is a file.") from None
    templates = files("clipalign.scaffold") / "templates"
    for path, template in plan.items():
        text = (templates / template).read_text(encoding="utf-8")
        atomic_write_text(target / path, Template(text).substitute(words))
    atomic_write_text(target / f"src/{words['module']}/py.typed", "")
    written = (*plan, f"src/{words['module']}/py.typed")
    return NewPackage(target, name, written, words["use"])


def _words(name: str, kind: str) -> dict[str, str]:
    """What the templates are filled with."""
    parts = re.split(r"[-_.]", name)
    major, minor = __version__.split(".")[:2]
    title, suffix = "".join(part.capitalize() for part in parts), kind.capitalize()
    return {
        "name": name,
        "kind": kind,
        "facts": f"\n        {_FACTS[kind]}" if kind in _FACTS else "",
        "package": f"clipalign-{name}",
        "module": f"clipalign_{'_'.join(parts)}",
        "file": "_".join(parts),
        # with the kind, since a thing may be called "field" or "tensor" or "objective"
        "cls": title if title.endswith(suffix) and title != suffix else title + suffix,
        "api": str(API_VERSION),
        "needs": f"clipalign>={major}.{minor},<{major}.{int(minor) + 1}",
        "use": Template(KINDS[kind]).substitute(name=name),
    }


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
