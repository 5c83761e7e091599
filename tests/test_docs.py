"""What the README says is so: commands, outputs, code, files and names."""

import doctest
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import pytest
import readme_tables

import npbert
import npbert.distributed
import npbert.serving
from npbert import textbook
from npbert.cli import build_parser
from npbert.tasks.rows import TASKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ROOMS = sorted((ROOT / "npbert").glob("*/README.md"))  # of rooms; those of models are deeper
PAGES = [README, *(path.read_text("utf-8") for path in ROOMS)]
MORE = (
    "info", "bench", "convert", "trace", "compare", "diagnose", "verify", "kit", "download",
    "explain", "search", "similarity", "serve",
)  # fmt: skip  # commands but tasks
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def blocks(language: str, pages: Sequence[str] = (README,)) -> list[str]:
    return [
        block
        for page in pages
        for block in re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    ]


def digit(number: str) -> float:
    """Return what the last digit of a number is worth."""
    mantissa, _, power = number.partition("e")
    return 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))


def alike(ours: str, theirs: str) -> bool:
    """Tell whether texts are equal, numbers to the digits shown in theirs; BLAS differ by 1e-6."""
    # NumPy pads a number that ends in zeros
    ours, theirs = (re.sub(r" +([,\]])", r"\1", text) for text in (ours, theirs))
    if NUMBER.sub("#", ours) != NUMBER.sub("#", theirs):
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True)
    return all(abs(float(a) - float(b)) <= max(0.51 * digit(b), 1e-6) for a, b in pairs)


def sessions() -> list[tuple[str, str]]:
    """Return every command that the README shows after a $, and the output shown below it."""
    parts = [
        part for block in blocks("console", PAGES) for part in re.split(r"^\$ ", block, flags=re.M)
    ]
    return [tuple(part.split("\n", 1)) for part in parts if part]


def run(command: str) -> str:
    """Run a command of the README as a person would, and return all that the screen shows."""
    folder = str(Path(sys.executable).parent)
    env = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = re.sub(r"\bnpbert ", f"{sys.executable} -m npbert ", command, count=1)
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=env, text=True, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=lambda text: text[:60])
def test_a_command_of_the_readme_prints_what_it_shows(command, shown):
    assert alike(run(command), shown), run(command)


def test_a_number_that_is_not_the_one_shown_is_noticed():
    assert alike("0.98354 in 1.2e-07", "0.9835 in 1.3e-07")
    assert not alike("0.9836", "0.9835")
    assert not alike("0.9835 s", "0.9835")


def test_the_first_command_prints_what_it_shows():
    command = blocks("sh")[0].split("&& ")[1]
    assert alike(run(command), blocks("json")[0]), run(command)


def test_the_library_session_prints_what_it_shows(monkeypatch):
    monkeypatch.chdir(ROOT)

    class Checker(doctest.OutputChecker):
        def check_output(self, want: str, got: str, flags: int) -> bool:
            return alike(got, want)

    (session,) = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(session, {}, "README", "README.md", 0)
    printed: list[str] = []
    doctest.DocTestRunner(checker=Checker()).run(test, out=printed.append)
    assert "".join(printed) == ""
    assert len(test.examples) >= 8


def test_the_attention_shown_is_the_attention_that_runs():
    (shown,) = blocks("python")
    assert shown == inspect.getsource(textbook.attention)


def test_the_hook_for_pytorch_is_the_one_that_recorded_the_golden_dumps():
    (hook,) = (code for code in blocks("python", PAGES) if "register_forward_hook" in code)
    assert hook in (ROOT / "golden" / "record" / "hook.py").read_text("utf-8")


def test_every_promise_is_held_by_tests():
    promises = README.partition("<!-- promises -->")[2].partition("<!-- /promises -->")[0]
    rows = [line.strip("| ").split(" | ") for line in promises.strip().splitlines()[2:]]
    assert len(rows) >= 13
    for promise, held_by in rows:
        names = re.findall(r"`(test_\w+\.py)`", held_by)
        assert names, promise
        for name in names:
            assert "\ndef test_" in (ROOT / "tests" / name).read_text("utf-8"), promise


def test_ci_runs_the_two_commands_to_the_letter():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    commands = [command for command in blocks("sh") if command.startswith("python -m pip")]
    assert len(commands) == 2
    for command in commands:
        assert f"\n{command}" in script


def test_the_map_lists_exactly_the_rooms_there_are():
    toured = re.findall(r"^\| `([a-z_]+(?:\.py|/))` \|", README, re.MULTILINE)
    package = Path(npbert.__file__).parent
    there = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {f"{p.name}/" for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert sorted(toured) == sorted(there)


def test_the_newcomers_paths_name_modules_there_are_each_once():
    paths = re.findall(r"^\d\. .*: (`.* → .*`)$", README, re.MULTILINE)
    assert len(paths) == 2
    for path in paths:
        modules = re.findall(r"`([\w/]+\.py)`", path)
        assert len(set(modules)) == len(modules) == path.count("→") + 1
        assert [name for name in modules if not (ROOT / "npbert" / name).is_file()] == []


def test_the_readme_has_at_most_400_lines_and_its_tasks_come_early():
    lines = README.splitlines()
    assert len(lines) <= 400
    early = "\n".join(lines[:60])
    assert "<!-- /tasks -->" in early  # the table of tasks
    assert "F1 0.660" in early  # how good the built-in models are
    assert "embed.similarity(" in early  # how similar texts are found


def test_the_links_of_every_page_lead_somewhere():
    for path in [ROOT / "README.md", *ROOMS]:
        text = path.read_text("utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#[\w-]+)?\)", text):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_page_to_read_is_as_long_as_it_is_said_to_be():
    package = Path(npbert.__file__).parent
    pages = [package / f"{name}.py" for name in ("textbook", "encoder", "heads")]
    lines = sum(len(page.read_text("utf-8").splitlines()) for page in pages)
    assert f"reads {lines} lines in one" in README


@pytest.mark.parametrize("name", readme_tables.TABLES)
def test_a_table_is_made_from_the_rows(name):
    path, make = readme_tables.TABLES[name]
    (shown,) = readme_tables.between(name).findall(path.read_text("utf-8"))
    assert shown == make(), "python tests/helpers/readme_tables.py makes it anew"


def test_every_command_in_the_readme_exists_and_every_command_is_in_the_readme():
    usage = build_parser().format_usage() + build_parser().format_help()
    code = "\n".join([*blocks("sh", PAGES), *blocks("console", PAGES)])
    named = set(re.findall(r"^(?:\$ .*)?\bnpbert ([a-z][\w-]*)", code, re.MULTILINE))
    named |= set(re.findall(r"`npbert ([a-z][\w-]*)", README))
    assert named == {*TASKS, *MORE}
    assert all(name in usage for name in named)


def test_every_public_function_is_described_with_its_real_parameters():
    for name in (
        "load", "init", "pipeline", "trace", "compare", "diagnose", "explain",
        "distributed.map_dataframe", "semantic_search", "serving.app",
    ):  # fmt: skip
        (row,) = re.findall(rf"^\| `npbert\.{name}\((.*?)\)` \|", README, re.MULTILINE)
        real = inspect.signature(attrgetter(name)(npbert)).parameters
        shown = [part.split("=")[0].strip(" *") for part in row.split(",")]
        assert [part for part in shown if part] == list(real)


def test_the_model_cards_tell_what_was_measured():
    for name in ("sentiment", "fill-mask", "ner", "embedding"):
        card = (Path(npbert.__file__).parent / "demo" / name / "README.md").read_text("utf-8")
        assert "**Measured**" in card
        assert "**Licence**: Apache-2.0" in card


def test_the_manifest_lists_every_golden_file():
    golden = ROOT / "golden"
    manifest = json.loads((golden / "MANIFEST.json").read_text("utf-8"))
    there = {
        p.relative_to(golden).as_posix()
        for p in golden.rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc") and p.name != "MANIFEST.json"
    }
    assert set(manifest["files"]) == there


def test_the_whole_of_golden_is_under_20_mb():
    assert sum(p.stat().st_size for p in (ROOT / "golden").rglob("*") if p.is_file()) < 20_000_000
