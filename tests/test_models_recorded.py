"""Networks that no fixture covers, or not at sizes that must be padded: what mmsegmentation's own gave."""

import numpy as np
import pytest
import torch
from reference_fixtures import fill

from allweather.models.catalogue import find_entry

# height and width: features of ISANet, 9×25, are padded to 16×32; those of SegFormer end at 3×7
SIZE = (70, 200)
RECORDED = {  # seven logits of mmsegmentation's network under the seeded fill, and their size
    "isanet:r50": ([0.457849, 0.032966, -0.086737, -0.025268, 0.243161, -0.133547, 0.094177], (9, 25)),
    "segformer:b1": ([-0.04124, 0.24015, 0.219774, -0.336159, 0.377569, 0.030146, 0.250098], (18, 50)),
    "segformer:b2": ([0.065055, 0.132907, 0.108009, -0.274159, 0.321878, 0.082374, 0.186571], (18, 50)),
    "segformer:b3": ([-0.103037, -0.009992, 0.25235, -0.528157, 0.189875, 0.073609, 0.16269], (18, 50)),
    "segformer:b4": ([0.04506, 0.076654, 0.300004, -0.441679, 0.198111, -0.020392, 0.254972], (18, 50)),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_network_gives_what_the_official_one_gave(name: str):
    network = find_entry(name).build().eval()
    fill(network)
    image = np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image))
    recorded, size = RECORDED[name]
    assert logits.shape == (1, 19, *size)
    samples = logits.flatten()[[i * logits.numel() // 7 for i in range(7)]]
    torch.testing.assert_close(samples, torch.tensor(recorded), rtol=0, atol=1e-5)
