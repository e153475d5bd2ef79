"""Limits that keep the package readable: lengths of functions and files, first words of docstrings, unique class names.

CONTRIBUTING.md names the exceptions and their reasons.
"""

import ast
import collections
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trainer"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION_LINES, MAX_FILE_LINES = 60, 350
LONGER_FILES = {"models/gan.py"}
"""Files that may be longer. CONTRIBUTING.md says why."""
FORBIDDEN_OPENING = re.compile(r"(What|Whether|That|Of|Which|How) ")


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def function_lines(node):
    """Number of lines of a function without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_and_files_are_short(path):
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in functions if function_lines(node) > MAX_FUNCTION_LINES} == set()
    is_long = len(path.read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES
    assert not is_long or name_of(path) in LONGER_FILES


def test_exceptions_are_still_needed_and_explained():
    contributing = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in LONGER_FILES:
        assert len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES
        assert name in contributing


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_docstrings_begin_with_a_verb_or_a_noun_phrase(path):
    docstrings = re.findall(r'(?m)^\s*"""(.*)', path.read_text(encoding="utf-8"))
    assert [text for text in docstrings if FORBIDDEN_OPENING.match(text)] == []
    arguments = re.findall(r"(?m)^\s+\w+: (Of .*)$", path.read_text(encoding="utf-8"))
    assert arguments == []


def test_no_two_classes_share_a_name():
    homes = collections.defaultdict(list)
    for path in FILES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name_of(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
