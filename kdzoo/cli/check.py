"""`kdzoo check`: a loss of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kdzoo.cli.declare import argument
from kdzoo.cli.output import print_text
from kdzoo.errors import InputError
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.conformance.checks import Finding


NAMED = 8
"""skipped checks that are listed by their headings; of more only the number"""


def check(file: Annotated[Path, argument("A Python file that registers methods.", metavar="FILE")]) -> int:
    """Check your own loss: the checks that every method of the zoo passes, with what to write instead where one fails.

    The checks call the loss on small random outputs and train one step of two small networks; it takes seconds and no data.

    \b
    Example:
      kdzoo check my_loss.py
    """
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.contract.plugins import load_plugin

    load_plugin(file)
    registered = [cls for cls in map(REGISTRY.get, REGISTRY.names()) if cls.card.plugin == str(file.resolve())]
    if not registered:
        raise InputError(f'{file}: registers no method; write @kdzoo.register("NAME") above a function or a kdzoo.Method')
    return max([_checked(cls.card.name) for cls in registered])


def _checked(name: str) -> int:
    """Run the checks on a method as declared and print them; 1 where one fails."""
    from kdzoo.conformance.checks import Verdict
    from kdzoo.conformance.checks import check as findings_of
    from kdzoo.contract.methods import REGISTRY

    try:
        findings = findings_of(REGISTRY.get(name))
    except InputError as error:
        print_text(f"{name}: cannot be checked: {'; '.join(error.problems)}")
        return 1
    count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    ran = len(findings) - count[Verdict.not_applicable]
    result = f"{count[Verdict.failed]} failed" if count[Verdict.failed] else "all passed"
    rest = [f"{count[verdict]} {verdict}" for verdict in (Verdict.skipped, Verdict.not_applicable) if count[verdict]]
    print_text(f"{name}: {', '.join([f'{ran} checks', result, *rest])}")
    for finding in findings:
        if finding.verdict is not Verdict.skipped:
            words = f": {finding.words}" if finding.words else ""
            print_text(f"  {finding.verdict:14}  {finding.check}{words}")
    for cause, headings in _by_cause(findings).items():
        which = f": {'; '.join(headings)}" if len(headings) <= NAMED else ""
        text = f"{number_of(len(headings), 'check')} that would only repeat the fault of `{cause}`{which}"
        print_text(f"  {Verdict.skipped:14}  {text}")
    warnings: dict[str, str] = {}
    for place, text in (pair for finding in findings for pair in finding.warnings):
        warnings.setdefault(place, text)  # the same line warns of every shape anew
    for place, text in warnings.items():
        print_text(f"  {'warning':14}  {place}: {text}")
    return 1 if count[Verdict.failed] else 0


def _by_cause(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """The headings of the checks that were skipped, by that of the check whose fault they would repeat."""
    causes: dict[str, list[str]] = {}
    for finding in findings:
        if finding.verdict == "skipped":
            causes.setdefault(finding.words, []).append(finding.check)
    return causes
