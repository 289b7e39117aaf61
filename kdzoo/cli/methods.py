"""`kdzoo methods`: the distillation methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from kdzoo.cli.cells import cell_text, link
from kdzoo.cli.declare import LISTING, option
from kdzoo.cli.loading import load_plugin_files, reads_declarations
from kdzoo.cli.options import AsJson, FormatOption, Plugins, chosen_format
from kdzoo.cli.output import print_message
from kdzoo.cli.references import reference
from kdzoo.cli.table import Column, Format, field, print_rows
from kdzoo.errors import InputError, unknown
from kdzoo.text import number_of


@reads_declarations
def methods(
    family: Annotated[
        str | None, option(text="Only these families: logits, features, relations, ...", default="all", panel=LISTING, metavar="NAME,...")
    ] = None,
    needs: Annotated[
        str | None,
        option(
            text="Only methods that read all of these: stages, second_view, targets, ...", default="any", panel=LISTING, metavar="NEED,..."
        ),
    ] = None,
    plugin: Plugins = None,
    output_format: FormatOption = Format.table,
    as_json: AsJson = False,
) -> int:
    """List the methods: family, published weights, paper, what each reads of the two networks, and its hyper-parameters.

    The student alone is called `none`. Sums are written at+hinton.

    \b
    Examples:
      kdzoo methods
      kdzoo methods --family features,relations
      kdzoo methods --needs stages,second_view
      kdzoo methods --plugin my_loss.py --format md
    """
    from kdzoo.contract.card import FAMILIES
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.contract.needs import BY_WORD

    load_plugin_files(plugin)
    families, words = _asked("family", family, FAMILIES), _asked("needs", needs, BY_WORD)
    classes = [REGISTRY.get(name) for name in REGISTRY.names()]
    if families:
        classes = [cls for cls in classes if cls.card.family in families]
    for word in words:
        classes = [cls for cls in classes if BY_WORD[word] in cls.card.needs.student | cls.card.needs.teacher]
    rows, count = [method_row(cls) for cls in classes], number_of(len(REGISTRY.names()), "method")
    title = f"{f'{len(rows)} of ' if families or words else ''}{count}, without the student alone (none), which every bench trains too"
    print_rows(rows, chosen_format(output_format, as_json), title=title, names=METHOD_KEYS, columns=METHOD_COLUMNS)
    for name, reason in REGISTRY.broken.items():
        print_message(f"the installed plugin {name} could not be loaded: {reason}")
    return 0


def _asked(option: str, text: str | None, known: Iterable[str]) -> list[str]:
    """The words of a list joined with commas; raises InputError with every one that is not known."""
    names = list(known)
    words = [word.strip().lower() for word in (text or "").split(",") if word.strip()]
    if wrong := [unknown(f"--{option}", word, names) for word in words if word not in names]:
        raise InputError(*wrong)
    return words


METHOD_KEYS = ("method", "family", "task_weight", "term_weight", "reads", "hyperparameters", "title", "year", "url", "summary")


METHOD_COLUMNS = (
    field("method"),
    field("family"),
    Column("weights", lambda row: f"{row['task_weight']:g} CE + {row['term_weight']:g} D"),
    Column("paper", lambda row: link(reference(row["url"], row["year"]), row["url"])),
    field("reads"),
    Column("hyper-parameters", lambda row: cell_text(row["hyperparameters"])),
    Column("title", lambda row: row["title"] or row["summary"], prose=True),
    field("url"),
)


def method_row(cls: Any) -> dict[str, Any]:
    """A method's card as plain values; `Any`, since the class brings torch with it."""
    from kdzoo.contract.explain import in_words

    card = cls.card
    return {
        "method": card.name,
        "family": card.family,
        "task_weight": card.published.task,
        "term_weight": card.published.term,
        "reads": in_words(card.needs.student | card.needs.teacher).split(", "),
        "hyperparameters": {name: "required" if value.is_required() else value.default for name, value in cls.model_fields.items()},
        "title": card.source.title if card.source else None,
        "year": card.source.year if card.source else None,
        "url": card.source.url if card.source else None,
        "summary": card.summary,
    }
