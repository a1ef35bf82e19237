"""The build of the house: no import circle, no import of a room further up, short files and short functions."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("common", "modeling", "data", "diarization", "evaluation", "training")
"""Lowest first; `modeling` imports none of them, and what is not here may import all."""
NOT_OURS_TO_CHECK = {"pretrained", "notebooks"}
MOST_LINES = 450
MOST_LINES_OF_A_FUNCTION = 50


@cache
def modules() -> dict[str, list[ast.AST]]:
    """The nodes of every Python file by its dotted name."""
    folders = (d for d in ROOT.iterdir() if d.is_dir() and d.name not in NOT_OURS_TO_CHECK and d.name[0] not in "._")
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name: list(ast.walk(ast.parse(file.read_bytes()))) for name, file in names.items()}


def imports(name: str, nodes: list[ast.AST]) -> Iterator[str]:
    """The files of ours that a file imports, at whatever place in it, but not those for type checkers alone."""
    skipped = {inside for node in nodes if _for_type_checkers(node) for inside in ast.walk(node)}
    for node in nodes:
        if not isinstance(node, (ast.Import, ast.ImportFrom)) or node in skipped:
            continue
        found = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = name.split(".")[: -node.level] if node.level else []
            whole = ".".join([*base, *filter(None, [node.module])])
            found = [whole, *(f"{whole}.{alias}" for alias in found)]
        yield from (file for file in map(file_of, found) if file and file != name)


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def file_of(module: str) -> str | None:
    return next((name for name in (module, f"{module}.__init__") if name in modules()), None)


@cache
def graph() -> dict[str, set[str]]:
    return {name: set(imports(name, nodes)) for name, nodes in modules().items()}


def room(name: str) -> str:
    return name.split(".")[0]


def upward(name: str, imported: str) -> bool:
    """Whether the room of `name` lies below that of `imported`."""
    here, there = room(name), room(imported)
    if here == there or here not in ROOMS:
        return False
    return there not in ROOMS[: ROOMS.index(here)] or here == "modeling"


@pytest.mark.slow
def test_the_check_sees_what_is_imported():
    assert {"modeling.audio_fast_diarization", "data.rttm"} <= graph()["diarize"] | graph()["data.annotations"]
    assert graph()["modeling.__init__"] == {"modeling.auto_classes"}
    assert not graph()["common.words"]
    assert upward("data.rttm", "evaluation.rates") and upward("training.hub", "publishing.card")
    assert upward("modeling.audio_fast_diarization", "common.text")
    assert not upward("evaluation.rates", "data.rttm") and not upward("publishing.card", "training.hub")


def test_no_file_imports_itself_by_way_of_others():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_room_imports_one_above_it():
    assert [f"{name} imports {other}" for name in graph() for other in graph()[name] if upward(name, other)] == []


def test_functions_are_short():
    functions = (
        (name, node)
        for name, nodes in modules().items()
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    lines = {f"{name}.{node.name}": node.end_lineno - node.lineno + 1 for name, node in functions}
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_FUNCTION} == {}


def test_files_are_short():
    ends = {
        name: max((getattr(node, "end_lineno", 0) for node in nodes), default=0) for name, nodes in modules().items()
    }
    assert {name: count for name, count in ends.items() if count > MOST_LINES} == {}
