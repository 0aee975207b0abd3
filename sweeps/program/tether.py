"""Run as a script: starts the command that it is given, and sees to its end, whatever becomes of whoever asked for it.

    python tether.py PARENT GRACE_S COMMAND...

SIGTERM, which the kernel sends too when the parent is gone, is passed on; what is not over GRACE_S later is killed, and
so is whatever the command has started and left in its process group. SIGUSR1 kills at once. It ends as the command
did. It imports nothing of the package, so that it starts in a blink.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
HEARD = {signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD}


def end_with_parent(parent: int) -> None:
    """Have the kernel (Linux) send SIGTERM when the parent ends; at once if it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def start(words: list[str]) -> int:
    """The process of the command, in a group of its own. SLURM sends SIGUSR2 to all processes of a job; it is not meant
    for the command."""
    before, parent = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD), os.getpid()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else it might not be heard
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):  # it has done so itself
            os.setpgid(child, child)
        return child
    os.setpgid(0, 0)
    for sign in (*HEARD, signal.SIGINT):
        signal.signal(sign, signal.SIG_DFL)
    end_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        sys.stderr.write(f"cannot start {words[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def see_to_its_end(child: int, grace_s: float) -> int:
    """Its exit status, or minus the number of the signal that ended it."""
    asked = False
    while True:
        sign = signal.sigwait(HEARD)
        if sign == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                kill_group(child)
                return os.waitstatus_to_exitcode(status)
        elif sign != signal.SIGTERM:
            kill_group(child)
        elif not asked:
            asked = True
            os.kill(child, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, grace_s)


def main() -> None:
    parent, grace_s, words = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    child = start(words)
    end_with_parent(parent)
    status = see_to_its_end(child, grace_s)
    if status < 0 and -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    if status < 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
