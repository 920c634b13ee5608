"""The filter of system calls, on this machine and without a container."""

import subprocess
import sys

import pytest

from ci.lab import containers, system_calls

TRY = """\
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    if libc.syscall(*words) == -1:
        raise OSError(ctypes.get_errno(), "")
try:
    {code}
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("done")
"""
REFUSED = {
    "io_uring": "call(425, 1, 0)",
    "user namespaces": "call(272, 0x10000000)",
    "a child in another user namespace": "call(56, 0x10000011, 0, 0, 0, 0)",
    "a child in another network": "call(56, 0x40000011, 0, 0, 0, 0)",
    "the log of the kernel": "call(103, 10, 0, 0)",
    "tracing": "call(101, 16, os.getpid(), 0, 0)",
    "sockets of the kernel's cryptography": "socket.socket(38, 5)",
    "sockets of virtual machines": "socket.socket(40, 1)",
    "packets": "socket.socket(17, 3)",
    "pairs of them": "socket.socketpair(38, 5)",
    "the ABI x32": "call(0x40000000 + 39)",
}
ALLOWED = {
    "a pair of sockets": "socket.socketpair()",
    "TCP": "socket.create_server(('127.0.0.1', 0))",
    "the list of interfaces": "socket.socket(16, 3)",
    "a fork": "os.waitpid(os.fork() or os._exit(0), 0)",
    "a file in memory": "os.memfd_create('x')",
    "a thread": "__import__('threading').Thread(target=int).start()",
}


def tried(code: str) -> str:
    """What becomes of some code behind the filter: `done`, or the name of its error."""
    words = [sys.executable, *containers.FILTER[1:], sys.executable, "-c", TRY.format(code=code)]
    return subprocess.check_output(words, text=True).strip()


@pytest.mark.skipif("x86_64" not in system_calls.platform.machine(), reason="its numbers")
@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_a_system_call_that_no_lesson_needs_is_refused(code: str) -> None:
    """It fails like a call for which a right is missing."""
    assert tried(code) == "EPERM"


def test_a_call_whose_flags_cannot_be_read_seems_to_be_missing() -> None:
    """So that the C library starts threads and processes by the older call, with flags to read."""
    assert tried("call(435, 0, 0)") == "ENOSYS"


@pytest.mark.parametrize("code", ALLOWED.values(), ids=ALLOWED)
def test_what_lessons_need_is_allowed(code: str) -> None:
    """By the filter; the engine's own may refuse more."""
    assert tried(code) == "done"


def test_the_filter_holds_for_what_a_command_starts() -> None:
    """Nothing removes it."""
    code = "import os; os.system('grep Seccomp_filters /proc/self/status')"
    assert tried(code).split() == ["Seccomp_filters:", "1", "done"]


def test_the_command_gets_its_own_words_and_signals() -> None:
    """Python ignores SIGPIPE; a shell behind the filter must not."""
    words = [sys.executable, *containers.FILTER[1:], "grep", "-h", "SigIgn", "/proc/self/status"]
    assert int(subprocess.check_output(words, text=True).split()[1], 16) & (1 << 12) == 0


@pytest.mark.parametrize("machine", system_calls.NUMBERS)
def test_each_jump_lands_in_the_filter(machine: str) -> None:
    """A filter that jumps beyond its end would be refused by the kernel; the last line allows."""
    program = [*system_calls.instructions(machine)]
    jumps = [i + 1 + max(yes, no) for i, (_, yes, no, _) in enumerate(program) if yes or no]
    assert max(jumps) < len(program)
    assert program[-1] == (system_calls.RETURN, 0, 0, system_calls.ALLOW)
