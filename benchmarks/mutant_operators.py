"""The small changes that a mutant makes: each operator gives, for a node of the syntax tree, the nodes to put in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

PARTNERS = [("mean", "sum"), ("max", "min"), ("amax", "amin"), ("softmax", "log_softmax"), ("exp", "log"), ("any", "all")]
SWAPPED_NAMES = {one: other for pair in PARTNERS for one, other in (pair, pair[::-1])}
DROPPED_CALLS = {"taught", "wide", "abs", "sqrt"}
DROPPED_METHODS = {"detach", "abs", "sqrt", "square"}
NOT_SWAPPED = {"cast", "isinstance", "getattr", "setattr", "max", "min"}
"""whose first arguments may be swapped, or are of different types, so that it is an error at once"""
BINARY = {cst.Add: cst.Subtract, cst.Subtract: cst.Add, cst.Multiply: cst.Divide, cst.Divide: cst.Multiply}
COMPARISONS = {
    cst.LessThan: cst.LessThanEqual,
    cst.LessThanEqual: cst.LessThan,
    cst.GreaterThan: cst.GreaterThanEqual,
    cst.GreaterThanEqual: cst.GreaterThan,
    cst.Equal: cst.NotEqual,
    cst.NotEqual: cst.Equal,
}


def change_sign(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """-x to x."""
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus) and not isinstance(node.expression, cst.Integer):
        yield node.expression


def change_operator(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """+ and -, * and / in each other's place."""
    if isinstance(node, cst.BinaryOperation) and type(node.operator) in BINARY and not _is_text(node):
        yield node.with_changes(operator=BINARY[type(node.operator)]())


def drop_term(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """a + b and a - b to a."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add | cst.Subtract) and not _is_text(node):
        yield node.left


def change_comparison(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """< and <=, > and >=, == and != in each other's place."""
    if isinstance(node, cst.Comparison) and len(node.comparisons) == 1 and type(node.comparisons[0].operator) in COMPARISONS:
        target = node.comparisons[0]
        yield node.with_changes(comparisons=[target.with_changes(operator=COMPARISONS[type(target.operator)]())])


def increase_number(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A number n to n + 1."""
    if isinstance(node, cst.Integer):
        yield cst.Integer(str(int(node.value.replace("_", ""), 0) + 1))
    if isinstance(node, cst.Float):
        yield cst.Float(repr(float(node.value) + 1))


def change_dim(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """dim=1 or dim=-1 to dim=0, and dim=0 to dim=-1: the other axis of a matrix."""
    if isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "dim":
        yield node.with_changes(value=cst.UnaryOperation(cst.Minus(), cst.Integer("1")) if _is_zero(node.value) else cst.Integer("0"))


def swap_name(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A call of mean to one of sum, of softmax to log_softmax, and the like."""
    if not isinstance(node, cst.Call):
        return
    if isinstance(node.func, cst.Attribute) and node.func.attr.value in SWAPPED_NAMES:
        yield node.with_deep_changes(node.func.attr, value=SWAPPED_NAMES[node.func.attr.value])
    if isinstance(node.func, cst.Name) and node.func.value in {"max", "min", "any", "all"}:
        yield node.with_deep_changes(node.func, value=SWAPPED_NAMES[node.func.value])


def drop_call(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """taught(x) and x.detach() to x, and the like."""
    if not isinstance(node, cst.Call):
        return
    if isinstance(node.func, cst.Name) and node.func.value in DROPPED_CALLS and len(node.args) == 1:
        yield node.args[0].value
    if isinstance(node.func, cst.Attribute) and node.func.attr.value in DROPPED_METHODS and not node.args:
        yield node.func.value


def swap_arguments(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """f(a, b) to f(b, a): the first two arguments, where both have no name and are no constants."""
    if isinstance(node, cst.Call) and len(node.args) >= 2 and not (isinstance(node.func, cst.Name) and node.func.value in NOT_SWAPPED):
        first, second = node.args[:2]
        plain = all(arg.keyword is None and arg.star == "" and not isinstance(arg.value, cst.SimpleString) for arg in (first, second))
        if plain and not first.value.deep_equals(second.value):
            args = [first.with_changes(value=second.value), second.with_changes(value=first.value), *node.args[2:]]
            yield node.with_changes(args=args)


def negate_condition(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """if x to if not x, in statements and in expressions."""
    if isinstance(node, cst.If | cst.IfExp):
        bracketed = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        test = cst.UnaryOperation(cst.Not(), bracketed)
        if isinstance(node, cst.If):
            yield node.with_changes(test=test, whitespace_before_test=cst.SimpleWhitespace(" "))
        else:
            yield node.with_changes(test=test)


Operator = Callable[[cst.CSTNode], Iterator[cst.CSTNode]]
OPERATORS: tuple[Operator, ...] = (
    change_sign,
    change_operator,
    drop_term,
    change_comparison,
    increase_number,
    change_dim,
    swap_name,
    drop_call,
    swap_arguments,
    negate_condition,
)


def _is_zero(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Integer) and node.value == "0"


def _is_text(node: cst.BinaryOperation) -> bool:
    """Whether text or a path is put together, which is no arithmetic."""
    kinds = cst.SimpleString | cst.FormattedString | cst.ConcatenatedString
    return isinstance(node.left, kinds) or isinstance(node.right, kinds)


@dataclass(frozen=True)
class Site:
    """One change to one source: its line, its kind, and the text of the changed part before and after."""

    line: int
    kind: str
    before: str
    after: str
    node: cst.CSTNode
    replacement: cst.CSTNode


class Source:
    """A module's source, and the sites inside its functions; annotations, decorators, errors' texts and format strings have none."""

    def __init__(self, text: str) -> None:
        self._wrapper = MetadataWrapper(cst.parse_module(text))
        self.sites = list(self._find())

    def mutate(self, site: Site) -> str:
        """The source with this one change."""
        changed = self._wrapper.module.deep_replace(site.node, site.replacement)
        assert isinstance(changed, cst.Module)
        return changed.code

    def _find(self) -> Iterator[Site]:
        module, positions = self._wrapper.module, self._wrapper.resolve(PositionProvider)
        collector = _InFunctions()
        module.visit(collector)
        for node in collector.nodes:
            for operator in OPERATORS:
                for replacement in operator(node):
                    before, after = _shown(module, node), _shown(module, replacement)
                    yield Site(positions[node].start.line, operator.__name__, before, after, node, replacement)


def _shown(module: cst.Module, node: cst.CSTNode) -> str:
    """The text of a node in one line; of a statement its first."""
    return module.code_for_node(node).strip().splitlines()[0] if isinstance(node, cst.If) else " ".join(module.code_for_node(node).split())


class _InFunctions(cst.CSTVisitor):
    """Collects the nodes inside functions."""

    SKIPPED = cst.Decorator | cst.Annotation | cst.Raise | cst.FormattedString | cst.Assert

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[cst.CSTNode] = []
        self._depth = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, self.SKIPPED):
            return False
        if self._depth:
            self.nodes.append(node)
        self._depth += isinstance(node, cst.FunctionDef)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._depth -= isinstance(original_node, cst.FunctionDef)
