"""Label values as publishers write them: trainIds, labelIds, colors of segments, names of labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from allweather import CITYSCAPES, ImageError
from allweather.data.datasets import find_dataset, mapillary, wilddash2
from allweather.data.datasets.encodings import LABEL_IDS, invalid_mask, label_ids, to_label_ids, train_ids
from allweather.data.labelled import labelled_split


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_label_ids_cover_every_value_and_no_more(tmp_path: Path):
    ids = np.array([[*range(34), 255]], np.uint8)
    decoded = label_ids(save(tmp_path / "a.png", ids))[0]
    assert {int(i): int(t) for i, t in zip(ids[0], decoded, strict=True) if t >= 0} == dict(
        zip(LABEL_IDS, range(19), strict=True)
    )
    assert label_ids(save(tmp_path / "deep.png", np.array([[65535, 7]], np.uint16))).tolist() == [[-1, 0]]
    assert label_ids(save(tmp_path / "signed.tif", np.array([[-1, 7]], np.int32))).tolist() == [[-1, 0]]
    with refusal("label values 34, 200;", ImageError):
        label_ids(save(tmp_path / "b.png", np.array([[34, 200, 7]], np.uint8)))


def test_label_ids_in_place_of_train_ids_are_noticed(tmp_path: Path):
    with refusal(r"label values 26; expected 0\.\.18 \(cityscapes\)", ImageError):
        train_ids(save(tmp_path / "a.png", np.array([[7, 26]], np.uint8)))


def test_train_ids_become_label_ids_and_back(tmp_path: Path):
    values = np.array([[*range(19), 255]], np.uint8)
    back = label_ids(save(tmp_path / "a.png", to_label_ids(values)))
    assert back.tolist() == [[*range(19), -1]]


def test_wilddash_reads_segments_by_their_colors(tmp_path: Path):
    (tmp_path / "images").mkdir(), (tmp_path / "panoptic").mkdir()
    save(tmp_path / "images/aa_000000.jpg", np.zeros((1, 4, 3), np.uint8))
    colors = [[[1, 0, 0], [0, 1, 0], [2, 1, 1], [9, 9, 9]]]  # ids 1, 256, 65794, one unlisted
    save(tmp_path / "panoptic/aa_000000.png", np.array(colors, np.uint8))
    listing = {
        "categories": [{"id": 7, "name": "road"}, {"id": 34, "name": "pickup"}, {"id": 60, "name": "mountain"}],
        "annotations": [
            {
                "file_name": "aa_000000.png",
                "segments_info": [
                    {"id": 1, "category_id": 7}, {"id": 256, "category_id": 34}, {"id": 65794, "category_id": 60},
                ],
            }
        ],
    }  # fmt: skip
    (tmp_path / "panoptic.json").write_text(json.dumps(listing))
    dataset = find_dataset("wilddash2")
    (sample,) = dataset.samples(tmp_path)
    assert sample.label is not None and dataset.decoder(tmp_path)(sample.label).tolist() == [[0, 14, -1, -1]]
    assert tmp_path / "panoptic.json" in labelled_split(dataset, tmp_path).files()
    (tmp_path / "panoptic.json").write_text("{}")
    with refusal(r"panoptic\.json"):
        dataset.decoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("object--traffic-sign--front", "traffic sign"), ("object--traffic-sign--back", None),
        ("object--traffic-sign--direction-front", "traffic sign"), ("object--traffic-sign--direction-back", None),
        ("object--traffic-sign--temporary-front", "traffic sign"), ("object--traffic-sign--temporary-back", None),
        ("object--traffic-sign--information-parking", "traffic sign"), ("object--traffic-sign--ambiguous", None),
        ("human--person--individual", "person"), ("human--rider--motorcyclist", "rider"),
        ("marking--discrete--crosswalk-zebra", "road"), ("construction--barrier--fence", "fence"),
        ("construction--structure--bridge", None), ("object--vehicle--car", "car"), ("void--car-mount", None),
    ],
)  # fmt: skip
def test_vistas_labels_are_matched_by_meaning(name: str, expected: str | None):
    assert mapillary.train_id(name) == (-1 if expected is None else CITYSCAPES.names.index(expected))


def test_every_wilddash_category_counts_as_a_class_that_exists():
    assert set(wilddash2.COUNTED_AS.values()) <= set(CITYSCAPES.names)
    assert wilddash2.train_id("traffic-sign-front") == 7 and wilddash2.train_id("billboard") == -1


def test_an_invalid_mask_is_read_in_both_forms(tmp_path: Path):
    for values in (np.array([[0, 1]], np.uint8), np.array([[0, 255]], np.uint8), np.array([[False, True]])):
        assert invalid_mask(save(tmp_path / "a.png", values)).tolist() == [[False, True]]
    with refusal(r"label values 7; .* an invalid mask", ImageError):
        invalid_mask(save(tmp_path / "b.png", np.array([[0, 7]], np.uint8)))
