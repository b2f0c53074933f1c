"""What fails for one image is that image's fault, told in one line: the others go on."""

import dataclasses
import os
from collections.abc import Callable

from ambdiff.errors import UserError
from ambdiff.prediction.inputs import Input
from ambdiff.text import printable


@dataclasses.dataclass(frozen=True)
class Failure:
    """An image that could not be predicted, and why: one line that names it."""

    item: Input
    reason: str


def guarded(item: Input, what: str, step: Callable):
    """What a step gives, or a Failure that says why it gives nothing.

    Strangers' files break readers in any way, and what is made of them any later step: only interruptions pass.
    """
    try:
        return step()
    except MemoryError:
        reason = 'takes more memory than there is; crop it, look at points, or take fewer samples'
    except UserError as error:
        reason = str(error)
    except OSError as error:
        path = os.fsdecode(error.filename) if error.filename else item.source
        reason = f'{path}: cannot be {what} ({error.strerror or error})'
    except Exception as error:
        reason = f'cannot be {what} ({type(error).__name__}: {str(error)[:200]})'
    reason = item.told(printable(' '.join(reason.split())))
    named = item.title in reason or (item.files and printable(item.files[0].name) in reason)
    return Failure(item, reason if named else f'{item.title}: {reason}')
