"""What both walks share: saying what was found, and processes of another user."""

import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
sys.path.insert(0, str(ROOT / "tests" / "interop"))

from broker import free_ports  # noqa: E402, F401


class Wrong(Exception):
    """What is packaged is not as it should be."""


def need(condition, sentence):
    if not condition:
        raise Wrong(sentence)


def aloud(sentence):
    print(f"not walked: {sentence}", flush=True)


def run_checks(checks):
    """Runs named checks, which build on each other, up to the first that fails; returns the exit status."""
    for name, check in checks:
        try:
            check()
        except Exception as problem:  # whatever it is, it is the finding
            detail = str(problem) if isinstance(problem, Wrong) else traceback.format_exc()
            print(f"FAIL {name}: {detail}", flush=True)
            return 1
        print(f"ok   {name}", flush=True)
    return 0


def as_user(user):
    """The command's first words that make it run as this numeric UID:GID; none where we may not change ours."""
    if user is None or os.getuid() != 0:
        return []
    uid, gid = user.split(":")
    return [shutil.which("setpriv") or "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups",
            "--no-new-privs", "--bounding-set=-all", "--"]


def outcome(command, env, user=None, text=""):
    """Runs a command to its end: status, standard output and standard error together."""
    done = subprocess.run(as_user(user) + command, env=env, input=text, text=True, timeout=START_SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def wait_until(what, condition):
    """Polls until `condition` yields something true, and returns that."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise Wrong(f"{what}: not within {START_SECONDS} s")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def ended(process, seconds):
    """Waits for the end of a process and returns its status; kills it when that takes too long."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Wrong(f"the broker did not end within {seconds} s") from None


def strace_works():
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
