"""`clipalign prepare` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from clipalign.tasks.preference_set import PreferenceSet


@pytest.fixture
def photos(tmp_path):
    """Three classes of photographs, and one file that is none."""
    root = tmp_path / "my photos"
    for name in ("ant", "bee", "cat"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.effect_noise((90, 80), 60).convert("RGB").save(root / name / f"{i}.png")
    (root / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return root


@pytest.fixture
def prepare(command, tmp_path):
    """Run `clipalign prepare …` with a cache of the test's own."""
    return lambda *arguments: command(
        "prepare", *arguments, env={"CLIPALIGN_CACHE": str(tmp_path / "cache")}
    )


def test_a_folder_becomes_a_set_and_the_next_command_is_named(prepare, photos, tmp_path):
    done = prepare("typographic", "--dataset", photos, "-o", "prefs", "--workers", "1")
    assert done.returncode == 0
    assert "train  10      9            1" in done.stdout
    assert "cat/broken.png: not an image" in done.stdout
    assert "Set:     prefs" in done.stdout
    assert "Preview: prefs/preview.png" in done.stdout
    assert "clipalign train --data prefs" in done.stdout
    assert "Preparing train 10/10 (100 %)" in done.stderr
    assert len(PreferenceSet.open(tmp_path / "prefs").rows("train")) == 9

    again = prepare("typographic", "--dataset", photos, "-o", "prefs")
    assert again.returncode == 0
    assert "Using the preference set in prefs." in again.stderr

    other = prepare("typographic", "--dataset", photos, "-o", "prefs", "--seed", "1")
    assert other.returncode == 7
    assert "--overwrite" in other.stderr
    assert prepare("--dataset", photos, "-o", "prefs", "--seed", "1", "--overwrite").returncode == 0
    assert PreferenceSet.open(tmp_path / "prefs").manifest.seed == 1


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        (("--style", "note"), "styles=[outlined]"),
        (("--attacks-per-image", "2"), "attacks_per_image=3"),
    ],
)
def test_an_option_is_given_once(flag, setting, capsys):
    from clipalign.cli.app import run

    assert run(["prepare", *flag, "--set", setting]) == 2
    assert f"--set {setting.partition('=')[0]} is also given by its own" in capsys.readouterr().err


def test_options_reach_the_task_and_json_is_one_document(prepare, photos, tmp_path):
    done = prepare(
        "--dataset", photos, "-o", "my prefs", "--attacks-per-image", "2", "--style", "note",
        "--set", "template=it shows {}", "--dataset-set", "licence=CC0", "--limit", "6",
        "--max-side", "40", "--json", "--quiet",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert done.stderr == ""
    counts = document["counts"]["train"]
    assert counts["rows"] == 2 * (counts["images"] - counts["quarantined"])
    assert [row["file"] for row in document["quarantined"]] in ([], ["cat/broken.png"])
    assert document["candidates"] == 3
    assert document["next"] == "clipalign train --data 'my prefs'"
    made = PreferenceSet.open(tmp_path / "my prefs")
    assert made.content_sha256 == document["content_sha256"]
    assert made.manifest.options["styles"] == ["note"]
    assert made.manifest.licence == "CC0"
    row = made.rows("train")[0]
    assert row.chosen.startswith("it shows ")
    assert max(made.read_image(row.image).size) == 40


def test_a_table_is_recognised(prepare, photos):
    table = photos / "index.csv"
    table.write_text("path,kind\nant/0.png,ant\nbee/0.png,bee\n")
    done = prepare("--dataset", table, "--dataset-set", "label_column=kind", "-o", "out", "--json")
    assert json.loads(done.stdout)["counts"]["train"]["rows"] == 2
    table.write_text("path,label\nant/9.png,ant\nbee/0.png,\n")
    done = prepare("--dataset", table, "-o", "other")
    assert done.returncode == 5
    assert "row 2: there is no file 'ant/9.png'" in done.stderr
    assert "row 3: the label is empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["typografic"], 2, "no task 'typografic'. Did you mean 'typographic'?"),
        (["--dataset", "emojis"], 2, "no dataset, folder or table 'emojis'. Did you mean 'emoji'?"),
        (["--split", "tset"], 2, "no split 'tset'. Did you mean 'test'?"),
        (["--style", "sticker"], 3, "styles.0: should be 'outlined' or 'note'"),
        (["--set", "attacks_per_imag=3"], 3, "unknown key. Did you mean 'attacks_per_image'?"),
        (["--set", "x"], 2, "--set x: must be KEY=VALUE"),
        (["--set", "x=[1"], 2, "--set x=[1: "),
        (["--max-side", "-1"], 2, "'--max-side': should be greater than or equal to 0"),
        (["--dataset-set", "view=3"], 3, "view: unknown key. Did you mean 'views'?"),
    ],
)
def test_wrong_usage_is_one_message(prepare, tmp_path, arguments, code, words):
    done = prepare(*arguments, "-o", "out")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["cat/1.png"], "one class only, 'cat'"),
        (["cat/1.png", "dog/"], "no images of the classes 'dog'"),
        (["1.png"], "holds 1 images and no folders of classes"),
        ([], "There are no images"),
    ],
)
def test_folders_that_are_no_dataset_say_why(prepare, tmp_path, files, words):
    (tmp_path / "photos").mkdir()
    for name in files:
        path = tmp_path / "photos" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            Image.new("RGB", (8, 8)).save(path)
    done = prepare("--dataset", "photos", "-o", "out")
    assert done.returncode == 5
    assert words in done.stderr


def test_names_from_strangers_are_printed_inert(prepare, photos):
    (photos / "cat" / "\x1b[31mred\u202e.png").write_bytes(b"")
    done = prepare("--dataset", photos, "-o", "out")
    assert "cat/\\x1b[31mred\\u202e.png: the file is empty" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_place_that_cannot_be_written_is_a_storage_error(prepare, photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = prepare("--dataset", photos, "-o", "file/out")
    assert done.returncode == 9
    assert "a part of this path is a file" in done.stderr


def start(folder, workers):
    """Begin to prepare a set of some thousand rows, and wait until some are written."""
    arguments = ["--dataset", "my photos", "--attacks-per-image", "200", "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "clipalign", "prepare", "-o", "out", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(folder.glob(".out-*.tmp/train/images/*")):
        assert process.poll() is None
        time.sleep(0.02)
    return process


def assert_nobody_is_left(group):
    """Every process of the group ends within some seconds."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("workers outlived their parent")


# a terminal sends Ctrl-C to every process of the group, a scheduler SIGTERM to the parent
@pytest.mark.parametrize(
    ("workers", "stop", "send"),
    [("0", signal.SIGTERM, os.kill), ("2", signal.SIGINT, os.killpg)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_stopped_in_the_middle_it_leaves_nothing_and_nobody(photos, tmp_path, workers, stop, send):
    process = start(tmp_path, workers)
    send(process.pid, stop)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Stopped by {stop.name}. Nothing was written; run the same command again." in stderr
    assert "Traceback" not in stderr
    assert os.listdir(tmp_path) == ["my photos"]
    assert_nobody_is_left(process.pid)


def test_workers_end_when_their_parent_is_killed(photos, tmp_path):
    process = start(tmp_path, "2")
    process.kill()
    process.wait()
    process.stderr.close()
    assert_nobody_is_left(process.pid)


def test_help_has_examples(prepare):
    done = prepare("--help")
    assert done.returncode == 0
    assert "clipalign prepare typographic --dataset ./photos -o prefs/ --workers 8" in done.stdout
