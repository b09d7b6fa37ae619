"""Links between documents lead somewhere: to a file of the checkout, and to a heading that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    faults = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = document if not name else (document.parent / name).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target)):
            faults.append(link)
    return faults


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "here.md").write_text("# One two\n")
    (tmp_path / "page.md").write_text("[a](here.md#one-two) [b](here.md#three) [c](gone.md) [d](#page)\n# Page\n")

    assert broken(tmp_path / "page.md") == ["here.md#three", "gone.md"]
