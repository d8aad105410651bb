"""The mutants of a module: mutmut's, without those that only change text, and two kinds that mutmut does not have."""

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

# Nodes without behaviour that a test should pin: types, docstrings, the texts of errors and of the log, asserts (which
# are for type checkers and readers), and names of threads.
_LOG = m.Call(func=m.Attribute(value=m.Name("_logger") | m.Name("logging") | m.Name("warnings")))
_TEXTLESS = (
    m.Annotation()
    | m.Assert()
    | m.Import()
    | m.ImportFrom()
    | m.Arg(keyword=m.Name("name"))
    | m.Call(func=m.Name("cast") | m.Name("TypeVar"))
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.FunctionDef(name=m.Name("__repr__") | m.Name("__str__"))
    | m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias")))
    | m.Assign(targets=[m.AssignTarget(m.Name("_logger") | m.Name("__all__") | m.Name("__slots__"))])
)
# Names of clauses and sections in errors.
_CITATION = re.compile(r"[rb]*[\"'](ASGI-|ASGI |docs/|PEP |RFC )")
_OF_TABLES = (cst.BaseNumber, cst.BaseString, cst.Name, cst.BinaryOperation, cst.BooleanOperation, cst.ComparisonTarget)
_CALL = m.Expr(m.Call() | m.Await(m.Call()))
_MUTATED_TESTS = m.Comparison() | m.BooleanOperation() | m.UnaryOperation(operator=m.Not()) | m.Name("True")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change."""

    path: Path
    name: str
    line: int
    lines: range  # of the statement, without the body of a compound one
    function: tuple[str, int] | None  # qualified name and first line; None if it changes code that runs at import
    source: str


def chosen_mutants(source: Path, seed: int, sample: int | None, modules: Sequence[str]) -> Iterator[Mutant]:
    """Return the mutants of the modules under `source` whose names begin as given: all, or a sample of each module."""
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name.startswith(tuple(modules)):
            mutants = list(mutants_of(path, name))
            random.Random(f"{seed} {name}").shuffle(mutants)  # so that a larger sample includes a smaller one
            yield from mutants[:sample]


def mutants_of(path: Path, name: str) -> Iterator[Mutant]:
    """Return all mutants of a module; their names begin with `name`."""
    text = path.read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
    positions, parents = wrapper.resolve(PositionProvider), wrapper.resolve(ParentNodeProvider)
    seen: set[str] = set()

    def ancestors(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        while not isinstance(node, cst.Module):
            yield node
            node = parents[node]

    def first_line(function: cst.FunctionDef) -> int:
        first: cst.CSTNode = function.decorators[0] if function.decorators else function
        line: int = positions[first].start.line
        return line

    for node in _walk(wrapper.module):
        above = list(ancestors(node))
        if any(m.matches(each, _TEXTLESS) for each in above) or _is_text(node, above):
            continue
        statement = next(each for each in [*above, wrapper.module] if isinstance(each, cst.BaseStatement | cst.Module))
        start, end = positions[statement].start.line, positions[statement].end.line
        if isinstance(statement, cst.BaseCompoundStatement):
            end = max(start, positions[statement.body].start.line - 1)
        line = positions[node].start.line
        function = _function_of(above)
        for part, changed in _changes(node):
            if function is None and not isinstance(part, _OF_TABLES):
                continue  # most would break the import, which needs no test
            if function is None and "_to_" in name:
                continue  # limits, timeouts and defaults
            old, new = wrapper.module.code_for_node(part), wrapper.module.code_for_node(changed)
            source = _spliced(text, positions[part], new)
            old, new = " ".join(old.split()), " ".join(new.split())
            label = f"{name}:{line} {old} -> {new}"
            if label in seen:
                label += f" (column {positions[node].start.column})"
            seen.add(label)
            yield Mutant(
                path=path,
                name=label,
                line=line,
                lines=range(start, end + 1),
                function=function and (function[0], first_line(function[1])),
                source=source,
            )


def _changes(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Return the changes of the node: each a part and its replacement."""
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            changes = list(operator(node))
            # Only the first change of a string, because others (of its case) would show nothing new.
            for changed in changes[:1] if operator is operator_string else changes:
                yield node, changed
    if m.matches(node, _CALL):
        yield node, cst.Pass()
    if isinstance(node, cst.If | cst.While) and not m.matches(node.test, _MUTATED_TESTS):
        test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.test, cst.UnaryOperation(cst.Not(), test)


def _is_text(node: cst.CSTNode, above: list[cst.CSTNode]) -> bool:
    """Return whether the node is a docstring, or part of the text of an error or a log line."""
    if isinstance(node, cst.SimpleString):
        around, call = above[1], above[2] if len(above) > 2 else None
        if isinstance(around, cst.Expr) or _CITATION.match(node.value):
            return True
        if isinstance(call, cst.Call) and m.matches(call.func, m.Name("Rule")) and call.args[0] is around:
            return True
    return any(m.matches(each, _LOG | m.Raise(exc=m.Call())) for each in above)


def _function_of(above: list[cst.CSTNode]) -> tuple[str, cst.FunctionDef] | None:
    """Return the outermost function whose body holds the node, with its name. A signature is not part of the body."""
    outer = None
    for child, parent in itertools.pairwise(above):
        if isinstance(parent, cst.FunctionDef) and child is parent.body:
            outer = parent
    if outer is None:
        return None
    around = above[above.index(outer) :]
    names = [each.name.value for each in around if isinstance(each, cst.FunctionDef | cst.ClassDef)]
    return ".".join(reversed(names)), outer


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _spliced(text: str, where: CodeRange, new: str) -> str:
    lines = text.splitlines(keepends=True)
    before = "".join([*lines[: where.start.line - 1], lines[where.start.line - 1][: where.start.column]])
    return before + new + "".join([lines[where.end.line - 1][where.end.column :], *lines[where.end.line :]])
