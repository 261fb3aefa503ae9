"""Help pages with groups of options in plain formatting, because importing rich is slow."""

from __future__ import annotations

from typing import Any

import typer.core

COMPARE, DATA, TRAINING = "What to compare", "Data", "Training"
ANALYSIS, EXECUTION, OUTPUT = "Analysis", "Execution", "Output"


class GroupedCommand(typer.core.TyperCommand):
    """A command whose help groups options by their `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per group; options without a group come last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        rest = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                groups.setdefault("Arguments", []).append(record)
            elif group := getattr(param, "rich_help_panel", None):
                groups.setdefault(group, []).append(record)
            else:
                rest.append(record)
        for title, rows in {**groups, "Options": rest}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
