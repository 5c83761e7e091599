"""Files as people have them: the same inputs in every form, empty texts, empty lists."""

import gzip
import io
import json
import shutil
from pathlib import Path

import pytest

import npbert
from npbert.cli import main

MODELS = Path(__file__).parent.parent / "golden" / "tasks"
CLASSIFY = "text-classification"
ROWS = [{"text": "Funny.", "id": 1}, {"text": "Dull, lifeless.", "id": 2}]


@pytest.fixture
def command(capsys, monkeypatch):
    """Run a command here; return its status, what it printed as JSON, and what it told."""

    def run(*args, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        status = main(list(map(str, args)))
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err.splitlines()

    return run


def write_rows(path, rows=ROWS):
    """Write rows as the name of a file says it."""
    lines = [json.dumps(row) for row in rows]
    whole = {
        "arr.json": json.dumps(rows),
        "pretty.json": json.dumps(rows, indent=2),
        "one.json": json.dumps([*rows, {}][0], indent=2),
    }
    path.write_text(whole.get(path.name, "\n".join(lines) + "\n"), "utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["x.json", "arr.json", "pretty.json", "x.jsonlines", "x.ndjson", "x.JL", "x.ldjson"]
)
def test_records_are_answered_whatever_their_file_is_called(command, tmp_path, name):
    expected = command(CLASSIFY, "--jsonl", "-i", write_rows(tmp_path / "x.jsonl"))
    assert expected[0] == 0
    assert [answer["id"] for answer in expected[1]] == [1, 2]
    assert command(CLASSIFY, "-i", write_rows(tmp_path / name))[:2] == expected[:2]


def test_a_field_in_an_array_is_named_as_in_lines(command, tmp_path):
    rows = [{"review": row["text"]} for row in ROWS]
    path = write_rows(tmp_path / "arr.json", rows)
    status, answers, _ = command(CLASSIFY, "-i", path, "--field", "review")
    assert (status, len(answers)) == (0, 2)
    assert len(command(CLASSIFY, "-i", write_rows(tmp_path / "one.json"))[1]) == 1


def test_what_is_wrong_in_an_array_is_told_with_the_number_of_its_element(command, tmp_path):
    path = write_rows(tmp_path / "arr.json", [ROWS[0], {"id": 5}, "Dull."])
    status, _, told = command(CLASSIFY, "-i", path)
    assert status == 2
    assert told[-1] == ("npbert: element 2: has no text, but 'id'; --field says where it stands")
    status, answers, _ = command(CLASSIFY, "-i", path, "--on-error", "record")
    assert status == 4
    assert answers[1:] == [
        {"id": 5, "error": {
            "element": 2, "message": "has no text, but 'id'; --field says where it stands",
        }},
        {"error": {"element": 3, "message": "is 'Dull.', expected a JSON object"}},
    ]  # fmt: skip


def test_a_job_over_an_array_goes_on_where_it_stopped(command, tmp_path):
    rows = [{"text": f"Number {i}."} for i in range(300)]
    path, out = tmp_path / "arr.json", tmp_path / "out.jsonl"
    write_rows(path, rows)
    assert command(CLASSIFY, "-i", path, "-o", tmp_path / "whole.jsonl")[0] == 0
    write_rows(path, [*rows[:290], {"id": 1}])
    assert command(CLASSIFY, "-i", path, "-o", out)[0] == 2
    write_rows(path, [{"text": "Another."}, *rows[1:]])
    status, _, told = command(CLASSIFY, "-i", path, "-o", out, "--resume")
    assert status == 2
    assert "npbert: --resume: the first 256 inputs are not what they were" in told
    write_rows(path, rows)
    assert command(CLASSIFY, "-i", path, "-o", out, "--resume")[0] == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_parquet_file_is_refused_with_what_reads_it(command, tmp_path):
    shutil.copy(MODELS / "bio" / "model.safetensors", tmp_path / "x.parquet")
    status, answers, told = command(CLASSIFY, "-i", tmp_path / "x.parquet")
    assert (status, answers) == (2, [])
    assert told == [
        f"npbert: {tmp_path / 'x.parquet'}: a .parquet file is not read as texts; --dask reads it: "
        "-i FILE -o FOLDER --dask, with pip install 'npbert[dask]'"
    ]


@pytest.mark.parametrize(
    ("name", "raw", "number"),
    [
        ("x.txt", b"Funny.\n\nDull.\n\n\n", 2),
        ("x.txt", b"Funny.\nDull.\n \t\nNice.\n", 3),
        ("x.csv", b"text\nFunny.\n\nDull.\n\n", 3),
        ("x.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n\n', 2),
        ("x.json", b'{"text": "a"}\n\n{"text": "b"}\n\n', 2),
    ],
)
def test_a_blank_line_stops_a_job_with_its_number_or_is_recorded(
    command, tmp_path, name, raw, number
):
    (tmp_path / name).write_bytes(raw)
    status, answers, told = command(CLASSIFY, "-i", tmp_path / name)
    assert status == 2
    assert told[-1].startswith(f"npbert: line {number}: is blank")
    status, answers, _ = command(CLASSIFY, "-i", tmp_path / name, "--on-error", "record")
    assert status == 4
    bad = [answer["error"]["line"] for answer in answers if "error" in answer]
    assert (len(answers), bad) == (3, [number]) or (len(answers), bad) == (4, [number])


def test_blank_lines_at_the_end_of_stdin_are_nothing(command):
    status, answers, told = command(CLASSIFY, stdin=b"Funny.\n\n \n")
    assert (status, len(answers), told) == (0, 1, [])
    status, answers, told = command(CLASSIFY, stdin=b"\n\n")
    assert (status, answers, told) == (0, [], [])


@pytest.mark.filterwarnings("default")
def test_empty_texts_are_answered_and_counted(command, tmp_path):
    rows = [{"text": ""}, {"text": "Funny."}, {"text": " \n"}]
    status, answers, told = command(CLASSIFY, "-i", write_rows(tmp_path / "x.jsonl", rows))
    assert (status, len(answers)) == (0, 3)
    assert told[0] == (
        "npbert: 2 inputs have an empty text, and what is answered for it means little"
    )
    assert ", 2 with an empty text; " in told[1]
    status, answers, told = command(CLASSIFY, "")
    assert (status, len(answers)) == (0, 1)
    assert told == ["npbert: 1 input has an empty text, and what is answered for it means little"]


@pytest.mark.parametrize(
    ("task", "model", "given", "count"),
    [
        (CLASSIFY, None, ["", "a", " "], 2),
        (CLASSIFY, None, "", 1),
        (CLASSIFY, None, ("a", ""), 1),
        ("sentence-embedding", None, ["a", "\t", "\n"], 2),
        ("token-classification", None, {"text": ""}, 1),
        ("text-ranking", "cross1", {"query": "a", "documents": ["", "b", ""]}, 1),
        ("multiple-choice", "choice", [{"prompt": "a", "choices": ["b", ""]}] * 3, 3),
    ],
)  # fmt: skip
def test_tasks_tell_how_many_inputs_have_an_empty_text(task, model, given, count):
    made = npbert.pipeline(task, MODELS / model if model else None)
    with pytest.warns(npbert.NpbertWarning) as told:
        made(given)
    have = "input has" if count == 1 else "inputs have"
    assert [str(each.message) for each in told] == [
        f"{count} {have} an empty text, and what is answered for it means little"
    ]


# ---- empty lists --------------------------------------------------------------------------------


def test_no_documents_have_no_ranking(command, tmp_path):
    lists = [["a", "b"], [], ["c"], []]
    rows = [{"query": "q", "documents": some} for some in lists]
    path = write_rows(tmp_path / "r.jsonl", rows)
    status, answers, _ = command("text-ranking", "-m", MODELS / "cross1", "-i", path)
    assert status == 0
    assert [len(answer["results"]) for answer in answers] == [2, 0, 1, 0]
    status, answers, _ = command("text-ranking", "-m", MODELS / "cross1", "--query", "q")
    assert (status, answers) == (0, [{"results": []}])


def test_empty_in_empty_out():
    rank = npbert.pipeline("text-ranking", MODELS / "cross1")
    assert rank.rank("q", []) == rank.predict([]) == rank([]) == []
    assert rank({"query": "q", "documents": ()}) == []
    some = [{"query": "q", "documents": d} for d in ([], ["a"], [])]
    assert [len(each) for each in rank(iter(some))] == [0, 1, 0]
    assert rank(some, top_k=1, return_documents=True)[0] == []
    ask = npbert.pipeline("question-answering", MODELS / "qa")
    assert ask(question=[], context="Ada.") == ask(question=[], context=[]) == ask([]) == []
    find = npbert.pipeline("token-classification")
    assert find({"words": []}) == find([]) == []
    embed = npbert.pipeline("sentence-embedding")
    assert embed([]).shape == (0, embed("a").shape[0])
    assert list(npbert.pipeline(CLASSIFY)(iter([]))) == []


@pytest.mark.parametrize(
    ("task", "model", "given", "options", "why"),
    [
        ("multiple-choice", "choice", ("a", []), {}, "choices is empty"),
        ("zero-shot-classification", "nli", "a", {"candidate_labels": []}, "has no labels"),
        ("fill-mask", None, "A [MASK].", {"targets": []}, "targets is empty"),
    ],
)
def test_where_there_is_nothing_to_choose_from_that_is_told(task, model, given, options, why):
    made = npbert.pipeline(task, MODELS / model if model else None)
    with pytest.raises(npbert.InputError, match=why):
        made(given, **options)


# ---- what is written ----------------------------------------------------------------------------


def test_a_name_in_json_gets_one_array_that_can_be_read_again(command, tmp_path):
    path, out = write_rows(tmp_path / "x.jsonl"), tmp_path / "out.json"
    assert command(CLASSIFY, "-i", path, "-o", out)[0] == 0
    _, expected, _ = command(CLASSIFY, "-i", path)
    assert json.loads(out.read_text()) == expected
    assert len(out.read_text().splitlines()) == len(expected) + 2
    rows = [{"text": row["text"]} for row in ROWS]
    assert command("sentence-embedding", "-i", write_rows(path, rows), "-o", out)[0] == 0
    assert len(json.loads(out.read_text())) == 2
    assert command(CLASSIFY, "-i", write_rows(tmp_path / "arr.json", []), "-o", out)[0] == 0
    assert json.loads(out.read_text()) == []


def test_an_array_that_was_interrupted_goes_on_and_tells_of_failures(command, tmp_path):
    rows = [{"text": f"Number {i}."} for i in range(300)]
    path, out, whole = tmp_path / "x.jsonl", tmp_path / "out.json", tmp_path / "whole.json"
    assert command(CLASSIFY, "-i", write_rows(path, rows), "-o", whole)[0] == 0
    write_rows(path, [*rows[:290], {"id": 1}])
    assert command(CLASSIFY, "-i", path, "-o", out)[0] == 2
    assert command(CLASSIFY, "-i", write_rows(path, rows), "-o", out, "--resume")[0] == 0
    assert out.read_bytes() == whole.read_bytes()
    write_rows(path, [{"id": 1}, *rows[:3], {"id": 2}])
    failing = (CLASSIFY, "-i", path, "-o", tmp_path / "f.json", "--on-error", "record")
    assert command(*failing)[0] == 4
    status, _, told = command(*failing, "--resume")
    assert status == 4
    assert told[-1].endswith("so that nothing is left to do; 2 of its inputs failed")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("x.pt", "no .pt file is written, but JSON lines (.jsonl, .jsonl.gz) or an array of JSON "
                 "(.json)"),
        ("x.safetensors", "no .safetensors file is written, but JSON lines (.jsonl, .jsonl.gz) or "
                          "an array of JSON (.json)"),
        ("x.HTML", "no .html file is written, but JSON lines (.jsonl, .jsonl.gz) or an array of "
                   "JSON (.json)"),
        ("x.xlsx.gz", "no .xlsx file is written, but JSON lines (.jsonl, .jsonl.gz) or an array of "
                      "JSON (.json)"),
        ("x.json.gz", "an array of JSON is not packed; expected .json, or .jsonl.gz"),
        ("x.csv", "answers are written as JSON lines, not as a table"),
        ("x.npz", "only sparse-embedding makes an array in .npz"),
    ],
)  # fmt: skip
def test_a_name_of_what_cannot_be_written_is_refused(command, tmp_path, name, why):
    status, _, told = command(CLASSIFY, "Funny.", "-o", tmp_path / name)
    assert (status, told) == (2, [f"npbert: --output {tmp_path / name}: {why}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["x", "x.jsonl", "x.ndjson", "x.txt", "x.2026", "x.jl.gz", "a.b-c"]
)
def test_a_name_that_says_nothing_else_gets_json_lines(command, tmp_path, name):
    assert command(CLASSIFY, "Funny.", "Dull.", "-o", tmp_path / name)[0] == 0
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "rt") as file:
        assert [set(json.loads(line)) for line in file] == [{"label", "score"}] * 2
