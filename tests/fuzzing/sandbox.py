"""Runs a reader on hostile files in child processes that may neither write outside, execute, hang nor eat memory."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fuzzing.mutations import mutate

BATCH = 250  # inputs of a child process
MEMORY = 1 << 30  # bytes that a child may take beyond what it starts with
CPU, WAIT = 20.0, 300  # seconds of an input: of processor time; of any time, for a reader that blocks
CACHE = ".cache"  # the user's, where indexes of large files are kept
LONGEST = 4000  # characters of a message
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "pty.", "socket.", "pickle.find_class")
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.")
Problem = tuple[str, str]  # what happened, and where in the package


class Target(NamedTuple):
    """A reader, and valid files for it."""

    name: str
    write: Callable[[Path], object]  # writes the valid files into a folder
    read: Callable[[Path, Path], object]  # reads (folder, the file in it that is hostile)
    files: tuple[str, ...] = ("**/*",)  # patterns of the files that are made hostile
    share: int = 10  # of all inputs, in proportion
    needs: tuple[str, ...] = ()  # packages that are no part of every installation


class Report(NamedTuple):
    """What a target's inputs led to."""

    name: str
    accepted: int
    refused: int
    faults: list[dict[str, Any]]  # what, where, input (its number), file
    peak: int  # bytes that one input took at most
    seconds: float  # of processor time


def attack(target: Target, inputs: int, seed: int, folder: Path, keep: Path | None = None) -> Report:
    """Gives a reader hostile versions of its valid files.

    Args:
        target: the reader.
        inputs: how many.
        seed: input n is a function of (seed, the target's name, n).
        folder: for the files; everything outside must stay as it is.
        keep: a folder for the first file of each fault.
    """
    folder.mkdir()
    os.environ["XDG_CACHE_HOME"] = str(folder / CACHE)
    before = _cpu()
    _in_child(lambda: _prepare(target, folder), lambda line: None)
    accepted = refused = peak = done = 0
    faults: dict[Problem, dict[str, Any]] = {}

    def fault(number: int, problem: Problem) -> None:
        kind = problem[0].split(":")[0], problem[1]
        found = faults.setdefault(kind, {"what": problem[0], "where": problem[1], "input": number, "times": 0})
        found["times"] += 1
        if found["times"] == 1 and keep is not None:
            path, content = _input(target, _valid(target, folder), seed, number)
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{target.name}-{number}-{path.name}").write_bytes(content)

    while done < inputs:
        lines: list[dict[str, Any]] = []
        stop = min(done + BATCH, inputs)
        ending = _in_child(lambda a=done, b=stop: _read_all(target, folder, seed, range(a, b)), lines.append)
        for line in lines:
            peak = max(peak, line.get("peak", 0))
            accepted += line.get("accepted", 0)
            refused += line.get("refused", 0)
            if "what" in line:
                fault(line["input"], (line["what"], line["where"]))
        done = stop
        if ending is not None:  # the input that it had begun
            number = lines[-1]["input"] if lines else stop - BATCH
            fault(number, (ending, ""))
            done = number + 1
    return Report(target.name, accepted, refused, list(faults.values()), peak, _cpu() - before)


def _prepare(target: Target, folder: Path) -> Iterator[dict[str, Any]]:
    _silence()
    target.write(folder)
    yield {}


def _silence() -> None:
    """Drops what libraries print."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _valid(target: Target, folder: Path) -> dict[Path, bytes]:
    paths = {path for pattern in target.files for path in folder.glob(pattern) if path.is_file()}
    return {path: path.read_bytes() for path in sorted(paths) if CACHE not in path.parts}


def _input(target: Target, valid: dict[Path, bytes], seed: int, number: int) -> tuple[Path, bytes]:
    rng = random.Random(f"{seed} {target.name} {number}")
    path = rng.choice(list(valid))
    return path, mutate(rng, valid[path], list(valid.values()))


def _read_all(target: Target, folder: Path, seed: int, numbers: range) -> Iterator[dict[str, Any]]:
    valid = _valid(target, folder)
    if not numbers.start:  # the files as they are must be read, or nothing is tested
        for path in valid:
            target.read(folder, path)
    _silence()
    guard = Guard(folder)
    sys.addaudithook(guard)
    resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + MEMORY,) * 2)
    for number in numbers:
        path, content = _input(target, valid, seed, number)
        path.write_bytes(content)
        yield {"input": number}
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = _memory("VmHWM")
        signal.setitimer(signal.ITIMER_PROF, CPU)
        signal.alarm(WAIT)
        guard.seen.clear()
        line: dict[str, Any] = {"input": number}
        problem = outcome(lambda path=path: target.read(folder, path), folder)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if guard.seen:
            problem = f"does {guard.seen[0]}", ""
        if problem is None or problem == REFUSED:
            line["accepted" if problem is None else "refused"] = 1
        else:
            line["what"], line["where"] = problem
        yield line | {"peak": 1024 * max(0, _memory("VmHWM") - start)}
        if path.read_bytes() != content and "what" not in line:
            yield {"input": number, "what": "changes the file that it reads", "where": ""}
        path.write_bytes(valid[path])


REFUSED: Problem = ("refused", "")


def outcome(read: Callable[[], object], folder: Path) -> Problem | None:
    """None for success, `REFUSED` for the documented error, else what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except (ValueError, KeyError, OSError) as error:
        text = str(error)
        kind, where = type(error), _origin(error)
        if kind not in (ValueError, KeyError, FileNotFoundError) and not isinstance(error, OSError):
            return f"{kind.__name__}: {text[:200]}", where
        if str(folder) not in text and "/dev/zero" not in text:  # as labels of ours name it
            return f"does not name the file: {kind.__name__}: {text[:200]}", where
        if "\n" in text or len(text) > LONGEST:
            return f"more than a line: {text[:200]!r}", where
        return REFUSED
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}", _origin(error)
    return None


def _origin(error: BaseException) -> str:
    """The last line of the package that raised."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if not any(part in code.co_filename for part in ("fuzzing", "site-packages", "/lib/", "<")):
            found = f"{'/'.join(Path(code.co_filename).parts[-3:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


class Guard:
    """An audit hook that notes and stops what no reader may do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = str(folder.resolve()), list[str]()

    def __call__(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and isinstance(path, str | bytes) and not self._inside(path):
                self._stop(f"open {os.fsdecode(path)!r} for writing")
        elif event.startswith(CHANGING):
            if not all(self._inside(each) for each in args if isinstance(each, str | bytes)):
                self._stop(f"{event} {args}")
        elif event.startswith(EXECUTING):
            self._stop(f"{event} {args}")

    def _inside(self, path: str | bytes) -> bool:
        text = os.path.realpath(os.fsdecode(path))
        return text.startswith((self.folder + os.sep, "/proc/self/", f"/proc/{os.getpid()}/", "/dev/null"))

    def _stop(self, what: str) -> None:
        self.seen.append(what[:300])
        raise PermissionError(f"a reader must not {what}")


def _in_child(work: Callable[[], Iterator[dict[str, Any]]], take: Callable[[dict[str, Any]], object]) -> str | None:
    """Runs `work` in a forked process and hands on its lines; returns why the process ended early, else None."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code, errors = 1, os.dup(2)
        try:
            os.close(reading)
            for line in work():
                os.write(writing, json.dumps(line).encode() + b"\n")
            code = 0
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as lines:
        for line in lines:
            take(json.loads(line))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status > 0:
        raise RuntimeError("the valid files cannot be read, or the test itself failed: see above")
    if status < 0:
        return {signal.SIGPROF: f"over {CPU:.0f} s of processor time", signal.SIGALRM: "hangs"}.get(
            signal.Signals(-status), f"the process ends with {signal.Signals(-status).name}"
        )
    return None


def _memory(key: str) -> int:
    """Of this process, in bytes (VmData) or kB (VmHWM) as the kernel counts them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * (1024 if key == "VmData" else 1)
    raise RuntimeError(f"this kernel does not report {key}")


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)
