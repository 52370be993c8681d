"""`transform` from a run to a directory that open_clip loads, and everything that it refuses."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

import clipalign
from clipalign.errors import ConfigError, DataError, ModelError, UsageError
from clipalign.models.linear_map import LinearMap
from clipalign.plain_yaml import read_yaml_mapping
from clipalign.transforms.transform import open_context, scan, transform

TEXTS = ["a photo of a man", "a photo of a woman", "a nurse"]


@pytest.fixture(scope="module")
def drawings():
    """Two women and two men of eight occupations and activities each."""
    from clipalign.datasets.emoji_people import EmojiPeople

    source = EmojiPeople()
    found = {}
    for e in source.examples("validation"):
        found.setdefault((e.label, e.attributes["gender"]), []).append((e, source.image(e)))
    return [
        d for name in source.classnames[:8] for g in ("woman", "man") for d in found[name, g][:2]
    ]


@pytest.fixture
def people(tmp_path, drawings):
    """A table of the drawings: the first of each for validation, the others for training."""
    folder = tmp_path / "people"
    folder.mkdir()
    lines = ["image,split,gender,activity,kind"]
    for i, (e, image) in enumerate(drawings):
        image.save(folder / f"{e.key}.png")
        a = e.attributes
        split = "train" if i % 2 else "validation"
        lines.append(f"{e.key}.png,{split},{a['gender']},{a['activity']},{a['kind']}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return {"dataset": folder / "index.csv", "dataset_options": {}}


@pytest.fixture
def run(tiny, make_run):
    return make_run("a", tiny("vit"))


def test_the_result_is_an_open_clip_directory_that_says_how_it_was_made(
    run, tiny, pixels_for, tmp_path
):
    result = clipalign.transform(run, t=0.4, output=tmp_path / "out")
    assert result.open_clip_line == (
        f"model, _, preprocess = open_clip.create_model_and_transforms('local-dir:{tmp_path}/out')"
    )
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{result.model}")
    model = tiny("vit")
    linear, _ = LinearMap.load(run / "linear_map.safetensors")
    powered, pixels = linear.power(0.4), pixels_for(model)
    with torch.no_grad():
        expected = (
            model.logit_scale
            * powered(model.encode_image(pixels))
            @ powered(model.encode_text(TEXTS)).T
        )
        found = plain.eval().get_logits(pixels, model.tokenize(TEXTS))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    record = read_yaml_mapping(result.model / "transform.yaml")
    assert (record["method"], record["source"]) == ("power", str(run))
    assert record["transform"]["maps"] == [
        {"run": str(run), "t": 0.4, "model_sha256": model.sha256}
    ]
    assert record["model_sha256"] == model.sha256
    assert record["labelled"] is None
    json.dumps(result.document())


def test_the_default_output_tells_what_was_done(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert transform(run, t=-1).model == tmp_path / "models" / "a-t-1"
    half = transform(run, method="interpolate", alpha=0.5)
    assert half.model == tmp_path / "models" / "a-a0.5"


def test_auto_finds_t_on_the_validation_split_of_a_table(run, people, tmp_path, notes):
    result = transform(
        run, t="auto", epsilon=0.5, **people, output=tmp_path / "out", reporter=notes
    )
    record = read_yaml_mapping(tmp_path / "out" / "transform.yaml")
    assert record["labelled"]["split"] == "validation"
    assert record["labelled"]["images"] == 16
    neutral = record["transform"]["neutral"]
    assert neutral["t"] == record["transform"]["maps"][0]["t"]
    assert 0 <= neutral["t"] <= 1
    assert neutral["interval"]["low"] <= neutral["interval"]["high"]
    assert result.transform.statement().startswith("t* = ")
    card = (tmp_path / "out" / "README.md").read_text()
    low, high = (neutral["interval"][end] for end in ("low", "high"))
    assert f"| map | of a, t = {neutral['t']:g} |" in card
    star = f"{neutral['t']:.3f} [{low:.3f}, {high:.3f}] (95 %)"
    assert f"| neutral t* of {neutral['concept']} | {star} |" in card


def test_a_context_is_shared_between_a_scan_and_a_transform(run, people, tmp_path):
    context = open_context(run, **people)
    found = scan(context, "0:1:0.5", output=tmp_path / "scan")
    model = context.reference
    transform(context, t=0.5, output=tmp_path / "out")
    assert context.reference is model
    assert [row.t for row in found.rows] == [0.0, 0.5, 1.0]
    assert found.rows[0].flip_rate == 0.0
    assert (tmp_path / "scan" / "scan.csv").is_file()


def test_after_maps_of_other_runs_t_0_of_this_one_is_theirs(run, people, tiny, make_run):
    other = make_run("b", tiny("vit"))
    context = open_context(run, **people)
    after = scan(context, [0.0], after={str(other): 0.7}).rows[0]
    alone = scan(open_context(other, **people), [0.7]).rows[0]
    assert after.gap == pytest.approx(alone.gap, abs=1e-9)
    assert after.concept_accuracy == alone.concept_accuracy


def test_images_of_one_value_are_refused(run, people):
    lines = people["dataset"].read_text().splitlines()
    people["dataset"].write_text("\n".join(line for line in lines if ",man," not in line) + "\n")
    with pytest.raises(DataError, match="woman"):
        transform(run, t="auto", **people)


def test_without_an_activity_column_there_is_a_t_all_the_same(run, people, tmp_path):
    lines = [line.rsplit(",", 2)[0] for line in people["dataset"].read_text().splitlines()]
    people["dataset"].write_text("\n".join(lines) + "\n")
    result = transform(run, t="auto", **people, output=tmp_path / "out")
    assert "nothing bounds what that costs" in result.transform.statement()


def test_a_test_split_is_never_fitted_on(run, people):
    text = (
        people["dataset"].read_text().replace(",validation,", ",test,").replace(",train,", ",test,")
    )
    people["dataset"].write_text(text)
    with pytest.raises(DataError, match="neither a validation nor a train split"):
        transform(run, t="auto", **people)


def test_project_takes_any_model(model_directory, tmp_path):
    spec = f"local-dir:{model_directory('vit')}"
    result = transform(spec, method="project", output=tmp_path / "out")
    record = read_yaml_mapping(result.model / "transform.yaml")
    assert record["transform"]["calibration"] == 1000.0
    assert record["labelled"]["concept"] == "gender"


def test_nothing_is_folded_in_twice(run, tmp_path):
    transform(run, t=0.4, output=tmp_path / "out")
    with pytest.raises(UsageError, match=r"result of a transform already \(power of .*yaml"):
        transform(tmp_path / "out", t=0.4)


def test_other_methods_apply_to_a_result_and_keep_its_record(run, tmp_path, notes):
    transform(run, t=0.4, output=tmp_path / "out")
    result = transform(tmp_path / "out", method="project", output=tmp_path / "both", reporter=notes)
    record = read_yaml_mapping(result.model / "transform.yaml")
    assert record["earlier"]["method"] == "power"
    assert any("applied to the result" in line for line in notes.lines)


def test_a_result_may_be_replaced_and_another_model_may_not(run, tmp_path):
    transform(run, t=0.4, output=tmp_path / "out")
    transform(run, t=0.5, output=tmp_path / "out")
    assert read_yaml_mapping(tmp_path / "out" / "transform.yaml")["options"]["t"] == 0.5
    before = (run / "model" / "open_clip_model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="holds a model that no transform made"):
        transform(run, t=0.4, output=run / "model")
    assert (run / "model" / "open_clip_model.safetensors").read_bytes() == before


def test_a_model_that_takes_no_fold_leaves_the_map_and_says_how_to_apply_it(
    run, tiny, tmp_path, monkeypatch
):
    def refuses(self, model):
        raise ModelError("W cannot be folded into this model: it is made of stone.")

    monkeypatch.setattr(LinearMap, "fold", refuses)
    with pytest.raises(ModelError, match="made of stone") as caught:
        transform(run, t=0.4, output=tmp_path / "out")
    assert str(caught.value).splitlines()[-3:] == [
        "from clipalign.models.linear_map import LinearMap",
        f"linear, _ = LinearMap.load('{tmp_path}/out/transform.safetensors')",
        "image, text = linear(image.double()), linear(text.double())",
    ]
    monkeypatch.undo()
    kept, _ = LinearMap.load(tmp_path / "out" / "transform.safetensors")
    linear, _ = LinearMap.load(run / "linear_map.safetensors")
    torch.testing.assert_close(kept.weight.float(), linear.power(0.4).weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": "half"}, r"\n  t: must be a number, such as 0\.5, or 'auto' \(got 'half'\)$"),
        ({"t": float("nan")}, r"\n  t: should be a finite number, or 'auto' \(got nan\)$"),
        ({"t": float("inf")}, r"\n  t: .*finite"),
        ({}, r"\n  t: must be given"),
        ({"t": 0.4, "alpha": 0.5}, "alpha: unknown key"),
        ({"t": "auto", "epsilon": -1}, "epsilon: .*greater than or equal to 0"),
        ({"t": "auto", "range": (1, 0)}, "range: must be a low and a high end"),
        ({"method": "interpolate", "alpha": "most"}, r"\n  alpha: must be a number, .* or 'auto'"),
        ({"method": "pwoer", "t": 1}, "Did you mean 'power'"),
    ],
)
def test_what_is_wrong_with_the_options_is_said_before_anything_is_loaded(options, message):
    with pytest.raises(UsageError, match=message):
        transform("no/such/run", **options)


def test_a_run_that_does_not_exist_is_named():
    with pytest.raises((ModelError, ConfigError), match="no/such/run"):
        transform("no/such/run", t=0.4)
