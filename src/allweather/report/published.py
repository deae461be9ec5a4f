"""The figures that Reddy et al. (ECCV 2022 and its supplement) publish, to stand beside ours with what differs."""

from dataclasses import dataclass

from allweather.report.collect import Group


@dataclass(frozen=True)
class Published:
    """One figure: mIoU in %, where it is published, and what differs between that setting and one of ours."""

    figure: float
    table: str
    differs: str

    @property
    def marked(self) -> str:
        """The figure as tables show it, with † where the setting is another."""
        return f"{self.figure:.1f}{'†' if self.differs else ''}"


R101 = "deeplabv3plus:resnet101-os16"
SERVER = "the paper's are of the test split, by the publisher's server"
TABLE1 = {
    "source": {"fog": 49.0, "rain": 53.4, "snow": 40.7, "night": 26.2},
    "mall-domain": {"fog": 52.4, "rain": 56.9, "snow": 51.4, "night": 36.8},
}
SECTION4 = {
    "bisenetv2:mmseg": 28.6, "isanet:r50": 41.2, "stdc:1": 39.7, "segformer:b0": 38.5, "gcnet:r50": 41.6,
    "lraspp:large": 32.2, "mobilenetv2:deeplabv3plus": 31.8, "robustnet:ibn-r50-os16": 41.1,
    "robustnet:sw-r50-os16": 36.4, "robustnet:isw-r50-os16": 40.6, "robustnet:isw-r101-os8": 41.3,
}  # fmt: skip
MILLISECONDS = {  # Tables 2 and 3: per iteration, batch 12, 1024×512, hardware not stated
    ("deeplabv3plus:mobilenet-os16", "tent"): 748, ("deeplabv3plus:mobilenet-os16", "mall-sample"): 1312,
    ("deeplabv3plus:mobilenet-os16", "mall-domain"): 1180, (R101, "tent"): 937, (R101, "mall-sample"): 1564,
    (R101, "mall-domain"): 1219, ("robustnet:ibn-r50-os16", "mall-sample"): 1371,
    ("robustnet:ibn-r50-os16", "mall-domain"): 1228, ("robustnet:sw-r50-os16", "mall-sample"): 1147,
    ("robustnet:sw-r50-os16", "mall-domain"): 990, ("robustnet:isw-r50-os16", "mall-sample"): 1013,
    ("robustnet:isw-r50-os16", "mall-domain"): 872, ("robustnet:isw-r101-os8", "mall-sample"): 1802,
    ("robustnet:isw-r101-os8", "mall-domain"): 1642,
}  # fmt: skip
THIRTEEN = (
    "nighttime-driving:test", "dark-zurich:val", "foggy-driving-dense:test", "foggy-driving:test_all",
    "foggy-zurich:testv2", "acdc:val/fog", "acdc:val/rain", "acdc:val/snow", "acdc:val/night", "c-driving:val/rainy",
    "c-driving:val/snowy", "c-driving:val/cloudy", "c-driving:val/overcast",
)  # fmt: skip

NIGHT = {  # section 4: MALL-sample on networks for the night
    ("nighttime-driving:test", "ciconv:w"): 42.3, ("dark-zurich:val", "ciconv:w"): 36.1,
    ("nighttime-driving:test", "mgcda:refinenet"): 49.7, ("dark-zurich:val", "mgcda:refinenet"): 43.1,
}  # fmt: skip
LOGS = {  # the source network in the authors' own logs, scored at 1024×512
    "deeplabv3plus:mobilenet-os16": (28.56, 12.00, 25.13, 36.11, 26.42), R101: (38.25, 20.24, 37.96, 44.44, 31.20),
}  # fmt: skip
TABLE4 = {  # Dark Zurich test, IoU of the 19 classes in Cityscapes' order and their mean
    "RefineNet": "68.8 23.2 46.8 20.8 12.6 29.8 30.4 26.9 43.1 14.3 0.3 36.9 49.7 63.6 6.8 0.2 24.0 33.6 9.3 28.5",
    "AdaptSegNet": "86.1 44.2 55.1 22.2 4.8 21.1 5.6 16.7 37.2 8.4 1.2 35.9 26.7 68.2 45.1 0.0 50.1 33.9 15.6 30.4",
    "ADVENT": "85.8 37.9 55.5 27.7 14.5 23.1 14.0 21.1 32.1 8.7 2.0 39.9 16.6 64.0 13.8 0.0 58.8 28.5 20.7 29.7",
    "BDL": "85.3 41.1 61.9 32.7 17.4 20.6 11.4 21.3 29.4 8.9 1.1 37.4 22.1 63.2 28.2 0.0 47.7 39.4 15.7 30.8",
    "DMAda": "75.5 29.1 48.6 21.3 14.3 34.3 36.8 29.9 49.4 13.8 0.4 43.3 50.2 69.4 18.4 0.0 27.6 34.9 11.9 32.1",
    "GCMA": "81.7 46.9 58.8 22.0 20.0 41.2 40.5 41.6 64.8 31.0 32.1 53.5 47.5 75.5 39.2 0.0 49.6 30.7 21.0 42.0",
    "MGCDA": "80.3 49.3 66.2 7.8 11.0 41.4 38.9 39.0 64.1 18.0 55.8 52.1 53.5 74.7 66.0 0.0 37.5 29.1 22.7 42.5",
    "DANNet": "90.4 60.1 71.0 33.6 22.9 30.6 34.3 33.7 70.5 31.8 80.2 45.7 41.6 67.4 16.8 0.0 73.0 31.6 22.9 45.2",
    "MALL-domain on DANNet":
        "90.3 59.8 70.8 34.2 22.7 30.9 37.2 34.1 70.6 31.6 80.1 46.8 43.2 68.1 16.4 0.3 72.6 31.9 22.8 45.5",
}  # fmt: skip
TABLE4_ROWS = {
    ("adaptsegnet:multi", "source"): "AdaptSegNet", ("advent:deeplabv2", "source"): "ADVENT",
    ("bdl:deeplabv2", "source"): "BDL", ("mgcda:refinenet", "source"): "MGCDA",
    ("dannet:pspnet", "source"): "DANNet", ("dannet:pspnet", "mall-domain"): "MALL-domain on DANNet",
}  # fmt: skip
OTHER_SETTINGS = "ours with this project's settings, not the published ones"


def published(group: Group) -> Published | None:
    """The paper's figure for a network, a method and a stream or the stream's nearest kin; None where it has none."""
    dataset, _, split = group.stream.partition(":")
    part, _, condition = split.partition("/")
    differs = [OTHER_SETTINGS] if not group.is_source and group.preset != "paper" else []
    differs += ["ours of a part of the frames"] if group.thinned else []
    server = [] if part == "test" else [SERVER]
    if dataset == "acdc" and group.model == R101 and condition in TABLE1.get(group.method, {}):
        return _made(TABLE1[group.method][condition], "Table 1", differs + server + _native(group))
    row = TABLE4_ROWS.get((group.model, group.method))
    if dataset == "dark-zurich" and row is not None:
        return _made(table4(row)[-1], "Table 4", differs + server + _native(group))
    if group.method == "mall-sample" and (group.stream, group.model) in NIGHT:
        return _made(NIGHT[group.stream, group.model], "section 4", [*differs, "the paper does not say at which size"])
    if group.is_source and group.model in LOGS and group.stream in THIRTEEN[:5]:
        other = [] if group.scoring == "1024x512" else ["the authors score at 1024×512"]
        return _made(LOGS[group.model][THIRTEEN.index(group.stream)], "the authors' logs", differs + other)
    return None


def table4(row: str) -> list[float]:
    """The 19 IoU of a row of Table 4, and their mean."""
    return [float(value) for value in TABLE4[row].split()]


def _native(group: Group) -> list[str]:
    return [] if group.scoring == "native" else ["the server scores at the images' own size"]


def _made(figure: float, table: str, differs: list[str]) -> Published:
    return Published(figure, table, "; ".join(differs))
