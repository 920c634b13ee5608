"""Refuse system calls that no lesson needs, then become another program.

`python -IS system_calls.py COMMAND…` is how each container of the lab starts. The filter comes on
top of the engine's own, which differs between versions: those before Docker 25 allow io_uring, and
an engine can be set up without any filter. It holds for COMMAND and everything that it starts.
"""

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterable, Iterator

PR_SET_SECCOMP, FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
LOAD, RETURN, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT = 0x20, 0x06, 0x15, 0x35, 0x45  # instructions
# Results: proceed, fail with EPERM, or fail with ENOSYS as on a kernel that does not have the call.
ALLOW, REFUSE, MISSING = 0x7FFF0000, 0x00050001, 0x00050026
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets of what a filter can read
X32 = 0x40000000  # numbers from here on belong to the ABI x32
FAMILIES = (1, 2, 10, 16)  # of sockets: Unix, IPv4, IPv6, and netlink, which lists interfaces
NAMESPACES = 0x7E020000  # flags of `clone`
CLONE3 = 435  # has its flags in memory, which no filter can read; the C library then uses `clone`
# The architecture, its `clone`, its calls that begin with a family, and the refused calls.
NUMBERS = {
    "x86_64": (
        0xC000003E,
        56,
        (41, 53),  # socket, socketpair
        (
            *(101, 310, 311),  # ptrace, process_vm_readv, process_vm_writev
            *(155, 165, 166, 272, 304, 308),  # mounts, unshare, open_by_handle_at, setns
            *(248, 249, 250),  # keys of the kernel
            *(298, 321, 323),  # perf_event_open, bpf, userfaultfd
            103,  # syslog, which reads the kernel's log
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (198, 199),
        (*(117, 270, 271), *(41, 40, 39, 97, 265, 268), *(217, 218, 219), *(241, 280, 282), 116),
    ),
}
EVERYWHERE = (425, 426, 427, *range(428, 434), 442)  # io_uring, and the newer calls that mount


def instructions(machine: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield the filter: instruction, how many to skip if true and if false, operand."""
    architecture, clone, sockets, refused = NUMBERS[machine]
    yield LOAD, 0, 0, ARCHITECTURE
    yield IF_EQUAL, 1, 0, architecture
    yield RETURN, 0, 0, REFUSE  # the 32-bit ABI
    yield LOAD, 0, 0, NUMBER
    yield IF_AT_LEAST, 0, 1, X32
    yield RETURN, 0, 0, REFUSE
    for number in (*refused, *EVERYWHERE):
        yield IF_EQUAL, 0, 1, number
        yield RETURN, 0, 0, REFUSE
    yield IF_EQUAL, 0, 1, CLONE3
    yield RETURN, 0, 0, MISSING
    yield IF_EQUAL, 0, 4, clone
    yield LOAD, 0, 0, FIRST_ARGUMENT
    yield IF_ANY_BIT, 1, 0, NAMESPACES
    yield RETURN, 0, 0, ALLOW
    yield RETURN, 0, 0, REFUSE
    for number in sockets:
        yield IF_EQUAL, 0, 2 * len(FAMILIES) + 2, number
        yield LOAD, 0, 0, FIRST_ARGUMENT
        for family in FAMILIES:
            yield IF_EQUAL, 0, 1, family
            yield RETURN, 0, 0, ALLOW
        yield RETURN, 0, 0, REFUSE
    yield RETURN, 0, 0, ALLOW


def install(program: Iterable[tuple[int, int, int, int]]) -> None:
    """Filter the system calls of this process from now on. Raises OSError."""
    code = [struct.pack("HBBI", *instruction) for instruction in program]
    buffer = ctypes.create_string_buffer(b"".join(code))
    header = struct.pack("HP", len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel does not filter system calls")


if __name__ == "__main__":
    install(instructions(platform.machine()))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would COMMAND
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
