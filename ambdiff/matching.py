"""The best one-to-one matching of M raters' masks with N samples, where M and N differ.

Raters and samples repeated to lcm(M, N) and matched one to one are a transport problem (Hitchcock 1941): each rater
hands out 1 / M, each sample takes 1 / N, and the plan is the one of the largest overlap. Its corners are whole numbers
of 1 / lcm(M, N), so both ways give the same number; the transport problem has M N unknowns whatever lcm(M, N) is.
"""

import math

import numpy as np
import scipy  # its parts are imported when they are first used

# Up to this many copies a side, matching them is the faster way.
_MOST_COPIES = 256


def best_mean(score: np.ndarray) -> float:
    """The largest mean of score [M, N] over the matchings of the repeated rows and columns, exactly."""
    if math.lcm(*score.shape) <= _MOST_COPIES:
        return by_copies(score)
    return by_transport(score)


def by_copies(score: np.ndarray) -> float:
    """`best_mean` by repeating rows and columns to lcm(M, N): time lcm^3, memory lcm^2."""
    rows, columns = score.shape
    length = math.lcm(rows, columns)
    copies = score.repeat(length // rows, 0).repeat(length // columns, 1)
    return float(copies[scipy.optimize.linear_sum_assignment(copies, maximize=True)].mean())


def by_transport(score: np.ndarray) -> float:
    """`best_mean` as a linear program in M N unknowns, solved by the dual simplex method, which ends at a corner."""
    rows, columns = score.shape
    length = math.lcm(rows, columns)
    given = np.repeat([length // rows, length // columns], [rows, columns])
    sums = scipy.sparse.vstack(
        [
            scipy.sparse.kron(scipy.sparse.eye_array(rows), np.ones((1, columns))),
            scipy.sparse.kron(np.ones((1, rows)), scipy.sparse.eye_array(columns)),
        ]
    ).tocsr()
    # One of the sums follows from the others.
    solved = scipy.optimize.linprog(-score.ravel(), A_eq=sums[:-1], b_eq=given[:-1], method='highs-ds')
    plan = np.rint(solved.x) if solved.success else np.zeros(score.size)
    if not np.array_equal(sums @ plan, given):
        raise RuntimeError(f'no matching of {rows} with {columns} masks: {solved.message}')
    return float(plan @ score.ravel() / length)
