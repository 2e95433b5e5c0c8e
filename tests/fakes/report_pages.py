"""Reading a report's page without its templates: a parser that refuses unbalanced tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from tasks.report.records import ReportData
from tasks.report.render import render_report

VOID = {"meta", "img", "br", "hr", "input", "link"}


@dataclass
class Node:
    """One element of the parsed page."""

    tag: str
    attrs: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def find(self, tag: str = "", css: str = "") -> list[Node]:
        """Descendants with a tag name and a class, in document order."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if tag in ("", child.tag) and (not css or css in child.classes):
                    found.append(child)
                found += child.find(tag, css)
        return found

    @property
    def classes(self) -> list[str]:
        return self.attrs.get("class", "").split()

    @property
    def words(self) -> str:
        """All text inside, white space collapsed."""
        parts = [child if isinstance(child, str) else child.words for child in self.children]
        return " ".join(" ".join(parts).split())


class Reader(HTMLParser):
    """Builds a tree and refuses tags that do not balance."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]
        self.all: list[Node] = []
        self.feed(page)
        self.close()
        assert [node.tag for node in self.open] == [""]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.all.append(node)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(data: ReportData) -> Node:
    """The root of a report's page."""
    return Reader(render_report(data)).open[0]


def board_rows(root: Node) -> dict[str, Node]:
    """Method identifier -> its row in the first leaderboard."""
    board = root.find("table", "board")[0]
    return {row.find("code", "id")[0].words: row for row in board.find("tr") if row.find("code")}


def column(root: Node, row: Node, title: str) -> Node:
    """The cell of a row under the first column whose heading starts with `title`."""
    heads = root.find("table", "board")[0].find("thead")[0].find("tr")[-1].find("th")
    place = next(i for i, head in enumerate(heads) if head.words.startswith(title))
    return [child for child in row.children if isinstance(child, Node)][place]
