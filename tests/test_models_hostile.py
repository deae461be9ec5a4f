"""Hostile checkpoints through the command line: status 2, no traceback, nothing in them run, memory bounded."""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import allweather
from safetensors.torch import save

from allweather import AllWeatherError
from allweather.models.catalogue import find_entry
from allweather.models.checkpoints import load_weights
from allweather.models.pickles import inspect

MODEL = "demo:streetnet"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TEN_GIGABYTES = 10 << 30
CHAIN = b"c_codecs\nencode\n"
EMPTY_ARCHIVE = b"PK\5\6" + bytes(18)  # behind other bytes it makes them one for zipfile, and not for torch


class Payload:
    """A pickle that would leave a mark if it ran."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def good(classes: int = 19) -> dict[str, torch.Tensor]:
    tensors = find_entry(MODEL).build().state_dict()
    return {key: value[:classes] if key.startswith("head.") else value for key, value in tensors.items()}


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def archive(pickled: bytes, name: str = "data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"archive/{name}", pickled)
        file.writestr("archive/version", "3")
    return buffer.getvalue()


def deflated() -> bytes:
    """Ten gigabytes of zeros: ten megabytes that claim ten gigabytes, none of which need be unpacked to see it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", bytes(1 << 20))
    whole = bytearray(buffer.getvalue())
    sizes = whole.rindex(b"PK\1\2") + 24
    whole[sizes : sizes + 4] = struct.pack("<I", (4 << 30) - 2)
    return bytes(whole)


def claimed(legacy: bool) -> bytes:
    """A checkpoint whose pickle asks for a storage of ten gigabytes."""
    weights = torch.arange(108.0)
    whole = saved({"a": weights}, _use_new_zipfile_serialization=not legacy)
    asked = b"\x8a\x05" + struct.pack("<Q", TEN_GIGABYTES)[:5]
    if legacy:
        return whole.replace(b"K\x6c", asked, 1)
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content.replace(b"K\x6c", asked, 1) if name.endswith("data.pkl") else content)
    return buffer.getvalue()


def swelling() -> bytes:
    """Bytes encoded as hexadecimal digits forty times over."""
    return b"\x80\x02" + 40 * CHAIN + b"X\x02\0\0\0xxX\x06\0\0\0latin1\x86R" + b"X\x03\0\0\0hex\x86R" * 39 + b"."


def touching(mark: Path) -> bytes:
    """getattr(PosixPath, "touch")(PosixPath(mark)): nothing but names that metadata may have."""
    path, name = b"cpathlib\nPosixPath\n", str(mark).encode()
    text = b"X" + struct.pack("<I", len(name)) + name
    return b"\x80\x02c__builtin__\ngetattr\n" + path + b"X\x05\0\0\0touch\x86R" + path + text + b"\x85R\x85R."


HOSTILE: dict[str, tuple[str, Callable[[Path], bytes], str]] = {  # suffix, content, what the message says
    "code in an archive": ("pth", lambda mark: saved({"state_dict": Payload(mark)}), "holds code or objects"),
    "code in an old file": (
        "pth",
        lambda mark: saved(Payload(mark), _use_new_zipfile_serialization=False),
        "holds code or objects",
    ),
    "code in a bare pickle": ("pth", lambda mark: pickle.dumps(Payload(mark), protocol=2), "holds code or objects"),
    "code under another suffix": ("tar", lambda mark: pickle.dumps(Payload(mark), protocol=4), "w.tar"),
    "a function of harmless data": ("pth", lambda mark: archive(touching(mark)), "holds code or objects"),
    "truncated": ("pth", lambda _: saved(good())[:200_000], "not a readable torch checkpoint"),
    "truncated safetensors": ("safetensors", lambda _: save(good())[:-40], "not a readable safetensors file"),
    "another network": (
        "pth",
        lambda _: saved(find_entry("espnetv2:0.5").build().state_dict()),
        f"not a checkpoint of {MODEL}",
    ),
    "another class count": ("pth", lambda _: saved(good(11)), "trained for 11 classes, the network has 19"),
    "a web page": ("pth", lambda _: b"\n<!DOCTYPE html><title>Quota exceeded</title>", "is a web page"),
    "empty": ("pth", lambda _: b"", "is empty"),
    "a header of 10 GB": (
        "safetensors",
        lambda _: struct.pack("<Q", TEN_GIGABYTES) + b"{}" + bytes(100),
        "the header claims 10,737,418,240 bytes",
    ),
    "tensors of 10 GB": (
        "safetensors",
        lambda _: (
            struct.pack("<Q", 70)
            + json.dumps({"a": {"dtype": "F32", "shape": [2684354560], "data_offsets": [0, TEN_GIGABYTES]}})
            .ljust(70)
            .encode()
        ),
        "not a readable safetensors file",
    ),
    "an archive of 4 GB": ("pth", lambda _: deflated(), "claim to unpack to 4,294,967,294"),
    "a storage of 10 GB": ("pth", lambda _: claimed(legacy=False), "not a readable torch checkpoint"),
    "an old storage of 10 GB": ("pth", lambda _: claimed(legacy=True), "not a readable torch checkpoint"),
    "10 GB made by a pickle": (
        "pth",
        lambda _: archive(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + struct.pack("<Q", TEN_GIGABYTES)[:5] + b"\x85R."),
        "builtins.bytearray",
    ),
    "a chain of encodings": ("pth", lambda _: archive(swelling()), "_codecs.encode by hex"),
    "a chain before an archive": ("pth", lambda _: swelling() + EMPTY_ARCHIVE, "_codecs.encode by hex"),
    "a chain in capitals": ("pth", lambda _: archive(swelling(), "DATA.PKL"), "_codecs.encode by hex"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_refused(kind: str, tmp_path: Path):
    suffix, content, message = HOSTILE[kind]
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content(tmp_path / "ran"))
    said = allweather("convert", path, "--model", MODEL, "--out", tmp_path / "out.safetensors").said(2)
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("legacy", [True, False])
def test_torch_itself_refuses_code_that_the_look_ahead_would_miss(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "w.pth"
    path.write_bytes(saved({"a": Payload(tmp_path / "ran")}, _use_new_zipfile_serialization=not legacy))
    monkeypatch.setattr("allweather.models.reading.inspect", lambda file: replace(inspect(file), objection=None))
    with pytest.raises(AllWeatherError, match="holds code or objects beside tensors, which is refused"):
        load_weights(find_entry(MODEL).build(), path, name=MODEL)
    assert not (tmp_path / "ran").exists()


MEASURED = """
import resource, sys
from allweather.app.cli import main
for path in sys.argv[1:]:
    sys.argv = ["allweather", "convert", path, "--model", "demo:streetnet", "--out", path + ".safetensors"]
    try:
        main()
    except SystemExit as leaving:
        print(leaving.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_claims_of_gigabytes_take_none(tmp_path: Path):
    """A process that has refused an empty file takes little more memory to refuse all the claims as well."""
    kinds = ["empty", *(kind for kind in HOSTILE if "GB" in kind or kind.startswith("a chain"))]
    paths = [tmp_path / f"{kind.replace(' ', '-')}.{HOSTILE[kind][0]}" for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        path.write_bytes(HOSTILE[kind][1](tmp_path / "ran"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert "Traceback" not in done.stderr
    statuses, peaks = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert statuses == ("2",) * len(kinds)
    assert int(peaks[-1]) - int(peaks[0]) < 100, f"MiB: {dict(zip(kinds, peaks, strict=True))}"


def test_bytes_changed_anywhere_end_in_a_message(tmp_path: Path):
    """Damaged headers, pickles and directories: whatever happens, it is an AllWeatherError or a network that loads."""

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))

    content = {"state_dict": network().state_dict(), "epoch": 3}
    forms = {
        "a.pth": saved(content),
        "b.pth": saved(content, _use_new_zipfile_serialization=False),
        "c.safetensors": save(network().state_dict()),
    }
    chance, refused = random.Random(0), 0
    for turn in range(900):
        name = list(forms)[turn % 3]
        damaged = bytearray(forms[name])
        for _ in range(chance.choice((1, 2, 8))):
            at = chance.randrange(min(len(damaged), chance.choice((64, 1200, len(damaged)))))
            damaged[at : at + chance.choice((0, 1, 4))] = chance.randbytes(chance.choice((0, 1, 1, 4)))
        (tmp_path / name).write_bytes(damaged)
        try:
            load_weights(network(), tmp_path / name, name="tiny")
        except AllWeatherError:
            refused += 1
    assert refused > 300
