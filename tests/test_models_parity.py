"""Every network with a reference fixture: official keys, shapes, counts and numbers; and real weights."""

import gc
from collections.abc import Iterator

import pytest
import torch
from reference_fixtures import (
    TOLERANCE,
    WithoutRandomValues,
    assets,
    fill,
    fixture_input,
    fixtures,
    forget_values,
    largest_difference,
    recorded_norms,
)
from torch import nn

from allweather import load_model
from allweather.models.catalogue import all_entries, find_entry
from allweather.models.entry import Entry
from allweather.models.norm_layers import count_norms

WITH_FIXTURE = [entry for entry in all_entries() if entry.fixture]
REAL = [
    (f"espnetv2:{width}", f"espnetv2/espnetv2_s_{width}_city_{size}.pth", f"espnetv2/s{width}_{size}_real_weights")
    for width in ("0.5", "1.0", "1.5", "2.0")
    for size in ("512x256", "1024x512")
]
REAL += [("espnet:q8", "espnet/espnet_p_2_q_8.pth", "espnet/q8_real_weights")]
REAL += [
    (f"realtime:{name}", f"realtime/{name}_city.pth", f"zh320/{name}_real_weights")
    for name in (
        "cgnet", "edanet", "dabnet", "enet", "fssnet", "cfpnet", "fpenet", "adscnet", "mininetv2", "fddwnet",
    )
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def forgetting() -> Iterator[None]:
    yield
    forget_values()


@pytest.mark.parametrize("entry", WITH_FIXTURE, ids=lambda entry: entry.name)
def test_a_network_equals_its_reference(entry: Entry):
    assert entry.fixture
    fixture = fixtures()[entry.fixture]
    with WithoutRandomValues():
        network = entry.build().eval()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == fixture["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == fixture["params"]
    assert count_norms(network) == recorded_norms(entry.fixture)
    fill(network)
    with torch.no_grad():
        assert largest_difference(entry.fixture, network(fixture_input(entry.fixture))) < TOLERANCE
    del network
    gc.collect()


def test_the_colour_invariant_on_pixels_of_an_image():
    """The other fixture of this network has negative pixels, on which the invariant is no more than arithmetic."""
    network, key = find_entry("ciconv:w").build().eval(), "ciconv/refinenet_W_unitinput"
    fill(network)
    with torch.no_grad():
        assert largest_difference(key, network(fixture_input(key))) < TOLERANCE


def test_every_reference_is_used():
    used = {entry.fixture for entry in WITH_FIXTURE} | {key for *_, key in REAL} | {"ciconv/refinenet_W_unitinput"}
    assert set(fixtures()) == used


@pytest.mark.parametrize(("name", "file", "key"), REAL, ids=[key for *_, key in REAL])
def test_real_weights_give_the_recorded_numbers(name: str, file: str, key: str):
    weights = assets() / "weights" / file
    if not weights.is_file():
        pytest.skip(f"weights/{file} is not in ALLWEATHER_ASSETS")
    model = load_model(name, weights)
    with torch.no_grad():
        assert largest_difference(key, model.network(fixture_input(key))) < TOLERANCE


def test_the_comparison_can_fail():
    network, key = find_entry("realtime:edanet").build().eval(), "zh320/edanet"
    fill(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    with torch.no_grad():
        assert largest_difference(key, network(fixture_input(key))) > TOLERANCE
