"""Pushing: what is sent is what was asked for, and no token is in it."""

from __future__ import annotations

import types

import huggingface_hub
import pytest

from clipalign.errors import StorageError, UsageError
from clipalign.models.card import Card
from clipalign.models.formats import write_model
from clipalign.models.push import check_push, parse_push_target, push_model

TOKEN = "hf_" + "abcdefghij" * 3  # made up


class Recorder:
    """Stands in for the hub's client, and remembers."""

    calls: list[tuple[str, dict]] = []  # noqa: RUF012
    error: Exception | None = None

    def create_repo(self, name, **options):
        self.calls.append(("create_repo", {"name": name, **options}))

    def upload_folder(self, **options):
        files = {f.name: f.read_bytes() for f in options["folder_path"].iterdir()}
        self.calls.append(("upload_folder", {**options, "files": files}))
        if self.error is not None:
            raise self.error
        return types.SimpleNamespace(commit_url="https://hub.example/commit/1")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(Recorder, "error", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    return Recorder


def test_what_is_sent_is_the_directory_to_a_private_repository(hub, tiny, tmp_path):
    directory = write_model(tiny("vit"), tmp_path / "model")
    address = push_model(directory, "hf-hub:me/apple")
    assert address == "https://hub.example/commit/1"
    (made, create), (sent, upload) = hub.calls
    assert (made, create["name"], create["private"]) == ("create_repo", "me/apple", True)
    assert (sent, upload["repo_id"], upload["repo_type"]) == ("upload_folder", "me/apple", "model")
    assert set(upload["files"]) == {
        "README.md", "SHA256SUMS", "open_clip_config.json", "open_clip_model.safetensors"
    }  # fmt: skip
    assert not any(TOKEN.encode() in content for content in upload["files"].values())
    assert "token" not in upload


def test_writing_a_model_sends_nothing(hub, tiny, tmp_path):
    write_model(tiny("vit"), tmp_path / "model")
    assert hub.calls == []


def test_offline_means_that_nothing_goes_out(hub, tiny, tmp_path, monkeypatch):
    directory = write_model(tiny("vit"), tmp_path / "model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        push_model(directory, "hf-hub:me/apple")
    assert hub.calls == []


def test_a_token_in_a_file_stops_the_push(hub, tiny, tmp_path):
    card = Card("model", "base", f"Trained with {TOKEN}.")
    directory = write_model(tiny("vit"), tmp_path / "model", card=card)
    with pytest.raises(StorageError, match="access token") as refusal:
        push_model(directory, "hf-hub:me/apple")
    assert TOKEN not in str(refusal.value)
    assert hub.calls == []


def test_the_hubs_own_errors_are_told_without_the_token(hub, tiny, tmp_path, monkeypatch):
    directory = write_model(tiny("vit"), tmp_path / "model")
    error = PermissionError(f"403 for url https://x?authorization=Bearer {TOKEN}: forbidden")
    monkeypatch.setattr(Recorder, "error", error)
    with pytest.raises(StorageError, match="403 for url") as refusal:
        push_model(directory, "hf-hub:me/apple")
    assert TOKEN not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_without_a_login_it_says_how_to_log_in(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="hf auth login"):
        check_push("hf-hub:me/apple")


@pytest.mark.parametrize("text", ["me/apple", "hf-hub:apple", "hf-hub:a/b/c", "hf-hub:", ""])
def test_other_targets_are_refused(text):
    with pytest.raises(UsageError, match="hf-hub:org/name"):
        parse_push_target(text)
