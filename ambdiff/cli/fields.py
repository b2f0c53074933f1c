"""Commands that take a config: CONFIG by name or file, and any field of it as --group.field=value."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import click

from ambdiff import files, packaged
from ambdiff.cli import names, style

_FIELD = re.compile(r'--(?:config\.)?(\w+(?:\.\w+)+)(?:=(.*))?', re.DOTALL)
_TOP = re.compile(r'--config\.(\w+)(?:=(.*))?', re.DOTALL)  # config.seed, config.checkpoint: of no group
_GIVEN = 'ambdiff.cli.fields'


class ConfigCommand(style.Subcommand):
    """A command line with fields of a config: --data.path=FILE, --config.data.path=FILE, or --data.path FILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Takes the fields out, for `load`; the rest is parsed as usual."""
        rest, fields = [], []
        words = iter(args)
        for word in words:
            if word == '--':
                rest += [word, *words]
                break
            match = _TOP.fullmatch(word) or _FIELD.fullmatch(word)
            if not match:
                rest.append(word)
                continue
            name, value = match.groups()
            if value is None and (value := next(words, None)) is None:
                raise click.UsageError(f'--{name} has no value; write --{name}=VALUE', ctx)
            fields.append(f'{name}={value}')
        ctx.meta[_GIVEN] = fields
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, and how fields are given."""
        super().format_options(ctx, formatter)
        with formatter.section('Fields'):
            formatter.write_text(
                'Any field of the config as --group.field=value, with or without config. before it: '
                '--data.path=FILE_OR_FOLDER --train.num_steps=2000 --sample.num_samples=32'
            )


def argument(function: Callable) -> Callable:
    """The argument CONFIG."""
    return click.argument('config', type=names.ConfigName())(function)


def load(name: str, **more: Any):
    """(the config of the command line in hand, its file with variant); more: fields given by options, None: not given.

    Raises:
      UserError: no such config or field, or a value that does not suit it.
    """
    file = packaged.config(name)
    # What parses fields takes longer than a typing mistake should.
    from ambdiff import command, config_check

    own = [f'{field}={value}' for field, value in more.items() if value is not None]
    loaded = command.parse_config(file, [*given(), *own])
    config_check.check(loaded)  # and later with the method's own fields
    return loaded, file


def given() -> list[str]:
    """The fields of the command line in hand, 'group.field=value' each."""
    return list(click.get_current_context().meta[_GIVEN])


def data(**more: Any):
    """The data group for reading masks alone: of the fields given, at the size of what it is matched with.

    Raises:
      UserError: no such field, or a value that does not suit it.
    """
    from ambdiff import command

    own = [f'data.{field}={value}' for field, value in {'image_size': 0, **more}.items()]
    return command.parse_config(packaged.config('lidc'), [*own, *given()]).data


def folder(given: str | None, file: str) -> pathlib.Path:
    """The workdir: the one given, or runs/<name of the config>.

    Raises:
      UserError: no folder can be written there.
    """
    from ambdiff import command

    place = pathlib.Path(given).expanduser() if given else command.default_workdir(file)
    files.check_place(place, '-o')
    return place
