"""What is a bug when broken, held as tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "controller", "drivers", "telemetry")
CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_START_PROGRAMS = {
    "drivers/command.py",  # The one place.
    "controller/image/inspectors.py",  # One server, begun as root, whose children look at strangers' bytes.
    "controller/cli/supervise.py",  # Standard library only; it is what starts everything else.
}


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {_id(path): ast.parse(path.read_text()) for path in CODE}


def test_programs_are_started_in_one_place(trees: dict[str, ast.Module]) -> None:
    starting = {name for name, tree in trees.items() if "subprocess" in _imports(tree)}
    assert starting <= MAY_START_PROGRAMS


def test_json_is_decoded_into_a_type(trees: dict[str, ast.Module]) -> None:
    untyped = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("msgspec.json.decode", "msgspec.msgpack.decode")
        and not any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert untyped == []


def test_no_bare_except(trees: dict[str, ast.Module]) -> None:
    bare = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert bare == []


def test_every_module_says_what_lives_in_it(trees: dict[str, ast.Module]) -> None:
    silent = [name for name, tree in trees.items() if tree.body and ast.get_docstring(tree) is None]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base2"}
    assert [_id(path) for path in CODE if path.stem in empty] == []


def test_no_object_grows_into_a_file_of_thousands_of_lines() -> None:
    sizes = {_id(path): len(path.read_text().splitlines()) for path in CODE if "migrations" not in path.parts}
    assert {name: lines for name, lines in sizes.items() if lines > 600} == {}


def test_packaging_is_no_package() -> None:
    """It would shadow the `packaging` library, which pytest needs."""
    assert not (ROOT / "packaging" / "__init__.py").exists()


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [_id(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_every_top_folder_has_a_readme() -> None:
    folders = (*PACKAGES, "packaging", "tests")
    assert [name for name in folders if not (ROOT / name / "README.md").exists()] == []


def test_documents_link_to_what_exists() -> None:
    documents = [*ROOT.glob("*.md"), *(path for name in ("docs", *PACKAGES) for path in (ROOT / name).rglob("*.md"))]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    ]
    assert [f"{_id(one)}: {target}" for one, target in links if not (one.parent / target).exists()] == []


def test_the_specification_names_tests_that_exist() -> None:
    text = (ROOT / "SPECIFICATION.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text))
    assert named, "every promise names its proof"
    missing = []
    for path, test in named:
        file = ROOT / path
        if not file.exists() or (test and f"def {test}(" not in file.read_text()):
            missing.append(f"{path}::{test}")
    assert missing == []
