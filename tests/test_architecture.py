"""The house's rules: imports point down, adaptation cannot reach a label, files stay one idea long."""

import ast
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "allweather"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_TEXT = 4_000_000  # bytes of all that is kept and can be read, records of results included
SHARED = {
    "errors", "interrupts", "finite", "values", "plugins", "classes", "rgb", "sizes", "writing", "pictures", "ncut",
    "models", "methods", "export", "session", "data",
}  # fmt: skip
BELOW = {  # what each room may import, besides itself
    "allocator": set(),
    "errors": set(),
    "finite": set(),
    "classes": {"errors"},
    "values": {"errors"},
    "plugins": {"errors"},
    "rgb": {"errors"},
    "sizes": {"errors"},
    "interrupts": set(),
    "writing": {"errors", "interrupts"},
    "pictures": {"errors", "interrupts", "finite", "values", "classes", "rgb", "sizes", "writing"},
    "ncut": {"errors", "finite", "values", "rgb"},
    "models": {"errors", "finite", "values", "plugins", "classes", "rgb", "writing"},
    "methods": {"errors", "finite", "values", "plugins", "classes", "rgb", "pictures", "models", "ncut"},
    "export": {"errors", "finite", "plugins", "classes", "sizes", "writing", "models", "methods"},
    "session": {
        "errors", "interrupts", "finite", "values", "plugins", "classes", "rgb", "sizes", "writing", "pictures",
        "models", "methods", "ncut", "export",
    },
    "data": {"errors", "values", "plugins", "classes", "rgb", "sizes", "writing", "pictures"},
    "live": {
        "errors", "finite", "interrupts", "values", "plugins", "classes", "rgb", "sizes", "writing", "pictures",
        "models", "methods", "session", "data",
    },
    "serve": {
        "allocator", "errors", "finite", "plugins", "classes", "rgb", "sizes", "pictures", "models", "methods", "ncut",
        "session", "data",
    },
    "scoring": {"errors", "values", "classes", "rgb", "pictures", "data"},
    "runs": SHARED | {"scoring"},
    "report": SHARED | {"scoring", "runs"},
    "submit": {"errors", "classes", "rgb", "writing", "pictures", "data", "runs"},
    "scale": SHARED | {"runs"},
    "app": SHARED | {"allocator", "live", "serve", "scoring", "runs", "scale", "report", "submit"},
}  # fmt: skip


@cache
def tree(path: Path) -> ast.Module:
    """What the file says, read once for all rules; no rule may change it."""
    return ast.parse(path.read_text())


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(source: ast.Module) -> set[str]:
    """Rooms of the package that the source imports, anywhere in it."""
    modules: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "allweather":
            modules |= {f"allweather.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {name.split(".")[1] for name in modules if name.startswith("allweather.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path):
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    assert here in BELOW, f"{here} is a room without rules"
    wrong = imported_rooms(tree(path)) - BELOW[here] - {here}
    assert not wrong, f"{here} may not import {wrong}"


@pytest.mark.parametrize(
    "source",
    ["from allweather.data import labels", "import allweather.scoring.confusion", "from allweather import data"],
)
def test_the_import_rule_can_fail(source: str):
    assert imported_rooms(ast.parse(source)) - BELOW["methods"]


def test_no_adaptation_code_has_a_path_to_a_label():
    for name in ("ncut", "models", "methods", "export", "session"):
        assert not BELOW[name] & {"data", "scoring", "runs", "report", "submit", "app"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea(path: Path):
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert path.name not in ("utils.py", "helpers.py", "misc.py", "common.py")
    docstring = ast.get_docstring(tree(path))
    assert docstring, "a file opens with one sentence of purpose"


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it raises again what it caught, gives it to a future's owner, or logs it whole."""
    for inner in ast.walk(handler):
        if isinstance(inner, ast.Raise) and inner.exc is None:
            return True
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            owner = ast.unparse(inner.func.value)
            if (owner, inner.func.attr) in (("future", "set_exception"), ("LOG", "exception")):
                return True
    return False


def test_nothing_hides_or_evaluates():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                names = ast.unparse(node.type) if node.type else "everything"
                assert passes_on(node) or names not in ("everything", "Exception", "BaseException"), (
                    f"{path}: hides {names}"
                )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path} evaluates text"


def test_what_holds_tensors_compares_by_identity():
    """`==` of two tensors is a tensor: a comparison field by field ends in torch's error about its truth."""
    for path in FILES:
        for made in (node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)):
            settings = [ast.unparse(each) for each in made.decorator_list if "dataclass" in ast.unparse(each)]
            fields = [ast.unparse(each) for each in made.body if isinstance(each, ast.AnnAssign)]
            held = [each for each in fields if re.search(r"\b(Tensor|ndarray)\b", each) and "Callable" not in each]
            compared = [each for each in held if "compare=False" not in each]
            assert not settings or not compared or "eq=False" in settings[0], f"{path}: {made.name} compares {compared}"


def test_only_the_command_line_speaks():
    spoken = re.compile(r"\bprint\(|\bsys\.(stdout|stderr)\b|\brich\b|\btyper\b")
    for path in FILES:
        code = ast.unparse(tree(path))
        assert room(path) == "app" or not spoken.search(code), f"{path} speaks; it should log"


def test_a_packages_function_has_no_submodules_name():
    """Once the submodule is imported, it would stand where the function stood."""
    for path in FILES:
        if path.name == "__init__.py":
            made = {node.name for node in tree(path).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert not made & {other.stem for other in path.parent.iterdir()}, (
                f"{path}: rename the file or the function"
            )


def test_files_name_no_machine_and_no_registry():
    pattern = re.compile(
        r"(?<![\w.])/(work|root|home|tmp)/|\.\./shared|index-url|https?://[a-z.]*(pypi|npmjs|debian)[a-z.]*"
    )
    roots = [ROOT / name for name in ("src", "tests", "benchmarks", "docs", "plans")]
    written = [path for path in ROOT.iterdir() if path.is_file()] + [path for root in roots for path in root.rglob("*")]
    texts = [path for path in written if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".cff")]
    assert len(texts) > 100
    for path in texts:
        found = pattern.search(path.read_text())
        assert not found or path == Path(__file__), f"{path}: {found.group() if found else ''}"


def test_what_a_clone_reads_stays_small():
    """Weights, pictures and compressed fixtures are no text; SVG is."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("what is kept is known in a git checkout only")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    contents = [(ROOT / name.decode()).read_bytes() for name in listed if name and (ROOT / name.decode()).is_file()]
    texts = [content for content in contents if b"\0" not in content]
    assert len(texts) > 500
    assert sum(map(len, texts)) <= MOST_TEXT


def test_no_test_file_imports_another():
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for node in ast.walk(tree(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("test_")], f"{path.name} imports {names}"
