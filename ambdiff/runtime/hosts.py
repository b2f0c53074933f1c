"""Several processes that run one program: how they join, what each of them reads, what they tell each other.

Without `join` there is one process, and everything here is the identity.
"""

import itertools
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ambdiff.errors import UserError

_barriers = itertools.count()  # the same on every process: all call `barrier` in the same order


def join(address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connects this process with the others; before anything else of JAX.

    Cloud TPU, SLURM, Open MPI and Kubernetes say by themselves who takes part; elsewhere all three arguments say it.

    Args:
      address: host:port at which process 0 can be reached.
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      UserError: nothing says who takes part, or the others did not come.
    """
    given = [value is not None for value in (address, num_processes, process_id)]
    if any(given) and not all(given):
        raise UserError('--coordinator_address, --num_processes and --process_id go together: give all three, or none')
    if all(given) and not 0 <= process_id < num_processes:
        raise UserError(f'--process_id={process_id} must lie in 0 .. {num_processes - 1} (--num_processes)')
    # Every step tells whether a SIGTERM came (faults.py); JAX's own listener would take the signal away.
    jax.config.update('jax_enable_preemption_service', False)
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f'--multihost: the processes did not find each other ({reason}): outside Cloud TPU, SLURM and Kubernetes '
            'give --coordinator_address=HOST:PORT, --num_processes and --process_id'
        ) from error


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def shard(total: int) -> np.ndarray:
    """Which of `total` items are this process's: as many for each, the last ones repeated where they do not suffice."""
    size = -(-total // jax.process_count())
    return np.minimum(np.arange(size) + jax.process_index() * size, total - 1)


def gather(tree: Any, total: int) -> Any:
    """Arrays [len(shard(total)), ..] of every process -> [total, ..], the same on all; all call it together."""
    if jax.process_count() == 1:
        return tree
    barrier('gather')
    return jax.tree.map(lambda x: x[:total], multihost_utils.process_allgather(tree, tiled=True))


def gather_texts(texts: list[str], total: int) -> list[str]:
    """As `gather`, of short texts (the first 1000 bytes of each)."""
    encoded = [np.frombuffer(text.encode()[:1000].ljust(1000, b'\0'), np.uint8) for text in texts]
    return [bytes(row).rstrip(b'\0').decode(errors='replace') for row in gather(np.stack(encoded), total)]


def from_main(value: int) -> int:
    """The main process's value; all call it together."""
    if jax.process_count() == 1:
        return value
    barrier('from main')
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def any_of(value: bool) -> bool:
    """Whether it holds on one process at least; all call it together."""
    return bool(gather(np.array([value]), jax.process_count()).any())


def barrier(name: str) -> None:
    """Waits until every process is here, up to an hour.

    By the coordinator, not by the devices: on CPUs these give up after 30 s, which is less than one process can be
    behind another in compiling or writing.
    """
    if jax.process_count() > 1:
        import orbax.checkpoint as ocp  # half a second, which one process need not wait for

        wait = ocp.multihost.get_barrier_sync_fn()
        wait(key=f'{name} {next(_barriers)}', timeout_ms=3_600_000)
