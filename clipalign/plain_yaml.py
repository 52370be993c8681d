"""Reads YAML from strangers: plain values, bounded, and nothing that YAML adds to them.

No tags (nothing is constructed but text, numbers, lists and mappings), no aliases (a small file
cannot unfold into a large one), no repeated keys (none is silently dropped), keys are text.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from clipalign.errors import ConfigError
from clipalign.files import read_regular

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_FAST = getattr(yaml, "CSafeLoader", None)  # libyaml's, where it was built in: 20 times as fast


def read_yaml_mapping(path: Path, *, advice: str = "") -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Args:
        path: of the file.
        advice: what to do where there is none; for a configuration when left out.

    Raises:
        ConfigError: when it cannot be read, is too large, or is not plain YAML.
    """
    try:
        content = read_regular(path, MAX_BYTES)
        tree = parse_yaml(content.decode("utf-8-sig"))
    except FileNotFoundError:
        advice = advice or "`clipalign config cp` copies a recipe to start from."
        raise ConfigError(f"There is no file {path}. {advice}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not a configuration: {error}.") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a configuration: it holds no keys and values.")
    return tree


_UNFIT = (KeyError, AttributeError, TypeError, OverflowError)
"""What the YAML library raises of `!!bool maybe` or `!!timestamp soon`."""


def parse_yaml(text: str) -> Any:
    """Read plain YAML: no tags, no aliases, no repeated keys, bounded depth; keys are text.

    Raises:
        ValueError: in words, with the line.
    """
    if _FAST is not None:
        with contextlib.suppress(yaml.YAMLError, ValueError, *_UNFIT):
            return _parsed(text, _FAST)
    try:
        return _parsed(text, yaml.SafeLoader)  # it says more plainly what is wrong
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{words}") from None
    except _UNFIT as error:
        raise ValueError(
            f"a value does not fit its tag, such as !!bool or !!int ({error})"
        ) from None


def _parsed(text: str, loader: Any) -> Any:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        line = event.start_mark.line + 1 if event.start_mark else "?"
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: aliases (*name) are refused")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: nested too deeply")
    _check_keys(yaml.compose(text, Loader=loader))
    return yaml.load(text, Loader=loader)


def _check_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = f"line {key.start_mark.line + 1}"
            if key.tag != "tag:yaml.org,2002:str":
                raise ValueError(f"{line}: a key must be text")
            if key.value in seen:
                raise ValueError(f"{line}: key {key.value!r} stands there twice")
            seen.add(key.value)
            _check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)
