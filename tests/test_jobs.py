"""Batch jobs: nothing is lost, repeated or torn, wherever they stop."""

import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.cli import main
from npbert.jobs.lines import LINE_LIMIT

NPBERT = [sys.executable, "-m", "npbert"]
CLASSIFY = "text-classification"
WORDS = ("a", "dull", "witty", "gorgeous", "mess", "of", "plots", "that", "never", "ends", "no")


def texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


def rows(count):
    return [{"id": i, "text": text} for i, text in enumerate(texts(count))]


def write(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def read(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def job(capsys, monkeypatch):
    """Run a command here; return what it said on stderr."""

    def run(*args, stdin=b"", status=0):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        got = main(list(map(str, args)))
        out, err = capsys.readouterr()
        assert got == status, err
        assert out == ""
        return err

    return run


def quietly(*args):
    """Run a command in a process of its own."""
    return subprocess.run([*NPBERT, *map(str, args)], capture_output=True, timeout=60, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A job of 700 inputs, nearly three blocks: whole, and stopped by a bad line at the 601st."""
    folder = tmp_path_factory.mktemp("made")
    given = write(folder / "in.jsonl", rows(700))
    assert quietly(CLASSIFY, "-i", given, "-o", folder / "whole.jsonl").returncode == 0
    (folder / "bad.jsonl").write_bytes(spoilt(given.read_bytes()))
    done = quietly(CLASSIFY, "-i", folder / "bad.jsonl", "-o", folder / "o.jsonl")
    assert done.stderr.splitlines() == [
        f"npbert: {folder / 'o.jsonl'}: not finished; 512 answers are safe, and --resume goes on "
        "behind them",
        "npbert: line 601: has no text, but 'id', 'txt'; is it 'txt'? --field txt",
    ]
    return folder


def spoilt(raw):
    return raw.replace(b'{"id": 600, "text"', b'{"id": 600, "txt"')


@pytest.fixture
def whole(made, tmp_path):
    """The input, and what comes of it undisturbed."""
    shutil.copy(made / "in.jsonl", tmp_path)
    return tmp_path / "in.jsonl", (made / "whole.jsonl").read_bytes()


# ---- what is read and written -------------------------------------------------------------------


def test_every_input_is_answered_in_order_beside_its_other_fields(made):
    lines = read(made / "whole.jsonl")
    assert [line["id"] for line in lines] == list(range(700))
    answers = npbert.pipeline(CLASSIFY)(texts(700))
    assert [line["results"]["label"] for line in lines] == [each["label"] for each in answers]
    scores = [line["results"]["score"] for line in lines]
    np.testing.assert_allclose(scores, [each["score"] for each in answers], rtol=1e-5)
    assert not list(made.glob("whole.jsonl.*"))


def test_a_field_that_stands_where_another_would_is_read_alone(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("text_pair,text\nA dull mess.,A film to treasure.\n")
    answers = []
    for fields in (["text_pair"], ["text_pair", "text_pair=text"]):
        flags = [each for field in fields for each in ("--field", field)]
        assert main([CLASSIFY, "-i", str(table), *flags]) == 0
        answers.append(json.loads(capsys.readouterr().out)["results"])
    classify = npbert.pipeline(CLASSIFY)
    assert answers[0] == classify("A dull mess.")
    assert answers[1] == classify(("A dull mess.", "A film to treasure."))


def test_a_summary_stands_on_stderr(tmp_path):
    given = write(tmp_path / "in.jsonl", [{"text": "good " * 300}, {"text": "Fine."}, {}])
    done = quietly(CLASSIFY, "-i", given, "-o", tmp_path / "o", "--on-error", "record")
    assert done.returncode == 4
    cut, summed = done.stderr.splitlines()
    assert cut.startswith(
        "npbert: 1 of the texts was truncated to 256 tokens, 46 tokens were not read"
    )
    assert summed.startswith("npbert: 3 inputs, 260 tokens, 1 truncated, 1 failed; ")
    assert summed.endswith(" tokens/s")


def test_gzip_lines_and_tables_give_the_same_answers(whole, tmp_path, job):
    _, expected = whole
    found = {}
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    job(CLASSIFY, "-i", packed, "-o", tmp_path / "o.jsonl.gz")
    found["gzip"] = gzip.decompress((tmp_path / "o.jsonl.gz").read_bytes())
    job(CLASSIFY, "-i", "-", "--jsonl", "-o", tmp_path / "o", stdin=packed.read_bytes())
    found["stdin"] = (tmp_path / "o").read_bytes()
    table = tmp_path / "in.csv"
    table.write_text("id,review\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(texts(700))))
    job(CLASSIFY, "-i", table, "--field", "review", "-o", tmp_path / "t")
    found["csv"] = (tmp_path / "t").read_bytes().replace(b'"id": "', b'"id": ')
    found["csv"] = found["csv"].replace(b'", "results"', b', "results"')
    for name, raw in found.items():
        assert raw == expected, name


def test_the_same_bytes_come_out_on_stdout_whatever_the_threads(whole):
    given, expected = whole
    for threads in (1, 5):
        assert quietly(CLASSIFY, "-i", given, "--threads", threads).stdout.encode() == expected


# ---- what cannot be read ------------------------------------------------------------------------

BAD = {
    2: (b"\xff", "is not UTF-8: invalid start byte at byte 0"),
    3: (b"", "is blank, expected a JSON object"),
    5: (b"[1]", "is [1], expected a JSON object"),
    6: (b'{"id": 6, "text": 5}', "a text is a str, not int: 5"),
    7: (b'{"id": 7}', "has no text, but 'id'; --field says where it stands"),
    260: (b'{"id": 8, "text": "' + b"x" * LINE_LIMIT + b'"}',
          f"has over {LINE_LIMIT} bytes, the most that is read of a line"),
    261: (b'{"id": 9, "error": 1, "text": "a"}',
          "has a field 'error', where the answer would go"),
}  # fmt: skip


def test_what_cannot_be_read_is_recorded_by_its_line_and_the_rest_is_answered(tmp_path, job):
    good = rows(300)
    lines = [json.dumps(row).encode() for row in good]
    for number, (raw, _) in BAD.items():
        lines.insert(number - 1, raw)
    given = tmp_path / "in.jsonl"
    given.write_bytes(b"\n".join(lines))
    err = job(CLASSIFY, "-i", given, "-o", tmp_path / "o", "--on-error", "record", status=4)
    assert f"{len(BAD)} failed" in err
    answers = read(tmp_path / "o")
    assert len(answers) == len(lines)
    for number, (_, why) in BAD.items():
        answer = answers[number - 1]
        assert answer["error"] == {"line": number, "message": why}
        assert answer.get("id") == {6: 6, 7: 7, 261: 9}.get(number)
    answered = [answer for answer in answers if "error" not in answer]
    assert [answer["id"] for answer in answered] == [row["id"] for row in good]


def test_without_that_a_job_stops_there_and_goes_on_when_it_is_mended(stopped, job):
    given, out, expected = stopped
    assert not out.exists()
    job(CLASSIFY, "-i", given, "-o", out, "--resume")
    assert out.read_bytes() == expected


def test_a_job_that_fails_before_anything_is_safe_leaves_nothing(tmp_path, job):
    given = write(tmp_path / "in.jsonl", [{"text": "a"}, {}])
    err = job(CLASSIFY, "-i", given, "-o", tmp_path / "o", status=2)
    assert err == "npbert: line 2: has no text, but nothing; --field says where it stands\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_text_of_the_command_line_is_counted_as_a_text(tmp_path, job):
    err = job("fill-mask", "-o", tmp_path / "o", "--on-error", "record", "A [MASK].", "b", status=4)
    assert "1 failed" in err
    answer, failed = read(tmp_path / "o")
    assert answer["results"][0]["token_str"]
    assert failed["error"]["text"] == 1


def test_a_file_that_ends_in_the_middle_keeps_what_came_before(tmp_path, job, whole):
    given, expected = whole
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(given.read_bytes())[:-20])
    out = tmp_path / "o"
    err = job(CLASSIFY, "-i", packed, "-o", out, status=2)
    assert "the gzip file is cut off" in err
    packed.write_bytes(gzip.compress(given.read_bytes()))
    job(CLASSIFY, "-i", packed, "-o", out, "--resume")
    assert out.read_bytes() == expected


# ---- stopping and going on ----------------------------------------------------------------------


@pytest.fixture
def stopped(made, whole, tmp_path):
    """The same, stopped when two of its blocks were safe."""
    given, expected = whole
    for name in ("o.jsonl.part", "o.jsonl.part.json"):
        shutil.copy(made / name, tmp_path)
    return given, tmp_path / "o.jsonl", expected


def test_what_follows_the_safe_bytes_is_done_again(stopped, job):
    given, out, expected = stopped
    part = out.with_name("o.jsonl.part")
    safe = json.loads(out.with_name("o.jsonl.part.json").read_text())["bytes"]
    part.write_bytes(part.read_bytes()[:safe] + bytes(5000))  # as a power cut may leave it
    job(CLASSIFY, "-i", given, "-o", out, "--resume")
    assert out.read_bytes() == expected
    assert not part.exists()


def test_an_unfinished_job_is_not_begun_anew_by_chance(stopped, job):
    given, out, _ = stopped
    err = job(CLASSIFY, "-i", given, "-o", out, status=2)
    assert err == (
        f"npbert: {out}.part: 512 inputs of an unfinished job are answered there; --resume goes on "
        f"with it; delete {out}.part and its .json to start anew\n"
    )


def test_another_job_does_not_go_on_with_it(stopped, job):
    given, out, _ = stopped
    command = (CLASSIFY, "-i", given, "-o", out, "--resume")
    anew = f"delete {out}.part and its .json to start anew\n"
    err = job(*command, "--top-k", 2, status=2)
    assert err == (
        "npbert: --resume: options was {'max_length': None, 'long': 'truncate', 'top_k': 'best', "
        "'function_to_apply': N... when the job began, and is {'max_length': None, 'long': "
        "'truncate', 'top_k': 2, 'function_to_apply': None} now; " + anew
    )
    err = job(*command, "--on-error", "record", status=2)
    assert err == (
        f"npbert: --resume: --on-error was 'fail' when the job began, and is 'record' now; {anew}"
    )
    other = Path(__file__).parent.parent / "golden" / "tasks" / "single"
    assert "--resume: model was " in job(*command, "-m", other, status=2)


def test_an_input_that_has_changed_is_noticed(stopped, job):
    given, out, _ = stopped
    raw = given.read_bytes()
    given.write_bytes(raw.replace(b'"id": 17,', b'"id": 71,'))
    err = job(CLASSIFY, "-i", given, "-o", out, "--resume", status=2)
    assert "npbert: --resume: the first 512 inputs are not what they were\n" in err
    given.write_bytes(raw + b'{"id": 700, "text": "More."}\n')  # a file may grow
    job(CLASSIFY, "-i", given, "-o", out, "--resume")
    assert len(read(out)) == 701


def test_other_texts_and_other_files_that_options_name_are_noticed(tmp_path, job):
    given = [*texts(290), "\ud83d", *texts(9)]
    out = tmp_path / "o"
    job(CLASSIFY, "-o", out, *given, status=2)
    given[290] = "mended"
    err = job(CLASSIFY, "-o", out, "--resume", "another", *given[1:], status=2)
    assert "--resume: the first 256 inputs are not what they were" in err

    ranges, out = tmp_path / "ranges.npy", tmp_path / "o.npy"
    np.save(ranges, np.stack([np.full(192, -5.0), np.full(192, 5.0)]))
    lines = tmp_path / "in.txt"
    lines.write_bytes("\n".join(texts(300)).encode() + b"\n\xff")
    command = ("sentence-embedding", "-i", lines, "-o", out, "--precision", "int8")
    job(*command, "--ranges", ranges, status=2)
    np.save(ranges, np.stack([np.full(192, -9.0), np.full(192, 5.0)]))
    err = job(*command, "--ranges", ranges, "--resume", status=2)
    assert "--resume: options was " in err


def test_a_job_may_write_beside_the_model(tmp_path, stopped, job):
    given, _, _ = stopped
    folder = shutil.copytree(Path(__file__).parent.parent / "golden/tasks/single", tmp_path / "m")
    out = folder / "o.jsonl"
    given.write_bytes(spoilt(given.read_bytes()))
    job(CLASSIFY, "-m", folder, "-i", given, "-o", out, status=2)
    given.write_bytes(given.read_bytes().replace(b'"txt"', b'"text"'))
    job(CLASSIFY, "-m", folder, "-i", given, "-o", out, "--resume")
    assert len(read(out)) == 700


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("part", b"", "part: has lost some of the"),
        (
            "part.json",
            b"{}",
            "part.json: is no journal of a job; delete it and the .part to start anew",
        ),
        ("part.json", bytes(4), "part.json: is no journal of a job"),
    ],
)
def test_files_that_were_tampered_with_are_refused(stopped, job, name, raw, why):
    given, out, _ = stopped
    out.with_name(f"o.jsonl.{name}").write_bytes(raw)
    assert why in job(CLASSIFY, "-i", given, "-o", out, "--resume", status=2)


def test_a_job_that_is_whole_is_left_alone(whole, tmp_path, job):
    given, expected = whole
    out = tmp_path / "whole.jsonl"
    out.write_bytes(expected)
    for _ in range(2):
        err = job(CLASSIFY, "-i", given, "-o", out, "--resume")
        assert err == f"npbert: {out} is there and whole, so that nothing is left to do\n"
    job(CLASSIFY, "-i", given, "-o", tmp_path / "new", "--resume")  # begins where nothing is
    assert (tmp_path / "new").read_bytes() == expected


@pytest.mark.parametrize("named", [True, False])
def test_a_job_that_was_killed_while_its_file_got_its_name_is_whole(stopped, job, named):
    given, out, expected = stopped
    part, journal = out.with_name("o.jsonl.part"), out.with_name("o.jsonl.part.json")
    said = json.loads(journal.read_text()) | {"whole": True, "bytes": len(expected)}
    part.write_bytes(expected)
    journal.write_text(json.dumps(said))
    if named:
        part.replace(out)
    err = job(CLASSIFY, "-i", given, "-o", out, "--resume")
    assert "is there and whole" in err
    assert out.read_bytes() == expected
    assert not part.exists()
    assert not journal.exists()


def test_arrays_go_on_too(tmp_path, job):
    given = tmp_path / "in.txt"
    lines = [text.encode() for text in texts(300)]
    given.write_bytes(b"\n".join(lines))
    command = ("sentence-embedding", "-i", given, "-o")
    job(*command, tmp_path / "whole.npy")
    given.write_bytes(b"\n".join([*lines[:280], b"\xff", *lines[281:]]))
    job(*command, tmp_path / "o.npy", status=2)
    given.write_bytes(b"\n".join(lines))
    job(*command, tmp_path / "o.npy", "--resume")
    assert (tmp_path / "o.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert np.load(tmp_path / "o.npy").shape == (300, 192)


def test_packed_files_go_on_too(tmp_path, job, whole):
    given, expected = whole
    raw = given.read_bytes()
    job(CLASSIFY, "-i", given, "-o", tmp_path / "whole.gz")
    given.write_bytes(spoilt(raw))
    job(CLASSIFY, "-i", given, "-o", tmp_path / "o.gz", status=2)
    given.write_bytes(raw)
    job(CLASSIFY, "-i", given, "-o", tmp_path / "o.gz", "--resume")
    assert (tmp_path / "o.gz").read_bytes() == (tmp_path / "whole.gz").read_bytes()
    assert gzip.decompress((tmp_path / "o.gz").read_bytes()) == expected


# ---- signals, disks and neighbours --------------------------------------------------------------


def started(*args, **how):
    return subprocess.Popen([*NPBERT, *map(str, args)], stderr=subprocess.PIPE, **how)


def long_enough(tmp_path, count=2500):
    """A job of a second or more, and what comes of it undisturbed."""
    given = tmp_path / "in.txt"
    given.write_text("\n".join(texts(count, seed=1)))
    quietly(CLASSIFY, "-i", given, "-o", tmp_path / "whole")
    return given, (tmp_path / "whole").read_bytes()


def answers_until(path, count):
    """Wait until so many answers stand in a file that grows."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        time.sleep(0.01)


def test_ctrl_c_answers_what_was_read_and_the_job_goes_on(tmp_path):
    given, expected = long_enough(tmp_path)
    out, part = tmp_path / "o", tmp_path / "o.part"
    process = started(CLASSIFY, "-i", given, "-o", out)
    answers_until(part, 700)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"not finished" in err
    assert part.read_bytes().endswith(b"}\n")
    safe = json.loads((tmp_path / "o.part.json").read_text())
    assert expected.startswith(part.read_bytes()[: safe["bytes"]])
    assert safe["inputs"] % 256 == 0
    assert part.read_bytes().count(b"\n") >= 700

    held = started(CLASSIFY, "-i", given, "-o", out, "--resume")  # and nobody else comes between
    answers_until(part, 1500)
    held.send_signal(signal.SIGSTOP)  # or it would be done before the other has begun
    err = quietly(CLASSIFY, "-i", given, "-o", out, "--resume").stderr
    held.send_signal(signal.SIGCONT)
    assert "o.part: another process is writing it" in err
    assert held.wait(timeout=60) == 0
    held.stderr.close()
    assert out.read_bytes() == expected


def test_ctrl_c_ends_the_waiting_for_input():
    process = started(CLASSIFY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"Fine.\n" * 64)
    process.stdin.flush()
    answered = [process.stdout.readline() for _ in range(64)]
    assert all(answered)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_a_disk_that_is_full_stops_a_job_which_goes_on_when_it_is_not(tmp_path, whole, job):
    given, expected = whole
    out = tmp_path / "o"

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, 45_000))

    process = started(CLASSIFY, "-i", given, "-o", out, preexec_fn=small)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"npbert: stopped by the system: File too large" in err
    assert not out.exists()
    job(CLASSIFY, "-i", given, "-o", out, "--resume")
    assert out.read_bytes() == expected


def killed(tmp_path, given, expected, runs, rng):
    """Kill jobs at random moments, and let them go on."""
    kills = 0
    for i in range(runs):
        out = tmp_path / f"o{i}{'.gz' if i % 3 == 0 else ''}"
        while not out.exists():
            process = started(CLASSIFY, "-i", given, "-o", out, "--resume")
            try:
                process.communicate(timeout=rng.uniform(0.2, 4))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
        raw = out.read_bytes()
        assert (gzip.decompress(raw) if out.suffix == ".gz" else raw) == expected
        assert not list(tmp_path.glob(f"{out.name}.*"))
        out.unlink()
    return kills


def failing(tmp_path, count, name="bad.jsonl"):
    """Write inputs of which three fail, the first in the first block."""
    given = rows(count)
    for i in (7, count // 2, count - 1):
        given[i] = {"id": i, "txt": "error"}
    given[3]["note"] = 'an "error" that is none'
    return write(tmp_path / name, given)


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.gz", "o", "o.GZ"])
def test_a_whole_output_with_failed_inputs_says_so_each_time(tmp_path, job, name):
    given, out = failing(tmp_path, 20), tmp_path / name
    command = (CLASSIFY, "-i", given, "-o", out, "--on-error", "record")
    assert ", 3 failed; " in job(*command, status=4)
    for _ in range(2):
        assert job(*command, "--resume", status=4) == (
            f"npbert: {out} is there and whole, so that nothing is left to do; 3 of its inputs "
            "failed\n"
        )
    out.unlink()
    write(given, rows(5))
    job(*command)
    assert "failed" not in job(*command, "--resume")


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("o.gz", b"no gzip"),
        ("o.gz", gzip.compress(b"{}\n" * 1000, mtime=0)[:-12]),
        ("o", b'{"error": \n'),
        ("o", b'{"error": "\xff"}\n'),
        ("o", b'"error"' + b"[" * 100_000 + b"\n"),
    ],
)
def test_a_file_that_holds_no_answers_is_not_taken_for_a_whole_output(tmp_path, job, name, raw):
    given, out = failing(tmp_path, 20), tmp_path / name
    out.write_bytes(raw)
    command = (CLASSIFY, "-i", given, "-o", out, "--on-error", "record", "--resume")
    err = job(*command, status=2)
    assert err.startswith(f"npbert: {out}: is there, but holds no answers that can be read: ")
    assert err.endswith("; move it out of the way\n")
    assert out.read_bytes() == raw


def test_lines_that_are_no_objects_are_no_failed_inputs(tmp_path, job):
    (tmp_path / "o").write_bytes(b'"error"\n["error"]\n{"id": "error"}\n')
    job(CLASSIFY, "-i", failing(tmp_path, 20), "-o", tmp_path / "o", "--on-error", "record",
        "--resume")  # fmt: skip


def kill_and_resume(given, out, seconds):
    """Kill a job that records errors after some time, and let it go on -> whether it ran still."""
    command = (CLASSIFY, "-i", given, "-o", out, "--on-error", "record", "--resume")
    process = started(*command)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    ran = not out.exists()
    done = quietly(*command)
    assert done.returncode == 4, done.stderr
    assert not ran or ", 3 failed; " in done.stderr
    assert quietly(*command).returncode == 4
    assert sum("error" in line for line in read(out)) == 3
    return ran


def test_a_killed_job_remembers_what_failed(tmp_path):
    given, out = failing(tmp_path, 3000), tmp_path / "o.jsonl"
    assert kill_and_resume(given, out, 0.5)


@pytest.mark.long
def test_jobs_that_are_killed_at_any_moment_remember_what_failed(tmp_path):
    given, rng = failing(tmp_path, 3000), np.random.default_rng(1)
    runs = int(os.environ.get("NPBERT_KILLS", 4))
    ran = [
        kill_and_resume(given, tmp_path / f"o{i}.jsonl{'.gz' * (i % 2)}", rng.uniform(0.2, 3))
        for i in range(runs)
    ]
    assert sum(ran) >= runs / 4


@pytest.mark.long
def test_jobs_that_are_killed_and_go_on_give_the_same_bytes(tmp_path):
    runs = int(os.environ.get("NPBERT_KILLS", 4))
    given, expected = long_enough(tmp_path, 4000)
    kills = killed(tmp_path, given, expected, runs, np.random.default_rng(0))
    assert kills >= runs / 2


# ---- flags that do not go together --------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--resume", "a"], "--resume goes on with a file; it needs --output FILE"),
        (["-o", "x.csv", "a"], "--output x.csv: answers are written as JSON lines, not as a table"),
        (["-o", "x.npy", "a"], "--output x.npy: only sentence-embedding makes an array in .npy"),
        (["-i", "x", "a"], "there are TEXTs and --input, expected one of them"),
        (
            ["--field", "text=a", "--field", "b", "--jsonl", "{}"],
            "--field b: text stands under a already",
        ),
        (["-i", "none.txt"], "none.txt: cannot be read: No such file or directory"),
    ],
)
def test_flags_that_make_no_sense_together_are_refused(job, args, why):
    assert job(CLASSIFY, *args, status=2) == f"npbert: {why}\n"


def test_an_output_does_not_take_the_place_of_the_input(job, whole, tmp_path):
    given, _ = whole
    (tmp_path / "link").symlink_to(given)
    for name in (given, tmp_path / "link"):
        err = job(CLASSIFY, "-i", given, "-o", name, status=2)
        assert err == f"npbert: --output {name}: writes {name}, which is the --input\n"
    for end in (".part", ".part.json"):
        grown = tmp_path / f"x{end}"
        shutil.copy(given, grown)
        err = job(CLASSIFY, "--jsonl", "-i", grown, "-o", tmp_path / "x", status=2)
        assert err == f"npbert: --output {tmp_path / 'x'}: writes {grown}, which is the --input\n"
        assert grown.read_bytes() == given.read_bytes()
        grown.unlink()
    done = subprocess.run(
        f"{' '.join(NPBERT)} {CLASSIFY} -o {given} < {given}", shell=True, capture_output=True
    )
    assert done.returncode == 2


def test_an_array_has_no_place_for_an_error(job):
    err = job("sentence-embedding", "-o", "x.npy", "--on-error", "record", "a", status=2)
    assert err == "npbert: --output x.npy: an array has no place to record an error\n"


def test_a_device_takes_lines_as_they_come(job):
    assert "2 inputs" in job(CLASSIFY, "-o", "/dev/null", "a", "b")
