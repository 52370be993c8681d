"""A report is one file that needs nothing else, and its numbers are those of the results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from clipalign.errors import DataError, RunError, UsageError
from clipalign.evals.results import (
    DatasetIdentity,
    MetricValue,
    ModelIdentity,
    SuiteResult,
    read_result,
    read_rows,
    write_result,
)
from clipalign.evals.words import label, number
from clipalign.reports.boards import boards_of
from clipalign.reports.curves import training_charts
from clipalign.reports.headline import headline
from clipalign.reports.plots import write_plots
from clipalign.reports.report import report
from clipalign.reports.sources import Measured, Source, find_sources
from clipalign.reports.tables import summary_table
from clipalign.reports.wall import KINDS, build_wall
from tests.reports.page import Page


def copied(run, tmp_path):
    """A run of one's own to change."""
    return Path(shutil.copytree(run, tmp_path / run.name))


@pytest.fixture(scope="module")
def whole(world):
    """A report of all three runs."""
    path = world.root / "all.html"
    made = report(world.first, world.second, world.people, output=path)
    return made, Page(path), path.read_text(encoding="utf-8")


def test_it_is_one_whole_file_that_fetches_nothing(whole):
    made, page, source = whole
    assert made.problems == ()
    assert page.problems == []
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "poster", "data", "srcset"):
            assert value.startswith(("data:image/webp;base64,", "#")), (tag, name, value[:80])
        assert not name.startswith("on"), (tag, name)
    style = source[source.index("<style>") : source.index("</style>")]
    script = next(content for kind, content in page.scripts if not kind)
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch|XMLHttpRequest|import\(|https?:", script)
    assert any("default-src 'none'" in v for _, name, v in page.attributes if name == "content")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        if name == "href":
            assert value[1:] in ids


def test_the_same_inputs_give_the_same_bytes(world, whole, tmp_path):
    again = report(world.first, world.second, world.people, output=tmp_path / "again.html")
    assert again.path.read_bytes() == (world.root / "all.html").read_bytes()


def test_every_number_of_the_tables_is_the_results_own(world, tmp_path):
    page = Page(report(world.first, output=tmp_path / "one.html", wall=0).path)
    result = read_result(next((world.first / "results").glob("*.json")))
    compared = {c.metric: c for c in result.comparisons}
    shown = {name: data for name, data in page.rows if name}
    assert set(shown) == {label(name) for name in result.metrics}
    for name, metric in result.metrics.items():
        expected = [metric.value]
        if name in compared:
            difference = compared[name].difference
            expected = [metric.value - difference, metric.value, difference]
        values = [float(value) for value, _ in shown[label(name)]]
        assert values == expected, name
        texts = [text.replace("−", "-").removesuffix(" %") for _, text in shown[label(name)]]
        signs = ["-", "-", "+"][-len(expected) :] if len(expected) == 3 else ["-"]
        assert texts == [
            number(value, metric.unit, sign) for value, sign in zip(expected, signs, strict=True)
        ]


def test_several_runs_on_the_same_images_share_a_table(world):
    boards = boards_of(find_sources([world.first, world.second, world.people]))
    assert [board.columns for board in boards] == [("first", "second"), ("people-run",)]
    row = boards[0].aims[0]
    assert row.name == "attacked_accuracy"
    assert row.cells[0].before == row.cells[1].before == row.before
    assert boards[0].key_figures == ()  # several models have no single figure
    assert [r.name for r in boards[1].key_figures[:1]] == ["gender_accuracy"]


def test_the_large_figures_of_one_among_several_runs_say_whose_they_are(world, whole):
    heading = f"{world.people.name}: {boards_of(find_sources([world.people]))[0].title}"
    assert ("section", "aria-label", heading) in whole[1].attributes
    alone = Page(report(world.people, output=world.root / "alone.html").path)
    assert ("section", "aria-label", heading) not in alone.attributes


def test_a_difference_within_chance_is_not_called_a_change(world):
    (board,) = boards_of(find_sources([world.people]))
    for row in (*board.aims, *board.costs, *board.others):
        (cell,) = row.cells
        if cell.comparison and cell.comparison.interval:
            bounds = cell.comparison.interval
            if bounds.low <= 0 <= bounds.high:
                assert cell.verdict == "same"
    for row in (board.aims[0], board.costs[0]):
        (cell,) = row.cells
        went = "rose from" if cell.comparison.difference > 0 else "fell from"
        said = "did not change beyond chance" if cell.verdict == "same" else went
        assert f"{row.label} {said}".lower() in board.sentence.lower()


def test_the_wall_shows_the_worst_of_each_kind_and_says_how_many_there_are(world):
    from clipalign.progress import Silent
    from clipalign.reports.pictures import Images

    (source,) = find_sources([world.first])
    rows = source.results[0].rows
    attacked = [r for r in rows if r["written"] is not None]
    wall = build_wall(source, Images(), 12, Silent())
    assert wall.total == len(attacked) == sum(wall.counts.values())
    assert len(wall.tiles) == 12
    kinds = [tile.kind for tile in wall.tiles]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    for kind in wall.kinds:
        right = kind in ("fixed", "still right")
        was = kind in ("broken", "still right")
        of_kind = [
            r
            for r in attacked
            if (r["predicted"] == r["label"]) == right
            and (r["reference_predicted"] == r["label"]) == was
        ]
        assert len(of_kind) == wall.counts[kind]
        tiles = [tile for tile in wall.tiles if tile.kind == kind]
        assert len(tiles) >= min(len(of_kind), 3)
        worst = sorted(of_kind, key=lambda r: (r["p_true"], r["key"], r["attack"]))
        assert [t.label for t in tiles] == [r["label"] for r in worst[: len(tiles)]]
        for tile, row in zip(tiles, worst, strict=False):
            assert tile.after[:2] == (row["predicted"], row["confidence"])
            assert tile.before[:2] == (row["reference_predicted"], row["reference_confidence"])
            assert tile.written == row["written"]


def test_searches_are_those_that_were_scored(world, whole):
    _, page, _ = whole
    (gallery,) = [json.loads(c) for kind, c in page.scripts if kind == "application/json"]
    result = read_result(next((world.people / "results").glob("*.json")))
    assert gallery["stops"] == ["the reference", "the model"]
    for stop, prefix in enumerate(("reference_", "")):
        for query, top in zip(gallery["queries"], gallery["top"][stop], strict=True):
            values = [gallery["values"][gallery["value"][i]] for i in top]
            assert values.count("woman") == result.per_class[query][f"{prefix}n_woman_at_k"]
    assert all(picture.startswith("data:image/webp") for picture in gallery["pictures"])


def test_the_dial_turns_the_map_and_its_ends_are_the_two_models(world, tmp_path):
    """A head on the embedded model: t = 0 and t = 1 must give what the suite measured."""
    import torch

    measure = world.measure

    from clipalign.config import RunConfig
    from clipalign.config_text import dump_config
    from clipalign.models.linear_map import LinearMap
    from clipalign.models.load import load_model

    model = load_model("emoji-tiny")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(model.embed_dim, model.embed_dim, generator=generator)
    linear = LinearMap(torch.eye(model.embed_dim) + 0.4 * noise / model.embed_dim**0.5)
    run, options = tmp_path / "head", {"path": str(world.table), "label_column": None}
    run.mkdir()
    config = RunConfig(
        task="gender", dataset="table", dataset_options=options, trainable="head"
    )  # fmt: skip
    (run / "config.yaml").write_text(dump_config(config))
    linear.save(run / "linear_map.safetensors", model_sha256=model.sha256)
    path = measure(
        "gender", [linear.fold(model), model], "table", options, "test", run / "results",
        searches=100, k=5,
    )  # fmt: skip
    page = Page(report(run, output=tmp_path / "head.html", scan="-1:1:0.5").path)
    gallery = json.loads(next(c for kind, c in page.scripts if kind == "application/json"))
    result = read_result(path)
    assert {-1.0, -0.5, 0.0, 0.5, 1.0} <= set(gallery["ts"])
    assert sum("t*" in stop for stop in gallery["stops"]) == 1
    for t, prefix in ((0.0, "reference_"), (1.0, "")):
        stop = gallery["ts"].index(t)
        for query, top in zip(gallery["queries"], gallery["top"][stop], strict=True):
            women = sum(gallery["value"][i] == 0 for i in top)
            assert women == result.per_class[query][f"{prefix}n_woman_at_k"], (t, query)
    readings = gallery["readings"][gallery["ts"].index(1.0)]
    measured = result.metrics
    assert readings["gender accuracy"] == pytest.approx(measured["gender_accuracy"].value)
    assert readings["activity accuracy"] == pytest.approx(measured["activity_accuracy"].value)
    assert readings["mean |bias| in the top 5"] == pytest.approx(
        measured["mean_abs_bias_at_k"].value
    )


def test_what_is_written_in_files_is_shown_and_never_obeyed(world, tmp_path):
    run = copied(world.first, tmp_path)
    path = next((run / "results").glob("*.json"))
    result, rows = read_result(path), read_rows(path)
    evil = "<script>boom()</script>\u202egnp\x1b[31m"
    per_class = {evil if name == "apple" else name: row for name, row in result.per_class.items()}
    changed = result.model_copy(
        update={"per_class": per_class, "warnings": [evil], "templates": [evil]}
    )
    write_result(path, changed, [r | {"predicted": evil} for r in rows])
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("output: null", "output: '</pre><b>'"))
    made = report(run, output=tmp_path / "evil.html")
    source, page = made.path.read_text(encoding="utf-8"), Page(made.path)
    assert page.problems == []
    assert [kind for kind, _ in page.scripts] == [""]
    assert "boom()</script>\\u202egnp\\x1b[31m" in page.text
    assert not {"\u202e", "\x1b"} & set(source)
    assert all(tag != "img" or name != "onerror" for tag, name, _ in page.attributes)


def test_images_that_have_moved_are_asked_for_and_found(world, tmp_path):
    run, photos = copied(world.first, tmp_path), tmp_path / "elsewhere"
    shutil.copytree(world.photos, photos)
    path = next((run / "results").glob("*.json"))
    result = read_result(path)
    gone = result.dataset.model_copy(update={"options": {"root": str(tmp_path / "gone")}})
    write_result(path, result.model_copy(update={"dataset": gone}), read_rows(path))
    lost = report(run, output=tmp_path / "lost.html")
    assert "Say where they are with --dataset." in lost.problems[0]
    assert "images of folder" in Page(lost.path).text
    found = report(run, output=tmp_path / "found.html", dataset=photos)
    assert found.problems == ()
    (photos / "apple" / "0.png").unlink()
    other = report(run, output=tmp_path / "other.html", dataset=photos)
    assert "holds other images" in other.problems[0]


def test_images_of_a_dataset_that_is_not_installed_are_missing_and_no_more(world, tmp_path):
    run = copied(world.first, tmp_path)
    path = next((run / "results").glob("*.json"))
    result = read_result(path)
    other = result.dataset.model_copy(update={"name": "image-list", "options": {}})
    write_result(path, result.model_copy(update={"dataset": other}), read_rows(path))
    made = report(run, output=tmp_path / "page.html")
    assert "There is no dataset 'image-list'" in made.problems[0]
    assert made.headline


def test_an_unfinished_run_shows_its_curves_and_what_is_missing(world, tmp_path):
    run = copied(world.first, tmp_path)
    shutil.rmtree(run / "results")
    text = Page(report(run, output=tmp_path / "a.html").path).text
    assert "was not evaluated. Measure it with: clipalign eval" in text
    assert "Implicit-reward accuracy" in text
    (run / "model" / "open_clip_config.json").unlink()
    text = Page(report(run, output=tmp_path / "b.html").path).text
    assert "Go on with: clipalign train --resume" in text
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="nothing to report"):
        report(run)


def test_a_scan_is_curves_over_t(tmp_path):
    rows = [
        {"t": t / 4, "concept_accuracy": 1 - t / 5, "activity_accuracy": None, "top_k_share": None}
        for t in range(5)
    ]
    scan = {"concept": "age", "values": ["young", "old"], "k": 10, "images": 40, "rows": rows}
    (tmp_path / "age-scan").mkdir()
    (tmp_path / "age-scan" / "scan.json").write_text(json.dumps(scan))
    page = Page(report(tmp_path / "age-scan", output=tmp_path / "scan.html").path)
    assert "Accuracy over t" in page.text
    assert "The top 10" not in page.text  # it was not measured
    for words in ("40 images", "5 values from 0 to 1", "young, old"):  # where it comes from
        assert words in page.text
    assert "shaded" not in page.text  # it has no intervals
    scan["intervals"] = {"concept_accuracy": [[0.7, 1.0], *[[0.5, 0.9]] * 3, None]}
    (tmp_path / "age-scan" / "scan.json").write_text(json.dumps(scan))
    page = Page(report(tmp_path / "age-scan", output=tmp_path / "scan.html").path)
    assert "40 images; shaded: 95 % interval over images" in page.text
    for broken in (
        {"rows": []},
        scan | {"intervals": [1]},
        scan | {"intervals": {"concept_accuracy": [[0.1, 0.2]]}},
        scan | {"intervals": {"concept_accuracy": [["<b>", 0.2]] * 5}},
        scan | {"intervals": {"concept_accuracy": [[0.2]] * 5}},
    ):
        (tmp_path / "age-scan" / "scan.json").write_text(json.dumps(broken))
        with pytest.raises(DataError, match="is not a scan"):
            report(tmp_path / "age-scan")


def test_a_scan_of_written_words_is_reading_against_looking(world, tmp_path):
    rows = [
        {"t": t / 2, "od": 0.2 + t / 10, "ocr": 0.6 - t / 10, "od_two_way": 0.3, "ocr_two_way": 0.7}
        for t in range(-2, 3)
    ]
    scan = {"dataset": "emoji", "split": "test", "images": 1200, "rows": rows}
    run = copied(world.first, tmp_path)
    (run / "scan.json").write_text(json.dumps(scan))
    made = report(run, output=tmp_path / "run.html")
    page = Page(made.path)
    assert page.problems == []
    for words in ("Reading or looking, over t", "1,200 attacked images of emoji, split test"):
        assert words in page.text
    assert "object, of all" in page.text
    assert ("0.4", "40.0 %") in [value for row in page.rows for value in row[1]]  # od at t = 1
    assert "Before and after" in page.text  # the run's own results are there too
    alone = Page(report(run / "scan.json", output=tmp_path / "scan.html").path)
    assert "Reading or looking, over t" in alone.text


def test_retention_is_shown_once_a_model():
    def measured(split, retention):
        def share(value):
            return MetricValue(
                value=value, n=10, unit="share", description="x", higher_is_better=True
            )

        metrics = {"attacked_accuracy": share(0.5), "clean_accuracy": share(0.7)}
        metrics["retention_accuracy"] = share(retention)
        return Measured(
            Path(f"{split}.json"),
            SuiteResult(
                suite="typographic", suite_version=1, seed=0, metrics=metrics,
                model=ModelIdentity(spec="m", sha256="1" * 64, name="m"),
                dataset=DatasetIdentity(
                    name="emoji", split=split, fingerprint=split, licence="x", n=10
                ),
            ),
        )  # fmt: skip

    results = (measured("a", 0.9), measured("b", 0.9), measured("c", 0.8))
    boards = boards_of([Source("m", Path("m"), results=results)])
    said = [[row.name for row in board.costs] for board in boards]
    first = ["clean_accuracy", "retention_accuracy"]
    assert said == [first, ["clean_accuracy"], first]
    text = summary_table([m.result for m in results])
    assert text.count("retention accuracy") == 2
    assert text.count("Retention is as above.") == 1


def test_plots_are_files_and_the_same_each_time(world, tmp_path):
    pytest.importorskip("matplotlib")
    sources = find_sources([world.first, world.second])
    charts, boards = training_charts(sources)[:2], boards_of(sources)[:1]
    made = [write_plots(tmp_path / name, charts, boards) for name in "ab"]
    names = [path.name for path in made[0]]
    assert names[:4] == ["loss.png", "loss.svg", "margin.png", "margin.svg"]
    assert names[5] == "typographic-folder-photos-train-before-and-after.svg"
    for a, b in zip(*made, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    assert made[0][0].read_bytes().startswith(b"\x89PNG")
    assert "first" in (tmp_path / "a" / "loss.svg").read_text()


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("nowhere", UsageError, "There is no"),
        ("empty", UsageError, "neither a run"),
        ("e1", UsageError, r"is in .*e1/compare\.md.*clipalign report .*e1/cells/kto-s0"),
        ("e1/compare.json", UsageError, "is a comparison"),
        ("results/broken.json", DataError, "not a JSON result"),
    ],
)
def test_wrong_paths_say_what_is_wrong(tmp_path, what, error, words):
    for folder in ("results", "empty", "e1/cells/kto-s0"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "results" / "broken.json").write_text("{")
    (tmp_path / "e1" / "compare.json").write_text("{}")
    with pytest.raises(error, match=words):
        report(tmp_path / what)
    with pytest.raises(UsageError, match="Name a run"):
        report()


def test_a_folder_of_folders_of_results_is_read_as_each_of_them(world, tmp_path):
    for run in (world.first, world.second):
        shutil.copytree(run / "results", tmp_path / "res" / run.name)
    (tmp_path / "res" / "empty").mkdir()
    sources = find_sources([tmp_path / "res"])
    assert [source.name for source in sources] == [world.first.name, world.second.name]
    assert boards_of(sources)[0].columns == (world.first.name, world.second.name)


def test_the_commands_make_the_results_again(world):
    from clipalign.reports.provenance import provenance_of

    (first,), (people,) = find_sources([world.first]), find_sources([world.people])
    assert provenance_of(first).commands[-1] == (
        "clipalign eval first --suite typographic --against reference "
        f"--dataset {world.photos} --split train --set resamples=100"
    )
    command = provenance_of(people).commands[-1]
    assert f"--dataset {world.table} --set dataset.label_column=null --split test" in command


def test_the_headline_is_aims_and_costs_alone(world):
    result = read_result(next((world.first / "results").glob("*.json")))
    short = headline(result)
    assert list(short.metrics)[:3] == ["attacked_accuracy", "attack_success_rate", "object_or_word"]
    assert "kl_to_reference" in short.metrics
    assert "kl_to_reference_p99" not in short.metrics
    assert {c.metric for c in short.comparisons} <= set(short.metrics)
