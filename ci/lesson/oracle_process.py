"""The process in which the oracles of a lesson compute.

It is forked from the pipeline, so it starts in milliseconds. Nothing that an oracle does there ends
the pipeline: it may exit, loop for ever or exhaust the stack. It cannot import torch, and it reads
only the files that its lesson's handout key covers.
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ci.errors import CourseError

LARGEST = 2**28  # bytes of an answer; a shown value has a mebibyte at most
GRACE_S = 5  # after its deadline, a process whose parent has died ends itself
FORBIDDEN = (  # audit events of other programs, other machines, and changes to files
    *("subprocess.", "socket.", "shutil.", "ctypes.dlopen", "os.exec", "os.fork", "os.posix_spawn"),
    *("os.spawn", "os.system", "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir"),
    *(
        "sqlite3.connect",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
        "os.putenv",
    ),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class OracleProcess:
    """A process that loads an oracle file with `load(path)` and answers calls of its functions.

    `load` returns the facts about the file, and a function `answer(name, arguments)`. The process
    is started when it is first needed, again after it has ended, and in each fork of its owner.
    """

    def __init__(self, path: Path, load: Callable[[Path], tuple[Any, Callable[..., Any]]]) -> None:
        self._path, self._load = path, load
        self._connection: Connection | None = None
        self._owner = 0

    def facts(self, deadline_s: float) -> Any:
        """The facts about the file. Raises CourseError if it cannot be loaded."""
        self._start()
        return self._receive(deadline_s)

    def call(self, name: str, arguments: bytes, deadline_s: float) -> Any:
        """The answer for the pickled arguments. Raises CourseError if the function has none."""
        if self._connection is None or self._owner != os.getpid():
            self.facts(deadline_s)
        assert self._connection
        with contextlib.suppress(OSError):  # it has ended: `_receive` says so
            self._connection.send((name, arguments, deadline_s))
        return self._receive(deadline_s)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # Python 3.12 warns of threads; the child needs no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _serve(theirs, self._path, self._load)
        theirs.close()
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end, pid, self._owner, self._connection)

    def _receive(self, deadline_s: float) -> Any:
        assert self._connection
        try:
            if not self._connection.poll(deadline_s):
                raise self._ended(f"TimeoutError: not finished within {deadline_s:g} s")
            ok, answer = pickle.loads(self._connection.recv_bytes(LARGEST))
        except CourseError:
            raise
        except Exception:  # it can have written anything to this connection
            raise self._ended("it ended its process (os._exit, or too little memory)") from None
        if not ok:
            raise CourseError(answer)
        return answer

    def _ended(self, why: str) -> CourseError:
        self._connection = None
        self._end()
        return CourseError(why)


def _end(pid: int, owner: int, connection: Connection) -> None:
    if os.getpid() == owner:
        connection.close()
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _serve(connection: Connection, path: Path, load: Callable[..., Any]) -> NoReturn:
    """Answer until the connection closes. Never returns, and never runs the owner's clean-up."""
    try:
        _isolate(connection, path)
        answers: dict[str, Any] = {}

        def start() -> Any:
            facts, answers["answer"] = load(path)
            return facts

        _reply(connection, path, start)
        while True:
            name, arguments, deadline_s = connection.recv()
            signal.alarm(int(deadline_s) + GRACE_S)
            _reply(connection, path, lambda: answers["answer"](name, pickle.loads(arguments)))  # noqa: B023
            signal.alarm(0)
    finally:
        os._exit(0)


def _reply(connection: Connection, path: Path, compute: Callable[[], Any]) -> None:
    try:
        message = pickle.dumps((True, compute()))
    except BaseException as error:  # GeneratorExit and KeyboardInterrupt too
        message = pickle.dumps((False, _describe(error, path)))
    connection.send_bytes(message)


def _describe(error: BaseException, path: Path) -> str:
    """Type, message and line of an error, in one line."""
    with contextlib.suppress(BaseException):
        frames = traceback.extract_tb(error.__traceback__, limit=None)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())[:300]
        if isinstance(error, RecursionError):
            text = "a recursion or a nested value without end"
        place = f" (line {lines[-1]})" if lines else ""
        return f"{type(error).__name__}: {text}{place}"
    return f"{type(error).__name__}, whose message cannot be read"


def _isolate(connection: Connection, path: Path) -> None:
    """Let go of the parent: its files, locks, signals and modules."""
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, 65536)
    for number in (signal.SIGINT, signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.dont_write_bytecode = True
    sys.unraisablehook = lambda _: None  # no traceback of what an oracle leaves behind
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        del sys.modules[name]
    sys.modules["torch"] = None  # type: ignore[assignment] # the import system's own convention
    sys.addaudithook(_Guard(path))


class _Guard:
    """An audit hook that refuses files outside the lessons' folder, and everything FORBIDDEN."""

    def __init__(self, path: Path) -> None:
        lessons = path.absolute().parents[1]
        # Code of Python, NumPy and the pipeline is read while it is imported.
        system = (Path(os.__file__).parent, Path(np.__file__).parent, Path(__file__).parents[1])
        self._system = tuple(f"{folder}{os.sep}" for folder in system)
        self._lessons, self._name = str(lessons), path.name
        self._pyproject = str(lessons.parent / "pyproject.toml")

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int):
            self._check(os.path.abspath(os.fsdecode(arguments[0])), arguments[1], arguments[2])  # noqa: PTH100
        elif event.startswith(FORBIDDEN):
            raise PermissionError(f"an oracle only computes: it may not call {event}")

    def _check(self, path: str, mode: str | None, flags: int) -> None:
        if flags & WRITES or set(mode or "") & set("wax+"):
            raise PermissionError(f"an oracle only computes: it may not write {path}")
        if not (self._is_of_python(path) or path == self._pyproject or self._is_input(path)):
            raise PermissionError(f"an oracle may read only files below lessons/, not {path}")

    def _is_of_python(self, path: str) -> bool:
        rests = (path.removeprefix(folder) for folder in self._system if path.startswith(folder))
        return any(not rest.startswith(("site-packages", "dist-packages")) for rest in rests)

    def _is_input(self, path: str) -> bool:
        """Whether the handout key of the lesson covers this file: no hidden file, no bytecode, and
        nothing of another lesson."""
        if not path.startswith(f"{self._lessons}{os.sep}"):
            return False
        *folders, name = Path(path).relative_to(self._lessons).parts
        if any(part.startswith(".") or part == "__pycache__" for part in (*folders, name)):
            return False
        is_other = name.endswith(".py") and name != self._name and folders in ([], ["expected"])
        return not (is_other and Path(self._lessons, name).exists())
