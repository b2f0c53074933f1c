"""A method's own config fields: declared once, as a frozen dataclass `Fields` in the method's file.

    @dataclasses.dataclass(frozen=True)
    class Fields:
        rank: Annotated[int, Between(1)] = 10  # of the covariance
        noise: Literal['diagonal', 'none'] = 'diagonal'  # beside it

They are config.method.rank and config.method.noise; `Literal` and `Between` are checked when the method is made.
"""

import dataclasses
import typing

import ml_collections

from ambdiff import config_check
from ambdiff.errors import UserError


class Between(typing.NamedTuple):
    """The least and the largest value of a field, in its `Annotated`; of a tuple, of each element."""

    least: float
    most: float = config_check.MANY


def defaults(fields: type | None) -> dict:
    """{field: default}; {} for a method without fields of its own."""
    return {field.name: field.default for field in dataclasses.fields(fields)} if fields else {}


def read(fields: type, method: ml_collections.ConfigDict):
    """The values of the config's group method as a frozen `fields`, checked.

    Raises:
      UserError: names the field and what it may be.
    """
    kinds = typing.get_type_hints(fields, include_extras=True)
    for name, kind in kinds.items():
        _check(f'method.{name}', method[name], kind)
    return fields(**{name: method[name] for name in kinds})


def _check(field: str, value, kind) -> None:
    if typing.get_origin(kind) is typing.Annotated:
        kind, *limits = typing.get_args(kind)
        for limit in limits:
            config_check.between(field, value, *limit)
    if typing.get_origin(kind) is typing.Literal:
        config_check.one_of(field, value, typing.get_args(kind))
    if typing.get_origin(kind) is tuple and ... not in typing.get_args(kind):
        length = len(typing.get_args(kind))
        if len(value) != length:
            raise UserError(f'config.{field}={value} must be {length} values')
