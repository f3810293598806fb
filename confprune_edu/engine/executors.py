"""Work on other threads, processes or machines: pieces for any `concurrent.futures.Executor`, results in order."""

import asyncio
import importlib
import importlib.util
import io
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

import torch

PIECES = 32  # at most: enough for the workers of a small cluster, few enough that the model travels seldom


UNSENT = (
    "a worker cannot be sent what only a notebook or script defines ({}): put it into a module of its own and import "
    "it, or install cloudpickle"
)
BEGAN_IN = os.getpid()  # the process that imported this module: in a forked child still its parent


class Parcel:
    """Arguments that travel as bytes: `multiprocessing` would move a tensor's memory into that of all processes.

    >>> pickle.loads(pickle.dumps(Parcel(2, 3))).arguments
    (2, 3)
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._content: bytes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # where Dask is, there is cloudpickle: it also knows functions that cannot be imported
        way = importlib.import_module("cloudpickle" if importlib.util.find_spec("cloudpickle") else "pickle")
        content = io.BytesIO()  # torch's own format: weights that share memory still do when they arrive
        try:
            torch.save(self.arguments, content, pickle_module=way, pickle_protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError) as problem:  # "Can't pickle <function <lambda> ...>"
            raise TypeError(UNSENT.format(problem)) from problem
        return _arrived, (content.getvalue(),)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What was packed. Opened by the work itself: an error there is the job's, not the death of a worker.

        Raises
        ------
        TypeError
            A class or function is not to be found here.
        """
        if self._content is not None:
            try:
                self._arguments = torch.load(io.BytesIO(self._content), weights_only=False)
                self._content = None
            except AttributeError as problem:  # "Can't get attribute 'Net' on <module '__main__'>"
                raise TypeError(UNSENT.format(problem)) from problem
        return self._arguments


def _arrived(content: bytes) -> Parcel:
    if os.getpid() != BEGAN_IN:
        torch.set_num_threads(1)  # OpenMP's other threads did not survive the fork, and would be waited for forever
    parcel = Parcel()
    parcel._content = content
    return parcel


def in_turn(executor: Executor, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """`work(*job)` for each job, on the executor, in the order of the jobs.

    A job whose worker died is given to the executor once more. Any other exception is that of the job: the jobs that
    have not begun are cancelled.

    Raises
    ------
    RuntimeError
        A job's worker died twice, or the executor is beyond use: then a process pool must be made anew.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_turn(pool, pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    futures = [executor.submit(work, *job) for job in jobs]
    try:
        for k, future in enumerate(futures):
            yield _result(executor, future, work, jobs[k], f"piece {k + 1} of {len(jobs)}")
    finally:
        for future in futures:
            future.cancel()


def _result(
    executor: Executor, future: "Future[Any]", work: Callable[..., Any], job: tuple[Any, ...], name: str
) -> Any:
    try:
        return future.result()
    except Exception as problem:
        if not _died(problem):
            raise
    try:
        return executor.submit(work, *job).result()
    except Exception as problem:
        if not _died(problem):
            raise
        raise RuntimeError(
            f"the worker of {name} died, and so did its successor, or the executor is broken: mostly for want of "
            'memory, or since new processes begin with a script that has no `if __name__ == "__main__":`'
        ) from problem


def _died(problem: Exception) -> bool:
    """Does this exception tell of the worker, not of its work? Dask has its own, known by name: it may not be there."""
    lost = (BrokenExecutor, CancelledError, asyncio.CancelledError, ConnectionError)
    return isinstance(problem, lost) or type(problem).__name__ in ("KilledWorker", "FutureCancelledError")
