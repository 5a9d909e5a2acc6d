"""Takes from a process what it does not need: network, files, other programs, memory. Linux only, no privileges.

Three fences, told apart because not every kernel has them: limits (setrlimit), files (Landlock, from
Linux 5.13), system calls (seccomp: no socket, no other program). What could not be set up is told to the caller and
not passed over. None of them can be taken back by the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_OPEN_FILES_MAX = 128

# Landlock (linux/landlock.h). The system calls have the same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# All rights on files that a version of Landlock knows: 13 of them first, then refer, truncate, ioctl_dev.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_RIGHTS = 0b11
_TCP_SINCE, _SCOPED_SINCE = 4, 6
_SCOPES = 0b11

# seccomp (linux/seccomp.h, linux/filter.h): by architecture its audit number and the calls that are refused.
_ALLOW, _REFUSE_EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ARCHITECTURES = {
    # socket, connect, bind, execve, ptrace, open_by_handle_at, bpf, execveat, io_uring_setup, process_vm_writev
    "x86_64": (0xC000003E, (41, 42, 49, 59, 101, 304, 321, 322, 425, 311)),
    "aarch64": (0xC00000B7, (198, 203, 200, 221, 117, 265, 280, 281, 425, 271)),
}


@dataclass(frozen=True, slots=True)
class Confinement:
    """Which fences stand: `files` can be read in named folders only, none written; no socket leads to the `network`."""

    files: bool
    network: bool


def limit_resources(memory_bytes: int) -> None:
    """Bound address space and open files; write no core dumps and no files."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES_MAX, _OPEN_FILES_MAX))
    # Writing fails with an error rather than a signal.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def confine(readable: Iterable[Path]) -> Confinement:
    """Let this process read files below `readable` only, and reach neither network nor other programs, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Confinement(files=False, network=False)
    return Confinement(files=_restrict_files(libc, readable), network=_refuse_calls(libc))


def _restrict_files(libc: ctypes.CDLL, readable: Iterable[Path]) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    network = _TCP_RIGHTS if version >= _TCP_SINCE else 0
    scopes = _SCOPES if version >= _SCOPED_SINCE else 0
    fields = struct.pack("=QQQ", rights, network, scopes)
    size = 24 if version >= _SCOPED_SINCE else 16 if version >= _TCP_SINCE else 8
    ruleset = libc.syscall(_LANDLOCK_CREATE, fields, size, 0)
    if ruleset < 0:
        return False
    try:
        for folder in readable:
            if folder.is_dir():
                _allow(libc, ruleset, folder)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, folder: Path) -> None:
    handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, handle)
        if libc.syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock took no rule", str(folder))
    finally:
        os.close(handle)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _refuse_calls(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    architecture, calls = _ARCHITECTURES[platform.machine()]
    steps = [
        struct.pack("=HBBI", _LOAD, 0, 0, 4),
        struct.pack("=HBBI", _JUMP_EQUAL, 1, 0, architecture),
        struct.pack("=HBBI", _RETURN, 0, 0, _KILL),
        struct.pack("=HBBI", _LOAD, 0, 0, 0),
    ]
    for call in calls:
        steps.append(struct.pack("=HBBI", _JUMP_EQUAL, 0, 1, call))
        steps.append(struct.pack("=HBBI", _RETURN, 0, 0, _REFUSE_EPERM))
    steps.append(struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW))
    code = b"".join(steps)
    program = _Program(len(steps), code)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
