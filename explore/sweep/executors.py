"""Who evaluates points: this process, processes of this machine, or the workers of a Dask cluster.

All are used through one small interface, futures of `concurrent.futures`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import ConfigDict, Field, TypeAdapter

from tilewright.description.documented import Documented
from tilewright.description.errors import InputError
from tilewright.description.reading import read, read_text
from tilewright.explore.libraries import need
from tilewright.explore.processes import Pool, process_pool

CONNECT_S = 20
"""For an answer from a Dask scheduler."""


class Executor(Protocol):
    """Runs functions somewhere."""

    @property
    def width(self) -> int:
        """How many calls run at the same time."""

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Start a call, or queue it."""

    def is_lost(self, error: BaseException) -> bool:
        """Whether a call failed with `error` because who ran it died."""

    def restart(self) -> None:
        """Make it fit for use after a loss; calls that were under way are gone."""

    def abandon(self) -> None:
        """Don't wait for what runs when this is closed; it is lost."""

    def close(self) -> None:
        """Drop what is queued, wait for what runs, let go of everything."""


class Serial:
    """Calls run in this process, when they are submitted."""

    width = 1

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """See `Executor`."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def is_lost(self, error: BaseException) -> bool:  # noqa: ARG002 - see `Executor`
        """See `Executor`."""
        return False

    def restart(self) -> None:
        """See `Executor`."""

    def abandon(self) -> None:
        """See `Executor`."""

    def close(self) -> None:
        """See `Executor`."""


class Processes:
    """Processes of this machine. They leave Ctrl-C to the one that started them."""

    def __init__(self, jobs: int) -> None:
        self.width = jobs
        self._pool = self._made()

    def _made(self) -> Pool:
        return process_pool(self.width, finish=True)

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """See `Executor`."""
        return self._pool.submit(function, *arguments)

    def is_lost(self, error: BaseException) -> bool:
        """See `Executor`."""
        return isinstance(error, BrokenExecutor)

    def restart(self) -> None:
        """See `Executor`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._made()

    def abandon(self) -> None:
        """See `Executor`."""
        self._pool.abandon()

    def close(self) -> None:
        """See `Executor`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Dask:
    """The workers of a Dask cluster: one that is there (its scheduler's address), or one that is started."""

    def __init__(self, address: str = "", cluster: Any = None) -> None:  # noqa: ANN401 - dask has no types
        from distributed import Client as Untyped

        client: Any = Untyped

        self._cluster = cluster
        try:
            self._client = client(cluster or address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"no Dask scheduler answers at {address!r}: {reason}") from None
        self._pool = self._client.get_executor()

    @property
    def width(self) -> int:
        """See `Executor`."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """See `Executor`."""
        future: Future[Any] = self._pool.submit(function, *arguments)
        return future

    def is_lost(self, error: BaseException) -> bool:
        """See `Executor`. The scheduler has tried several workers by then."""
        from distributed.scheduler import KilledWorker

        return isinstance(error, KilledWorker)

    def restart(self) -> None:
        """See `Executor`."""

    def abandon(self) -> None:
        """See `Executor`. Nothing is ever waited for."""

    def close(self) -> None:
        """See `Executor`."""
        self._pool.shutdown(wait=False)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Part(Documented):
    """Base of the parts of a cluster file."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class LocalCluster(Part):
    """Workers on this machine."""

    kind: Literal["local"]
    workers: Annotated[int, Field(ge=1)]
    memory: str = "auto"
    """Of each worker: `4GiB`."""

    def start(self) -> Any:  # noqa: ANN401 - dask has no types
        """The Dask cluster."""
        from distributed import LocalCluster as Untyped

        cluster: Any = Untyped
        return cluster(
            n_workers=self.workers, threads_per_worker=1, memory_limit=self.memory, dashboard_address=None
        )


class SshCluster(Part):
    """Workers on machines that can be reached by SSH without a password."""

    kind: Literal["ssh"]
    hosts: Annotated[tuple[str, ...], Field(min_length=2)]
    """The first one runs the scheduler, the others workers (name it twice to let it work as well)."""
    workers: Annotated[int, Field(ge=1)] = 1
    """On each of the machines."""
    python: str = ""
    """The Python to run there; by default this one's path."""
    options: Mapping[str, str | int | bool | None] = Field(default_factory=dict)
    """Of the connection, as `asyncssh.connect` has them: `{username: me, known_hosts: null}`."""

    def start(self) -> Any:  # noqa: ANN401 - dask has no types
        """The Dask cluster."""
        from distributed import SSHCluster

        return SSHCluster(
            list(self.hosts),
            connect_options=dict(self.options),
            worker_options={"nthreads": 1, "n_workers": self.workers},
            remote_python=self.python or None,
        )


class SlurmCluster(Part):
    """Workers in jobs of a SLURM queue (dask-jobqueue)."""

    kind: Literal["slurm"]
    jobs: Annotated[int, Field(ge=1)]
    cores: Annotated[int, Field(ge=1)]
    """Of a job: as many worker processes."""
    memory: str
    """Of a job: `16GB`."""
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    """Further `#SBATCH` options: `--constraint=zen3`."""

    def start(self) -> Any:  # noqa: ANN401 - dask has no types
        """The Dask cluster."""
        from dask_jobqueue.slurm import SLURMCluster

        if shutil.which("sbatch") is None:
            raise InputError(
                "kind: slurm starts its workers by sbatch, which is not here: run on a login node"
            )
        make: Any = SLURMCluster  # parts of it have types, parts have not
        cluster = make(
            cores=self.cores, processes=self.cores, memory=self.memory, walltime=self.walltime,
            queue=self.queue, account=self.account, job_extra_directives=list(self.directives),
        )  # fmt: skip
        cluster.scale(jobs=self.jobs)
        return cluster


ClusterFile = Annotated[LocalCluster | SshCluster | SlurmCluster, Field(discriminator="kind")]
_LIBRARIES = {"ssh": ("asyncssh", "AsyncSSH"), "slurm": ("dask_jobqueue", "dask-jobqueue")}
"""Kinds of cluster that need another one beside Dask: its import name, and its name."""


def executor(jobs: int, dask: str | None = None) -> Executor:
    """One for `jobs` local processes, or, with `dask`, for a scheduler's address or a cluster's YAML file.
    Raises `InputError`."""
    if dask is None:
        return Serial() if jobs == 1 else Processes(jobs)
    cluster = None
    if dask.endswith((".yaml", ".yml")):
        adapter: TypeAdapter[Any] = TypeAdapter(ClusterFile)
        cluster = read(adapter, read_text(Path(dask)), dask)
    elif ":" not in dask:
        raise InputError(
            f"--dask {dask!r} is neither a scheduler's address (tcp://host:8786) nor a cluster's YAML file"
        )
    need("distributed", "Dask", "--dask", "distributed")
    if cluster is not None and cluster.kind in _LIBRARIES:
        need(*_LIBRARIES[cluster.kind], f"{dask}: kind {cluster.kind!r}", "distributed")
    return Dask("" if cluster else dask, cluster and cluster.start())
