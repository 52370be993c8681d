"""Loads plugins, each on its own, and looks up what they registered.

A plugin that fails to import, misspells a hook, takes a used name or was written for another
interface is a row in `plugin_report()`; the others work. What is registered is a name and a lazy
target, so that listing everything imports nothing heavy.

The environment variable CLIPALIGN_PLUGINS is read before anything is imported: unset loads every
installed plugin, "" the built-ins alone, "a,b" only those (by entry point or distribution name).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from clipalign import hookspecs
from clipalign.errors import (
    ClipAlignError,
    Interrupted,
    PluginError,
    UsageError,
    near_matches,
)
from clipalign.plugin_loading import (
    Entry,
    PluginStatus,
    check_facts,
    check_name,
    load_plugins,
    words,
)

__all__ = [
    "Entry",
    "PluginStatus",
    "PluginWarning",
    "Registry",
    "blamed",
    "call_hook",
    "kind_of",
    "owner_of",
    "plugin_report",
    "register",
    "registry",
    "reload_plugins",
]


_EVERYBODYS = {"clipalign", "torch", "numpy", "PIL", *sys.stdlib_module_names}
"""Packages that are no plugin's, though a target may lie in one."""

_registered: dict[str, dict[str, Entry]] = {}
"""By kind and name, what `register` was given in this process."""


class PluginWarning(UserWarning):
    """A plugin's life-cycle hook failed; the run goes on."""


class Registry:
    """The names of one kind, in the order of registration, built-ins first."""

    def __init__(self, kind: str, entries: Mapping[str, Entry], broken: tuple[str, ...]) -> None:
        self.kind = kind
        self._entries = entries
        self._broken = broken

    def names(self) -> list[str]:
        """Every name; imports nothing."""
        return list(self._entries)

    def entry(self, name: str) -> Entry:
        """What was registered under `name`; imports nothing.

        Raises:
            UsageError: for an unknown name, with the near matches.
        """
        if name in self._entries:
            return self._entries[name]
        message = f"There is no {self.kind[:-1]} {name!r}.{near_matches(name, self._entries)}"
        if self._broken:
            message += (
                f" Not loaded because they are broken: {', '.join(self._broken)}"
                " (`clipalign plugins doctor` says why)."
            )
        raise UsageError(message)

    def load(self, name: str) -> Any:
        """Import the target of `name`.

        Raises:
            UsageError: for an unknown name.
            PluginError: when the target cannot be imported.
        """
        entry = self.entry(name)
        if entry.value is not None:
            return entry.value
        module, _, attribute = entry.target.partition(":")
        try:
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except (ClipAlignError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(
                f"The {self.kind[:-1]} {name!r} of {entry.package} {entry.version} cannot be "
                f"loaded from {entry.target}: {words(error)}"
            ) from error


def registry(kind: str) -> Registry:
    """The registry of one kind; plugins are loaded on the first call.

    Raises:
        UsageError: for an unknown kind.
    """
    kind = kind_of(kind)
    loaded = load_plugins()
    broken = tuple(sorted({s.package or s.name for s in loaded.report if s.status == "error"}))
    return Registry(kind, loaded.entries[kind] | _registered.get(kind, {}), broken)


def register(kind: str, name: str, target: Any, *, summary: str = "", **metadata: Any) -> None:
    """Give a class or a function of this process a name, as a package does for its own.

        def margin(batch: clipalign.PolicyBatch, beta: float = 1.0):
            return -beta * (batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected))

        clipalign.register("objective", "margin", margin)
        clipalign.train(method="margin", method_options={"beta": 0.5})

    The name is known until the process ends; one that goes on with such a run registers it first.
    To register a name again replaces it, as a notebook's cell does that is run twice.

    Args:
        kind: objective, regulariser, task, dataset, suite, transform or tracker.
        name: lower-case letters, digits and any of "._-".
        target: the class; for an objective also a function of a `PolicyBatch`, with options that
            have defaults; for a dataset also a function that gives one.
        summary: one line.
        **metadata: as the hook of the kind takes it, see clipalign/hookspecs.py.

    Raises:
        UsageError: there is no such kind, or the name belongs to a package.
        PluginError: the name cannot be typed, or the target cannot be called.
    """
    kind = kind_of(kind)
    call = f"register({kind[:-1]!r}, {name!r}, {target!r:.60})"
    check_name(call, name)
    check_facts(call, metadata)
    if not callable(target) or kind == "commands":
        raise PluginError(f"{call}: a class or a function is wanted, of any kind but a command.")
    if taken := load_plugins().entries[kind].get(name):
        raise UsageError(
            f"The {kind[:-1]} {name!r} belongs to {taken.package}: choose another name."
        )
    if kind == "objectives" and not isinstance(target, type):
        from clipalign.objectives.function import from_function

        try:
            target = from_function(target)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{call}: {error}.") from None
    module = str(getattr(target, "__module__", "__main__"))
    place = f"{module}:{getattr(target, '__qualname__', name)}"
    facts = MappingProxyType(dict(metadata))
    entry = Entry(kind, name, place, summary, module, "of this process", place, facts, target)
    _registered.setdefault(kind, {})[name] = entry


def kind_of(name: str) -> str:
    """The kind of that name, which may be in the singular: "objectives" for "objective".

    Raises:
        UsageError: for an unknown kind.
    """
    for kind in hookspecs.KINDS:
        if name in (kind, kind[:-1]):
            return kind
    raise UsageError(f"There is no kind {name!r}.{near_matches(name, hookspecs.KINDS)}")


def plugin_report() -> list[PluginStatus]:
    """What became of every installed plugin, built-ins first."""
    return list(load_plugins().report)


def call_hook(name: str, **arguments: Any) -> None:
    """Call a life-cycle hook of every plugin in turn.

    A plugin that raises is reported by a `PluginWarning` that names its package; the others are
    still called. Each gets its own copy of an argument that is a dict.

    Raises:
        Interrupted, KeyboardInterrupt: a signal arrived meanwhile, or a plugin wants an end.
    """
    if not hasattr(hookspecs, name):
        raise AttributeError(f"no hook {name!r} in clipalign.hookspecs")
    for status, manager in load_plugins().managers:
        mine = {k: dict(v) if isinstance(v, dict) else v for k, v in arguments.items()}
        try:
            getattr(manager.hook, name)(**mine)
        except (Interrupted, KeyboardInterrupt):
            raise
        except BaseException as error:
            warnings.warn(
                f"{status.package} {status.version} failed in {name} and was passed over: "
                f"{words(error)}",
                PluginWarning,
                stacklevel=2,
            )


def reload_plugins() -> None:
    """Forget what was loaded, so that the next look-up loads plugins afresh."""
    load_plugins.cache_clear()


def owner_of(thing: Any) -> str:
    """Whose code a class or an object of it is: "clipalign-simpo 1.0"; the module's name where no
    plugin is known to have brought it.
    """
    module = str(getattr(thing, "__module__", type(thing).__module__))
    status = _owner(module)
    return f"{status.package} {status.version}" if status else module


def blamed(error: BaseException) -> PluginError | None:
    """What to say of an exception that a plugin's code raised, or let through; None for another.

    Of several plugins that took part, the one whose code was nearest to where it was raised.
    """
    trace, found = error.__traceback__, None
    while trace is not None:
        status = _owner(str(trace.tb_frame.f_globals.get("__name__", "")))
        if status is not None:
            found = status, trace
        trace = trace.tb_next
    if found is None:
        return None
    status, trace = found
    code = trace.tb_frame.f_code
    return PluginError(
        f"The plugin {status.package} {status.version} failed in {code.co_name} "
        f"({code.co_filename}, line {trace.tb_lineno}): {words(error)}. Report it to its author "
        "with what CLIPALIGN_DEBUG=1 shows when you run this again."
    )


def _owner(module: str) -> PluginStatus | None:
    """The plugin, other than clipalign, whose package a module belongs to."""
    return _owners().get(module.partition(".")[0])


def _owners() -> dict[str, PluginStatus]:
    """Plugins by the top packages of their targets and their own modules."""
    found: dict[str, PluginStatus] = {}
    for status, manager in load_plugins().managers:
        modules = {entry.target.partition(":")[0] for entry in status.registered}
        for plugin in manager.get_plugins():
            own = plugin if inspect.ismodule(plugin) else type(plugin)
            modules.add(str(getattr(own, "__name__" if own is plugin else "__module__")))
        for top in {module.partition(".")[0] for module in modules} - _EVERYBODYS:
            found.setdefault(top, status)
    return found
