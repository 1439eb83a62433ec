"""References of a methods paragraph, from ``references.bib``, the file that the documentation uses."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import NamedTuple

# authors of a reference before "et al."
MAX_AUTHORS = 6
# combining characters of the accents of BibTeX
ACCENTS = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}


class Reference(NamedTuple):
    """A reference, and where it is found."""

    text: str
    link: str


class Citations:
    """The references that a text cites, numbered in the order in which it cites them."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def cite(self, *keys: str) -> str:
        """Return the numbers of references, such as " [1, 2]"; empty without references."""
        self.keys += [key for key in dict.fromkeys(keys) if key not in self.keys]
        numbers = ", ".join(str(self.keys.index(key) + 1) for key in keys)
        return f" [{numbers}]" if numbers else ""

    def references(self) -> list[Reference]:
        """Return the references that were cited."""
        return [_reference(bibliography()[key]) for key in self.keys]


@cache
def bibliography() -> dict[str, dict[str, str]]:
    """Return the fields of each entry of the file, by key."""
    text = (files("scdeconv") / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL)
    return {key: dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},$", body, flags=re.MULTILINE)) for key, body in entries}


def cited_in(text: str) -> list[str]:
    """Return the keys of the entries that a text names by first author and year, such as "Jew et al. 2020"."""
    found = []
    for key, entry in bibliography().items():
        family = re.escape(_plain(entry["author"].split(" and ")[0].split(",")[0]))
        match = re.search(rf"\b{family}\b[^;,\d]*\b{entry['year']}\b", text)
        if match:
            found.append((match.start(), key))
    return [key for _, key in sorted(found)]


def _reference(entry: dict[str, str]) -> Reference:
    """Return an entry as text."""
    authors = [_short_name(name) for name in entry["author"].split(" and ")]
    if len(authors) > MAX_AUTHORS or authors[-1] == "others":
        authors = [*authors[: MAX_AUTHORS - 1], "et al"]
    volume = entry.get("volume", "") + (f"({entry['number']})" if "number" in entry else "")
    pages = f":{entry['pages']}" if "pages" in entry else ""
    where = " ".join(filter(None, [entry.get("journal", entry.get("publisher", "")), f"{volume}{pages}"]))
    parts = [", ".join(authors), entry["title"], *([where] if where else [])]
    doi = entry.get("doi")
    link = f"https://doi.org/{doi}" if doi else entry.get("url", "")
    return Reference(f"{_plain('. '.join(parts))} ({entry['year']}).", link)


def _short_name(name: str) -> str:
    """Return "Newman AM" of "Newman, Aaron M."."""
    family, _, given = name.partition(", ")
    initials = "".join(part[0] for part in re.split(r"[\s.-]+", _plain(given)) if part)
    return f"{family} {initials}".strip()


def _plain(text: str) -> str:
    """Return BibTeX text as Unicode."""
    text = re.sub(
        r"\{\\([\"'`^~])(\w)\}", lambda found: unicodedata.normalize("NFC", found[2] + ACCENTS[found[1]]), text
    )
    return text.replace("{", "").replace("}", "").replace("\\&", "&").replace("--", "\N{EN DASH}")
