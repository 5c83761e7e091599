"""Files that grow: what is safe stays safe, whatever fails, and whoever comes between."""

import errno
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npbert import InputError
from npbert.jobs import outputs
from npbert.jobs.atomic import Places, is_whole, read_journal
from npbert.jobs.line_files import GzipOutput, LinesOutput
from npbert.jobs.outputs import MatrixOutput

JOB = {"task": "t"}


def state(inputs):
    return {"inputs": inputs, "sha256": str(inputs)}


def grown(path, count, *, kind=LinesOutput, resume=False, at=0):
    """Write answers in blocks of one, and stop as a kill would: close the file and no more."""
    output = kind(path, JOB, resume=resume)
    for i in range(at, count):
        output.write({"i": i})
        output.last = 0  # as if a while had passed
        output.commit(state(i + 1))
    return output


def killed(output):
    output.file.close()


def answers(path):
    return [json.loads(line)["i"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out"


def test_bytes_are_on_the_disk_before_the_journal_that_calls_them_safe(path, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        order.append(("sync", re.sub("[0-9a-f]{16}", "RANDOM", name)))
        sync(descriptor)

    def replaced(source, target):
        order.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    folder = ("sync", path.parent.name)
    journal = [("sync", "out.part.json.RANDOM.tmp"), ("name", "out.part.json"), folder]
    with LinesOutput(path, JOB, resume=False) as output:
        assert order == journal
        output.write({"i": 0})
        output.commit(state(1))
        assert order[3:] == [("sync", "out.part"), *journal]
        output.finish(state(1))
    assert order[7:] == [("sync", "out.part"), *journal, ("name", "out"), folder]


def test_what_a_disk_failed_to_keep_is_never_called_safe(path, monkeypatch):
    output = grown(path, 2)
    safe = read_journal(output.places)
    sync = os.fsync

    def failing(descriptor):
        monkeypatch.setattr(os, "fsync", sync)  # and says nothing of it the second time
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    output.write({"i": 2})
    output.last = 0
    with pytest.raises(OSError, match="Input/output"), output:
        output.commit(state(3))
    assert output.file.closed
    assert read_journal(output.places) == safe
    with grown(path, 3, resume=True, at=2) as output:
        output.finish(state(3))
    assert answers(path) == [0, 1, 2]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("resume", [True, False])
def test_a_job_killed_while_its_file_got_its_name_is_whole(path, named, empty, resume):
    output = grown(path, 3)
    output.commit({**state(3), "whole": True})
    output.make_safe()
    killed(output)
    if named:
        output.places.part.replace(path)
        if empty:  # of a neighbour who came too soon
            output.places.part.touch()
    if resume:
        assert is_whole(path)
    else:
        killed(LinesOutput(path, JOB, resume=False))  # another job begins, and the file stays
    assert answers(path) == [0, 1, 2]
    assert not output.places.journal.exists() or not resume


def test_a_whole_job_whose_bytes_are_gone_is_not_called_whole(path):
    output = grown(path, 3)
    output.commit({**state(3), "whole": True})
    output.make_safe()
    killed(output)
    output.places.part.write_bytes(b"")
    for call in (is_whole, lambda path: LinesOutput(path, JOB, resume=True)):
        with pytest.raises(
            InputError, match="has lost some of the 27 bytes of a job that was whole"
        ):
            call(path)


def test_a_file_that_was_taken_away_while_it_was_written_is_missed(path):
    output = grown(path, 2)
    output.places.part.unlink()
    with pytest.raises(InputError) as caught, output:
        output.finish(state(2))
    assert str(caught.value) == f"{output.places.part}: was taken away while it was written"


def test_what_is_no_part_of_a_job_is_left_alone(path):
    part = Places.from_path(path).part
    part.write_bytes(b"my own")
    with pytest.raises(InputError) as caught:
        LinesOutput(path, JOB, resume=True)
    assert str(caught.value) == (
        f"{part}: is there, but no journal of a job; move it out of the way"
    )
    assert part.read_bytes() == b"my own"


def test_a_job_that_was_killed_before_anything_was_safe_begins_anew(path):
    output = LinesOutput(path, JOB, resume=False)
    output.write({"i": 0})
    output.file.flush()
    killed(output)
    with grown(path, 1) as output:
        output.finish(state(1))
    assert answers(path) == [0]
    assert [each.name for each in path.parent.iterdir()] == ["out"]


def test_an_answer_to_nothing_is_an_empty_file_and_packed_a_gzip_file(path):
    for kind in (LinesOutput, GzipOutput):
        with kind(path, JOB, resume=False) as output:
            output.finish(state(0))
        assert (gzip.decompress if kind is GzipOutput else bytes)(path.read_bytes()) == b""
    assert path.stat().st_size


def test_a_file_keeps_who_may_read_it(path):
    path.touch(0o600)
    with grown(path, 1) as output:
        output.finish(state(1))
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_file_is_not_written_twice_at_once(path):
    output = grown(path, 1)
    with pytest.raises(InputError) as caught:
        LinesOutput(path, JOB, resume=True)
    assert str(caught.value) == f"{output.places.part}: another process is writing it"
    killed(output)


# ---- the command --------------------------------------------------------------------------------


def shell(command, cwd):
    npbert = f"{sys.executable} -m npbert text-classification"
    return subprocess.run(
        ["bash", "-c", command.replace("NPBERT", npbert)], cwd=cwd, capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("printf '\\xff\\n' | NPBERT -o o 2> >(exit 0)", 2),  # nobody hears why
        ("NPBERT good 2> /dev/full", 0),
        ("NPBERT good >&-", 2),
        ("NPBERT good -o . --resume", 2),
        ("NPBERT good -o /dev/null --resume", 2),
        ("NPBERT good -o '' --resume", 2),
        ("ln -s a b; ln -s b a; NPBERT good -o a && cat a", 0),
        ("NPBERT good -o /dev/stdout > f && test -s f && test -L /dev/stdout", 0),
        ("NPBERT good -o /dev/fd/3 3> f && test -s f", 0),
        ("NPBERT good -o /dev/stdout | grep -q label", 0),
        ("mkfifo p; cat p > f & NPBERT good -o p && wait && test -s f && test -p p", 0),
        ("NPBERT good -o x.npy.gz", 2),
        ("NPBERT good -o x.CSV.gz", 2),
        ("NPBERT good -o x.GZ && gzip -t x.GZ", 0),
    ],
)
def test_odd_streams_and_names_end_with_an_honest_status(command, status, tmp_path):
    done = shell(command, tmp_path)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


# ---- a sparse matrix, which is made of its rows at the end ---------------------------------------


def rows_grown(path, count, *, resume=False, at=0):
    output = MatrixOutput(path, JOB, resume=resume)
    for i in range(at, count):
        output.write((np.arange(i), np.arange(i) + 0.5, 9))
        output.last = 0
        output.commit(state(i + 1))
    return output


def test_a_matrix_that_is_killed_and_goes_on_is_the_same_file(path):
    with rows_grown(path, 5) as output:
        output.finish(state(5))
    whole = path.read_bytes()
    with np.load(path) as made:
        assert made["indptr"].tolist() == [0, 0, 1, 3, 6, 10]
        assert made["indices"].tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3]
        assert made["data"].tolist() == [0.5, 0.5, 1.5, 0.5, 1.5, 2.5, 0.5, 1.5, 2.5, 3.5]
        assert made["shape"].tolist() == [5, 9]
    path.unlink()
    for killed_at in range(5):
        killed(rows_grown(path, killed_at))
        with rows_grown(path, 5, resume=True, at=killed_at) as output:
            output.finish(state(5))
        assert path.read_bytes() == whole
        assert list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match=r"^there are no texts, s"), rows_grown(path, 0) as output:
        output.finish(state(0))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["write_journal", "end_named_job"])
def test_a_matrix_whose_job_is_killed_at_its_end_is_whole_or_made_again(path, monkeypatch, moment):
    output = rows_grown(path, 5)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outputs, moment, fail)
        with pytest.raises(KeyboardInterrupt):
            output.finish(state(5))
    killed(output)
    whole = path.read_bytes()  # it has its name, and what it was made of is still there
    if is_whole(path):
        assert moment == "end_named_job"
    else:
        with rows_grown(path, 5, resume=True, at=5) as output:
            output.finish(state(5))
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]
