"""The command line, as whole processes: results on stdout, all else on stderr, an honest status."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import npbert
from npbert import families
from npbert.cli import build_parser, main
from npbert.cli.shared import spell_as_flags
from npbert.tasks import built_in_folder
from npbert.tasks.rows import TASKS

NPBERT = [sys.executable, "-m", "npbert"]


def npbert_says(*args: str, stdin: str | bytes = "", status: int = 0) -> tuple[str, str]:
    """Run the command line and return (stdout, stderr)."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*NPBERT, *args], input=given, capture_output=True, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def test_a_text_gets_a_json_object_on_a_line():
    out, err = npbert_says("text-classification", "A gorgeous, witty, seductive movie.")
    answer = json.loads(out)
    assert answer == npbert.pipeline("text-classification")("A gorgeous, witty, seductive movie.")
    assert answer["label"] == "POSITIVE"
    assert err == ""


def test_every_line_of_stdin_gets_a_line_in_order():
    given = "Wonderful!\r\nAwful, a complete bore.\nFun"
    out, _ = npbert_says("text-classification", stdin=given)
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert labels == ["POSITIVE", "NEGATIVE", "POSITIVE"]


def test_several_answers_stand_under_results():
    out, _ = npbert_says("fill-mask", "--top-k", "2", "The [MASK] sank.", "A [MASK] and a [MASK].")
    one, two = (json.loads(line)["results"] for line in out.splitlines())
    assert [set(answer) for answer in one] == [{"score", "token", "token_str", "sequence"}] * 2
    assert [len(answers) for answers in two] == [2, 2]


def test_a_pair_and_another_function():
    out, _ = npbert_says(
        "text-classification",
        "Good.",
        "--text-pair",
        "Bad.",
        "--function-to-apply",
        "none",
        "--top-k",
        "2",
    )
    task = npbert.pipeline("text-classification", top_k=2, function_to_apply="none")
    assert json.loads(out)["results"] == task(("Good.", "Bad."))


def test_non_ascii_text_passes_through_whatever_the_locale():
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    done = subprocess.run(
        [*NPBERT, "fill-mask"], input="Café [MASK] 🎬".encode(), capture_output=True, env=env
    )
    assert done.returncode == 0
    assert all("🎬" in a["sequence"] or "[UNK]" in a["sequence"] or a["sequence"]
               for a in json.loads(done.stdout)["results"])  # fmt: skip


def test_a_warning_is_one_line_on_stderr():
    out, err = npbert_says("text-classification", "good " * 300)
    assert json.loads(out)["label"] == "POSITIVE"
    assert err == (
        "npbert: 1 of the texts was truncated to 256 tokens, 46 tokens were not read "
        "(--long error refuses such texts)\n"
    )


UNUSABLE = {
    "no mask": (["fill-mask", "x"], "text 0: has no [MASK], so that there is nothing to fill in"),
    "too long": (
        ["text-classification", "--long", "error", "good " * 300],
        "text 0: has 302 tokens, but the model reads 256; shorten it, or say --long truncate",
    ),
    "no answers": (
        ["fill-mask", "--top-k", "0", "x"],
        "--top-k is 0, expected a whole number from 1",
    ),
}


@pytest.mark.parametrize(("args", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_input_that_cannot_be_used_is_status_2_and_no_traceback(args, message, capsys):
    assert main(args) == 2
    assert capsys.readouterr() == ("", f"npbert: {message}\n")


def test_stdin_that_is_not_utf_8_is_status_2():
    _, err = npbert_says("text-classification", stdin=b"\xff\n", status=2)
    assert err == "npbert: line 1: is not UTF-8: invalid start byte at byte 0\n"


def test_usage_errors_are_status_2():
    _, err = npbert_says("text-classificatoin", "x", status=2)
    assert "no command 'text-classificatoin'; did you mean 'text-classification'?" in err
    npbert_says(status=2)


def test_a_model_that_cannot_be_loaded_is_status_3(tmp_path, capsys):
    assert main(["text-classification", "-m", str(tmp_path / "none"), "x"]) == 3
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert main(["info", str(tmp_path)]) == 3
    assert capsys.readouterr().err == (
        f"npbert: {tmp_path / 'none'}: no such folder, expected a folder with config.json and "
        "model.safetensors\n"
        f"npbert: {tmp_path / 'config.json'}: architectures is None, expected a list of one name; "
        f"pass --architecture, one of {', '.join(families.list_architectures('distilbert'))}\n"
    )


def test_an_interrupt_is_status_130():
    process = subprocess.Popen(
        [*NPBERT, "text-classification"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Fine.\n" * 64)
    process.stdin.flush()
    process.stdout.readline()  # it is at work
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdin.close()
    process.stdout.close()


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"yes Fine. | head -2000 | {' '.join(NPBERT)} text-classification | head -1",
        shell=True, capture_output=True, timeout=60, executable="/bin/bash",
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def test_info_tells_what_a_model_is():
    out, _ = npbert_says("info", "--json", "--check")
    facts = json.loads(out)
    assert facts["architecture"] == "for_sequence_classification"
    assert facts["computes in"] == "float32"
    assert set(facts["weights"]["stored"]) == {"F16"}
    assert facts["tokenizer"]["pieces"] == 4500
    assert facts["not finite"] == "none"
    size = (built_in_folder("sentiment") / "model.safetensors").stat().st_size
    assert facts["files"]["model.safetensors"] == size
    assert size / 2 - 8000 < facts["parameters"] < size / 2


def test_info_is_a_table_for_people():
    out, _ = npbert_says("info", str(built_in_folder("fill-mask")))
    table = dict(line.split("  ", 1) for line in out.splitlines())
    assert table["architecture"].strip() == "for_masked_language_modeling"
    assert table["weights.tied"].strip() == "vocab_projector.weight"
    assert table["tokenizer.special_tokens.mask_token"].strip() == "[MASK]"


def test_info_check_names_weights_that_are_not_finite(tmp_path, capsys):
    config = npbert.Config(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    model = npbert.init(config, "base")
    model.parameters["embeddings.LayerNorm.bias"][3] = float("nan")
    model.save(tmp_path)
    assert main(["info", "--check", "--json", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["not finite"] == {"embeddings.LayerNorm.bias": 1}


def test_every_command_has_help_with_its_usage_and_an_example(capsys):
    for name in (*TASKS, "info", "bench", "trace", "compare", "diagnose", "verify", "kit"):
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: npbert {name} [-h]")
        assert f"example: npbert {name}" in said
    assert "exit status" in build_parser().format_help()


@pytest.mark.parametrize(
    ("message", "spelled"),
    [
        ("layer is 9", "--layer is 9"),
        ("text 12: layer is 9", "text 12: --layer is 9"),
        ("the layer is 9", "the layer is 9"),
        ("a top_k of 2, not top_k=3", "a --top-k of 2, not top_k=3"),
        ("pass layer='all'", "pass --layer all"),
        ("pass layer=, or nothing", "pass --layer, or nothing"),
        ("no field 'top_k' in top_k.txt", "no field 'top_k' in top_k.txt"),
        ("a.jsonl: line 3: layer is 9", "a.jsonl: line 3: --layer is 9"),
        ("top_k: cannot be read", "top_k: cannot be read"),
        ("a/top_k/b: is no folder", "a/top_k/b: is no folder"),
        ("pass them as layer=[...]", "pass them as --layer, once for each"),
        ("text_pair is 5, pass text_pair=", "text_pair is 5, pass --text-pair"),
    ],
)
def test_an_error_names_the_flags_that_are_at_fault(message, spelled):
    assert spell_as_flags(message, ["layer", "text_pair", "top_k"], ["text_pair"]) == spelled


def test_the_version_is_the_packages():
    assert npbert_says("--version")[0] == f"npbert {npbert.__version__}\n"
    pyproject = Path(npbert.__file__).parent.parent / "pyproject.toml"
    assert f'version = "{npbert.__version__}"' in pyproject.read_text()


def test_a_task_tells_every_blas_to_use_one_thread_before_numpy_loads():
    program = """
import os, sys
from npbert.cli import main
assert "numpy" not in sys.modules
assert main(["text-classification", "Fine."]) == 0
from npbert.engine.threads import thread_controls
get = (thread_controls() or [lambda: 1])[0]
print(get(), os.environ["MKL_NUM_THREADS"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["1 1"], done.stderr
