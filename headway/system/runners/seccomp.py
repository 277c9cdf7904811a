"""System calls that a sandbox refuses: kernel keyrings, which namespaces do not separate, and tracing of the kernel."""

from __future__ import annotations

import errno
import platform
import struct

__all__ = ["system_call_filter"]

# Numbers of add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd and io_uring_setup
# (linux/arch/*/entry/syscalls; asm-generic/unistd.h), and the value of `arch` in seccomp_data (linux/audit.h).
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, (248, 249, 250, 298, 321, 323, 425)),
    "aarch64": (0xC00000B7, (217, 218, 219, 241, 280, 282, 425)),
}
X32 = 0x40000000  # bit of the calls of x86_64's second ABI, which have other numbers

LOAD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = (
    0x20,
    0x15,
    0x45,
    0x06,
)  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
NUMBER, ARCHITECTURE = 0, 4  # offsets in seccomp_data
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO


def system_call_filter(machine: str | None = None) -> bytes:
    """The filter as a program in classic BPF, for `bwrap --seccomp`. Other architectures get one that allows all."""
    known = SYSTEM_CALLS.get(machine or platform.machine())
    if known is None:
        return _instruction(RETURN, ALLOW)
    architecture, refused = known
    tests = [(JUMP_IF_SET, X32), *((JUMP_IF_EQUAL, number) for number in refused)]
    # A jump skips instructions: here those up to the last one, which refuses.
    return b"".join(
        [
            _instruction(LOAD, ARCHITECTURE),
            _instruction(JUMP_IF_EQUAL, architecture, no=len(tests) + 2),
            _instruction(LOAD, NUMBER),
            *(_instruction(test, value, yes=len(tests) - at) for at, (test, value) in enumerate(tests)),
            _instruction(RETURN, ALLOW),
            _instruction(RETURN, REFUSE),
        ]
    )


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
