"""The mutants of a Python file: copies with one small fault each, which a good test suite finds.

A fault is one of: a comparison, a boolean or an arithmetic operator exchanged; a condition turned round; a number, a
truth value or a word changed; a result that is not returned; a statement that is left out; a loop left where it should
go on. Sentences are no words: nobody tests the wording of every message. Annotations and docstrings stay.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMPARISONS: dict[type, str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
OPERATORS: dict[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "+",
    ast.BitOr: "&", ast.BitAnd: "|", ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip
SIMPLE = (ast.Name, ast.Attribute, ast.Call, ast.Subscript)  # conditions that nothing else changes
REMOVED = (ast.AugAssign, ast.Raise, ast.Delete)  # statements that may be left out


class Mutant(NamedTuple):
    """One fault."""

    file: str  # below the root of the repository
    line: int  # from 1, where the statement begins
    last: int  # where it ends
    before: str  # the piece of source that is replaced
    after: str
    start: int  # place of `before` in the file, in characters
    text: str  # the line in which it begins
    inside: bool  # whether it lies in a function, which tests run; else the import runs it

    def apply(self, source: str) -> str:
        """Return the source with the fault, in as many lines."""
        lines = "\n" * (self.before.count("\n") - self.after.count("\n"))
        after = f"({self.after}{lines})" if lines else self.after
        return source[: self.start] + after + source[self.start + len(self.before) :]

    @property
    def name(self) -> str:
        """Say which fault it is, in words that stay when lines are added elsewhere."""
        return f"{self.file}: {self.text} [{' '.join(self.before.split())} -> {' '.join(self.after.split())}]"


def make_mutants(root: Path, file: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of the source; each can be compiled."""
    source = (root / file).read_text("utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines(keepends=True)

    def find(line: int, offset: int) -> int:
        """Return the place of a node in characters; ast counts bytes."""
        return starts[line - 1] + len(lines[line - 1].encode()[:offset].decode())

    mutants = []
    for node, after, statement, inside in Walk(ast.parse(source)).faults:
        start = find(node.lineno, node.col_offset)
        before = source[start : find(node.end_lineno, node.end_col_offset)]
        text = lines[node.lineno - 1].strip()
        mutant = Mutant(file, statement.lineno, statement.end_lineno, before, after, start, text, inside)
        if compiles(mutant.apply(source)):
            mutants.append(mutant)
    return sorted(dict.fromkeys(mutants), key=lambda mutant: (mutant.start, mutant.after))


def compiles(source: str) -> bool:
    """Return whether this is Python."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class Walk(ast.NodeVisitor):
    """A walk that collects (node, what takes its place, statement, whether a function holds it)."""

    def __init__(self, tree: ast.Module) -> None:
        self.faults: list[tuple] = []
        self.statement: ast.stmt = tree.body[0]
        self.depth = 0
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        """Note the faults of a node, and go on below it."""
        if isinstance(node, ast.stmt):
            self.statement = node
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            for place, after in find_faults(node):
                self.faults.append((place, after, self.statement, self.depth > 0))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params"):
                continue
            self.depth += function and name == "body"
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not is_docstring(node, child):
                    self.visit_below(node, child)
            self.depth -= function and name == "body"

    def visit_below(self, node: ast.AST, child: ast.AST) -> None:
        """Visit a child; afterwards the statement is that of the node again."""
        before = self.statement
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            self.visit(child)
        self.statement = before


def is_docstring(node: ast.AST, child: ast.AST) -> bool:
    """Return whether the child is the text that says what the node is for."""
    body = getattr(node, "body", None)
    return (
        isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(body, list)
        and body[0] is child
        and ast.get_docstring(node) is not None
    )


def find_faults(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield (node, what takes its place) of every fault of one node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        other = COMPARISONS[type(node.ops[0])]
        yield node, f"({ast.unparse(node.left)}) {other} ({ast.unparse(node.comparators[0])})"
    elif isinstance(node, ast.BoolOp):
        yield node, exchange_words(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield node, f"(({ast.unparse(node.left)}) {OPERATORS[type(node.op)]} ({ast.unparse(node.right)}))"
    elif isinstance(node, ast.Constant):
        yield from ((node, text) for text in change_constant(node.value))
    elif isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
        yield node, "return None"
    elif isinstance(node, ast.Continue | ast.Break):
        yield node, "break" if isinstance(node, ast.Continue) else "continue"
    elif isinstance(node, REMOVED) or is_call(node) or is_setter(node):
        yield node, "pass"
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(node.test, SIMPLE):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    if isinstance(node, ast.comprehension):
        yield from ((test, f"(not ({ast.unparse(test)}))") for test in node.ifs if isinstance(test, SIMPLE))


def exchange_words(node: ast.BoolOp) -> str:
    """Return `and` for `or`, and `or` for `and`."""
    word = " or " if isinstance(node.op, ast.And) else " and "
    return "(" + word.join(f"({ast.unparse(value)})" for value in node.values) + ")"


def change_constant(value: object) -> Iterator[str]:
    """Yield another value of the same kind; nothing for None, and for a sentence."""
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int | float):
        yield repr(value + 1)
    elif isinstance(value, str) and " " not in value.strip():
        yield repr(f"XX{value}")
    elif isinstance(value, bytes):
        yield repr(b"XX" + value)


def is_none(node: ast.AST) -> bool:
    """Return whether the node is None itself."""
    return isinstance(node, ast.Constant) and node.value is None


def is_call(node: ast.AST) -> bool:
    """Return whether a statement calls something for what it does; a line of the log is wording."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return not ast.unparse(node.value.func).startswith("logger.")


def is_setter(node: ast.AST) -> bool:
    """Return whether a statement sets a field or an item of something."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
