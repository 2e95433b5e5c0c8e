"""Text of others, read back by a Markdown parser, is the same text."""

from __future__ import annotations

import pytest

from tasks.report.markdown import Markdown, markdown_table, plain


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("the same in red, 52.40 (v1.5)", "the same in red, 52.40 (v1.5)"),
        ("[a](http://b.c)", r"\[a\](http\://b\.c)"),
        ("![x](y)", r"!\[x\](y)"),
        ("<b>&lt;", r"\<b\>\&lt;"),
        ("a|b `c` *d* _e_ ~f~ \\", r"a\|b \`c\` \*d\* \_e\_ \~f\~ \\"),
        ("www.x.org me@x.org", r"www\.x\.org me\@x\.org"),
        ("a line: another", r"a line: another"),
        ("1. a", r"1\. a"),
        ("2024) a", r"2024\) a"),
        ("- a - b", r"\- a - b"),
        ("# a\n\n    b\r\n\tc", r"\# a     b c"),
        ("a\x00\x1b[2Jb\u202ec\ud800", r"a \[2Jb c"),
        ("  ", ""),
    ],
)
def test_what_markdown_reads_is_escaped_and_the_rest_is_left(text: str, written: str) -> None:
    assert plain(text) == written


def test_random_text_comes_back_as_it_was() -> None:
    """markdown-it is an independent parser of CommonMark; it is there with rich."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table"])
    import html
    import random
    import re

    dice = random.Random(3)
    signs = "\\`*_{}[]()<>#+-.!|&~=:@/'\"1a b;lt"
    for _ in range(3000):
        text = "".join(dice.choice(signs) for _ in range(dice.randint(1, 14)))
        for page in (plain(text), f"## {plain(text)}", f"- {plain(text)}", f"**{plain(text)}**x"):
            shown = parser.render(page)
            tags = set(re.findall(r"</?(\w+)", shown))
            assert tags <= {"p", "h2", "ul", "li", "strong"}, (text, shown)
            bare = html.unescape(re.sub(r"<[^>]*>", "", shown))
            assert bare.removesuffix("\n").strip("*x\n ").split() == text.strip("*x\n ").split()
        (row,) = re.findall(r"<td>(.*)</td>", parser.render(markdown_table(["a"], [[text]])))
        assert html.unescape(row).split() == text.split()


def test_a_table_takes_markdown_as_it_stands_and_everything_else_as_text() -> None:
    table = markdown_table(["a|b", Markdown("**c**")], [["*x*", Markdown("*y*")], [1.25, 3]])
    assert table.splitlines() == [
        r"| a\|b | **c** |",
        "|---|---|",
        r"| \*x\* | *y* |",
        "| 1.25 | 3 |",
    ]
