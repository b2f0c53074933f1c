"""What all commands share: help starts with examples, names take - or _, a mistake is one line and exit status 2."""

import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import click

from ambdiff.errors import UserError
from ambdiff.text import printable

SETTINGS = {
    'help_option_names': ['-h', '--help'],
    'token_normalize_func': lambda name: name.replace('_', '-'),
    'max_content_width': 110,
}
# Flags of the modules behind the commands, and what takes their place here.
_ELSEWHERE = {
    '--config': 'give the config by itself, as lidc:small or FILE.py',
    '--input': 'give the input by itself, as scan.dcm',
    '--mode': 'ambdiff train trains and evaluates, ambdiff evaluate evaluates',
}


class Examples(click.Command):
    """A command whose help starts with examples.

    Args:
      examples: command lines, the first one the simplest.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **more: Any):
        super().__init__(*arguments, **more)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then what click gives."""
        with formatter.section('Examples' if len(self.examples) > 1 else 'Example'):
            for line in self.examples:
                formatter.write(f'  {line}\n')
        formatter.write_paragraph()
        super().format_help(ctx, formatter)


class Subcommand(Examples):
    """A subcommand. It returns its exit status, or nothing for 0."""


class Group(Examples, click.Group):
    """The command that has subcommands, and the place where every mistake is told."""

    command_class = Subcommand

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        """The subcommand that the arguments name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith('-'):
            near = difflib.get_close_matches(name, self.list_commands(ctx), 1, 0.5)
            cure = f'did you mean {near[0]}?' if near else f'there are {", ".join(self.list_commands(ctx))}'
            raise click.UsageError(f'there is no command {name}; {cure}', ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Iterable[str] | None = None, prog_name: str | None = None, **more: Any) -> NoReturn:
        """Runs the command line and ends the process with its exit status."""
        more['standalone_mode'] = False
        try:
            status = super().main(args, prog_name or 'ambdiff', **more)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            status = 2
        except click.ClickException as error:
            status = _tell(_sentence(error))
        except UserError as error:
            status = _tell(str(error))
        except OSError as error:
            status = _tell(f'cannot be read or written: {error}')
        except (click.Abort, KeyboardInterrupt):
            status = _tell('interrupted', 130)
        sys.exit(status or 0)


def _tell(message: str, status: int = 2) -> int:
    click.echo(f'ambdiff: {printable(" ".join(message.split()))}', err=True)
    return status


def _sentence(error: click.ClickException) -> str:
    """A mistake in the command line as one line that names the cure."""
    ctx = getattr(error, 'ctx', None)
    path = ctx.command_path if ctx else 'ambdiff'
    explains = f'{path} --help explains it'
    if isinstance(error, click.NoSuchOption):
        return f'{path} has no option {error.option_name}; {_meant(error, ctx) or explains}'
    if isinstance(error, click.MissingParameter):
        examples = getattr(ctx.command, 'examples', ()) if ctx else ()
        what = error.param.make_metavar(ctx) if isinstance(error.param, click.Argument) else error.param.opts[-1]
        return f'{path}: {what} is missing{f"; for instance: {examples[0]}" if examples else ""}'
    text = error.format_message().rstrip('.')
    text = f'{text[0].lower()}{text[1:]}' if text[1:2].islower() else text
    return text if ';' in text or text.endswith('?') else f'{text}; {explains}'


def _meant(error: click.NoSuchOption, ctx: click.Context | None) -> str:
    """What may have been meant by an option that is not there."""
    name = error.option_name.replace('_', '-')
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    known = [opt for param in ctx.command.get_params(ctx) for opt in param.opts if opt.startswith('--')] if ctx else []
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return f'did you mean {near[0]}?' if near else ''
