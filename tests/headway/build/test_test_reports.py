from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headway.build import test_reports
from headway.domain.errors import CheckFailed
from headway.domain.source import CheckReport, Coverage, Failure

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
SUITE = """<testsuite name="s" tests="4">
  <testcase classname="tests.test_a" name="test_fine"/>
  <testcase classname="tests.test_a" name="test_wrong"><failure message="1 is not 2">trace</failure></testcase>
  <testcase name="test_broken"><error>KeyError: 4</error></testcase>
  <testcase classname="tests.test_a" name="test_left"><skipped/></testcase>
</testsuite>"""
FAILURES = (
    Failure(name="tests.test_a.test_wrong", message="1 is not 2"),
    Failure(name="test_broken", message="KeyError: 4"),
)


# --- test results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xml", "times"),
    [
        (SUITE, 1),
        (f"<testsuites>{SUITE}{SUITE}</testsuites>", 2),
        (f"<testsuites><testsuite name='outer'>{SUITE}<testsuite>{SUITE}</testsuite></testsuite></testsuites>", 2),
        (f"<?xml version='1.0' encoding='utf-8'?>\n<testsuites>{SUITE}</testsuites>\n", 1),
    ],
)
def test_junit(tmp_path: Path, xml: str, times: int) -> None:
    (tmp_path / "junit.xml").write_text(xml)
    assert test_reports.junit(tmp_path, "junit.xml") == (3 * times, FAILURES * times)


def test_report_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2, 'one is \\x1b[1mnot\\x1b[0m two'\n"
        "@pytest.mark.skip\ndef test_c(): pass\n"
        "@pytest.fixture\ndef bad(): raise LookupError('x')\ndef test_d(bad): 1\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "--junitxml=r/unit.xml", "-p", "no:cacheprovider", "-p", "no:randomly"]
    subprocess.run(run, cwd=tmp_path, check=False, capture_output=True)
    tests, failures = test_reports.junit(tmp_path, "r/*.xml")
    assert tests == 3
    assert [failure.name for failure in failures] == ["test_it.test_b", "test_it.test_d"]
    assert "one is" in failures[0].message
    assert "LookupError" in failures[1].message


def test_many_reports(tmp_path: Path) -> None:
    for name in ("a.xml", "deep/b.xml", "deep/er/c.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(SUITE)
    assert test_reports.junit(tmp_path, "**/*.xml")[0] == 9
    assert test_reports.junit(tmp_path, "deep/*.xml")[0] == 3


def test_no_tests(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text("<testsuites/>")
    assert test_reports.junit(tmp_path, "junit.xml") == (0, ())


def test_missing_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"^r/\*\.xml: the check wrote no such report\n  hint: .*JUnit"):
        test_reports.junit(tmp_path, "r/*.xml")


@pytest.mark.parametrize("content", ["", "no xml", SUITE[:-30], "<html></html>", f"{BOMB}<testsuites>&b;</testsuites>"])
def test_a_report_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/junit.xml").write_text(content)
    with pytest.raises(CheckFailed, match=r"^r/junit\.xml: no JUnit XML: ") as failed:
        test_reports.junit(tmp_path, "r/*.xml")
    assert "\n" not in failed.value.what
    assert failed.value.hint


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(SUITE.replace("1 is not 2", "x" * 10_000))
    assert len(test_reports.junit(tmp_path, "junit.xml")[1][0].message) < 2100


# --- coverage ----------------------------------------------------------------------------------------------------

LCOV = "TN:\nSF:a.js\nFN:1,f\nDA:1,5\nDA:2,0\nDA:3,1,checksum\nLF:3\nLH:2\nend_of_record\n"
COBERTURA = """<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM 'http://cobertura.sourceforge.net/xml/coverage-04.dtd'>
<coverage line-rate="0.5" {totals}><packages><package><classes>
<class filename="a.py"><methods><method><lines><line number="1" hits="2"/></lines></method></methods>
<lines><line number="1" hits="2"/><line number="2" hits="0"/></lines></class>
<class filename="a.py"><lines><line number="2" hits="1"/><line number="9" hits="0"/></lines></class>
</classes></package></packages></coverage>"""


@pytest.mark.parametrize(
    ("content", "covered", "lines"),
    [
        (LCOV, 2, 3),
        (LCOV.replace("\n", "\r\n"), 2, 3),
        (LCOV + LCOV.replace("a.js", "b.js"), 4, 6),
        (LCOV + "SF:a.js\nDA:2,7\nend_of_record\n", 3, 3),
        ("SF:empty.js\nend_of_record\n", 0, 0),
        (COBERTURA.format(totals='lines-valid="10" lines-covered="7"'), 7, 10),
        (COBERTURA.format(totals=""), 2, 3),
        ("\ufeff\n" + COBERTURA.format(totals="").split("\n", 1)[1], 2, 3),
    ],
)
def test_coverage(tmp_path: Path, content: str, covered: int, lines: int) -> None:
    path = tmp_path / "whatever"
    path.write_bytes(content.encode())
    assert test_reports.coverage(path, tmp_path) == Coverage(covered=covered, lines=lines)


@pytest.mark.parametrize("kind", ["lcov", "xml"])
def test_report_of_coverage_py(tmp_path: Path, kind: str) -> None:
    (tmp_path / "program.py").write_text("a = 1\nif a == 2:\n    a = 3\nprint(a)\n")
    for arguments in (["run", "program.py"], [kind, "-o", "report"]):
        subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert test_reports.coverage(tmp_path / "report", tmp_path) == Coverage(covered=3, lines=4)


def test_missing_coverage_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="the check wrote no such coverage report"):
        test_reports.coverage(tmp_path / "lcov.info", tmp_path)


def test_coverage_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "lcov.info").mkdir()
    with pytest.raises(CheckFailed, match=r"^lcov\.info: is not a regular file"):
        test_reports.coverage(tmp_path / "lcov.info", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "hello",
        "DA:1,1\n",
        "SF:a\nDA:one,1\n",
        "SF:a\nDA:1,",
        "<html/>",
        "<coverage><project/></coverage>",
        COBERTURA.format(totals="")[:-40],
        COBERTURA.format(totals='lines-valid="many"'),
        f"{BOMB}<coverage><packages/>&b;</coverage>",
    ],
)
def test_coverage_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lcov.info"
    path.write_text(content)
    with pytest.raises(CheckFailed, match=r"^lcov\.info: neither lcov nor Cobertura: ") as failed:
        test_reports.coverage(path, tmp_path)
    assert failed.value.hint


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "../outside.xml"])
def test_a_report_that_is_a_link(tmp_path: Path, target: str) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "outside.xml").write_text(SUITE)
    (workspace / "report.xml").symlink_to(target)
    with pytest.raises(CheckFailed, match=r"^report\.xml: is a symbolic link"):
        test_reports.coverage(workspace / "report.xml", workspace)
    with pytest.raises(CheckFailed, match=r"^report\.xml: is a symbolic link"):
        test_reports.junit(workspace, "*.xml")


def test_a_report_without_an_end(tmp_path: Path) -> None:
    with (tmp_path / "junit.xml").open("wb") as file:
        file.truncate(test_reports.LARGEST + 1)
    with pytest.raises(CheckFailed, match=r"^junit\.xml: is larger than 64 MiB"):
        test_reports.junit(tmp_path, "junit.xml")


def test_a_report_that_is_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text("<testsuites>" + "<testsuite>" * 200_000)
    with pytest.raises(CheckFailed, match="nested more than 100 deep"):
        test_reports.junit(tmp_path, "junit.xml")
    (tmp_path / "coverage.xml").write_text("<coverage>" + "<class>" * 200_000)
    with pytest.raises(CheckFailed, match="nested more than 100 deep"):
        test_reports.coverage(tmp_path / "coverage.xml", tmp_path)


# --- for a person ------------------------------------------------------------------------------------------------


def test_summary() -> None:
    failures = (Failure(name="t.test_`a`", message="expected\n```\nx\n```"),)
    report = CheckReport(
        name="unit",
        passed=False,
        seconds=1.25,
        tests=3,
        failures=failures,
        coverage=Coverage(covered=80, lines=100),
    )
    assert test_reports.summary_markdown(report, Coverage(covered=90, lines=120)) == (
        "# unit: failed\n\n3 tests, 1 failed, in 1.2 s\n\n"
        "Coverage: **80.0 %** (80 of 100 lines), +5.0 points since the last release (75.0 %)\n\n"
        "## `t.test_'a'`\n\n````text\nexpected\n```\nx\n```\n````\n"
    )


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (None, "the first that is known"),
        (Coverage(covered=8, lines=10), "as in the last release"),
        (Coverage(covered=9, lines=10), "-10.0 points"),
    ],
)
def test_change_of_coverage(before: Coverage | None, said: str) -> None:
    report = CheckReport(name="unit", passed=True, seconds=1, coverage=Coverage(covered=80, lines=100))
    summary = test_reports.summary_markdown(report, before)
    assert said in summary
    assert "tests" not in summary


def test_a_summary_names_a_bearable_number_of_failures() -> None:
    failures = tuple(Failure(name=f"t{number}", message="m") for number in range(60))
    report = CheckReport(name="unit", passed=False, seconds=1, tests=60, failures=failures)
    summary = test_reports.summary_markdown(report, None)
    assert summary.count("## `t") == 50
    assert "... and 10 more" in summary
