"""How a command ends with an error: the error's own text and an exit code, never a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from kit.errors import KitError, ParamsError

BAD_INPUT = 2


def reported(function: Callable[..., Any]) -> Callable[..., Any]:
    """A KitError ends a command with its own text and exit code 1 (2 for wrong parameters), never with a traceback."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KitError as error:
            click.echo(f"kit: {error}", err=True)
            sys.exit(BAD_INPUT if isinstance(error, ParamsError) else 1)

    return wrapper
