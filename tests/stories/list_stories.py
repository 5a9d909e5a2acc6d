"""Finds the billing stories among the tests and writes `docs/stories.md`: `python -m tests.stories.list_stories`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs" / "stories.md"
# What a story ends with: everything again, and nothing new.
REPEATS = ("nothing_new", "settled")
_FOLDERS = ("invoicing", "payments", "stories")
_OWED = "; owed "
_HEAD = """\
# Billing stories

What the product has to get right, told as {count} stories: what happens, and what is owed. Each is a test of that name
with its sums written out, and each ends with everything done again and nothing new: no invoice, no charge, no posting.
Those in `tests/stories` go through every stage, from usage to a ledger that is proven against the books, with the
providers' stand-ins; there messages and webhooks come twice anyway.

    pytest -m story                         # all of them
    python -m tests.stories.list_stories    # writes this file from the tests' docstrings; a test keeps it in step
"""


@dataclass(frozen=True)
class Story:
    """A test that is marked as a story."""

    file: Path
    function: ast.AsyncFunctionDef | ast.FunctionDef

    @property
    def name(self) -> str:
        """Its name as a sentence."""
        return self.function.name.removeprefix("test_").replace("_", " ")

    @property
    def told(self) -> tuple[str, str]:
        """What happens and what is owed; empty where the docstring does not say it."""
        first = (ast.get_docstring(self.function) or "").partition("\n")[0].removesuffix(".")
        happens, _, owed = first.rpartition(_OWED)
        return happens, owed

    @property
    def last_call(self) -> str:
        """The name of what it calls in its last statement."""
        calls = [node for node in ast.walk(self.function.body[-1]) if isinstance(node, ast.Call)]
        if not calls:
            return ""
        called = calls[0].func
        return called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)


def find_stories() -> list[Story]:
    """Return every story, by file and place in it."""
    files = sorted(file for folder in _FOLDERS for file in (CHECKOUT / "tests" / folder).rglob("test_*.py"))
    return [story for file in files for story in _stories_of(file)]


def _stories_of(file: Path) -> Iterator[Story]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    whole = any(_is_mark(node.value) for node in tree.body if isinstance(node, ast.Assign))
    for node in tree.body:
        if not isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        if whole or any(_is_mark(each) for each in node.decorator_list):
            yield Story(file, node)


def _is_mark(node: ast.expr) -> bool:
    return any(isinstance(each, ast.Attribute) and ast.unparse(each) == "pytest.mark.story" for each in ast.walk(node))


def write_document(stories: list[Story]) -> str:
    """Return the document."""
    parts = [_HEAD.format(count=len(stories))]
    for file in dict.fromkeys(story.file for story in stories):
        title = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        parts.append(
            f"\n## {file.relative_to(CHECKOUT)}\n\n{title}\n\n| story | what happens | what is owed |\n|---|---|---|\n"
        )
        for story in (one for one in stories if one.file == file):
            happens, owed = story.told
            parts.append(f"| {story.name} | {happens} | {owed} |\n")
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(write_document(find_stories()), encoding="utf-8")
