"""Every story says what is owed and ends with doing everything again; the document lists them all."""

from __future__ import annotations

import pytest

from tests.stories.list_stories import CHECKOUT, DOCUMENT, REPEATS, Story, find_stories, write_document

STORIES = find_stories()


def test_the_document_is_what_the_tests_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == write_document(STORIES), "run python -m tests.stories.list_stories"


def test_there_are_stories_enough_and_no_two_of_a_file_share_a_name() -> None:
    assert len(STORIES) >= 60
    assert len({(story.file, story.name) for story in STORIES}) == len(STORIES)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.file.relative_to(CHECKOUT)}:{story.name}")
def test_a_story_says_what_is_owed_and_is_run_again(story: Story) -> None:
    happens, owed = story.told
    assert happens, "the docstring's first line says what happens and, after '; owed', what is owed"
    assert any(sign.isdigit() for sign in owed) or owed.split()[0] in {"nothing", "nothing,", "once"}, owed
    assert story.last_call in REPEATS, "a story ends with everything again, and nothing new"
