"""The fork servers of an executor: one for all runs, or one for each slot."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ci.execute.executor import Executor
from ci.execute.leases import Lease
from ci.execute.server_client import ServerClient
from ci.plan.planner import Run


class Servers:
    """Lends fork servers to slots; a shared one lives until `close`, and is replaced if it ends."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._shared: dict[frozenset[tuple[str, str]], ServerClient] = {}  # by environment
        self._alone: set[ServerClient] = set()  # of one slot each
        self._lock = threading.Lock()

    @property
    def are_scheduled(self) -> bool:
        """Whether a scheduler starts them, perhaps much later."""
        return self._executor.is_scheduled

    @property
    def any_alive(self) -> bool:
        """Whether any slot has a server that is not shared and has not ended."""
        return any(server.alive for server in list(self._alone))

    def lend(self, runs: Sequence[Run], lease: Lease, folder: Path) -> ServerClient:
        """A server for the first of `runs`, with attempts below `folder`.

        If it is not shared, it is a new one, for these runs and this lease.
        """
        variables = runs[0].environment
        if not self._executor.shared:
            server = self._start(runs, lease, folder)
            self._alone.add(server)
            return server
        with self._lock:
            key = frozenset({**os.environ, **variables}.items())
            found = self._shared.get(key)
            if not found or not found.alive:
                found = self._shared[key] = self._start(runs, lease, folder)
            return found

    def give_back(self, server: ServerClient) -> None:
        """End a server that is not shared."""
        if not self._executor.shared:
            server.close()
            self._alone.discard(server)

    def close(self) -> None:
        """End the shared servers."""
        for server in self._shared.values():
            server.close()
        self._shared.clear()

    def _start(self, runs: Sequence[Run], lease: Lease, folder: Path) -> ServerClient:
        channel = self._executor.start(runs, lease, folder, runs[0].environment)
        return ServerClient(channel, self._executor)
