"""A child that misbehaves in the way its first argument names. Standard library only: it must start quickly."""

import json
import os
import signal
import subprocess
import sys
import time


def say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer_all() -> None:
    """Behave: answer every request with its method's name."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            say({"jsonrpc": "2.0", "id": message["id"], "result": {"method": message["method"], "pid": os.getpid()}})


def sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def gigabyte() -> None:
    """One line without an end, after the first request."""
    sys.stdin.readline()
    block = b"x" * (1 << 20)
    for _ in range(1024):
        sys.stdout.buffer.write(block)


def mid_call() -> None:
    sys.stdin.readline()
    print("out of memory: \x1b[31mgiving up\x1b[0m", file=sys.stderr, flush=True)
    os._exit(7)


def by_signal() -> None:
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGSEGV)


def at_once() -> None:
    print("usage: server DIR", file=sys.stderr, flush=True)
    os._exit(2)


def hang() -> None:
    """Read everything, answer nothing; end with the input."""
    for _ in sys.stdin:
        pass


def stubborn() -> None:
    """Ignore SIGTERM and the end of the input."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.readline()
    say({"jsonrpc": "2.0", "id": 1, "result": {"pids": [os.getpid()]}})
    sleep_for_ever()


def family() -> None:
    """Two generations below, both deaf to SIGTERM; the pids are the answer to the first request."""
    script = (
        "import signal,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up',flush=True); time.sleep(600)"
    )
    outer = (
        "import subprocess,sys;"
        f"p=subprocess.Popen([sys.executable,'-S','-c',{script!r}],stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid,flush=True); p.wait()"
    )
    child = subprocess.Popen([sys.executable, "-S", "-c", outer], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    sys.stdin.readline()
    say({"jsonrpc": "2.0", "id": 1, "result": {"pids": [os.getpid(), child.pid, grandchild]}})
    for _ in sys.stdin:
        if len(sys.argv) > 2:
            os._exit(0)


def stderr_flood() -> None:
    """64 MB of standard error beside good behaviour."""
    if os.fork() == 0:
        os.close(0)
        os.close(1)
        line = b"noise " * 200 + b"\n"
        try:
            for _ in range(50_000):
                os.write(2, line)
        finally:
            os._exit(0)
    answer_all()


def banner() -> None:
    """Text on standard output before and between messages."""
    print("Welcome to the server!\n\n  {not json}\n\x1b[1mReady.\x1b[0m", flush=True)
    sys.stdout.buffer.write(b"\xff\xfe\x00\n")
    for line in sys.stdin:
        message = json.loads(line)
        print("DEBUG: got", message["id"])
        say({"jsonrpc": "2.0", "id": message["id"], "result": {}})


def chatter() -> None:
    """Text on standard output, without end."""
    while True:
        print("still no message " * 3)


def mute() -> None:
    """Close standard output and stay."""
    sys.stdin.readline()
    os.close(1)
    sleep_for_ever()


def deaf() -> None:
    """Close standard input and stay."""
    sys.stdin.readline()
    os.close(0)
    say({"jsonrpc": "2.0", "id": 1, "result": {}})
    sleep_for_ever()


def lazy() -> None:
    """Never read standard input."""
    sleep_for_ever()


def environment() -> None:
    message = json.loads(sys.stdin.readline())
    known = {"env": dict(os.environ), "cwd": os.getcwd(), "args": sys.argv[2:], "group": os.getpgid(0)}
    known["fds"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    print("the key is", os.environ.get("KEY"), file=sys.stderr, flush=True)
    say({"jsonrpc": "2.0", "id": message["id"], "result": known})
    answer_all()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
