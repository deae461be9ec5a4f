"""ISANet where its blocks do not fill the features: what the official network gave at a size that must be padded."""

import numpy as np
import torch
from reference_fixtures import fill

from allweather.models.catalogue import find_entry

# features 9×25, padded to 16×32; recorded from mmsegmentation's network under the seeded fill
SIZE = (70, 200)
RECORDED = [0.457849, 0.032966, -0.086737, -0.025268, 0.243161, -0.133547, 0.094177]


def test_padded_blocks_give_what_the_official_network_gives() -> None:
    network = find_entry("isanet:r50").build().eval()
    fill(network)
    image = np.random.RandomState(0).standard_normal((1, 3, *SIZE)).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image))
    assert logits.shape == (1, 19, 9, 25)
    samples = logits.flatten()[[i * logits.numel() // 7 for i in range(7)]]
    torch.testing.assert_close(samples, torch.tensor(RECORDED), rtol=0, atol=1e-5)
