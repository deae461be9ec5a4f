"""Deltas on the Hugging Face hub: pushed with a model card, and fetched onto the network they belong to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from allweather.errors import AllWeatherError, first_line, optional
from allweather.export.card import base_licence, card
from allweather.export.delta import apply_delta, write_delta
from allweather.export.deployment import Deployment

FILE = "adapted.delta.safetensors"


def push(
    deployment: Deployment,
    repository: str,
    *,
    licence: str | None,
    figures: Mapping[str, float],
    base_model: str | None,
    private: bool,
) -> str:
    """Uploads delta and card; gives the commit's address. Arguments and errors as of `Session.push_to_hub`."""
    library = optional("huggingface_hub", "hub")
    licence = base_licence(deployment.model.name, licence)
    with TemporaryDirectory() as folder, _told(repository):
        write_delta(deployment, Path(folder) / FILE)
        text = card(deployment.facts(), licence, repository, figures, base_model)
        (Path(folder) / "README.md").write_text(text, encoding="utf-8")
        hub = library.HfApi(library_name="allweather")
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Adapted tensors"))


def from_hub(network: nn.Module, repository: str, *, revision: str | None = None) -> nn.Module:
    """Fetches a delta from the hub, or from the hub's cache without a network, and applies it in place.

    Args:
        network: the network that was adapted, with its weights; or its Segmenter.
        repository: OWNER/NAME.
        revision: a branch, tag or commit.

    Returns:
        The same network.

    Raises:
        CheckpointError: where the delta belongs to another network or other weights.
        MissingLibraryError: when huggingface_hub is not installed.
        AllWeatherError: when it cannot be fetched, or the cache cannot be written.
    """
    library = optional("huggingface_hub", "hub")
    with _told(repository):
        file = library.hf_hub_download(repository, FILE, revision=revision, library_name="allweather")
    return apply_delta(network, file)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """The hub's failures in this package's words."""
    errors, constants = (import_module(f"huggingface_hub.{part}") for part in ("errors", "constants"))
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise AllWeatherError(
            f"{repository}: {FILE} is not in the hub's cache, and the hub cannot be reached. Fetch it once while there "
            "is a connection (and HF_HUB_OFFLINE is not set)."
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled, ValueError) as error:
        raise AllWeatherError(
            f"{repository}: the hub said: {first_line(error)}. Check the name, OWNER/NAME, and that you are logged in "
            "(hf auth login) where it is private or yours to write."
        ) from error
    except OSError as error:
        where = error.filename or constants.HF_HUB_CACHE
        raise AllWeatherError(
            f"cannot write the hub's cache, {where}: {error.strerror or error}. Set HF_HOME to a folder that can be "
            "written, with room."
        ) from error
