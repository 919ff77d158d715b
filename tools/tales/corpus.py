"""Public-domain tale books in plain text: split into tales, clean, hold out whole tales."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NOT_A_TALE = re.compile(
    r"(preface|contents:?|introduction|dedication|notes and references|preparer.s note"
    r"|to the friendly reader|the english fairy tales|oyez.*|.*fairy book.*|.*fairy tales"
    r"|how to get into this book|to my dear little may|to (violet|master|stella).*|edited by.*)\.?",
    re.IGNORECASE,
)
NUMERAL = re.compile(r"[IVXLC]+\.?")
NOTE_MARK = re.compile(r"\s?(\(\d{1,2}\)|\[\*\]|\[\d{1,2}\])")
BRACKETED = re.compile(
    r"\[(?:Illustration|Footnote|FN#\d+|From|Adapted|Contes|Cabinet|M[aä]r)[^\]]*\]"
)
NOTE_PARAGRAPH = re.compile(
    r"(\(\d{1,2}\)|\[\*\]|\*|\[)\s*\S.{0,160}$|\([^)]{4,90}\)\.?$|\(?(Adapted )?[Ff]rom .{0,60}$"
    r"|.{0,40}\bM[aä]e?h?rchen\b.{0,60}$",
    re.DOTALL,
)
MINIMUM_BYTES = 600
SHINGLE_WORDS = 6
SHARED_SHINGLES = 0.04


@dataclass(frozen=True)
class Tale:
    """One tale: its text is the title line and the paragraphs, separated by blank lines."""

    title: str
    book: str
    text: str
    printed: str  # the same with the line breaks of the printed page

    @property
    def key(self) -> str:
        """Title without articles, case and punctuation, equal for editions of one tale."""
        words = re.findall(r"[a-z0-9]+", NOTE_MARK.sub("", self.title).lower())
        dropped = {"the", "a", "an", "story", "history", "tale", "of", "and", "or"}
        return "".join(w for w in words if w not in dropped) or "".join(words)


def paragraphs(lines: list[str]) -> Iterable[tuple[int, list[str]]]:
    """Runs of printed lines, each with the number of blank lines before it."""
    blank, run = 9, []
    for line in [*lines, ""]:
        if line.strip():
            run.append(line.rstrip())
            continue
        if run:
            yield blank, run
            blank, run = 0, []
        blank += 1


def is_title(blank: int, run: list[str], contents: set[str]) -> bool:
    """Whether a run of lines heads a tale: it stands apart, is short and capitalised."""
    text = " ".join(line.strip() for line in run)
    if blank < 2 or len(run) > 3 or len(text) > 110 or NUMERAL.fullmatch(text):
        return False
    if text[0].isdigit() or text[0] in "(*[":
        return False
    long_words = [w for w in re.findall(r"[A-Za-z]+", NOTE_MARK.sub("", text)) if len(w) > 4]
    if not all(w[0].isupper() for w in long_words):
        return False
    return blank >= 3 or _plain(text) in contents


def _plain(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def clean(run: list[str], *, printed: bool = False) -> str:
    """One paragraph without captions, notes and italics marks; verse keeps its lines."""
    text = "\n".join(line.strip() for line in run).replace("_", "")
    text = NOTE_MARK.sub("", BRACKETED.sub("", text)).strip()
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    verse = len(lines) > 1 and max(map(len, lines[:-1])) < 58
    return ("\n" if verse or printed else " ").join(lines)


def split_book(name: str, text: str) -> list[Tale]:
    """The tales of one book; front matter, notes and fragments are left out."""
    runs = list(paragraphs(text.lstrip("\ufeff").splitlines()))
    contents = {_plain(line) for _, run in runs[:12] for line in run if line.startswith(" ")}
    sections: list[tuple[str, list[list[str]]]] = []
    for blank, run in runs:
        title = re.sub(r"\s+", " ", " ".join(run)).strip()
        if is_title(blank, run, contents):
            if title.upper().startswith("NOTES AND REFERENCES"):
                break
            sections.append((NOTE_MARK.sub("", title).replace("_", "").strip(), []))
        elif sections and not NOTE_PARAGRAPH.match(title):
            sections[-1][1].append(run)
    tales = []
    for title, body in sections:
        whole = "\n\n".join(filter(None, [title, *(clean(run) for run in body)]))
        printed = "\n\n".join(filter(None, [title, *(clean(r, printed=True) for r in body)]))
        if len(whole.encode()) >= MINIMUM_BYTES and not NOT_A_TALE.fullmatch(title.strip("_. ")):
            tales.append(Tale(title, name, whole, printed))
    return tales


def read_tales(paths: Iterable[Path]) -> list[Tale]:
    """All tales of the given UTF-8 text files, in order; a file without titles is one tale."""
    tales = []
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8")
        found = split_book(path.stem, text)
        if not found:
            joined = "\n\n".join(clean(run) for _, run in paragraphs(text.splitlines()))
            found = [Tale(path.stem, path.stem, joined, joined)]
        tales += found
    return tales


def same_tale_groups(tales: list[Tale]) -> list[list[Tale]]:
    """Tales grouped so that editions of one tale (by title or shared passages) are together."""
    parent = list(range(len(tales)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    shingles = [_shingles(tale.text) for tale in tales]
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for i, own in enumerate(shingles):
        for shingle in own:
            holders[shingle].append(i)
    shared: defaultdict[tuple[int, int], int] = defaultdict(int)
    for who in holders.values():
        for a in range(len(who)):
            for b in range(a + 1, len(who)):
                shared[who[a], who[b]] += 1
    for (a, b), count in shared.items():
        if count > SHARED_SHINGLES * min(len(shingles[a]), len(shingles[b])):
            parent[root(a)] = root(b)
    first: dict[str, int] = {}
    for i, tale in enumerate(tales):
        parent[root(i)] = root(first.setdefault(tale.key, i))
    groups: defaultdict[int, list[Tale]] = defaultdict(list)
    for i, tale in enumerate(tales):
        groups[root(i)].append(tale)
    return list(groups.values())


def _shingles(text: str) -> set[int]:
    words = re.findall(r"[a-z]+", text.lower())
    return {hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS)}


def hold_out(tales: list[Tale], fraction: float, seed: int) -> tuple[list[Tale], list[Tale]]:
    """Training and held-out tales; whole groups go to one side, chosen by a hash of the title."""

    def order(group: list[Tale]) -> bytes:
        return hashlib.sha256(f"{seed}:{min(t.key for t in group)}".encode()).digest()

    wanted = max(1, round(fraction * len(tales)))
    train: list[Tale] = []
    held: list[Tale] = []
    for group in sorted(same_tale_groups(tales), key=order):
        side = held if len(held) + len(group) <= wanted else train
        side += group
    return train, held
