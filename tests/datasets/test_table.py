"""A table of images is a dataset, or one message lists everything that is wrong with it."""

from __future__ import annotations

import json
import os
from datetime import datetime
from decimal import Decimal

import pytest
from PIL import Image

from clipalign.datasets.base import Dataset
from clipalign.datasets.locate import load_dataset
from clipalign.datasets.table import Table
from clipalign.errors import DataError
from clipalign.option_flags import dataset_option


@pytest.fixture
def photos(tmp_path):
    """A folder `photos` with a.png to d.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate("abcd"):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(folder / f"{name}.png")
    return folder


def table(folder, text, name="index.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_become_labels_splits_groups_and_attributes(photos):
    path = table(
        photos,
        "\ufeffimage,label,split,group,attack_text,light\n"
        'a.png,cat,train,g1,dog,dim\nb.png,"polar bear",val,,ant,\nc.png,cat,test,g1,owl,bright\n',
    )
    data = Table(path=path)
    assert isinstance(data, Dataset)
    assert data.classnames == ("cat", "polar bear")
    assert data.splits() == ("train", "validation", "test")
    (first,), (second,) = data.examples("train"), data.examples("validation")
    assert (first.key, first.label, first.group) == ("a.png", "cat", "g1")
    assert first.attributes == {"attack_text": "dog", "light": "dim"}
    assert second.group == "b.png"
    assert second.attributes == {"attack_text": "ant", "light": ""}
    assert data.image(second).getpixel((0, 0)) == (60, 0, 0)


def test_columns_can_have_other_names(photos):
    path = table(photos, "photo,kind,word\na.png,cat,dog\nb.png,dog,cat\n")
    data = Table(
        path=path, image_column="photo", label_column="kind", attack_column="word", root=photos
    )
    assert data.classnames == ("cat", "dog")
    assert data.examples("train")[0].attributes == {"attack_text": "dog"}


@pytest.mark.parametrize("column", ["image", "file_name", "path"])
def test_three_names_of_the_image_column_are_known(photos, column):
    assert Table(path=table(photos, f"{column},label\na.png,x\n")).classnames == ("x",)


def test_json_lines(photos):
    rows = [{"file_name": "a.png", "label": 7, "angle": 1.5}, {"file_name": "b.png", "label": "x"}]
    path = table(photos, "\n".join(map(json.dumps, rows)) + "\n\n", "index.jsonl")
    data = Table(path=path)
    assert data.classnames == ("7", "x")
    assert [e.attributes for e in data.examples("train")] == [{"angle": "1.5"}, {"angle": ""}]


def test_parquet_reads_like_csv(photos):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": ["a.png", "b.png"], "label": ["cat", "dog"], "age": [3, None]}
    parquet.write_table(arrow.table(columns), photos / "index.parquet")
    data = Table(path=photos / "index.parquet")
    assert [e.label for e in data.examples("train")] == ["cat", "dog"]
    assert [e.attributes["age"] for e in data.examples("train")] == ["3", ""]
    with pytest.raises(DataError, match="is not a Parquet file"):
        Table(path=table(photos, "image,label\n", "bad.parquet"))


@pytest.mark.parametrize(("mark", "name"), [(";", "x.csv"), ("\t", "x.csv"), ("\t", "x.tsv")])
def test_cells_may_be_parted_by_semicolons_or_tabs(photos, mark, name):
    lines = ["image,label,note", 'a.png,cat,"one, two"', "b.png,dog,x"]
    text = "\r\n".join(lines).replace(",", mark).replace(f"one{mark} two", "one, two")
    data = load_dataset(table(photos, text, name), {})
    assert [(e.label, e.attributes["note"]) for e in data.examples("train")] == [
        ("cat", "one, two"),
        ("dog", "x"),
    ]


def test_the_index_that_pandas_writes_first_is_passed_over(photos):
    plain = Table(path=table(photos, "image,label,note\na.png,cat,x\nb.png,dog,y\n"))
    text = ",image,label,note\n0,a.png,cat,x\n1,b.png,dog,y\n"
    with_index = Table(path=table(photos, text, "pandas.csv"))
    assert with_index.examples("train") == plain.examples("train")
    with pytest.raises(DataError, match="row 3: 3 cells, and the header has 4"):
        Table(path=table(photos, ",image,label,note\n0,a.png,cat,x\nb.png,dog,y\n"))


def test_columns_that_are_neither_text_nor_numbers_are_left_out(photos):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "image": arrow.array(["a.png", "b.png"], arrow.large_string()),
        "label": arrow.array(["cat", "dog"]).dictionary_encode(),
        "boxes": arrow.array([[1, 2], None]),
        "raw": arrow.array([b"x", b"y"]),
        "when": arrow.array([datetime(2020, 1, 2, 3, 4, 5), None]),
        "price": arrow.array([Decimal("1.50"), Decimal("2.00")]),
    }
    parquet.write_table(arrow.table(columns), photos / "index.parquet")
    data = Table(path=photos / "index.parquet")
    assert [e.label for e in data.examples("train")] == ["cat", "dog"]
    assert data.examples("train")[0].attributes == {"when": "2020-01-02 03:04:05", "price": "1.50"}
    assert data.left_out == ("boxes", "raw")
    rows = [{"image": {"bytes": "x"}, "label": "cat"}, {"image": None, "label": "dog"}]
    path = table(photos, "\n".join(map(json.dumps, rows)), "index.jsonl")
    with pytest.raises(DataError, match=r"it has label\. Left out.*: image .*huggingface:PATH"):
        Table(path=path)


@pytest.mark.parametrize(
    "twice",
    [
        ("caf\u00e9", "cafe\u0301"),
        ("polar  bear", "polar\u00a0bear"),
        ("\u0645\u06cc\u200c\u0631", "\u0645\u06cc\u200c\u0631 "),
    ],
)
def test_labels_that_read_the_same_are_one_class(photos, twice):
    path = table(photos, "image,label\na.png,{}\nb.png,{}\nc.png,ant\n".format(*twice))
    assert len(Table(path=path).classnames) == 2


@pytest.mark.parametrize("label", ["a\tb", "a\u2028b", "a\u202eb", "a\u200bb", "\u200d", "a\x00b"])
def test_labels_with_marks_that_nobody_sees_are_refused(photos, label):
    path = table(photos, f"image,label\na.png,{label}\nb.png,ant\n")
    with pytest.raises(DataError, match=r"row 2: the label .*(cannot be printed|is empty)"):
        Table(path=path)


@pytest.mark.parametrize("asked", [{}, {"label_column": None}])
def test_images_without_labels_are_welcome(photos, asked):
    path = table(photos, "image,gender\na.png,woman\n")
    with pytest.raises(DataError, match=r"no column 'label' of labels; it has image, gender"):
        Table(path=path, label_column="label")
    data = Table(path=path, **asked)
    assert data.classnames == ()
    assert data.examples("train")[0].label is None
    assert data.examples("train")[0].attributes == {"gender": "woman"}


def test_everything_that_is_wrong_is_listed_by_row(photos, tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (photos / "link.png").symlink_to(tmp_path / "secret.png")
    path = table(
        photos,
        b"image,label\n"
        b"a.png,cat\n"
        b"gone.png,cat\n"
        b"b.png,\n"
        b"../secret.png,cat\n" + str(tmp_path / "secret.png").encode() + b",cat\n"
        b"a.png,dog\n"
        b"./a.png,dog\n"
        b"link.png,cat\n"
        b"C:\\x.png,cat\n"
        b"c.png,\xff\xfe\n"
        b"d.png\n"
        b",cat\n",
    )
    with pytest.raises(DataError) as caught:
        Table(path=path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 11 problems:"
    assert [line.strip() for line in lines[1:]] == [
        f"row 3: there is no file 'gone.png' in {photos}",
        "row 4: the label is empty",
        f"row 5: '../secret.png' lies outside of {photos}",
        f"row 6: '{tmp_path / 'secret.png'}' is an absolute path that lies outside of {photos}",
        "row 7: 'a.png' is already named by row 2",
        "row 8: './a.png' is already named by row 2",
        f"row 9: 'link.png' lies outside of {photos}",
        f"row 10: 'C:\\\\x.png' is an absolute path that lies outside of {photos}",
        "row 11: not UTF-8 text; save the table as UTF-8",
        "row 12: 1 cells, and the header has 2",
        "row 13: there is no image",
        f"Paths of images start from {photos}; another folder is given with "
        f"{dataset_option('root=FOLDER')}.",
    ]


def test_absolute_paths_may_lead_below_the_root(photos, tmp_path):
    (tmp_path / "alias").symlink_to(photos)
    path = table(tmp_path, f"image,label\n{photos}/a.png,cat\n{tmp_path}/alias/b.png,dog\n")
    data = Table(path=path, root=tmp_path / "alias")
    assert [e.source for e in data.examples("train")] == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"row 2: '../secret.png' lies outside of"):
        Table(path=table(photos, f"image,label\n{photos}/../secret.png,cat\n"))


def test_a_long_list_is_cut(photos):
    path = table(photos, "image,label\n" + "x.png,cat\n" * 50)
    with pytest.raises(DataError, match="50 problems") as caught:
        Table(path=path)
    assert "and 30 more\n" in str(caught.value)


def test_json_rows_that_are_wrong_are_listed(photos):
    lines = [
        '{"image": "a.png", "label": NaN}',
        "[1]",
        "{",
        '{"image": ["b.png"], "label": "x"}',
        '{"image": "c.png", "label": "\\ud800"}',
        '{"image": "d.png", "label": null}',
    ]
    with pytest.raises(DataError) as caught:
        Table(path=table(photos, "\n".join(lines), "index.jsonl"))
    message = str(caught.value)
    for problem in (
        "row 1: the label is empty",
        "row 2: not a JSON object on one line",
        "row 3: not a JSON object on one line",
        "row 4: image holds neither text nor a number",
        "row 5: not UTF-8 text",
        "row 6: the label is empty",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"image,label\n", "has no rows"),
        ("image,label\na.png,cat\n".encode("utf-16"), "is UTF-16. Save it as UTF-8"),
        (b"image,image\na.png,b.png\n", "names 'image' more than once"),
        (b",image,,\n0,a.png,b,c\n", "has no name for column 3, 4"),
        (b'""\n0\n', "has no name for column 1"),
        (b"image,stra\xdfe\na.png,x\n", "names the columns, is not UTF-8 text; save the table as"),
        (b"name,label\na.png,cat\n", "no column 'image' or 'file_name' or 'path' of images"),
        (b'image,label\n"a.png,cat\n', "line"),
        (b"image,label\n" + b"x" * 10_000_000 + b",cat\n", "line 2: field larger than field limit"),
    ],
    ids=[
        "empty",
        "header",
        "utf-16",
        "twice",
        "unnamed",
        "no name",
        "latin-1",
        "column",
        "quote",
        "huge cell",
    ],
)  # fmt: skip
def test_what_is_no_table_says_why(photos, content, message):
    with pytest.raises(DataError, match=message):
        Table(path=table(photos, content))


def test_an_endless_json_line_and_a_deep_one_are_refused(photos):
    deep = '{"image": "a.png", "label": ' + "[" * 100_000
    path = table(photos, deep + "\n" + '{"image": "' + "x" * 3_000_000 + '"}', "index.jsonl")
    with pytest.raises(DataError, match=r"row 1: not a JSON object(.|\n)*row 2: not a JSON object"):
        Table(path=path)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(DataError, match=r"The table .*x\.csv cannot be read: No such file"):
        Table(path=tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"must end in \.csv, \.tsv, \.jsonl, \.parquet"):
        Table(path=tmp_path / "x.xls")


def test_the_fingerprint_covers_table_sizes_and_reading(photos):
    path = table(photos, "image,label\na.png,cat\nb.png,dog\n")
    before = Table(path=path).fingerprint
    assert Table(path=path).fingerprint == before
    assert Table(path=path, templates=["{}"]).fingerprint != before
    with (photos / "a.png").open("ab") as file:
        file.write(b"!")
    assert Table(path=path).fingerprint != before
    before = Table(path=path)
    os.utime(photos / "a.png", ns=(1, 1))  # an edit may keep the size
    after = Table(path=path)
    assert (after.fingerprint, after.cache_key != before.cache_key) == (before.fingerprint, True)


def test_an_unknown_split_names_the_near_one(photos):
    data = Table(path=table(photos, "image,label,split\na.png,cat,dev\nb.png,dog,night\n"))
    assert data.splits() == ("validation", "night")
    with pytest.raises(DataError, match="Did you mean 'night'"):
        data.examples("nights")
