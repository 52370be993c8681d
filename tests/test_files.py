"""Files are written whole or not at all, and the disk's refusals come with words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipalign.errors import StorageError
from clipalign.files import (
    append_jsonl,
    atomic_write_bytes,
    atomic_write_text,
    atomic_writer,
    canonical_json,
    changed_file,
    check_writable,
    parse_json,
    read_regular,
    sha256_bytes,
    sha256_file,
    storage_errors,
    write_sums,
)


def names(directory):
    return sorted(p.name for p in directory.iterdir())


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_written_in_directories_that_did_not_exist(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    atomic_write_bytes(path, b"\x00\xff\n")
    assert path.read_bytes() == b"\x00\xff\n"
    assert names(path.parent) == ["c.bin"]


def test_text_is_utf8_and_keeps_its_line_ends(tmp_path):
    atomic_write_text(tmp_path / "t", "pomme – 苹果\r\nb\n")
    assert (tmp_path / "t").read_bytes() == "pomme – 苹果\r\nb\n".encode()


def test_an_exception_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def write_and_fail():
        with atomic_writer(path) as handle:
            handle.write(b"new, but not all of it")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights"]


def test_a_file_that_is_removed_while_it_is_written_is_a_storage_error(tmp_path):
    def removed():
        with atomic_writer(tmp_path / "x.bin") as file:
            os.unlink(file.name)

    with pytest.raises(StorageError, match=r"x\.bin: it was removed by somebody else"):
        removed()
    assert not list(tmp_path.iterdir())


def test_a_kill_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    code = """
        import os, signal, sys
        from clipalign.files import atomic_writer
        with atomic_writer(sys.argv[1]) as handle:
            handle.write(b"new" * 100_000)
            handle.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "weights"]
    assert all(name.startswith(".clipalign-") and name.endswith(".tmp") for name in left)


def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EMFILE, "too many files are open"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_the_disk_refuses_at_the_flush(tmp_path, monkeypatch, code, words):
    path = tmp_path / "result.json"
    path.write_text("old")

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=words) as caught:
        atomic_write_text(path, "new")
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 9
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_a_real_limit_on_the_file_size_is_a_storage_error(tmp_path):
    pytest.importorskip("resource")
    code = """
        import resource, signal, sys
        from clipalign.errors import StorageError
        from clipalign.files import atomic_write_bytes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            atomic_write_bytes(sys.argv[1], bytes(100_000))
        except StorageError as error:
            print(error)
    """
    path = tmp_path / "big"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"Cannot write {path}: the file is larger than" in done.stdout, done.stderr
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            atomic_write_text(tmp_path / "x", "")
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*f/x"):
        atomic_write_text(tmp_path / "f" / "x", "")


def test_a_directory_is_not_replaced(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(StorageError, match="not a regular file"):
        atomic_write_text(tmp_path / "d", "")


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="there is no /dev/null")
def test_a_device_is_not_replaced():
    with pytest.raises(StorageError, match="not a regular file"):
        atomic_write_text("/dev/null", "")
    assert not os.path.isfile("/dev/null")


def test_errors_that_are_not_the_disks_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "missing").read_bytes()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_a_place_where_nothing_can_be_made_is_the_disks_fault():
    with pytest.raises(StorageError, match="nothing can be made there"):
        atomic_write_text("/proc/clipalign/run/config.yaml", "")


def test_a_place_is_tried_before_the_work(tmp_path):
    (tmp_path / "f").write_text("kept")
    for place in ("new", "new/deep/er", "f", "."):
        check_writable(tmp_path / place)
    with pytest.raises(StorageError, match=r"Cannot write .*f/x: a part of this path is a file"):
        check_writable(tmp_path / "f" / "x")
    if os.path.isdir("/proc/self"):
        with pytest.raises(StorageError, match="Cannot write /proc/x/y: nothing can be made there"):
            check_writable("/proc/x/y")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "kept"


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def test_canonical_json_does_not_depend_on_order():
    assert canonical_json({"b": [1, 2.5], "a": None}) == b'{"a":null,"b":[1,2.5]}'
    assert canonical_json({"a": None, "b": [1, 2.5]}) == canonical_json({"b": [1, 2.5], "a": None})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_cannot_say(number):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"loss": number})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_canonical_json_reads_back_as_it_was(value):
    assert json.loads(canonical_json(value)) == value


def test_a_file_name_that_is_not_unicode_survives():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert json.loads(canonical_json(name)) == name


def test_rows_are_appended(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    append_jsonl(path, {"step": 1, "loss": 0.5})
    append_jsonl(path, {"step": 2, "loss": 0.25})
    assert path.read_bytes() == b'{"loss":0.5,"step":1}\n{"loss":0.25,"step":2}\n'


def test_a_line_cut_short_spoils_only_itself(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{"st')
    append_jsonl(path, {"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"st\n{"step":3}\n'


def test_a_row_that_is_refused_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_jsonl(path, {"step": 1})
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(path, {"loss": float("nan")})
    assert path.read_bytes() == b'{"step":1}\n'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_appending_to_a_full_disk():
    with pytest.raises(StorageError, match=r"Cannot write /dev/full: the disk is full"):
        append_jsonl("/dev/full", {"step": 1})


# ── Hashes ───────────────────────────────────────────────────────────────────────────────────────


def test_the_hash_of_a_file_is_the_hash_of_its_bytes(tmp_path):
    # FIPS 180-4's example message.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == expected
    large = os.urandom(3_000_001)
    (tmp_path / "large").write_bytes(large)
    assert sha256_file(tmp_path / "large") == hashlib.sha256(large).hexdigest()


def test_only_files_are_read_and_only_so_much(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert read_regular(tmp_path / "file", 3) == b"abc"
    with pytest.raises(OSError, match="larger than 2"):
        read_regular(tmp_path / "file", 2)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match=r"not a file|directory"):
            read_regular(path)


def test_json_that_is_nested_too_deeply_is_an_error_in_words():
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_sums_name_the_file_that_changed_and_are_what_sha256sum_reads(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(name)
    assert changed_file(tmp_path, ["a.json"]) is None  # nothing is known
    write_sums(tmp_path, ["b.json", "a.json"])
    assert changed_file(tmp_path, ["a.json", "b.json", "gone.json"]) is None
    check = ["sha256sum", "-c", "SHA256SUMS"]
    if shutil.which("sha256sum"):
        assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "b.json").write_text("B.json")
    assert "b.json is not what was written" in changed_file(tmp_path, ["a.json", "b.json"])
