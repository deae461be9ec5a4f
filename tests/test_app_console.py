"""What the command line says to a terminal: a name is words in it, never a command, a line of its own, or markup."""

import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import MODEL, allweather
from PIL import Image
from rich.console import Console

from allweather.app import console

NAME = "frame\x1b]0;PWNED\x1b\\\x1b[2J\nerror: disk lost\r\x07\t\x7f\x9b31m [/] [red]" + os.fsdecode(b"\xff") + "\ud800"
SHOWN = r"frame\x1b]0;PWNED\x1b\\x1b[2J\x0aerror: disk lost\x0d\x07\x09\x7f\x9b31m [/] [red]\xff\ud800"


def log(text: str):
    console.hear(logging.INFO)
    logging.getLogger("allweather.test").info("%s", text)


def log_a_fault(text: str):
    console.hear(logging.INFO)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("allweather.test").exception("%s", text)


def advise(text: str):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        console.narrate_warnings()
        warnings.warn(text, stacklevel=1)


@pytest.mark.parametrize(
    "say",
    [
        console.warn,
        lambda text: console.warn("below:", text),
        console.complain,
        lambda text: console.tell_done("", Path(text), (), text, [text], [text]),
        lambda text: console.data.print(console.table(text, [text], [[text]])),
        log,
        log_a_fault,
        advise,
    ],
    ids=["warning", "below", "error", "failures", "table", "log", "fault", "advice"],
)
def test_a_name_is_never_a_command_to_the_terminal(
    say: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(logging.getLogger("allweather"), "propagate", False)  # pytest's report takes no such name
    say(NAME)
    said = "".join(capsys.readouterr())
    assert SHOWN in said
    assert not re.search(r"[^\n -~…]", said) and not re.search("^error: disk", said, re.MULTILINE)


def test_json_is_the_same_text_and_no_command(capsys: pytest.CaptureFixture[str]):
    console.print_json([NAME])
    said = capsys.readouterr().out
    assert json.loads(said) == [NAME]
    assert not re.search(r"[^\n -~]", said)


@pytest.mark.parametrize("field", ["description", "rate"])
@pytest.mark.parametrize("name", [NAME, "yard [/]", "[bold"], ids=["commands", "end", "open"])
def test_a_bar_shows_any_name(name: str, field: str):
    terminal = Console(file=io.StringIO(), width=300)
    with console.progress() as bar:
        bar.add_task(**{"description": "", "rate": "", field: name}, total=3)
        bar.refresh()
        terminal.print(bar.make_tasks_table(bar.tasks))
    said = terminal.file.getvalue()
    assert (SHOWN if name == NAME else name) in said and "\x1b" not in said


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
def test_a_broken_picture_is_named_and_not_obeyed(tmp_path: Path):
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "frames/a.png")
    (tmp_path / "frames" / "frame\x1b[2J\nerror: disk lost.png").write_bytes(b"x")
    said = allweather("adapt", tmp_path / "frames", *MODEL, "--method", "source", "--out", tmp_path / "out").said(1)
    assert r"frame\x1b[2J\x0aerror: disk lost" in said and "\x1b" not in said


def test_a_plan_may_call_its_streams_anything(tmp_path: Path):
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
        Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / place / "a.png")
    (tmp_path / "plan.toml").write_text(
        '[[models]]\nname = "demo:streetnet"\n[[methods]]\nname = "source"\n'
        '[[streams]]\nname = "yard [/]"\nimages = "images"\nlabels = "labels"\n'
    )
    said = allweather("bench", tmp_path / "plan.toml", "--out", tmp_path / "runs").said()
    assert "yard [/]" in said and "1 runs done" in said
