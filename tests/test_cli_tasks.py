"""npbert TASK for every task: texts or JSON lines in, answers in order, a bar for people."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.cli import build_parser, main
from npbert.tasks.rows import TASKS

NPBERT = [sys.executable, "-m", "npbert"]
MODELS = Path(__file__).parent.parent / "golden" / "tasks"


def says(capsys, monkeypatch, *args, stdin="", status=0):
    """Run a command here; return what it printed, a value a line."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    assert main(list(map(str, args))) == status
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()] if status == 0 else err


@pytest.fixture
def cli(capsys, monkeypatch):
    return lambda *args, **how: says(capsys, monkeypatch, *args, **how)


# ---- every task ---------------------------------------------------------------------------------


def test_entities_stand_under_results(cli):
    text = "Anna met Tom in Paris."
    (line,) = cli("token-classification", "-m", MODELS / "bio", text)
    task = npbert.pipeline("token-classification", MODELS / "bio")
    assert line == {"results": task(text)}


def test_questions_over_a_context_and_a_question_over_contexts(cli):
    task = npbert.pipeline("question-answering", MODELS / "qa")
    context, questions = "The cat sat on the red mat.", ["Who sat?", "Where?"]
    lines = cli("question-answering", "-m", MODELS / "qa", "--context", context, *questions)
    assert lines == task([(question, context) for question in questions])
    (line,) = cli("question-answering", "-m", MODELS / "qa", "--question", questions[0], context)
    assert line == task((questions[0], context))
    lines = cli(
        "question-answering", "-m", MODELS / "qa", "--context", context, "--top-k", 2,
        "--no-align-to-words", "--handle-impossible-answer", questions[0],
    )  # fmt: skip
    assert lines == [
        {"results": task((questions[0], context), top_k=2, align_to_words=False,
                         handle_impossible_answer=True)}
    ]  # fmt: skip


def test_labels_and_choices_stand_between_commas_or_come_one_by_one(cli):
    task = npbert.pipeline("zero-shot-classification", MODELS / "nli")
    command = ("zero-shot-classification", "-m", MODELS / "nli")
    (line,) = cli(*command, "--candidate-labels", "red, green,", "A red mat.")
    assert line == task("A red mat.", candidate_labels=["red", "green"])
    one_by_one = ("--candidate-labels", "red, or green", "--candidate-labels", "blue")
    (line,) = cli(*command, *one_by_one, "--multi-label", "A red mat.")
    assert line == task("A red mat.", candidate_labels=["red, or green", "blue"], multi_label=True)

    task = npbert.pipeline("multiple-choice", MODELS / "choice")
    (line,) = cli("multiple-choice", "-m", MODELS / "choice", "--choices", "red,old", "The mat is")
    assert line == task(("The mat is", ["red", "old"]))


def test_documents_are_ranked_together(cli):
    documents = ["The cat.", "A red mat.", "The old dog."]
    command = ("text-ranking", "-m", MODELS / "cross1", "--query", "cat", "--return-documents")
    (line,) = cli(*command, *documents)
    task = npbert.pipeline("text-ranking", MODELS / "cross1", return_documents=True)
    assert line == {"results": task.rank("cat", documents)}
    assert cli(*command, stdin="\n".join(documents)) == [line]


def test_embeddings_are_printed_with_the_digits_that_they_have_or_saved(cli, tmp_path):
    task, texts = npbert.pipeline("sentence-embedding"), ["A cat.", "Zwei Hunde.", "No."]
    embeddings = task(texts)
    lines = cli("sentence-embedding", *texts)
    for line, embedding in zip(lines, embeddings, strict=True):
        np.testing.assert_allclose(line["embedding"], embedding, rtol=1e-5, atol=1e-6)
    assert max(len(str(x)) for x in lines[0]["embedding"]) < 16
    target = tmp_path / "x.npy"
    for precision in ("float32", "ubinary"):
        stdin = "\n".join(texts) + "\n"
        assert cli("sentence-embedding", "-o", target, "--precision", precision, stdin=stdin) == []
        saved = np.load(target)
        expected = task(texts, precision=precision)
        assert (saved.shape, saved.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(saved, expected, atol=1e-5)
    assert list(tmp_path.iterdir()) == [target]


def test_bytes_of_a_stream_need_ranges(cli, tmp_path):
    x = npbert.pipeline("sentence-embedding")(["A cat.", "A dog."])
    np.save(tmp_path / "ranges.npy", np.stack([x.min(0), x.max(0)]))
    command = ("sentence-embedding", "--precision", "int8")
    (line,) = cli(*command, "--ranges", tmp_path / "ranges.npy", "A cat.")
    assert set(map(type, line["embedding"])) == {int}
    assert cli(*command, "A cat.", status=2).startswith(
        "npbert: precision 'int8' needs ranges, (2, dim): the least and greatest values"
    )


def test_features_come_of_any_layer(cli):
    (line,) = cli("feature-extraction", "--layer", 0, "--offsets", "A cat.")
    assert line == npbert.pipeline("feature-extraction")("A cat.", layer=0, offsets=True)


def test_targets_are_scored_in_their_order(cli):
    (line,) = cli("fill-mask", "--targets", "boat,ship", "The [MASK] sank.")
    assert [each["token_str"] for each in line["results"]] == ["boat", "ship"]


# ---- JSON lines ---------------------------------------------------------------------------------

ROWS = [
    {"id": 7, "text": "A fine film.", "label": "gold", "more": {"a": [1.5, None, "é"]}},
    {"text": "Dull.", "id": None},
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_other_fields_of_a_json_line_pass_through_untouched(cli):
    lines = cli("text-classification", "--jsonl", stdin=jsonl(ROWS))
    answers = npbert.pipeline("text-classification")([row["text"] for row in ROWS])
    assert lines == [
        {"id": 7, "label": "gold", "more": {"a": [1.5, None, "é"]}, "results": answers[0]},
        {"id": None, "results": answers[1]},
    ]


def test_half_a_character_passes_through_as_it_came(cli):
    (line,) = cli("text-classification", "--jsonl", stdin='{"text": "Good.", "k": "\\ud83d"}')
    assert line["k"] == "\ud83d"


def test_a_mark_of_byte_order_is_no_text():
    done = subprocess.run(
        [*NPBERT, "feature-extraction", "--offsets"], input=b"\xef\xbb\xbfParis\n",
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["offsets"][1][0] == 0


def test_words_may_stand_beside_the_text_that_they_are_of(cli):
    row = {"text": "Anna met Tom", "tokens": ["Anna", "met", "Tom"]}
    command = ("token-classification", "-m", MODELS / "bio", "--jsonl")
    (line,) = cli(*command, "--field", "words=tokens", stdin=jsonl([row]))
    task = npbert.pipeline("token-classification", MODELS / "bio")
    assert line == {"text": row["text"], "results": task({"words": row["tokens"]})}
    (again,) = cli(*command, stdin=jsonl([{"text": "x", "words": row["tokens"]}]))
    assert again["results"] == line["results"]


def test_fields_may_stand_under_other_names(cli):
    rows = [{"review": "Good.", "reply": "Bad.", "text": 5}]
    fields = ("--field", "review", "--field", "text_pair=reply")
    (line,) = cli("text-classification", "--jsonl", *fields, stdin=jsonl(rows))
    answer = npbert.pipeline("text-classification")(("Good.", "Bad."))
    assert line == {"text": 5, "results": answer}


def test_a_line_may_hold_all_that_a_task_reads(cli):
    row = {"query": "cat", "documents": ["The cat.", "A mat."], "id": 1}
    (line,) = cli("text-ranking", "-m", MODELS / "cross1", "--jsonl", stdin=jsonl([row]))
    assert [each["corpus_id"] for each in line["results"]] in ([0, 1], [1, 0])
    row = {"words": ["Anna", "met", "Tom"]}
    (line,) = cli("token-classification", "-m", MODELS / "bio", "--jsonl", stdin=jsonl([row]))
    assert line["results"] == npbert.pipeline("token-classification", MODELS / "bio")(row)
    row = {"question": "Who?", "context": "The cat sat."}
    (line,) = cli("question-answering", "-m", MODELS / "qa", "--jsonl", stdin=jsonl([row]))
    assert line["results"]["answer"] in row["context"]
    command = ("question-answering", "-m", MODELS / "qa", "--context", "The dog sat.", "--jsonl")
    (line,) = cli(*command, stdin=jsonl([{"question": "Who?"}]))
    assert line["results"]["answer"] in "The dog sat."


BAD_LINES = {
    "no JSON": ("{", "line 1: is no JSON: "),
    "a blank line": ('{"text": "a"}\n\n{"text": "b"}', "line 2: is blank, expected a JSON object"),
    "a list": ("[1]", "line 1: is [1], expected a JSON object"),
    "no text": ('{"id": 1}', "line 1: has no text"),
    "null": ('{"text": "a"}\n{"text": null}', "line 2: has no text"),
    "a number": ('{"text": 5}', "line 1: a text is a str, not int: 5"),
    "no number": ('{"text": "a", "x": NaN}', "line 1: has NaN, which is no JSON"),
    "a number beyond": (
        '{"text": "a", "x": 1e999}',
        "line 1: has 1e999, beyond the numbers that can be passed through",
    ),
    "a huge number": (
        '{"text": "a", "x": 1%s}' % ("0" * 5000),
        "line 1: has a number of more than 4,300 digits",
    ),
    "a name twice": ('{"text": "a", "text": "b"}', "line 1: has an object with one name twice"),
    "an abyss": ("[" * 100_000, "line 1: is nested too deeply"),
    "results": (
        '{"text": "a", "results": 1}',
        "line 1: has a field 'results', where the answer would go",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_line_that_cannot_be_used_is_named(cli, given, message):
    err = cli("text-classification", "--jsonl", stdin=given, status=2)
    assert err.startswith(f"npbert: {message}")


def test_a_field_that_was_named_must_be_there(cli):
    command = ("text-classification", "--jsonl", "--field", "body")
    err = cli(*command, stdin='{"text": "a"}', status=2)
    assert err == "npbert: line 1: has no field 'body'\n"
    err = cli(*command, "--field", "txt=a", stdin="{}", status=2)
    assert err == "npbert: --field txt=a: there are the fields text, text_pair\n"
    err = cli("text-classification", "--field", "body", "a", status=2)
    assert err == (
        "npbert: --field says where a field stands in JSON or CSV; it needs --jsonl or --csv\n"
    )


# ---- streams and terminals ----------------------------------------------------------------------


def test_answers_come_while_more_is_written():
    process = subprocess.Popen(
        [*NPBERT, "text-classification", "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for i in range(64):
        process.stdin.write(jsonl([{"id": i, "text": "Fine."}]).encode())
    process.stdin.flush()
    assert [json.loads(process.stdout.readline())["id"] for _ in range(64)] == list(range(64))
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


def seen(*args, stdin, out_too=False):
    """Run a command whose stderr, and stdout too if that is asked, is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    done = subprocess.run(
        [*NPBERT, *args], input=stdin.encode(), stderr=theirs,
        stdout=theirs if out_too else subprocess.PIPE, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    screen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        screen += chunk
    os.close(ours)
    return done.stdout.decode() if done.stdout else "", screen.decode()


def test_a_person_sees_how_far_it_is():
    out, screen = seen("text-classification", stdin="Fine.\n" * 3)
    assert len(out.splitlines()) == 3
    assert "3 texts [" in screen


def test_results_on_the_same_terminal_keep_their_lines():
    _, screen = seen("text-classification", stdin="Fine.\n" * 3, out_too=True)
    lines = [line.rpartition("\r")[2] for line in screen.replace("\r\n", "\n").split("\n")]
    assert sum(line.startswith('{"label": "POSITIVE"') for line in lines) == 3


def test_nobody_else_sees_a_bar():
    done = subprocess.run(
        [*NPBERT, "text-classification"], input=b"Fine.\n", capture_output=True, timeout=60
    )
    assert done.stderr == b""
    _, screen = seen("text-classification", "Fine.", stdin="")
    assert screen == ""  # a text on the command line is no stream


# ---- flags --------------------------------------------------------------------------------------


def test_every_option_of_every_task_is_a_flag():
    commands = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,index]
    for name in TASKS:
        flags = commands[name]._option_string_actions
        for each in fields(TASKS[name].options):
            assert f"--{each.name.replace('_', '-')}" in flags, (name, each.name)


ONE_OF = {
    "question-answering": "--context or --question",
    "multiple-choice": "--choices",
    "text-ranking": "--query",
}


@pytest.mark.parametrize("name", ONE_OF)
def test_a_task_of_two_texts_needs_both(cli, name):
    folder = {"question-answering": "qa", "multiple-choice": "choice", "text-ranking": "cross1"}
    err = cli(name, "-m", MODELS / folder[name], "x", status=2)
    assert err == (f"npbert: {name} needs {ONE_OF[name]} (or --jsonl, with both in every line)\n")


def test_a_task_without_a_built_in_model_asks_for_one(cli):
    err = cli("text-ranking", "--query", "x", "y", status=2)
    assert err == (
        "npbert: text-ranking has no built-in model; pass a folder, a name on the hub (-m), or a "
        "Model\n"
    )


def test_all_classes_may_be_asked_for(cli):
    (line,) = cli("text-classification", "--top-k", "all", "Fine.")
    assert line["results"] == npbert.pipeline("text-classification")("Fine.", top_k=None)


def test_a_question_and_its_context_may_be_all(cli):
    command = ("question-answering", "-m", MODELS / "qa", "--question", "Who?", "--context")
    (line,) = cli(*command, "The cat sat.")
    assert line["answer"] in "The cat sat."


def test_with_stderr_closed_nothing_is_told_on_stdout():
    done = subprocess.run(
        f"{' '.join(NPBERT)} text-classification '{'good ' * 300}' 2>&-",
        shell=True, capture_output=True, timeout=60, executable="/bin/bash", check=True,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("target", ["", "none/x.npy", "none/x.jsonl", "."])
def test_an_output_that_cannot_be_written_is_status_2(cli, target):
    err = cli("sentence-embedding", "-o", target, "A cat.", status=2)
    assert err.startswith("npbert: --output ")


def test_an_output_takes_the_place_of_a_link_of_its_name(cli, tmp_path):
    (tmp_path / "there").write_text("precious")
    link = tmp_path / "x.npy"
    link.symlink_to(tmp_path / "there")
    cli("sentence-embedding", "-o", link, "A cat.")
    assert not link.is_symlink()
    assert np.load(link).shape == (1, 192)
    assert (tmp_path / "there").read_text() == "precious"


def test_the_fields_of_the_command_line_are_the_tasks():
    for name, row in TASKS.items():
        own = set(row.fields) | ({"words"} if name == "token-classification" else set())
        assert set(row.names) == own


def test_an_empty_stream_has_no_array(cli, tmp_path):
    err = cli("sentence-embedding", "-o", tmp_path / "x.npy", stdin="", status=2)
    assert err == "npbert: there are no texts, so that there is no array to write\n"
    assert list(tmp_path.iterdir()) == []
