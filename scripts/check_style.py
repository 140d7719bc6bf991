#!/usr/bin/env python3
"""Find what the formatter and the linter let pass, and the house style does not.

    scripts/check_style.py [files]

Without files it reads every Python file and every config of the repository. It prints FILE:LINE: what is wrong, and
ends with code 1 if there is anything. It finds:

- a comment that the formatter has bent around a closing bracket, because it did not fit behind its line. Such a comment
  belongs above the line.
- a sentence of a docstring or a comment that begins with "Of".
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("metarun", "tests", "scripts", "bench", "experiments", "configs")
OPENING, CLOSING = "([{", ")]}"
# A comment behind nothing but closing brackets. Directives of tools have no other place.
CLOSED = re.compile(r"^\s*[)\]}]+[,:]?\s*#(?!\s*(fmt|noqa|type):)")
OF_SENTENCE = re.compile(r"(?:^|[.!?:]\s+)Of\s")
CONFIG_COMMENT = re.compile(r"^\s*#\s?(.*)")


class Finding(NamedTuple):
    """One place that breaks the style."""

    line: int  # from 1
    message: str


def find_bent_comments(source: str) -> Iterator[Finding]:
    """Yield the comments that stand behind the only line of a bracket, or behind a bracket that closes alone."""
    lines = source.splitlines()
    brackets: list[int] = []  # the line of every opening bracket that is not closed yet
    commented: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row = token.start[0]
        if token.type == tokenize.COMMENT:
            commented.add(row)
            if CLOSED.match(lines[row - 1]):
                yield Finding(row, "a comment behind a closing bracket: put it above the statement")
        elif token.type == tokenize.OP and token.string in OPENING:
            brackets.append(row)
        elif token.type == tokenize.OP and token.string in CLOSING:
            opened = brackets.pop()
            if is_bent(lines, opened, row) and row - 1 in commented:
                yield Finding(row - 1, "a comment bent around a closing bracket: put it above the line")


def is_bent(lines: list[str], opened: int, closed: int) -> bool:
    """Return whether a bracket holds one line, and no comma at its end asks for a line of its own."""
    if closed != opened + 2 or not lines[opened - 1].rstrip().endswith(tuple(OPENING)):
        return False
    code = lines[opened].partition("  #")[0].strip()
    return bool(code) and not code.endswith((",", *OPENING)) and not code.startswith("#")


def find_of_sentences(source: str) -> Iterator[Finding]:
    """Yield the sentences of docstrings and comments that begin with "Of"."""
    for line, text in [*read_docstrings(source), *read_comments(source)]:
        for match in OF_SENTENCE.finditer(text):
            before = text[: match.end() - 1].count("\n")
            yield Finding(line + before, 'a sentence that begins with "Of"')


def read_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of every docstring."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            string = node.body[0]
            assert isinstance(string, ast.Expr) and isinstance(string.value, ast.Constant)
            yield string.lineno, str(string.value.value)


def read_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of every comment; comments in lines that follow each other are one."""
    first, last = 0, 0
    texts: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row = token.start[0]
        if texts and row == last + 1 and token.line.lstrip().startswith("#"):
            texts.append(token.string.lstrip("# "))
        else:
            if texts:
                yield first, "\n".join(texts)
            first, texts = row, [token.string.lstrip("# ")]
        last = row
    if texts:
        yield first, "\n".join(texts)


def find_of_sentences_in_config(text: str) -> Iterator[Finding]:
    """Yield the comment lines of a YAML file in which a sentence begins with "Of"."""
    for number, line in enumerate(text.splitlines(), 1):
        comment = CONFIG_COMMENT.match(line)
        if comment and OF_SENTENCE.search(comment[1]):
            yield Finding(number, 'a sentence that begins with "Of"')


def check(path: Path) -> list[Finding]:
    """Return what is wrong in a file, in the order of its lines."""
    text = path.read_text("utf-8")
    if path.suffix == ".yaml":
        return list(find_of_sentences_in_config(text))
    return sorted([*find_bent_comments(text), *find_of_sentences(text)])


def all_files() -> list[Path]:
    """Return every Python file and every config of the repository."""
    folders = [ROOT / name for name in FOLDERS]
    return sorted(
        path for folder in folders for suffix in ("py", "yaml") for path in folder.rglob(f"*.{suffix}")
    )


def main() -> None:
    """Check the files of the command line, or all."""
    failed = False
    for path in [Path(name) for name in sys.argv[1:]] or all_files():
        for finding in check(path):
            failed = True
            print(f"{path}:{finding.line}: {finding.message}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
