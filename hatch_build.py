"""What the package index shows: the README with addresses in place of paths, and links to the repository.

An index shows the README far from the files beside it. The variable ALLWEATHER_REPOSITORY says at build time where the
repository lies, such as https://HOST/OWNER/NAME; without it, pictures and links that would lead nowhere are left out.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAPER = "https://doi.org/10.1007/978-3-031-19842-7_4"
_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)\n?")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


class IndexMetadata(MetadataHookInterface):
    """Sets the fields that depend on where the repository lies."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get("ALLWEATHER_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text()
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": readme(text, repository, f"v{metadata['version']}"),
        }
        metadata["urls"] = urls(repository)


def readme(text: str, repository: str, tag: str) -> str:
    """The README for a page that is not beside its files, at the release `tag` of the repository ('' for none)."""
    if not repository:
        return _LINK.sub(r"\1", _PICTURE.sub("", text))
    pictures = _PICTURE.sub(rf"![\1]({repository}/raw/{tag}/\2)\n", text)
    return _LINK.sub(rf"[\1]({repository}/blob/{tag}/\2)", pictures)


def urls(repository: str) -> dict[str, str]:
    """The project's links, those of the repository where it is known."""
    if not repository:
        return {"Paper": PAPER}
    places = {
        "Source": "",
        "Issues": "/issues",
        "Changelog": "/blob/HEAD/CHANGELOG.md",
        "Documentation": "/tree/HEAD/docs",
    }
    return {name: repository + place for name, place in places.items()} | {"Paper": PAPER}
