"""Configs and weights on a command line: by the name of what comes along, completed by the shell, or a file."""

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from ambdiff import packaged


class ConfigName(click.ParamType):
    """A config by name or file."""

    name = 'config'

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, else files."""
        return _completed(packaged.config_names(), incomplete)


class WeightsName(click.ParamType):
    """Weights by name, file or folder."""

    name = 'weights'

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, else files."""
        return _completed(packaged.weights_names(), incomplete)


def _completed(known: Sequence[str], incomplete: str) -> list[CompletionItem]:
    # Not both: with files among the answers, bash shows files alone.
    names = [CompletionItem(name) for name in known if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type='file')]
