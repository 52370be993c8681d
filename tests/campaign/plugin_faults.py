"""Sources of packages that break: what `plugins.py` installs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent

from clipalign import hookspecs

HOOKS = ("run_started", "step_logged", "checkpoint_saved", "run_finished")

RAISES = {
    "value": "raise ValueError('no')",
    "exit": "raise SystemExit(0)",
    "sysexit": "sys.exit('bye')",
    "interrupt": "raise KeyboardInterrupt",
    "memory": "raise MemoryError",
    "recursion": "(f := lambda: f())()",
    "base": "raise type('Odd', (BaseException,), {})('odd')",
    "unspeakable": "raise type('Mute', (Exception,), {'__str__': lambda s: 1 / 0})()",
    "shouting": "raise ValueError('\\x1b[31m' + 'A' * 10**6)",
    "assertion": "assert False",
    "generator": "raise GeneratorExit",
    "stop": "raise StopIteration",
}

GOOD = """
import clipalign

@clipalign.hookimpl
def register_objectives(register):
    register("good", "json:JSONDecoder", summary="Decodes.")
"""

_HOOK = "import sys, clipalign\n@clipalign.hookimpl\ndef register_{kind}(register):\n    {line}\n"

LOADING = {
    **{f"import-{n}": f"import sys\n{s}" for n, s in RAISES.items() if n != "interrupt"},
    "absent": "import no_such_library_at_all",
    "syntax": "def f(:",
    "nul": "\0",
    "loud": "print('and on\\n' * 10**5)\nraise ValueError",
    **{
        f"{kind}-{n}": _HOOK.format(kind=kind, line=s)
        for kind in hookspecs.KINDS
        for n, s in RAISES.items()
        if n != "interrupt"
    },
    **{
        f"said-{i}": _HOOK.format(kind="tasks", line=f"register({said})")
        for i, said in enumerate(
            (
                "'a'",
                "'a', 'json:loads'",
                "None, 'json:loads', summary=''",
                "'a', 5, summary=''",
                "'a' * 99, 'json:loads', summary=''",
                "'../a', 'json:loads', summary=''",
                "'a', 'os;x:loads', summary=''",
                "'a', 'json:loads', summary='', dataset=5",
                "'a', 'json:loads', summary='', train=[1]",
                "'a', 'json:loads', summary='', train={'head': 5}",
                "'a', 'json:loads', summary='', table='x'",
                "'typographic', 'json:loads', summary=''",
            )
        )
    },
}

TRACKER = """
@clipalign.hookimpl(specname="register_trackers")
def register_{what}(register):
    register({name!r}, __name__ + ":Bad_{what}", summary="x")

class Bad_{what}(clipalign.Tracker):
    def {what}(self, *arguments):
        {statement}
"""


@dataclass(frozen=True)
class Fault:
    """A package, the command that meets it, and how that must end."""

    name: str
    source: str
    command: tuple[str, ...]
    code: int = 4
    words: tuple[str, ...] = ("clipalign-bad 1.0",)


def _source(kind: str, body: str) -> str:
    return f"""
import sys
import clipalign
import torch

@clipalign.hookimpl
def register_{kind}(register):
    register("bad", "clipalign_bad:Bad", summary="Breaks.")

{body}
"""


def _objective(body: str, options: str = "") -> str:
    lines = indent(body, " " * 8)
    return _source(
        "objectives",
        f"""
class Bad(clipalign.Objective):
    requires, steps = "any", 0
{indent(options, " " * 4)}
    def forward(self, batch):
        self.steps += 1
        good = -batch.log_ratio(batch.chosen)
{lines}
        return good
""",
    )


def _objectives() -> Iterator[Fault]:
    command = ("train", "--method=bad")
    for name, statement in RAISES.items():
        code = 130 if name == "interrupt" else 4
        yield Fault(f"objective {name}", _objective(statement), command, code)
        later = f"if self.steps == 3: {statement}"
        yield Fault(f"objective {name} at step 3", _objective(later), command, code)
    gives = {
        "a mean": "return good.mean()",
        "a column": "return good[:, None]",
        "too few": "return good[:-1]",
        "whole numbers": "return good.detach().long()",
        "nothing": "return None",
        "no gradient": "return good.detach()",
        "a changed batch": "batch.policy.detach().zero_()",
        "changed indices": "batch.chosen.fill_(0)",
        "a changed reference": "batch.reference.mul_(2)",
    }
    for name, body in gives.items():
        yield Fault(f"objective gives {name}", _objective(body), command)
    nan = _objective("return good * float('nan')")
    yield Fault("objective gives nan", nan, command, 8)
    late = _objective("return good * (float('inf') if self.steps == 3 else 1)")
    yield Fault("objective gives infinity at step 3", late, command, 8)
    for name, options in {
        "requires": "requires = 'luck'",
        "options": "Options = dict",
        "constructor": "def __init__(self, **o): raise KeyError('x')",
        "initial value": "def initial_value(self, batch): raise KeyError('x')",
    }.items():
        yield Fault(f"objective {name}", _objective("", options), command)
    for name, body in {"number": "Bad = 5", "function": "def Bad(): pass"}.items():
        yield Fault(f"objective is a {name}", _source("objectives", body), command)
    summed = ("train", "--set=objective=[kto, {bad: {weight: 0.5}}]")
    yield Fault("objective in a sum", _objective("return good.mean()"), summed)
    loud = _objective("print('{')")
    yield Fault("objective prints", loud, (*command, "--json"), 0, ())


def _regularisers() -> Iterator[Fault]:
    sound = "class Bad(clipalign.regularisers.ForwardKL): pass"
    source = "import clipalign.regularisers\n" + _source("regularisers", sound)
    yield Fault("a sound regulariser", source, ("train", "--regulariser=bad", "--json"), 0, ())
    for name, body, code in (
        ("raises", "raise KeyError('x')", 4),
        ("exits", "sys.exit(0)", 4),
        ("gives a mean", "return policy.mean()", 4),
        ("gives nan", "return policy.sum(1) * float('nan')", 8),
        ("changes its input", "reference.zero_(); return policy.sum(1)", 4),
    ):
        cls = "class Bad(clipalign.Regulariser):\n    def forward(self, policy, reference):\n"
        cls += f"        {body}\n"
        command = ("train", "--regulariser=bad")
        yield Fault(f"regulariser {name}", _source("regularisers", cls), command, code)


_TASK = """
from pydantic import BaseModel
from clipalign.tasks.base import Candidates, PreparedRow
class Options(BaseModel): pass
class Bad:
    name, fingerprint = "bad", ""
    def __init__(self):
        self.options = Options()
    def candidates(self, dataset, split):
        return Candidates(tuple(dataset.classnames))
    def rows(self, example, image, dataset, split, rng):
        return [PreparedRow(image, image, *dataset.classnames[:2])]
"""


def _with(source: str, method: str, *lines: str) -> str:
    """The class with a method overridden, in the module of the same plugin."""
    return source.replace("class Bad:", "class Good:") + (
        f"class Bad(Good):\n    def {method}:\n" + "".join(f"        {line}\n" for line in lines)
    )


def _tasks() -> Iterator[Fault]:
    command = ("prepare", "bad", "--dataset=emoji", "--limit=4", "-o", "out")
    rows, candidates = "rows(self, example, image, *more)", "candidates(self, dataset, split)"
    for name, method, body, code in (
        ("constructor", "__init__(self)", "raise KeyError('x')", 4),
        ("constructor exits", "__init__(self)", "sys.exit(0)", 4),
        ("lacks options", "__init__(self)", "pass", 4),
        ("candidates raise", candidates, "raise KeyError('x')", 4),
        ("candidates are a list", candidates, "return ['a', 'b']", 4),
        ("candidates are numbers", candidates, "return Candidates((1, 2))", 4),
        ("no candidates", candidates, "return Candidates(())", 4),
        ("rows raise", rows, "raise KeyError('x')", 4),
        ("rows exit", rows, "sys.exit(0)", 4),
        ("rows interrupt", rows, "raise KeyboardInterrupt", 130),
        ("rows are strings", rows, "return ['a']", 4),
        ("rows without image", rows, "return [PreparedRow(None, None, 'a', 'b')]", 4),
        ("rows of numbers", rows, "return [PreparedRow(image, image, 1, 2)]", 4),
        ("rows are none", rows, "return None", 4),
        ("rows end midway", rows, "yield PreparedRow(image, None, None, None); 1 / 0", 4),
    ):
        yield Fault(f"task {name}", _source("tasks", _with(_TASK, method, body)), command, code)
    yield Fault("a sound task", _source("tasks", _TASK), (*command, "--json"), 0, ())
    for workers_fault, body in (("raises", "raise KeyError('x')"), ("exits", "sys.exit(0)")):
        source = _source("tasks", _with(_TASK, rows, body))
        yield Fault(f"task {workers_fault} in a worker", source, (*command, "--workers=1"))
    renamed = _source("tasks", _TASK.replace('"bad", ""', '"kto", ""'))
    yield Fault("task under another name", renamed, command)


_DATASET = """
from clipalign.datasets.emoji import EmojiWorld
class Bad(EmojiWorld):
    def __init__(self):
        super().__init__(concepts=12)
class Good(Bad): pass
"""


def _datasets() -> Iterator[Fault]:
    command = ("prepare", "typographic", "--dataset=bad", "--limit=4", "-o", "out")
    for name, method, body in (
        ("constructor", "__init__(self)", "raise KeyError('x')"),
        ("splits raise", "splits(self)", "raise KeyError('x')"),
        ("examples raise", "examples(self, split)", "raise KeyError('x')"),
        ("image raises", "image(self, example)", "raise KeyError('x')"),
        ("image exits", "image(self, example)", "sys.exit(0)"),
        ("image is none", "image(self, example)", "return None"),
        ("image is grey", "image(self, example)", "return super().image(example).convert('L')"),
        ("image recurses", "image(self, example)", "return self.image(example)"),
    ):
        source = _DATASET + f"class Bad(Good):\n    def {method}:\n        {body}\n"
        yield Fault(f"dataset {name}", _source("datasets", source), command)
    yield Fault("a sound dataset", _source("datasets", _DATASET), (*command, "--json"), 0, ())
    empty = _source("datasets", "class Bad:\n    name = 'bad'")
    yield Fault("dataset lacks everything", empty, command)


def _suites() -> Iterator[Fault]:
    command = ("eval", "emoji-tiny", "--suite=bad", "--split=test", "-o", "out")
    for name, body in {
        "raises": "raise KeyError('x')",
        "exits": "sys.exit(0)",
        "gives none": "return None",
        "gives numbers": "return {'accuracy': 1.0}, []",
        "gives another's result": (
            "return context.result(type('S', (), {'name': 'typographic', 'version': 1, "
            "'options': self.options})(), 1, metrics={}), []"
        ),
    }.items():
        cls = f"""
from clipalign.evals.base import SuiteOptions
class Bad:
    name, version, dataset, options = "bad", 1, "emoji", SuiteOptions()
    def run(self, context):
        {body}
"""
        yield Fault(f"suite {name}", _source("suites", cls), command)
    for name, cls in {"lacks run": "class Bad: name = 'bad'", "is a module": "Bad = sys"}.items():
        yield Fault(f"suite {name}", _source("suites", cls), command)


def _transforms() -> Iterator[Fault]:
    command = ("transform", "{run}", "--method=bad", "-o", "out")
    for name, body in {
        "raises": "raise KeyError('x')",
        "exits": "sys.exit(0)",
        "gives none": "return None",
    }.items():
        cls = f"""
from clipalign.transforms.base import Transform, TransformOptions
class Bad:
    frozen, options = Transform, TransformOptions()
    def fit(self, context):
        {body}
"""
        yield Fault(f"transform {name}", _source("transforms", cls), command)
    yield Fault("transform lacks fit", _source("transforms", "class Bad: pass"), command)


def _others() -> Iterator[Fault]:
    command = ("train", "--set=trackers=[bad]")
    raising = "class Bad(clipalign.Tracker):\n    def __init__(self): raise KeyError('x')"
    yield Fault("tracker constructor", _source("trackers", raising), command)
    yield Fault("tracker is none", _source("trackers", "class Bad: pass"), command)
    for name, statement in RAISES.items():
        code = 130 if name == "interrupt" else 0 if name == "exit" else 4
        code = 1 if name == "sysexit" else code  # its own command may end as it likes
        words = () if code in (0, 1) else ("clipalign-bad 1.0",)
        source = _source("commands", f"def Bad():\n    {statement}")
        if code:
            yield Fault(f"command {name}", source, ("bad",), code, words)
    for name, body in {
        "is a number": "Bad = 5",
        "has no command": "import typer\nBad = typer.Typer()",
        "is absent": "",
    }.items():
        yield Fault(f"command {name}", _source("commands", body), ("bad",))


TARGETS = [
    *_objectives(),
    *_regularisers(),
    *_tasks(),
    *_datasets(),
    *_suites(),
    *_transforms(),
    *_others(),
]
