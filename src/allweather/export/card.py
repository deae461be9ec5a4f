"""The model card of a repository with a delta: what it is, of whose network, under which licence, how well it does."""

import json
from collections.abc import Mapping
from typing import Any

from allweather.errors import SettingsError, optional
from allweather.models.catalogue import FAMILIES, find_entry

_LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "agpl-3.0", "gpl-3.0")


def base_licence(network: str, given: str | None) -> str:
    """The licence of the base network's weights: as given, or the catalogue's.

    Raises:
        SettingsError: where neither is known.
    """
    if given:
        return given
    if network.partition(":")[0] in FAMILIES:
        return find_entry(network).licence
    raise SettingsError(
        f"the card names the licence of the adapted weights, and that of {network} is not known here. Pass it: "
        'licence="…", as their publisher states it.'
    )


def card(
    facts: Mapping[str, Any], licence: str, repository: str, figures: Mapping[str, float], base_model: str | None
) -> str:
    """Markdown with the hub's header.

    Args:
        facts: of the deployment.
        licence: of the base weights.
        figures: measured ones, by what they are, such as "mIoU % at dusk"; the card says where there are none.
        base_model: the base's own repository on the hub.
    """
    known = licence.lower() in _LICENCES
    header = optional("huggingface_hub", "hub").ModelCardData(
        license=licence.lower() if known else "other",
        license_name=None if known else licence,
        library_name="allweather",
        pipeline_tag="image-segmentation",
        tags=["test-time-adaptation", "semantic-segmentation"],
        base_model=base_model,
    )
    measured = "\n".join(f"| {name} | {value:g} |" for name, value in figures.items())
    table = f"| figure | value |\n|---|---|\n{measured}" if figures else "None were given."
    settings = json.dumps(facts["settings"]["method"], indent=1, ensure_ascii=False)
    return f"""---
{header.to_yaml()}
---
# {facts["network"]}, adapted by {facts["settings"]["method"]["name"]}

Adapted at test time, without labels, by allweather {facts["versions"]["allweather"]}
in {facts["record"]["updates"]} updates. This repository holds the tensors that moved; they belong to one network with
one set of weights, and are refused on any other.

```python
import allweather as aw

aw.from_hub(network, "{repository}")  # network: {facts["network"]} with its weights
```

- Base: {facts["network"]}, weights of sha256 {facts["base"]}
- Licence of the base weights, which these tensors derive from: {licence}
- BatchNorm statistics: {facts["statistics"]}
- Method and settings:

```json
{settings}
```

## Measured

{table}
"""
