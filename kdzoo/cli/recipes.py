"""`kdzoo recipes`: how networks are trained."""

from __future__ import annotations

from kdzoo.cli.cells import cell_text, link
from kdzoo.cli.loading import load_plugin_files
from kdzoo.cli.options import AsJson, FormatOption, Plugins, chosen_format
from kdzoo.cli.references import reference
from kdzoo.cli.table import Column, Format, field, print_rows
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.recipe_files import recipes as recipe_names


def recipes(plugin: Plugins = None, output_format: FormatOption = Format.table, as_json: AsJson = False) -> int:
    """List the recipes: how networks are trained. A YAML file of your own serves as one too (--recipe my.yaml).

    \b
    Example:
      kdzoo recipes
    """
    load_plugin_files(plugin)
    rows = []
    for name in recipe_names():
        file = recipe_file(name)
        recipe = file.resolve("", {})
        rows.append(
            {
                "recipe": name,
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "lr": recipe.lr,
                "optimizer": recipe.optimizer,
                "schedule": recipe.schedule,
                "val_fraction": file.val_fraction,
                "refit": file.refit,
                "description": file.description,
                "source": file.source or None,
            }
        )
    print_rows(
        rows,
        chosen_format(output_format, as_json),
        columns=(
            field("recipe"),
            field("description", prose=True),
            field("epochs", number=True),
            Column("batch", lambda row: str(row["batch_size"]), number=True),
            field("lr", number=True),
            field("optimizer"),
            field("schedule"),
            field("val_fraction", number=True),
            field("refit"),
            Column("source", lambda row: link(reference(row["source"]), row["source"])),
            Column("url", lambda row: cell_text(row["source"])),
        ),
    )
    return 0
