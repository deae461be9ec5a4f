"""Checks a release before it is published: `python tools/release_check.py --out FOLDER [EXTRA …]`.

Builds sdist and wheel, checks their metadata and contents, installs the wheel without extras into a clean environment
and uses it there, then installs each extra alone beside it and uses what the extra is for. Nothing is uploaded.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_SDIST = ("tests/conftest.py", "tests/data/reference-models.json.gz", "docs/conf.py", "plans/camvid.toml", "LICENSE")
IN_WHEEL = (
    "allweather/py.typed",
    "allweather/models/weights/streetnet.safetensors",
    "allweather-{version}.dist-info/licenses/LICENSE",
)
PLAIN = (  # commands of the environment without extras
    ("python", "-c", "import allweather as aw; [getattr(aw, name) for name in aw.__all__]"),
    ("allweather", "--version"),
    ("allweather", "doctor"),
    ("allweather", "demo", "--frames", "1", "--out", "demo"),
    ("allweather", "list", "models"),
)
START = """
import warnings; warnings.simplefilter("ignore")
import numpy as np, torch, allweather as aw
image = torch.rand(3, 64, 64)
session = aw.Session(aw.load_model("demo:streetnet"), "mall-domain")
session(image)
"""
USES = {  # extra → what it is for; without the extra the same must end with a message that names it
    "transformers": """
from transformers import SegformerConfig, SegformerForSemanticSegmentation
names = dict(enumerate(aw.CITYSCAPES.names))
config = SegformerConfig(depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16, id2label=names)
SegformerForSemanticSegmentation(config).save_pretrained("tiny")
model = aw.load_model("transformers:tiny")
assert aw.Session(model, "tent")(image).labels.shape == (64, 64)
""",
    "torchvision": """
model = aw.load_model("torchvision:lraspp_mobilenet_v3_large")
assert aw.Session(model, "tent")(image).labels.shape == (64, 64)
""",
    "smp": """
model = aw.load_model("smp:unet/resnet18")
assert aw.Session(model, "tent")(image).labels.shape == (64, 64)
""",
    "mmseg": """
import mmseg
model = aw.load_model("mmseg:fcn_r50-d8_4xb2-40k_cityscapes-512x1024")
assert model(image[None]).shape[1] == 19
""",
    "ultralytics": """
model = aw.load_model("ultralytics:yolo26n-sem")
assert aw.Session(model, "tent")(image).labels.shape == (64, 64)
""",
    "matlab": """
from allweather.models.matlab import read_matlab
try:
    read_matlab("absent.mat")
except aw.MissingLibraryError:
    raise
except aw.AllWeatherError as error:
    assert "absent.mat" in str(error)
""",
    "report": """
from allweather.app.cli import main
import sys
open("plan.toml", "w").write('[[models]]\\nname="demo:streetnet"\\n[[streams]]\\nname="scenes:fog"\\nevery=32\\n'
                             '[[methods]]\\nname="source"\\n')
for words in (["bench", "plan.toml", "--out", "runs"], ["report", "runs", "--out", "report.html"]):
    sys.argv = ["allweather", *words]
    try:
        main()
    except SystemExit as status:
        assert not status.code, status
assert "<svg" in open("report.html").read() or "data:image" in open("report.html").read()
""",
    "onnx": """
session.export("net.onnx")
import onnxruntime
onnxruntime.InferenceSession("net.onnx")
""",
    "hub": """
import os
os.environ["HF_HUB_OFFLINE"] = "1"
try:
    aw.from_hub(aw.load_model("demo:streetnet").network, "nobody/nothing")
except aw.MissingLibraryError:
    raise
except aw.AllWeatherError as error:
    assert "nobody/nothing" in str(error)
""",
    "video": """
from allweather.pictures import Film
from allweather.data import Video
with Film("film.mp4", 10, 64, 64) as film:
    for _ in range(4):
        film.write(np.zeros((64, 64, 3), np.uint8))
assert len(list(Video("film.mp4"))) == 4
""",
    "web": """
assert aw.serve.application(aw.load_model("demo:streetnet")).title == "allweather"
""",
    "camera": """
from allweather.errors import optional
optional("cv2", "camera", "OpenCV")
try:
    aw.Live("camera:99", session)
except aw.InputError as error:
    assert "camera:99" in str(error)
""",
}


def build(out: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made from it."""
    run([sys.executable, "-m", "build", "--outdir", str(out / "dist"), str(ROOT)], out)
    (sdist,), (wheel,) = (out / "dist").glob("*.tar.gz"), (out / "dist").glob("*.whl")
    run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], out)
    return sdist, wheel


def missing(sdist: Path, wheel: Path) -> Iterator[str]:
    """What the archives lack, and what they should not hold."""
    stem = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{stem}/") for name in archive.getnames()}
    yield from (f"{sdist.name} lacks {name}" for name in IN_SDIST if name not in names)
    with zipfile.ZipFile(wheel) as package:
        held = package.namelist()
        meta = next(name for name in held if name.endswith(".dist-info/METADATA"))
        text = package.read(meta).decode()
    for name in IN_WHEEL:
        if name.format(version=stem.removeprefix("allweather-")) not in held:
            yield f"{wheel.name} lacks {name}"
    yield from (f"{wheel.name} has {name}" for name in held if name.startswith(("tests/", "docs/", "benchmarks/")))
    if "License-Expression: Apache-2.0" not in text:
        yield f"{wheel.name} names no SPDX licence"


def environment(folder: Path, beside: Path | None = None) -> Path:
    """A clean environment, or one that sees the packages of another; gives its folder of programs."""
    venv.create(folder, with_pip=True, clear=True)
    if beside is not None:
        (place,) = folder.glob("lib/python*/site-packages")
        (seen,) = beside.glob("lib/python*/site-packages")
        (place / "beside.pth").write_text(f"{seen}\n")
    return folder / "bin"


def run(command: Sequence[str], folder: Path, programs: Path | None = None) -> None:
    """Runs a command in a folder.

    Raises:
        CalledProcessError: where it fails; what it said is printed.
    """
    first = [str(programs / command[0])] if programs else [command[0]]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*first, *command[1:]], cwd=folder, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
        raise subprocess.CalledProcessError(done.returncode, command)


def use_alone(extra: str, wheel: Path, base: Path, folder: Path) -> str:
    """Installs an extra beside the plain environment and uses it; what came of it, in a word or two."""
    folder.mkdir()
    if extra in USES and says_what_it_needs(extra, base, folder) is False:
        return "used without it, no message names the extra"
    programs = environment(folder / "env", base)
    try:
        run(["pip", "install", "--quiet", f"allweather[{extra}] @ {wheel.as_uri()}"], folder, programs)
    except subprocess.CalledProcessError:
        return "does not install"
    try:
        run(["python", "-c", START + USES[extra]], folder, programs)
    except subprocess.CalledProcessError:
        return "fails"
    return "works"


def says_what_it_needs(extra: str, base: Path, folder: Path) -> bool:
    """Whether the extra's feature, without the extra, ends with the command that installs it."""
    command = [str(base / "bin" / "python"), "-c", START + USES[extra]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return f"allweather[{extra}]" in done.stderr or f"No module named '{extra}'" in done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="An empty or new folder for all that is made.")
    parser.add_argument("extras", nargs="*", help="Extras to try; all of them where none is named.")
    asked = parser.parse_args()
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    sdist, wheel = build(out)
    faults = list(missing(sdist, wheel))
    programs = environment(out / "plain")
    run(["pip", "install", "--quiet", str(wheel)], out, programs)
    for command in PLAIN:
        run(command, out, programs)
    print("without extras: works", flush=True)
    for extra in asked.extras or USES:
        outcome = use_alone(extra, wheel, out / "plain", out / extra)
        print(f"{extra}: {outcome}", flush=True)
        faults += [] if outcome == "works" else [f"{extra}: {outcome}"]
    print("\n".join(faults) or "nothing is missing")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
