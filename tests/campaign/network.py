"""No word leaves the machine unasked, no stranger's code runs, no secret is written down."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import clipalign.models
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.commands import Finished
from tests.campaign.sameness import EMOJI, RECIPE, STEPS, photos
from tests.conftest import PackageMaker

WATCH = """
import json, os, sys

CALLS = {
    "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request", "http.client.connect",
}

def heard(event, arguments):
    # a path is a socket of this machine
    if event in CALLS and not (event == "socket.connect" and isinstance(arguments[1], str)):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")
        raise OSError("no network here")

sys.addaudithook(heard)

if "HF_HUB_CACHE" in os.environ:  # the warm process read the variable long ago
    import huggingface_hub.constants
    huggingface_hub.constants.HF_HUB_CACHE = os.environ["HF_HUB_CACHE"]

from clipalign import hookimpl

@hookimpl
def run_started(run_dir):
    pass
"""


class Watched:
    """Commands whose every reach for the network is refused and noted."""

    def __init__(self, trial: Trial, **env: str) -> None:
        self.trial, self.notes = trial, trial.folder / "watched"
        self.said: list[str] = []
        site = trial.folder / "site"
        site.mkdir()
        install = PackageMaker(site)
        install("clipalign-watch", WATCH)
        cache = str(trial.shared / "cache")
        self.env = {**install.env, "WATCHED": str(self.notes), "CLIPALIGN_CACHE": cache, **env}

    def run(self, *line: str, code: int = 0, **env: str) -> Finished:
        """Run one command that ends with `code` and asks nobody for anything."""
        done = self.trial.run(*line, env={**self.env, **env}, timeout=900)
        self.said += [done.out, done.err]
        if done.code != code:
            raise Broken("lost", f"{done.line}: code {done.code}, not {code}: {done.err[-400:]}")
        if self.notes.exists():
            raise Broken("escape", f"{done.line}: {self.notes.read_text()[:400]}")
        return done


LIGHT = (
    ("prepare", "typographic", "--dataset", "photos", "-o", "prefs"),
    ("train", *STEPS, "--data", "prefs", "--trainable=head", "-o", "runs/a"),
    ("train", *STEPS, EMOJI, "--trainable=head", "-o", "runs/b"),
    ("train", "--resume", "runs/b", "--no-eval"),
    ("transform", "runs/b", "--t", "0.4", "-o", "turned"),
    ("export", "runs/a", "-o", "exported"),
    ("retrieve", "a pear.", "runs/a", "--dataset", "photos", "-o", "found.png"),
    ("runs", "list"),
    ("runs", "show", "runs/a"),
    ("runs", "rm", "runs/b", "--yes"),
    ("datasets", "list"),
    ("datasets", "show", "oxford-pets"),
    ("cache", "list"),
    ("config", "show"),
    ("config", "validate", "runs/a/config.yaml"),
    ("config", "schema"),
    ("plugins", "list"),
    ("plugins", "show", "kto"),
    ("plugins", "doctor"),
    ("plugins", "new", "mine", "--kind", "objective"),
    ("--version",),
)
HEAVY = (
    ("train", "--set=train.steps=2", EMOJI, "-o", "runs/c"),
    ("eval", "runs/a", "--dataset", "photos", "--split=test"),
    ("eval", "emoji-tiny", "--suite=gender", "--split=test", "-o", "measured"),
    ("report", "runs/c"),
    ("runs", "compare", "runs/c", "runs/c"),
    ("compare", "recipe.yaml", "-o", "compared"),
    ("prepare", "gender", "--limit=20", "-o", "people", "--workers=2"),
)


@case("no network", long=2, short=0)  # the short form of the secrets watches, too
def no_network(trial: Trial) -> None:
    """Every command with small work, every reach for the network refused and noted: none."""
    watched = Watched(trial)
    photos(trial.folder / "photos")
    (trial.folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    lines = LIGHT + (HEAVY if trial.number else ())
    for line in lines:
        watched.run(*line)
    trial.inputs = len(lines)


# --- Repositories of strangers ------------------------------------------------------------------


class Payload:
    """Pickled, it makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def repository(hub: Path, name: str, files: Mapping[str, bytes]) -> None:
    """A repository in a Hugging Face cache, as a download leaves it."""
    place = hub / f"models--org--{name}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file, content in files.items():
        (snapshot / file).write_bytes(content)


def repositories(canary: Path) -> Iterator[tuple[str, dict[str, bytes], int]]:
    """Name and files of repositories that bring code, and the code a command ends with."""
    tiny = Path(clipalign.models.__path__[0]) / "emoji_tiny"
    sound = (tiny / "open_clip_config.json").read_bytes()
    weights = (tiny / "open_clip_model.safetensors").read_bytes()
    code = f"open({str(canary)!r}, 'w')\nclass Tower: pass\n".encode()
    auto = {"auto_map": {"AutoConfig": "modeling.Tower", "AutoModel": "modeling.Tower"}}
    brought = {
        "modeling.py": code,
        "configuration.py": code,
        "__init__.py": code,
        "config.json": json.dumps({"model_type": "odd", **auto}).encode(),
        "tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": "modeling.T"}}).encode(),
    }
    pickled = pickle.dumps(Payload(canary))
    yield (
        "code-beside",
        {**brought, "open_clip_config.json": sound} | {"open_clip_model.safetensors": weights},
        0,
    )
    yield "pickle", {"open_clip_config.json": sound, "open_clip_pytorch_model.bin": pickled}, 6
    config = json.loads(sound)
    remote = {"hf_model_name": "org/remote", "hf_tokenizer_name": "org/remote"}
    config["model_cfg"]["text_cfg"] |= remote
    text = json.dumps(config).encode()
    yield (
        "remote",
        {**brought, "open_clip_config.json": text} | {"open_clip_model.safetensors": weights},
        6,
    )
    trusting = json.loads(sound)
    trusting["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    yield (
        "trusting",
        {**brought, "open_clip_config.json": json.dumps(trusting).encode()}
        | {"open_clip_model.safetensors": weights},
        6,
    )


@case("code of strangers", long=4)
def code_of_strangers(trial: Trial) -> None:
    """Repositories with code, in every command that takes a model: read, or refused; never run."""
    hub, canary = trial.folder / "hub", trial.folder / "canary"
    watched = Watched(trial, HF_HUB_CACHE=str(hub), HF_HUB_OFFLINE="1")
    photos(trial.folder / "photos")
    trial.inputs = 0
    kept = list(repositories(canary))
    for name, files, _ in kept:
        repository(hub, name, files)
    for name, _, code in kept:
        spec = f"hf-hub:org/{name}"
        lines: list[tuple[str, ...]] = [("export", spec, "-o", f"out-{name}")]
        if trial.number:
            lines += [
                ("train", *STEPS, "--model", spec, EMOJI, "--trainable=head", "-o", f"run-{name}"),
                ("retrieve", "a pear.", spec, "--dataset", "photos", "-o", f"{name}.png"),
            ]
        for line in lines:
            done = watched.run(*line, code=code)
            trial.inputs += 1
            if canary.exists():
                raise Broken("escape", f"{done.line}: ran code of the repository {name}")
    absent = watched.run("export", "hf-hub:org/absent", "-o", "absent", code=6)
    if "HF_HUB_OFFLINE" not in absent.err:
        raise Broken("lost", f"offline is not said: {absent.err}")


# --- Secrets ------------------------------------------------------------------------------------

MARK = "zq7Xw"
SECRETS = {
    "HF_TOKEN": f"hf_{MARK}AAAAAAAAAAAAAAAAAAAAAAAA",
    "HUGGING_FACE_HUB_TOKEN": f"hf_{MARK}BBBBBBBBBBBBBBBBBBBBBBBB",
    "WANDB_API_KEY": f"{MARK}cccccccccccccccccccccccc",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}/dddddddddddddddddddd",
    "MLFLOW_TRACKING_PASSWORD": f"{MARK}eeee",
    "https_proxy": f"http://user:{MARK}ffff@127.0.0.1:9",
    "DATABASE_URL": f"postgres://me:{MARK}gggg@db/x",
    "USER": f"{MARK}-user",
    "LOGNAME": f"{MARK}-user",
    "HOSTNAME": f"{MARK}-host",
}
WRONG = (
    (("export", "hf-hub:org/absent", "-o", "absent"), 6),
    (("export", "runs/a", "-o", "pushed", "--push", "hf-hub:me/model"), 2),
    (("train", "--method=ktoo"), 3),
    (("train", "--set=trackers=[absent]", "-o", "tracked"), 3),
    (("train", "--set=train.lr=x", "--set=nothing.at=all"), 3),
    (("eval", "nowhere/at/all", "--suite=typographic"), 6),
    (("prepare", "typographic", "--dataset", "nowhere", "-o", "none"), 2),
)


@case("secrets of the environment", long=2)
def secrets(trial: Trial) -> None:
    """Every byte that commands write and say, right and wrong ones: none of the environment's."""
    watched = Watched(trial, **SECRETS, HF_HUB_OFFLINE="1", CLIPALIGN_DEBUG="1")
    photos(trial.folder / "photos")
    (trial.folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    for line in (*LIGHT, *(HEAVY if trial.number else ())):
        watched.run(*line)
    said = "".join(watched.said)
    for line, code in WRONG:
        done = trial.run(*line, env=watched.env, check=False)
        if done.code in (0, 1, None) or (code and done.code != code):
            raise Broken("lost", f"{done.line}: code {done.code}, not {code}: {done.err[-300:]}")
        said += done.out + done.err
    shutil.rmtree(trial.folder / "site")
    files = [p for p in trial.folder.rglob("*") if p.is_file()]
    files += [p for p in (trial.shared / "cache").rglob("*") if p.is_file()]
    trial.inputs = len(files)
    leaks = [p for p in files if MARK.encode() in p.read_bytes()]
    if leaks or MARK in said:
        raise Broken("escape", f"a secret stands in {leaks[:3] or 'what was printed'}")
    here = str(trial.folder.parent).encode()
    public = ("README.md", "environment.json", "open_clip_config.json")
    if named := [p for p in files if p.name in public and here in p.read_bytes()]:
        raise Broken("escape", f"a path of this machine stands in {named[:3]}")
