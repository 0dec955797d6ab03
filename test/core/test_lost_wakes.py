# SPDX-License-Identifier: Apache-2.0
"""Who sleeps on a lock that somebody who died had released looks again, and nobody else does."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64") or not os.path.exists("/proc/self/syscall"),
    reason="the kernel does not tell what threads wait for",
)

SHARED_LOCK = """
    import ctypes, logging, mmap, os, platform, signal, threading, time
    from worldsystem_core.lost_wakes import overslept, watch_for_lost_wakes

    logging.basicConfig(format="%(message)s")
    C = ctypes.CDLL(None, use_errno=True)
    memory = mmap.mmap(-1, 4096)  # child processes have the same
    address = ctypes.addressof((ctypes.c_char * 4096).from_buffer(memory))
    lock = ctypes.c_void_p(address)
    kind = ctypes.create_string_buffer(16)
    C.pthread_mutexattr_init(kind)
    C.pthread_mutexattr_setpshared(kind, 1)
    C.pthread_mutex_init(lock, kind)
    word, owner = (ctypes.c_uint32.from_address(address + at) for at in (0, 8))
    CALL = {"x86_64": 202, "aarch64": 98}[platform.machine()]

    class Waiter(threading.Thread):
        def __init__(self, wait):
            super().__init__(daemon=True)
            self.wait, self.result, self.ended = wait, None, threading.Event()
            self.start()

        def run(self):
            result = self.wait()
            self.result = (result, ctypes.get_errno())
            self.ended.set()

    def until(done):
        deadline = time.monotonic() + 20.0
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.01)
"""


def run(*parts: str) -> subprocess.CompletedProcess[str]:
    """The parts as one program, as its main thread alone may say what signals do."""
    code = "".join(map(textwrap.dedent, (SHARED_LOCK, *parts)))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


DEATH = """
    child = os.fork()
    if not child:  # takes the lock, lets it go as soon as somebody waits for it, and dies
        C.pthread_mutex_lock(lock)
        while word.value != 2:
            time.sleep(0.01)
        time.sleep(0.2)
        owner.value = word.value = 0
        os.kill(os.getpid(), signal.SIGKILL)
    until(lambda: word.value)
    waiter = Waiter(lambda: C.pthread_mutex_lock(lock))
    os.waitpid(child, 0)
"""


def test_a_thread_sleeps_on_a_free_lock_for_good_when_nobody_looks_after_it():
    run(
        DEATH,
        """
        assert not waiter.ended.wait(2.0)
        assert [sleep.thread for sleep in overslept()] == [waiter.native_id]
        """,
    )


def test_a_thread_on_a_lock_of_one_who_died_gets_it_and_the_log_says_so():
    done = run(
        "watch_for_lost_wakes()",
        DEATH,
        """
        from worldsystem_core.lost_wakes import AGAIN_S, EVERY_S
        assert EVERY_S + AGAIN_S < 1.0, "no stage is silent for long"
        assert waiter.ended.wait(20.0) and waiter.result[0] == 0
        assert owner.value == waiter.native_id
        """,
    )
    assert done.stderr.count("slept on a lock in shared memory that is free") == 1


def test_who_waits_for_a_lock_that_is_held_is_left_alone():
    done = run(
        """
        watch_for_lost_wakes(0.05)
        C.pthread_mutex_lock(lock)
        waiter = Waiter(lambda: C.pthread_mutex_lock(lock))
        until(lambda: word.value == 2)
        assert not waiter.ended.wait(1.0) and not overslept()
        C.pthread_mutex_unlock(lock)
        assert waiter.ended.wait(10.0)
        """,
    )
    assert not done.stderr


def test_a_timed_wait_is_not_interrupted():
    done = run(
        """
        import errno
        watch_for_lost_wakes(0.05)
        limit = (ctypes.c_long * 2)(1, 0)  # one second
        waiter = Waiter(lambda: C.syscall(CALL, lock, 0, 0, limit))
        time.sleep(0.2)
        word.value = 7
        assert waiter.ended.wait(10.0) and waiter.result == (-1, errno.ETIMEDOUT), waiter.result
        """,
    )
    assert not done.stderr


def test_a_wait_without_limit_is_taken_up_again_not_failed():
    run(
        """
        import errno
        watch_for_lost_wakes(0.1)
        waiter = Waiter(lambda: C.syscall(CALL, lock, 0, 0, None))
        time.sleep(0.3)
        word.value = 7
        assert waiter.ended.wait(10.0) and waiter.result == (-1, errno.EAGAIN), waiter.result
        """,
    )


def test_a_wait_of_one_process_alone_is_none_of_its_business():
    done = run(
        """
        PRIVATE = 128
        watch_for_lost_wakes(0.05)
        waiter = Waiter(lambda: C.syscall(CALL, lock, PRIVATE, 0, None))
        time.sleep(0.3)
        word.value = 7
        assert not waiter.ended.wait(1.0) and not overslept()
        """,
    )
    assert not done.stderr


def test_where_the_system_does_not_tell_what_threads_wait_for_nothing_is_begun():
    done = run(
        """
        logging.getLogger().setLevel(logging.INFO)
        platform.machine = lambda: "an unknown processor"
        watch_for_lost_wakes(0.05)
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
        """,
    )
    assert "an unknown processor" in done.stderr


def test_a_moment_without_files_to_open_does_not_end_the_watch():
    done = run(
        """
        from worldsystem_core import lost_wakes

        looks, again = [], threading.Event()

        def look():
            looks.append(1)
            if len(looks) == 2:
                raise OSError(24, "Too many open files")
            if len(looks) > 2:
                again.set()
            return set()

        lost_wakes.overslept = look
        watch_for_lost_wakes(0.01)
        assert again.wait(5.0)
        """,
    )
    assert not done.stderr
