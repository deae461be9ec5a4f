"""Which public code stands beside each case of the fidelity check, and what was done to run it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from allweather import Segmenter
from benchmarks import fidelity_public as public
from benchmarks.fidelity_cases import Case, Step


@dataclass(frozen=True)
class Public:
    """Where a case's public code lies, what of it runs, and what had to be done to run it.

    Attributes:
        checkout: folder below `--public`, the repository's name.
        repository: its address on GitHub.
        runs: the file and what is called in it.
        adapted: how the network or the call was made to fit; their files are never changed.
        drive: runs it.
    """

    checkout: str
    repository: str
    runs: str
    adapted: str
    drive: Callable[[Path, Segmenter, Tensor, Case], list[Step]]


PIXELS = "images go in as (H·W)×3 and logits come out as (H·W)×C: every pixel is a sample"
BY_METHOD: dict[str, Public] = {
    "tent": Public("tent", "DequanWang/tent", "tent.py Tent, Adam 1e-3", PIXELS, public.tent),
    "norm, no prior": Public("tent", "DequanWang/tent", "norm.py Norm(no_stats=True)", PIXELS, public.norm),
    "norm": Public(
        "robustness", "bethgelab/robustness", "robusta/batchnorm/bn.py adapt_bayesian(16/17)", PIXELS, public.prior
    ),
    "eta": Public("EATA", "mr-eggplant/EATA", "eata.py EATA(fishers=None)", PIXELS, public.eta),
    "eata": Public(
        "EATA", "mr-eggplant/EATA", "eata.py EATA", f"{PIXELS}; Fisher loop of main.py, one image a batch", public.eta
    ),
    "sar": Public("SAR", "mr-eggplant/SAR", "sar.py SAR, sam.py SAM", PIXELS, public.sar),
    "cotta": Public(
        "SVDP",
        "Anonymous-012/SVDP",
        "mmseg/apis/test.py single_gpu_cotta, EncoderDecoder.aug_test (the copy of the authors' ACDC code)",
        "mmcv stood in for; `args`, which nobody defines, has ema_rate .999; views are not rounded to bytes",
        public.cotta,
    ),
    "diga": Public(
        "DIGA",
        "Waybaba/DIGA",
        "src/models/ttda_module.py DIGA, configs/model/diga.yaml",
        "features are the logits; confident labels are handed in as the ground truth; lightning stood in for",
        public.diga,
    ),
    "rotta": Public(
        "RoTTA",
        "BIT-DA/RoTTA",
        "core/adapter/rotta.py update_model, CSTU, RobustBN2d",
        "the network gives (H·W)×C×B; class and doubt of an image are the product's; the strong view is darker",
        public.rotta,
    ),
    "memo": Public(
        "memo",
        "zhangmarvin/memo",
        "imagenet-exps adapt_single, marginal_entropy, _modified_bn_forward",
        "the network gives V×(H·W)×C; the views are recoloured and mirrored in place of AugMix",
        public.memo,
    ),
}


def public_of(case: Case) -> Public:
    """The public code of a case."""
    return BY_METHOD.get(case.name, BY_METHOD[case.method])
