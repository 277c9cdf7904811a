"""Read the reports of a check, test results (JUnit XML) and coverage (lcov or Cobertura), and summarize them.

The files come from the app's own commands and are not trusted, so XML is parsed with defusedxml, which rejects
entities. Coverage is parsed here because the libraries on PyPI convert or compare whole reports, need lxml, or count a
file once for each lcov record that names it.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import junitparser
from defusedxml import DefusedXmlException, ElementTree

from headway.domain.errors import CheckFailed
from headway.domain.source import CheckReport, Coverage, Failure
from headway.system import untrusted_files

__all__ = ["coverage", "junit", "summary_markdown"]

LARGEST = 64 * 2**20  # bytes of a report
DEEPEST = 100  # nested elements
LONGEST_MESSAGE = 2000
MOST_SHOWN = 50


# --- test results ------------------------------------------------------------------------------------------------


def junit(workspace: Path, pattern: str) -> tuple[int, tuple[Failure, ...]]:
    """Number of tests that ran, without skipped ones, and the failures, over all reports that match `pattern`.

    Raises CheckFailed when there is no such report or one of them cannot be read.
    """
    paths = sorted(path for path in workspace.glob(pattern) if not path.is_dir())
    if not paths:
        raise CheckFailed(
            f"{pattern}: the check wrote no such report", "have it write JUnit XML there, or correct `reports`"
        )
    tests, failures = 0, []
    for path in paths:
        for case in _cases(_read_junit(path, workspace)):
            tests += not case.is_skipped
            failures += _failures(case)
    return tests, tuple(failures)


def _read_junit(path: Path, workspace: Path) -> Any:
    shown = path.relative_to(workspace)
    try:
        content = untrusted_files.read(path, workspace, LARGEST)
        return junitparser.JUnitXml.fromroot(_parsed(content))
    except untrusted_files.NotReadable as refused:
        raise CheckFailed(f"{shown}: {refused}", _WRITE_AGAIN) from refused
    except (ParseError, DefusedXmlException, junitparser.JUnitXmlError, ValueError, OSError) as error:
        raise CheckFailed(f"{shown}: no JUnit XML: {_one_line(error)}", _WRITE_AGAIN) from error


def _parsed(content: bytes) -> Any:
    """The root element. Raises ValueError when elements are nested so deep that Python's recursion would end."""
    depth, root = 0, None
    for event, element in ElementTree.iterparse(io.BytesIO(content), events=("start", "end")):
        depth += 1 if event == "start" else -1
        root = element if root is None else root
        if depth > DEEPEST:
            raise ValueError(f"its elements are nested more than {DEEPEST} deep")
    return root


_WRITE_AGAIN = "did the command end before it had written all of it? Its output is in the log"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _cases(report: Any) -> Iterator[Any]:
    """All test cases of a report with one or several, possibly nested, suites."""
    for suite in [report] if isinstance(report, junitparser.TestSuite) else report:
        yield from suite


def _failures(case: Any) -> list[Failure]:
    name = ".".join(filter(None, (case.classname, case.name))) or "a test without a name"
    bad = [result for result in case.result if isinstance(result, junitparser.Failure | junitparser.Error)]
    return [Failure(name=name, message=_message(result)) for result in bad]


def _message(result: Any) -> str:
    message = (result.message or "").strip() or (result.text or "").strip() or "no message"
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " ..."


# --- coverage ----------------------------------------------------------------------------------------------------


def coverage(path: Path, workspace: Path) -> Coverage:
    """Covered and coverable lines of an lcov or Cobertura file. The format is detected from the content.

    Raises CheckFailed when the file does not exist or has neither format.
    """
    try:
        content = untrusted_files.read(path, workspace, LARGEST).removeprefix(codecs.BOM_UTF8).lstrip()
    except untrusted_files.NotReadable as refused:
        raise CheckFailed(f"{path.name}: {refused}", _WRITE_AGAIN) from refused
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckFailed(
            f"{path.name}: the check wrote no such coverage report", "have it write one there, or correct `coverage`"
        ) from error
    try:
        return _cobertura(content) if content.startswith(b"<") else _lcov(content.decode(errors="replace"))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise CheckFailed(f"{path.name}: neither lcov nor Cobertura: {_one_line(error)}", _WRITE_AGAIN) from error


def _lcov(text: str) -> Coverage:
    """Count `DA:line,hits` entries by file. A line in several records is covered when one of them hit it."""
    hits: dict[tuple[str, int], bool] = {}
    file = None
    for number, row in enumerate(text.splitlines(), start=1):
        kind, _, value = row.strip().partition(":")
        if kind == "SF":
            file = value
        elif kind == "DA":
            fields = re.match(r"(\d+),(-?\d+)", value)
            if file is None or not fields:
                raise ValueError(f"line {number}: {row[:80]!r}")
            line = (file, int(fields[1]))
            hits[line] = hits.get(line, False) or int(fields[2]) > 0
    if file is None:
        raise ValueError("it names no source file")
    return Coverage(covered=sum(hits.values()), lines=len(hits))


def _cobertura(content: bytes) -> Coverage:
    """The totals of the report, or a count of its lines: early versions have no totals."""
    root = _parsed(content)
    if root.tag != "coverage" or root.find("packages") is None:
        raise ValueError(f"its root is <{root.tag}>")
    if root.get("lines-valid") is not None:
        return Coverage(covered=int(root.get("lines-covered", "0")), lines=int(root.get("lines-valid", "0")))
    hits: dict[tuple[str | None, str | None], bool] = {}
    for each in root.iter("class"):
        for line in each.iterfind("lines/line"):
            key = (each.get("filename"), line.get("number"))
            hits[key] = hits.get(key, False) or int(line.get("hits", "0")) > 0
    return Coverage(covered=sum(hits.values()), lines=len(hits))


# --- summary -----------------------------------------------------------------------------------------------------


def summary_markdown(report: CheckReport, before: Coverage | None) -> str:
    """The report as Markdown: the result, failed tests with their messages, coverage and its change since `before`."""
    parts = [f"# {report.name}: {'passed' if report.passed else 'failed'}"]
    if report.tests is not None:
        parts.append(f"{report.tests} tests, {len(report.failures)} failed, in {report.seconds:.1f} s")
    if report.coverage is not None:
        parts.append(_coverage_line(report.coverage, before))
    parts += [f"## {_code(failure.name)}\n\n{_block(failure.message)}" for failure in report.failures[:MOST_SHOWN]]
    if len(report.failures) > MOST_SHOWN:
        parts.append(f"... and {len(report.failures) - MOST_SHOWN} more")
    return "\n\n".join(parts) + "\n"


def _coverage_line(now: Coverage, before: Coverage | None) -> str:
    line = f"Coverage: **{now.percent:.1f} %** ({now.covered} of {now.lines} lines)"
    if before is None:
        return f"{line}, the first that is known"
    change = round(now.percent - before.percent, 1)
    if not change:
        return f"{line}, as in the last release"
    return f"{line}, {change:+.1f} points since the last release ({before.percent:.1f} %)"


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def _block(text: str) -> str:
    """Fenced code block. The fence must be longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
