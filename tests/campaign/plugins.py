"""Packages that break, in every place where clipalign calls them.

Out of reach, because a plugin is code of the same process: `os._exit`, a change of clipalign's own
modules, an import that ends the process by a signal.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipalign.hookspecs import KINDS
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import Finished
from tests.campaign.plugin_faults import GOOD, HOOKS, LOADING, RAISES, TARGETS, TRACKER, Fault
from tests.conftest import PackageMaker

TRAIN = (
    *("train", "--no-eval", "--trainable=head", "--set=train.steps=3", "--set=train.batch_size=8"),
    "--set=dataset_options={concepts: 12, train_views: 1}",
)
WEIGHTS = "model/open_clip_model.safetensors"


def undisturbed(trial: Trial) -> Path:
    """A folder with a run that no plugin touched; what it computed is in the shared cache."""

    def make(folder: Path) -> None:
        env = {"CLIPALIGN_PLUGINS": "", "CLIPALIGN_CACHE": str(trial.shared / "cache")}
        done = trial.run(*TRAIN, "-o", "run", cwd=folder, env=env, timeout=200)
        expect(done, 0, ())

    return trial.once("undisturbed", make)


class Site:
    """Packages made up for one trial, and what makes a command see them."""

    def __init__(self, trial: Trial) -> None:
        self.undisturbed = undisturbed(trial)
        folder = trial.folder / "site"
        folder.mkdir()
        self.install = PackageMaker(folder)
        self.env = {
            **self.install.env,
            "CLIPALIGN_CACHE": str(trial.shared / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def same_weights(self, run: Path) -> None:
        """The run gave what it gives without these packages."""
        if (run / WEIGHTS).read_bytes() != (self.undisturbed / "run" / WEIGHTS).read_bytes():
            raise Broken("lost", f"{run.name}: other weights than without the plugins")


def expect(done: Finished, code: int, words: Iterable[str]) -> None:
    """The command ended with this code, and said these words on one of its streams."""
    said = done.out + done.err
    if done.code != code:
        raise Broken("lost", f"{done.line}: code {done.code}, not {code}: {said[-600:]}")
    for word in words:
        if word not in said:
            raise Broken("lost", f"{done.line}: does not say {word!r}: {said[-600:]}")


@case("plugin loading", long=3)
def loading(trial: Trial) -> None:
    """All that fails at import or registration, side by side: rows, and core as without them."""
    site = Site(trial)
    for name, source in LOADING.items():
        site.install(f"clipalign-{name}", source)
    site.install("clipalign-good", GOOD)
    trial.inputs = len(LOADING)
    listed = trial.run("plugins", "list", "--json", env=site.env)
    expect(listed, 0, ())
    rows: list[Mapping[str, str]] = json.loads(listed.out)
    for name in LOADING:
        states = {r["status"] for r in rows if r["package"] == f"clipalign-{name}"}
        if not states & {"error", "clash"}:
            raise Broken("lost", f"clipalign-{name} is {states or 'no row'}")
    if not any(r["name"] == "good" and r["status"] == "ok" for r in rows):
        raise Broken("lost", "a sound package was not loaded beside broken ones")
    if "\x1b" in listed.out + listed.err:
        raise Broken("escape", "a plugin's message reached the terminal as it was")
    doctor = trial.run("plugins", "doctor", env=site.env, check=False)  # it shows tracebacks
    expect(doctor, 4, map("clipalign-{}".format, LOADING))
    expect(trial.run("plugins", "show", "kto", env=site.env), 0, ["clipalign"])
    done = trial.run(*TRAIN, "-o", "run", "--json", env=site.env)
    expect(done, 0, ())
    json.loads(done.out)
    site.same_weights(trial.folder / "run")


@case("plugin import without end", long=5)
def endless(trial: Trial) -> None:
    """An import that prints for ever is ended by Ctrl-C, which names the package."""
    site = Site(trial)
    site.install("clipalign-endless", "while True: print('and on')")
    moment = (signal.SIGINT, 0.3)
    done = trial.run("plugins", "list", env=site.env, interrupt_after=moment, timeout=20)
    expect(done, 130, ["clipalign-endless 1.0 was being loaded"])
    if done.out:
        raise Broken("lost", "what a plugin prints reached standard output")
    skipped = {**site.env, "CLIPALIGN_PLUGINS": ""}
    expect(trial.run("plugins", "list", env=skipped), 0, ["disabled"])


@case("plugin hooks and trackers", long=3)
def hooks(trial: Trial) -> None:
    """Every way to raise in every life-cycle hook and tracker: passed over, and said.

    KeyboardInterrupt is no failure: a hook or a tracker stops the training with it.
    """
    site = Site(trial)
    warned, trackers = [], []
    for name, statement in RAISES.items():
        if name == "interrupt":
            continue
        source = "import sys, clipalign\n"
        for hook in HOOKS:
            source += f"@clipalign.hookimpl\ndef {hook}():\n    print('{{')\n    {statement}\n"
            warned.append(f"clipalign-{name} 1.0 failed in {hook} and was passed over")
        for what in ("start", "log", "finish"):
            source += TRACKER.format(name=f"{name}-{what}", what=what, statement=statement)
            trackers.append(f"{name}-{what}")
            warned.append(f"{name}-{what}' of clipalign-{name} 1.0 failed in {what}")
        site.install(f"clipalign-{name}", source)
    trial.inputs = len(warned)
    chosen = f"--set=trackers=[{','.join(trackers)}]"
    done = trial.run(*TRAIN, chosen, "-o", "run", "--json", env=site.env)
    expect(done, 0, warned)
    json.loads(done.out)
    site.same_weights(trial.folder / "run")


def try_target(trial: Trial, fault: Fault) -> None:
    """What is named on the command line raises, or gives the wrong thing."""
    site = Site(trial)
    site.install("clipalign-bad", fault.source)
    run = str(site.undisturbed / "run")
    arguments = [a.replace("{run}", run) for a in fault.command]
    if arguments[0] == "train":
        arguments = [*TRAIN, *arguments[1:], "-o", "out"]
    done = trial.run(*arguments, env=site.env, check=False)
    if done.code == 1 and fault.code == 1:
        return
    trial.check(done)
    expect(done, fault.code, [*fault.words])
    if fault.code == 0:
        json.loads(done.out)
        return
    if len(done.err) > 3000:
        raise Broken("lost", f"{fault.name}: {len(done.err)} characters is no clear message")
    left = [p.name for p in (trial.folder / "out").glob("*") if p.name in ("model", "train")]
    if left:
        raise Broken("lost", f"{fault.name}: left {left}")


@case("plugin objects", long=len(TARGETS), short=3)
def objects(trial: Trial) -> None:
    """One named thing, broken in one way: stopped in one message with its package."""
    # the short form walks through the list in strides, so that every kind comes up
    stride = 7
    try_target(trial, TARGETS[trial.number * stride % len(TARGETS)])


@case("plugin names taken", long=1)
def names_taken(trial: Trial) -> None:
    """A package that wants every built-in name gets none of them."""
    from clipalign.plugins import registry

    site = Site(trial)
    source = "import clipalign\n"
    for kind in KINDS:
        source += f"@clipalign.hookimpl\ndef register_{kind}(register):\n"
        for name in registry(kind).names() or ["none"]:
            source += f"    register({name!r}, 'json:loads', summary='Mine.')\n"
            trial.inputs += 1
    site.install("aaa-first", source)  # sorts before clipalign
    listed = trial.run("plugins", "list", env=site.env)
    expect(listed, 0, ["clash", "aaa-first"])
    expect(trial.run(*TRAIN, "-o", "run", env=site.env), 0, ())
    site.same_weights(trial.folder / "run")
