"""Deltas on the hub: pushed with a card by a stubbed interface, fetched from a cache without a network."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import session_of, through
from refusals import refusal
from tiny import tiny

from allweather import errors, from_hub
from allweather.errors import CheckpointError, MissingLibraryError, SettingsError
from allweather.export.card import base_licence
from allweather.export.hub import FILE

hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Stub:
    """Keeps what would have been uploaded."""

    made: list[tuple[str, bool]]
    uploaded: dict[str, bytes]

    def __init__(self, library_name: str):
        assert library_name == "allweather"

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool):
        Stub.made.append((repository, private))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        Stub.uploaded = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return f"https://hub/{repo_id}/commit/{COMMIT}"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's own layout, and no network."""
    Stub.made, Stub.uploaded = [], {}
    monkeypatch.setattr(hub, "HfApi", Stub)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def into_cache(cache: Path, repository: str):
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    for name, content in Stub.uploaded.items():
        (snapshot / name).write_bytes(content)


def test_what_is_pushed_comes_back_onto_the_network(offline: Path):
    model = tiny()
    session = session_of(model)
    address = session.push_to_hub("me/night", licence="MIT", figures={"mIoU % at dusk": 57.4})
    assert address.endswith(COMMIT) and Stub.made == [("me/night", True)] and set(Stub.uploaded) == {FILE, "README.md"}
    into_cache(offline, "me/night")
    network = from_hub(tiny().network, "me/night")
    torch.testing.assert_close(through(network, model), through(session.network(), model))
    with refusal("weights of sha256", CheckpointError):
        from_hub(network, "me/night")


def test_the_card_says_what_it_is_and_under_which_licence():
    session = session_of(tiny())
    session.push_to_hub(
        "me/night", licence="MIT", figures={"mIoU % at dusk": 57.4}, base_model="you/net", private=False
    )
    text = Stub.uploaded["README.md"].decode()
    card = hub.ModelCard(text)
    assert card.data.license == "mit" and card.data.library_name == "allweather" and card.data.base_model == "you/net"
    assert Stub.made == [("me/night", False)]
    for said in ("tiny-batchnorm, adapted by mall-domain", "4 updates", "| mIoU % at dusk | 57.4 |", '"lr": 0.0004'):
        assert said in text
    assert 'aw.from_hub(network, "me/night")' in text and "Licence of the base weights" in text
    session.push_to_hub("me/night", licence="research only")
    card = hub.ModelCard(text := Stub.uploaded["README.md"].decode())
    assert (card.data.license, card.data.license_name) == ("other", "research only") and "None were given" in text


def test_the_licence_is_the_catalogues_or_given():
    assert base_licence("espnetv2:2.0", None) == "MIT"
    with refusal(r"that of tiny-batchnorm is not known here\. Pass it: licence=", SettingsError):
        session_of(tiny()).push_to_hub("me/night")
    assert not Stub.made


class Refused(import_module("huggingface_hub.errors").RepositoryNotFoundError):
    def __init__(self):
        OSError.__init__(self, "404 Client Error: Repository Not Found")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/models/hub"),
            r"cannot write the hub's cache, /models/hub: .*HF_HOME",
        ),
        (OSError(28, "No space left on device"), r"cannot write the hub's cache, .*No space left.*HF_HOME"),
        (Refused(), r"me/night: the hub said: 404 Client Error.*hf auth login"),
    ],
)
def test_failures_of_the_hub_say_what_to_do(failure: Exception, said: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*given: Any, **more: Any):
        raise failure

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with refusal(said):
        from_hub(tiny().network, "me/night")


def test_what_is_not_in_the_cache_and_what_is_no_name():
    with refusal("not in the hub's cache, and the hub cannot be reached"):
        from_hub(tiny().network, "me/night")
    with refusal(r"the hub said: .*Check the name, OWNER/NAME"):
        from_hub(tiny().network, "a/b/c")


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(errors, "import_module", missing)
    with pytest.raises(MissingLibraryError, match=r"pip install 'allweather\[hub\]'"):
        from_hub(tiny().network, "me/night")
