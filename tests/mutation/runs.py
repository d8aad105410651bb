"""A pytest plugin that records which test runs which line, or tries each mutant on the tests that run its line.

A mutant is tried in a fork of a process that has collected all tests. The fork gives its function the changed code,
and writes the file, for tests that start other interpreters. A mutant of code that runs at import is tried in a new
interpreter, on the files with the module's tests.
"""

import functools
import gc
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest

from tests.mutation.mutants import Mutant, chosen_mutants

# How many seconds a run of whole files may take.
_SECONDS_ANEW = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutation", "mutation run")
    group.addoption("--mutation-map", metavar="FILE", help="note which test runs which line")
    group.addoption("--mutation-plan", metavar="FILE", help="try the mutants of this plan")


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start before any module of `bridge` is imported."""
    given = early_config.known_args_namespace
    if given.mutation_map:
        early_config.pluginmanager.register(_Mapping(Path(given.mutation_map)))
    if given.mutation_plan:
        early_config.pluginmanager.register(_Trial(json.loads(Path(given.mutation_plan).read_text(encoding="utf-8"))))


class _Mapping:
    """Measures each test: how long it takes, and which lines it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._coverage = coverage.Coverage(data_file=None, source=["bridge"], concurrency=["thread"], config_file=False)
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._caches: list[Any] = []
        self._coverage.start()

    def pytest_collection_finish(self) -> None:
        gc.unfreeze()  # otherwise frozen objects would not be found
        found = [each for each in gc.get_objects() if type(each) is type(functools.cache(len))]
        self._caches = [each for each in found if each.__module__.startswith("bridge")]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        for cache in self._caches:  # otherwise only the first test would run the cached functions
            cache.cache_clear()
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self._seconds[item.nodeid] = time.perf_counter() - began
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:  # without a mutant, so it would "kill" all of them
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._coverage.stop()
        tests: list[str] = list(self._seconds)
        numbers = {test: number for number, test in enumerate(tests)}
        passed = numbers.keys() - self._failed
        measured, lines, imported = self._coverage.get_data(), {}, {}
        for file in measured.measured_files():
            contexts = measured.contexts_by_lineno(file)
            name = file.partition("/bridge/")[2]
            lines[name] = {
                line: sorted(numbers[each] for each in names if each in passed) for line, names in contexts.items()
            }
            imported[name] = [line for line, names in contexts.items() if "" in names]
        result = {"tests": tests, "seconds": list(self._seconds.values()), "lines": lines, "imported": imported}
        self._path.write_text(json.dumps(result), encoding="utf-8")


class _Trial:
    """Tries mutants one after the other, and appends their outcomes to a file."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._map = json.loads(Path(plan["map"]).read_text(encoding="utf-8"))
        self._map["imported"] = {name: set(lines) for name, lines in self._map["imported"].items()}
        self._results = Path(plan["results"])
        mutants = chosen_mutants(Path("src/bridge"), plan["seed"], plan["sample"], plan["modules"])
        only = set(plan["only"])
        mine = [each for number, each in enumerate(mutants) if number % plan["workers"] == plan["worker"]]
        self._mutants = [each for each in mine if each.name in only]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        functions: dict[tuple[Path, tuple[str, int]], list[FunctionType]] = defaultdict(list)
        gc.unfreeze()  # otherwise frozen objects would not be found
        for each in gc.get_objects():
            if type(each) is FunctionType:
                code = each.__code__
                functions[Path(code.co_filename), (code.co_qualname, code.co_firstlineno)].append(each)
        gc.freeze()
        for mutant in self._mutants:
            files = self._files_of(mutant)
            if mutant.function is None or self._runs_at_import(mutant):
                self._try(mutant, files, _SECONDS_ANEW, functools.partial(run_anew, files))
            else:
                tests = self._tests_of(mutant)
                chosen = [items[name] for name, _ in tests if name in items]
                found = functions[mutant.path.resolve(), mutant.function]
                seconds = sum(seconds for _, seconds in tests)
                self._try(
                    mutant, chosen, seconds, functools.partial(run_swapped, mutant, found, session, chosen, files)
                )
        return True

    def _runs_at_import(self, mutant: Mutant) -> bool:
        imported = self._map["imported"].get(mutant.name.partition(":")[0], set())
        return not imported.isdisjoint(mutant.lines)

    def _files_of(self, mutant: Mutant) -> list[str]:
        """Return the files whose tests run the mutant's module, starting with the module's own."""
        lines = self._map["lines"].get(mutant.name.partition(":")[0], {})
        hits = {number for numbers in lines.values() for number in numbers}
        files = [test.partition("::")[0] for test in self._map["tests"]]
        of_module, of_all = Counter(files[number] for number in hits), Counter(files)
        return sorted(
            (file for file in of_module if not file.startswith("conformance/src")),
            key=lambda file: (-of_module[file] / of_all[file], file),
        )[:3]

    def _tests_of(self, mutant: Mutant) -> list[tuple[str, float]]:
        """Return the tests that run the mutant's statement: those of its room first, and the fastest of each first."""
        lines = self._map["lines"].get(mutant.name.partition(":")[0], {})
        numbers = {number for line in mutant.lines for number in lines.get(str(line), ())}
        tests = [(self._map["tests"][number], self._map["seconds"][number]) for number in numbers]
        tests.sort(key=lambda test: (test[0].startswith("conformance/src"), test[1]))
        chosen, left = [], self._plan["seconds"]
        for name, seconds in tests:
            left -= seconds
            if left < 0:
                break
            chosen.append((name, seconds))
        return chosen

    def _try(self, mutant: Mutant, tests: Sequence[object], seconds: float, run_tests: Callable[[], None]) -> None:
        """Run tests in a fork, and record the outcome."""
        path, before = mutant.path, mutant.path.read_text(encoding="utf-8")
        began = time.monotonic()
        outcome = "no test"
        if tests:
            path.write_text(mutant.source, encoding="utf-8")
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                with open(os.devnull, "wb") as null:
                    os.dup2(null.fileno(), 1)
                    os.dup2(null.fileno(), 2)
                run_tests()
            outcome = "survived" if _wait(pid, 30 + 5 * seconds) == 0 else "killed"
            path.write_text(before, encoding="utf-8")
        result = {"mutant": mutant.name, "outcome": outcome, "tests": len(tests)}
        with self._results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result | {"seconds": round(time.monotonic() - began, 2)}) + "\n")


def _wait(pid: int, seconds: float) -> int:
    """Return the exit status of a fork, after killing all processes that it has started."""
    ends = time.monotonic() + seconds
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            os.killpg(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # no process is left
    return os.waitstatus_to_exitcode(ended[1])


def run(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Run tests up to the first failure, and exit."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            os._exit(1)
    os._exit(0)


def run_swapped(
    mutant: Mutant, functions: list[FunctionType], session: pytest.Session, items: list[pytest.Item], files: list[str]
) -> None:
    """Run tests with the mutant's function, or in a new interpreter if the function cannot get the changed code."""
    if not swap(mutant, functions):
        run_anew(files)
    run(session, items)


def run_anew(files: list[str]) -> None:
    """Run all tests of some files in a new interpreter, in this process, up to the first that fails."""
    options = ["-x", "-q", "--timeout", "15", "-p", "no:cacheprovider"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, *files])


def swap(mutant: Mutant, functions: list[FunctionType]) -> bool:
    """Give the mutant's function its code, wherever it is: in a class, behind a decorator, in another module."""
    if not functions:
        return False
    code = next(
        each
        for each in _codes(compile(mutant.source, functions[0].__code__.co_filename, "exec"))
        if (each.co_qualname, each.co_firstlineno) == mutant.function
    )
    if any(each.__code__.co_freevars != code.co_freevars for each in functions):
        return False
    for each in functions:
        each.__code__ = code
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
