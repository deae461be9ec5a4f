"""NightCity (Tan et al., TIP 2021) and its finer labels: city streets at night."""

from allweather.data.datasets.dataset import Dataset, Split
from allweather.data.datasets.encodings import by_name

LABELS = tuple((r"/img/(.*)\.png$", rf"/lbl/\1_{kind}.png") for kind in ("trainIds", "labelIds"))

DATASET = Dataset(
    name="nightcity",
    title="NightCity-fine",
    publisher="https://dmcv.sjtu.edu.cn/people/phd/tanxin/NightCity",
    terms="research",
    splits={part: Split((f"{part}/img/*.png",), LABELS) for part in ("train", "val")},
    places=("NightCity-fine", "NightCity"),
    decoder=lambda root: by_name,
    notes="4297 images in all.",
)
