"""Hostile configurations, recipes, concept files and settings on the command line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clipalign.comparison.recipe import Evaluation, Method, Recipe
from clipalign.config import RunConfig, TrainConfig
from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import attempt, canary

WRONG = (
    "null", "true", "-1", "0", "1e400", "-.inf", ".nan", "9" * 400, "0x7fffffffffffffff", "''",
    "' '",
    "[]", "{}", "[[]]", "{a: 1}", "[null]", "2020-01-01", "12:30:45", "'\\0'", '"\\e[31m"',
    '"\\u202e"',
    "../../etc", "/dev/zero", "~", "'*'", "'{}'", "x:y:z", "'" + "y" * 5000 + "'", "[1, 2, 3]",
    "1_000",
    "{1: 2}", "{weight: 1}", "[{dpo: 7}]", "last:0", "lora:99999", "emoji:..", "!!binary aGk=",
    "0o7",
)  # fmt: skip
"""Values, as YAML, that few keys can take."""


def keys() -> list[str]:
    """Every key of a run's configuration, with dots."""
    top = [name for name in RunConfig.model_fields if name != "train"]
    return [*top, "train", *(f"train.{name}" for name in TrainConfig.model_fields)]


def nested(key: str, value: str) -> str:
    """`a.b` and a value as YAML."""
    *parents, last = key.split(".")
    head = "".join(f"{'  ' * i}{name}:\n" for i, name in enumerate(parents))
    return f"{head}{'  ' * len(parents)}{last}: {value}\n"


@case("wrong values", long=53)
def wrong_values(trial: Trial) -> None:
    """Every key of a configuration with every wrong value: valid, or refused with code 3."""
    every = keys()
    if trial.number == 0:
        pairs = [(key, trial.rng.choice(WRONG)) for key in trial.rng.sample(every, 12)]
    else:
        pairs = [(every[(trial.number - 1) % len(every)], value) for value in WRONG]
    trial.inputs = len(pairs)
    for key, value in pairs:
        (trial.folder / "c.yaml").write_text(nested(key, value))
        done = attempt(trial, "config", "validate", "c.yaml")
        if done.code not in (0, 3):
            raise Broken("lost", f"{key}: {value}: code {done.code}: {done.err[-300:]}")


def payloads(pwned: Path) -> Iterator[str]:
    """YAML that would build objects, and so run something."""
    touch = f"touch {pwned}"
    yield f'!!python/object/apply:os.system ["{touch}"]'
    yield f'!!python/object/apply:subprocess.check_output [["sh", "-c", "{touch}"]]'
    yield f"!!python/object/new:os.system ['{touch}']"
    yield f"!!python/name:os.system {touch}"
    yield f"!!python/object:pathlib.Path {{a: {pwned}}}"
    yield f"!!python/module:antigravity {touch}"
    yield f"!!python/object/apply:eval [\"__import__('os').system('{touch}')\"]"
    yield f"!ruby/object:Gem::Requirement {{x: {touch}}}"
    yield f"!<tag:yaml.org,2002:python/object/apply:os.system> ['{touch}']"
    yield "!!set {a, b}"
    yield "!!omap [a: 1]"
    yield "!!timestamp 2001-12-14t21:59:43.10-05:00"
    yield "!!int 'x'"
    yield "!!float 'x'"
    yield "!!bool maybe"
    yield "!!timestamp '2001-99-99'"
    yield "2001-99-99"


def texts(rng: random.Random, pwned: Path) -> Iterator[bytes]:
    """Files that are YAML in name, or more than YAML should be."""
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    yield laughs.encode()
    yield b"model: &m emoji-tiny\ntask: *m\n"
    yield b"train: &t {epochs: *t}\n"
    yield b"train: {<<: {epochs: 2}}\n"
    yield b"a: " + b"[" * 5000
    yield b"a: " + b"{a: " * 5000 + b"}" * 5000
    yield b"a: " + b"[" * 31 + b"]" * 31
    yield b"- " * 5000 + b"x"
    yield b"? " * 5000 + b"x"
    yield b"".join(b" " * i + b"a:\n" for i in range(600))
    yield b"model: '" + b"x" * 900_000 + b"'\n"
    yield b"model: " + b"x" * (1 << 21)
    yield b"seed: " + b"9" * 5000 + b"\n"
    yield b"seed: 1\nseed: 2\n"
    yield b"train: {epochs: 1, epochs: 2}\n"
    yield b"1: 2\n"
    yield b"null: 2\n"
    yield b"[a]: 2\n"
    yield b"{a: 1}: 2\n"
    yield b"? [a, b]\n: 2\n"
    yield b"- a\n- b\n"
    yield b"just text"
    yield b"7"
    yield b""
    yield b"--- {}\n--- {}\n"
    yield b"%YAML 9.9\n---\na: 1\n"
    yield b"%TAG ! tag:yaml.org,2002:python/\n---\nmodel: !name:os.system x\n"
    yield b"\xff\xfe\xfd"
    yield "seed: 1\n".encode("utf-16")
    yield "seed: 1\n".encode("utf-32")
    yield b"\xef\xbb\xbfseed: 1\n"
    yield b"seed:\t1\n\tx: 2\n"
    yield b"seed: \x00\n"
    yield b"model: \x1b]52;c;eA==\x07\n"
    yield b'"\\e[31m": 1\n'
    yield '"\\u202egnp": 1\n\u202e: 2\n'.encode()
    yield b'"\\ud800": "\\udfff"\n'
    yield b"model: |\n" + b"  x\n" * 9999
    yield b"".join(b"k%d: 1\n" % i for i in range(9000))
    yield b'x: "' + b"\\u0041" * 100_000 + b'"\n'
    yield make.picture("png", "RGB")
    yield rng.randbytes(2000)
    for payload in payloads(pwned):
        yield f"model: {payload}\n".encode()
        yield f"task_options: {{a: {payload}}}\n".encode()


@case("yaml files", long=12)
def yaml_files(trial: Trial) -> None:
    """Aliases that explode, tags that run things, depth, repeated keys, no text: nothing is run."""
    pwned = canary(trial) / "pwned"
    every = list(texts(trial.rng, pwned))
    if trial.number == 0:
        every = trial.rng.sample(every, 12)
    elif trial.number >= 8:  # and changed at random
        every = [trial.rng.choice(make.DAMAGES)(trial.rng, e[:3000] or b"a: 1") for e in every]
    trial.inputs = len(every)
    commands: tuple[Callable[[str], list[str]], ...] = (
        lambda f: ["config", "validate", f],
        lambda f: ["compare", f, "--dry-run"],
        lambda f: ["prepare", "gender", "--set", f"concept={f}", "-o", "out"],
        lambda f: ["train", "--config", f, "--set", "data=none", "-o", "out"],
    )
    for number, content in enumerate(every):
        (trial.folder / f"{number}.yaml").write_bytes(content)
        command = commands[trial.number % 3 if number % 10 else 3](f"{number}.yaml")
        done = attempt(trial, *command)
        if pwned.exists():
            raise Broken("escape", f"{done.line}: ran what {content[:200]!r} says")


def changed(rng: random.Random, tree: Any) -> Any:
    """A tree with one of its values replaced, dropped, or put elsewhere."""
    if isinstance(tree, dict) and tree:
        key = rng.choice(list(tree))
        if rng.random() < 0.2:
            return {k: v for k, v in tree.items() if k != key}
        if rng.random() < 0.2:
            return {**tree, rng.choice(("x", "", "of", "model", key + "s", "\u202e")): tree[key]}
        return {**tree, key: changed(rng, tree[key])}
    if isinstance(tree, list) and tree and rng.random() < 0.7:
        place = rng.randrange(len(tree))
        return [*tree[:place], changed(rng, tree[place]), *tree[place + 1 :]]
    try:
        return yaml.safe_load(rng.choice(WRONG))
    except ValueError:
        return None


RECIPE: dict[str, Any] = {
    "title": "t", "base": {"task": "typographic", "train": {"steps": 1}}, "models": ["emoji-tiny"],
    "seeds": [0, 1], "baseline": "reference",
    "methods": {
        "reference": {"model": "base"},
        "kto": {"set": {"method": "kto"}, "grid": {"method_options.beta": [0.1, 0.5]}},
        "half": {"of": "kto beta=0.1", "transform": {"method": "interpolate", "alpha": 0.5}},
    },
    "evaluate": [{"suite": "typographic", "axes": ["clean_accuracy"], "options": {}, "show": []}],
}  # fmt: skip
CONCEPT: dict[str, Any] = {
    "name": "age", "attribute": "label", "activity": None,
    "values": {"old": ["an old", "elderly"], "young": ["a young"]},
    "captions": {
        "alone": {"concept": "a photo of {value} person.", "neutral": "a photo of a person."},
        "noun": {"concept": "{value} {activity}", "neutral": "{activity}"},
    },
    "nouns": {"column": "kind", "values": ["x"], "activities": ["y"]},
}  # fmt: skip


@case("recipes", long=12)
def recipes(trial: Trial) -> None:
    """Recipes of `compare` and concept files with wrong values everywhere."""
    trial.inputs = 6 if trial.number == 0 else 40
    for number in range(trial.inputs):
        concept = trial.rng.random() < 0.4
        tree = CONCEPT if concept else RECIPE
        for _ in range(trial.rng.choice((1, 1, 2, 4))):
            tree = changed(trial.rng, tree)
        name = f"{number}.yaml"
        (trial.folder / name).write_text(yaml.safe_dump(tree, allow_unicode=True))
        if concept:
            attempt(trial, "prepare", "gender", "--dataset", "none", "--set", f"concept={name}")
        else:
            attempt(trial, "compare", name, "--dry-run")


@case("settings", long=10)
def settings(trial: Trial) -> None:
    """--set, --where, --scan and names on the command line with anything in them."""
    rng = trial.rng
    trial.inputs = 8 if trial.number == 0 else 60
    options = (
        "styles", "attacks_per_image", "words", "size", "fonts", "train.epochs", "resamples",
        "x.y.z",
        "confidence", "splits", "", "a.", ".a", "dataset.root", "templates", "\u202e", "concept",
    )  # fmt: skip
    fields = {*Recipe.model_fields, *Method.model_fields, *Evaluation.model_fields}
    wild = (*WRONG, *sorted(fields), "=", "==", "a=b", "1:2:0", "0:1:1e-9", "1:0:1", ":", "nan:1:1")
    for _ in range(trial.inputs):
        value = rng.choice(wild).replace("\0", "")
        setting = f"{rng.choice(options)}={value}"
        command = rng.choice(
            (
                ["prepare", "typographic", "--set", setting, "--limit", "1", "-o", "out",
                "--overwrite"],
                ["prepare", "typographic", "--dataset-set", setting, "--dataset", "folder"],
                ["config", "show", "--set", setting],
                ["eval", "--set", setting, "--dataset", "none"],
                ["runs", "list", ".", "--where", setting],
                ["transform", "none", f"--scan={value}"],
                ["transform", "none", f"--t={value}"],
                ["train", "--method", value], ["train", f"--model={value}"],
                ["eval", "--dataset", value], ["eval", "--suite", value], ["export", value],
                ["prepare", value], ["prepare", "--shard", value, "-o", "out"], ["report", value],
                ["datasets", "show", value], ["plugins", "show", value], [value],
            )
        )  # fmt: skip
        attempt(trial, *command)
