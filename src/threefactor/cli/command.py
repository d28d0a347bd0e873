"""What all commands have in common."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["Command"]


class Command(TyperCommand):
    """A command that refuses an option given twice, of which only the last would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command.

        Raises:
            typer.BadParameter: if an option with one value is given twice.
        """
        if ctx.resilient_parsing:  # the Tab key asks
            return super().parse_args(ctx, args)
        order: list[Any] = list(self.make_parser(ctx).parse_args(args=list(args))[2])
        for option in order:
            several = option.param_type_name != "option" or option.multiple or option.is_flag
            if order.count(option) > 1 and not several:
                raise typer.BadParameter("it is given twice; give it once", ctx, option)
        return super().parse_args(ctx, args)
