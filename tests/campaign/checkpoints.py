"""Hostile models: headers that lie, other types, pickles, code beside weights; changed runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clipalign
from tests.campaign import broken_images as make
from tests.campaign.cases import Broken, Trial, case
from tests.campaign.hostile import attempt, canary
from tests.campaign.yamls import changed

TINY = Path(clipalign.__file__).parent / "models" / "emoji_tiny"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Any, body: bytes, length: int | None = None) -> bytes:
    """And back again; `length` is what it says of its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def lying(rng: random.Random, data: bytes) -> bytes:
    """Weights with one lie in their header, or other numbers."""
    header, body = split(data)
    name = rng.choice([n for n in header if n != "__metadata__"])
    about = header[name]
    start, end = about["data_offsets"]
    kind = rng.randrange(20)
    if kind < 4:
        return joined(header, body, rng.choice((0, 2**63, 2**64 - 1, len(data), 100_000_001, 7)))
    if kind < 7:
        wild = rng.choice(((start, end + 4), (end, start), (-4, end), (0, 2**63), (start, start)))
        about["data_offsets"] = rng.choice(
            (list(wild), None, [start], ["a", "b"], [0, len(body) * 2])
        )
    elif kind == 7:
        other = rng.choice([n for n in header if n != "__metadata__"])
        about["data_offsets"] = header[other]["data_offsets"]
    elif kind == 8:
        about["dtype"] = rng.choice(("I8", "F64", "BF16", "BOOL", "X", None, 7, "F8_E4M3", "U64"))
    elif kind == 9:
        about["shape"] = rng.choice(
            ([], [-1], [2**40, 2**40], [0], None, "x", [1.5], about["shape"][::-1])
        )
    elif kind == 10:
        del header[name]
    elif kind == 11:
        header["\u202e\x1b[31m"] = header.pop(name)
    elif kind == 12:
        wild = rng.choice(("{", "[]", "[" * 99_999, "7", '{"model_cfg": 1}', "\x1b[0m"))
        header["__metadata__"] = {"open_clip_config": wild}
    elif kind == 13:
        header["__metadata__"] = rng.choice((7, [], {"a": 1}, {"a": {"b": 1}}))
    elif kind == 14:
        return joined(rng.choice((b"[]", b"[" * 99_999, b"null", b"\xff" * 99, b"{}", b"")), body)
    elif kind == 15:
        return data[: rng.randrange(len(data))]
    elif kind == 16:
        return rng.choice((b"", b"\x80\x04.", make.picture("png", "RGB"), rng.randbytes(999)))
    else:
        wild = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\0\0", b"\xff\xff\x7f\x7f"))
        body = body[:start] + wild * ((end - start) // 4) + body[end:]
    return joined(header, body)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, pwned: Path) -> None:
        self.command = f"touch {pwned}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def pickles(rng: random.Random, pwned: Path) -> bytes:
    """A pickle with a payload, as it is or in the archive of torch.save."""
    content = (
        {"state_dict": {"visual.proj": Payload(pwned)}} if rng.random() < 0.5 else Payload(pwned)
    )
    plain = pickle.dumps(content, protocol=rng.choice((0, 2, 4)))
    if rng.random() < 0.4:
        return plain
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", plain)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        if rng.random() < 0.3:
            file.writestr("archive/code/__torch__.py", f"import os\nos.system('touch {pwned}')\n")
            file.writestr("archive/constants.pkl", plain)
    return plain + buffer.getvalue() if rng.random() < 0.2 else buffer.getvalue()


def with_code(rng: random.Random, folder: Path, pwned: Path) -> str:
    """A Hugging Face directory that brings code; the spec that names it."""
    code = f"import os\nos.system('touch {pwned}')\nclass X: pass\n"
    for name in (
        "modeling_x.py",
        "tokenization_x.py",
        "configuration_x.py",
        "__init__.py",
        "setup.py",
    ):
        (folder / name).write_text(code)
    auto = {
        "AutoConfig": "configuration_x.X",
        "AutoModel": "modeling_x.X",
        "AutoTokenizer": ["tokenization_x.X", None],
    }
    about = {
        "model_type": rng.choice(("clip", "x", "bert")),
        "auto_map": auto,
        "architectures": ["X"],
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": auto, "tokenizer_class": "X"})
    )
    (folder / WEIGHTS).unlink(missing_ok=True)
    shutil.copy(TINY / WEIGHTS, folder / "model.safetensors")
    config = json.loads((TINY / CONFIG).read_text())
    kind = rng.randrange(4)
    text = config["model_cfg"]["text_cfg"]
    if kind == 0:
        text["hf_model_name"] = str(folder)
    elif kind == 1:
        text |= {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}
    elif kind == 2:
        text |= {"hf_tokenizer_name": str(folder)}
    else:
        (folder / CONFIG).unlink()
        return f"hf-dir:{folder.name}"
    (folder / CONFIG).write_text(json.dumps(config))
    return f"local-dir:{folder.name}"


def wild_config(rng: random.Random) -> bytes:
    """A model's configuration with values that nobody can build."""
    text = (TINY / CONFIG).read_text()
    if rng.random() < 0.15:
        return rng.choice((b"[" * 99_999, b"", b"[]", b"{}", b"\xff", b'{"model_cfg": null}'))
    config = json.loads(text)
    if rng.random() < 0.5:
        return json.dumps(changed(rng, changed(rng, config)), default=str).encode()
    model = config["model_cfg"]
    part = rng.choice((model, model["vision_cfg"], model["text_cfg"], config["preprocess_cfg"]))
    key = rng.choice(
        [*part, "timm_model_name", "heads", "custom_text", "hf_model_name", "multimodal_cfg"]
    )
    part[key] = rng.choice(
        (
            -1, 0, 10**6, 10**9, 10**12, 1.5, "x", "../../x", None, [], [10**9] * 4, {}, True,
            "\x1b[31m",
            float("nan"), "hf-hub:a/b", 2**63, 10**30,
        )
    )  # fmt: skip
    return json.dumps(config).encode()


@case("hostile models", long=24)
def hostile_models(trial: Trial) -> None:
    """Weights that lie, pickles with payloads, code beside weights, wild sizes: nothing is run."""
    pwned = canary(trial) / "pwned"
    data = (TINY / WEIGHTS).read_bytes()
    trial.inputs = 6 if trial.number == 0 else 20
    for number in range(trial.inputs):
        folder = trial.folder / f"m{number}"
        folder.mkdir()
        shutil.copy(TINY / CONFIG, folder)
        kind = number % 6
        spec = folder.name
        if kind < 2:
            (folder / WEIGHTS).write_bytes(lying(trial.rng, data))
        elif kind == 2:
            name = trial.rng.choice(
                ("model.pt", "model.bin", "model.safetensors", "x.ckpt", WEIGHTS)
            )
            (folder / name).write_bytes(pickles(trial.rng, pwned))
            spec = trial.rng.choice((spec, f"{spec}/{name}"))
        elif kind == 3:
            spec = with_code(trial.rng, folder, pwned)
        else:
            os.link(TINY / WEIGHTS, folder / WEIGHTS)
            (folder / CONFIG).write_bytes(wild_config(trial.rng))
        done = attempt(trial, "export", spec, "-o", f"out-{number}", timeout=120)
        if pwned.exists():
            raise Broken("escape", f"{done.line}: ran code: {sorted(os.listdir(folder))}")
        if done.code not in (0, 2, 6):
            raise Broken("lost", f"{done.line}: code {done.code}: {done.err[-300:]}")
        shutil.rmtree(folder)
        shutil.rmtree(trial.folder / f"out-{number}", ignore_errors=True)


def make_run(folder: Path) -> None:
    """A run of two steps with a checkpoint and a result."""
    from clipalign import evaluate, train
    from tests.campaign.sets import make_set

    make_set(folder)
    result = train(
        data=str(folder / "imagefolder"), trainable="head", output=str(folder / "run"),
        train={"steps": 2, "batch_size": 2, "checkpoint_every_steps": 1},
    )  # fmt: skip
    evaluate(str(result.run), dataset=folder / "photos", output=folder / "run" / "results")


@case("changed runs", long=16)
def changed_runs(trial: Trial) -> None:
    """Run directories with changed configurations, checkpoints, logs and results."""
    made = trial.once("run", make_run)
    trial.inputs = 5 if trial.number == 0 else 20
    rng = trial.rng
    for number in range(trial.inputs):
        run = trial.folder / f"run-{number}"
        shutil.copytree(made / "run", run)
        files = [p for p in sorted(run.rglob("*.*")) if p.is_file() and p.suffix != ".lock"]
        file = rng.choice([p for p in files if p.suffix in (".json", ".jsonl", ".yaml")] + files)
        data = file.read_bytes()
        kind = rng.randrange(7)
        if file.suffix == ".json" and kind < 4:
            file.write_text(json.dumps(changed(rng, json.loads(data)), default=str))
        elif kind == 4:
            file.unlink()
            rng.choice((os.mkfifo, lambda f: f.symlink_to("/dev/zero"), Path.mkdir))(file)
        elif kind == 5:
            file.write_bytes(
                rng.choice((b"", b"[" * 99_999, b"\x1b]0;x\x07: 1", b"null", b"7" * 5000))
            )
        else:
            file.write_bytes(rng.choice(make.DAMAGES)(rng, data or b"7"))
        for command in rng.sample(
            [
                ["runs", "list", "."], ["runs", "show", run.name], ["report", run.name, "-o",
                "out.html"],
                ["train", "--resume", run.name], ["runs", "compare", run.name, run.name],
                ["transform", run.name, "--t", "0.5", "-o", f"out-{number}"],
                ["eval", run.name, "--dataset", "none"], ["runs", "list", ".", "--where",
                "loss<1e9"],
            ],
            2,
        ):  # fmt: skip
            writes = command[0] == "train"  # a run goes on in its own directory
            call = trial.run if writes else lambda *a: attempt(trial, *a, timeout=120)
            done = call(*command)
            if done.code not in (0, 2, 3, 5, 6, 7, 8, 9):
                raise Broken(
                    "lost", f"{done.line}: {file.name}: code {done.code}: {done.err[-300:]}"
                )
        shutil.rmtree(run)
