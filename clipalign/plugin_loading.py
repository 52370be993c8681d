"""Finds installed plugins and loads them one by one, so that a broken one harms only itself."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from clipalign import hookspecs
from clipalign._version import __version__
from clipalign.errors import Interrupted, PluginError, near_matches

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "clipalign"
ENVIRONMENT = "CLIPALIGN_PLUGINS"
_LONGEST = 500  # characters of somebody else's message
_IN_URL = re.compile(r"://[^/\s@]+@")  # a user's name and password
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing.

    Attributes:
        kind: one of `hookspecs.KINDS`.
        name: what users type.
        target: "package.module:attribute".
        summary: one line.
        package: distribution that registered it.
        version: of that distribution.
        origin: "file:line" of the call that registered it.
        metadata: whatever else was handed to `register`.
        value: the target itself, where this process registered it and no package did.
    """

    kind: str
    name: str
    target: str
    summary: str
    package: str
    version: str
    origin: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    value: Any = None


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """What became of one plugin.

    Attributes:
        name: of its entry point.
        package: its distribution.
        version: of that distribution.
        status: "ok", "error", "clash" (some of its names were taken) or "disabled".
        detail: one sentence that says what is wrong; empty when nothing is.
        traceback: of the exception, where there was one.
        registered: what it added.
        refused: what it wanted to add under names that were taken.
    """

    name: str
    package: str
    version: str
    status: str = "ok"
    detail: str = ""
    traceback: str = ""
    registered: tuple[Entry, ...] = ()
    refused: tuple[Entry, ...] = ()


@dataclass(slots=True)
class Loaded:
    """Every plugin's status, what they registered, and a manager for each that works."""

    entries: dict[str, dict[str, Entry]]
    report: list[PluginStatus] = field(default_factory=list)
    managers: list[tuple[PluginStatus, pluggy.PluginManager]] = field(default_factory=list)


@functools.cache
def load_plugins() -> Loaded:
    """Load every installed plugin that CLIPALIGN_PLUGINS allows; cached.

    Raises:
        PluginError: when clipalign itself is not installed, so that not even built-ins are there.
        Interrupted: Ctrl-C, naming the plugin that was being imported.
    """
    loaded = Loaded({kind: {} for kind in hookspecs.KINDS})
    allowed = _allowed()
    seen: set[str] = set()
    complete = False
    for dist, point in _entry_points(loaded.report):
        package, version = _identity(dist)
        names = {_normal(point.name), _normal(package)}
        seen |= names
        status = PluginStatus(point.name, package, version)
        builtin = _normal(package) == GROUP
        complete |= builtin
        if allowed is not None and not builtin and not allowed & names:
            detail = f"left out by {ENVIRONMENT}"
            loaded.report.append(replace(status, status="disabled", detail=detail))
            continue
        _load_one(loaded, status, point)
    for absent in sorted((allowed or set()) - seen):
        detail = f"{ENVIRONMENT} names it, but it is not installed.{near_matches(absent, seen)}"
        loaded.report.append(PluginStatus(absent, "", "", status="error", detail=detail))
    if not complete:
        raise PluginError(
            "clipalign's own entry point is missing, so nothing is registered: the package is on "
            "the path but not installed. Install it (`pip install -e .` in a checkout)."
        )
    loaded.report.sort(key=lambda status: _normal(status.package) != GROUP)
    return loaded


def _load_one(loaded: Loaded, status: PluginStatus, point: EntryPoint) -> None:
    """Load one plugin: all of it, or a row that says why not."""
    wanted: list[Entry] = []
    try:
        # Standard output may be carrying a JSON document: what a plugin prints goes to stderr.
        with contextlib.redirect_stdout(sys.stderr):
            manager = _manager(point.load(), status)
            for kind in hookspecs.KINDS:
                register = _register(wanted, kind, status)
                getattr(manager.hook, f"register_{kind}")(register=register)
    except KeyboardInterrupt:  # a person's, as a rule: of a package that does not come to an end
        raise Interrupted(
            f"Interrupted while the plugin {status.package} {status.version} was being loaded. Run "
            f"the same command again; with {ENVIRONMENT}= (empty) it leaves all plugins out."
        ) from None
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        detail = str(error) if isinstance(error, PluginError) else words(error)
        detail = " ".join(detail.split())
        loaded.report.append(replace(status, status="error", detail=detail, traceback=trace))
        return
    registered, refused = [], []
    for entry in wanted:
        names = loaded.entries[entry.kind]
        if entry.name in names:
            refused.append(entry)
        else:
            names[entry.name] = entry
            registered.append(entry)
    status = replace(status, registered=tuple(registered), refused=tuple(refused))
    if refused:
        taken = "; ".join(
            f"{e.kind[:-1]} {e.name!r} belongs to {loaded.entries[e.kind][e.name].package}"
            for e in refused
        )
        status = replace(status, status="clash", detail=f"names already taken: {taken}")
    loaded.report.append(status)
    loaded.managers.append((status, manager))


def _manager(plugin: Any, status: PluginStatus) -> pluggy.PluginManager:
    """A plugin manager that holds this one plugin, so that its failures stay its own."""
    written_for = getattr(plugin, "CLIPALIGN_API", hookspecs.API_VERSION)
    if written_for != hookspecs.API_VERSION:
        raise PluginError(
            f"{status.package} {status.version} was written for plugin interface {written_for!r}, "
            f"and clipalign {__version__} offers {hookspecs.API_VERSION}: install versions of the "
            "two that agree."
        )
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    known = [name for name in vars(manager.hook) if not name.startswith("_")]
    manager.register(plugin, name=status.name)
    callers = manager.get_hookcallers(plugin) or []
    if unknown := [caller.name for caller in callers if not caller.has_spec()]:
        hints = "".join(f" {name!r}:{near_matches(name, known)}" for name in unknown)
        raise PluginError(f"{status.package} implements hooks that do not exist.{hints}")
    if not callers:
        raise PluginError(
            f"{status.package} implements no hook: mark its functions with @clipalign.hookimpl."
        )
    return manager


def _register(wanted: list[Entry], kind: str, status: PluginStatus) -> hookspecs.Register:
    def register(name: str, target: str, *, summary: str, **metadata: Any) -> None:
        call = f"register({name!r}, {target!r}) of {kind}"
        check_name(call, name)
        if not (isinstance(target, str) and _TARGET.fullmatch(target)):
            raise PluginError(f"{call}: a target is written 'package.module:attribute'.")
        check_facts(call, metadata)
        line = " ".join("".join(c for c in str(summary) if c.isprintable()).split())
        caller = sys._getframe(1)
        origin = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        facts = MappingProxyType(dict(metadata))
        entry = Entry(kind, name, target, line, status.package, status.version, origin, facts)
        wanted.append(entry)

    return register


_FACTS: Mapping[str, type] = {
    "dataset": str,
    "trainable": str,
    "suite": str,
    "suite_options": tuple,
    "axes": tuple,
    "headline": tuple,
    "units": str,
    "path": str,
    "train": Mapping,
    "table": Mapping,
    "epochs": int,
}
"""Metadata that the core reads, and what it must be."""


def check_name(call: str, name: Any) -> None:
    """Refuse a name that could not be typed."""
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise PluginError(f"{call}: a name is lower-case letters, digits and any of '._-'.")


def check_facts(call: str, metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that would only fail where it is read."""
    for key, kind in _FACTS.items():
        value = metadata.get(key)
        if key in metadata and not isinstance(value, kind):
            names = {"str": "text", "tuple": "a tuple", "int": "a whole number"}
            wanted = names.get(kind.__name__, "a mapping")
            raise PluginError(f"{call}: {key} must be {wanted}, not {value!r:.60}.")
    for key in ("axes", "headline"):
        if not all(isinstance(metric, str) for metric in metadata.get(key, ())):
            raise PluginError(f"{call}: {key} are names of metrics, not {metadata[key]!r:.60}.")
    for part, keys in metadata.get("train", {}).items():
        if not isinstance(keys, Mapping):
            raise PluginError(f"{call}: train.{part} must be a mapping, not {keys!r:.60}.")


def _entry_points(report: list[PluginStatus]) -> Iterator[tuple[Distribution, EntryPoint]]:
    """Entry points of the group, clipalign's own first, then by distribution name.

    Distributions are read one by one: `importlib.metadata.entry_points` fails as a whole when one
    package's file is malformed.
    """
    from importlib import metadata

    found: dict[str, list[tuple[Distribution, EntryPoint]]] = {}
    for dist in metadata.distributions():
        package, version = "", ""
        try:
            if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            package, version = _identity(dist)
            if _normal(package) in found:  # an earlier folder of sys.path has it too, and wins
                continue
            points = list(dist.entry_points.select(group=GROUP))
        except Exception as error:
            detail = f"its entry_points.txt cannot be read: {words(error)}"
            report.append(PluginStatus(package, package, version, "error", detail))
            continue
        found[_normal(package)] = [(dist, point) for point in points]
    for package in sorted(found, key=lambda p: (p != GROUP, p)):
        yield from sorted(found[package], key=lambda pair: pair[1].name)


def _identity(dist: Distribution) -> tuple[str, str]:
    try:
        return str(dist.metadata["Name"] or "unnamed"), str(dist.metadata["Version"] or "?")
    except Exception:
        return "unnamed", "?"


def _allowed() -> set[str] | None:
    """Names in CLIPALIGN_PLUGINS, as written and normalised; None when it is unset."""
    value = os.environ.get(ENVIRONMENT)
    if value is None:
        return None
    return {_normal(name) for name in value.split(",") if name.strip()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def words(error: BaseException) -> str:
    """An exception in one line of bounded length."""
    try:
        text = _IN_URL.sub("://…@", " ".join(str(error).split()))
    except Exception as another:
        text = f"(its message cannot be read: {type(another).__name__})"
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
