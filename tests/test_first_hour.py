"""What somebody new types first: names of built-in models, files, prompts, a terminal."""

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import npbert
from npbert.cli import main
from npbert.hub import BUILT_IN

CLASSIFY = "text-classification"
NAMES = sorted(path.parent.name for path in BUILT_IN.glob("*/config.json"))


# ---- built-in models ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_model_has_a_name(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in (name, f"builtin:{name}"):
        model = npbert.load(source)
        assert model.folder == BUILT_IN / name
        assert pickle.loads(pickle.dumps(model)).folder == model.folder
        assert main(["info", source, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["folder"] == str(BUILT_IN / name)


def test_a_folder_comes_before_the_built_in_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npbert.load("sentiment").save("ner")
    assert npbert.load("ner").folder == Path("ner")
    assert npbert.load("builtin:ner").folder == BUILT_IN / "ner"
    assert npbert.pipeline("token-classification", "builtin:ner")("Ada Lovelace.")[0]["word"]


def test_a_built_in_model_that_there_is_not_is_told_and_other_names_are_the_hubs():
    with pytest.raises(npbert.HubError) as error:
        npbert.load("builtin:nre")
    assert str(error.value) == (
        "builtin:nre: there is no such built-in model; did you mean 'ner'?; there are "
        "builtin:embedding, builtin:fill-mask, builtin:ner, builtin:sentiment"
    )
    with pytest.raises(npbert.HubError, match=r"^sentiments: is no folder here"):
        npbert.load("sentiments", offline=True)
    with pytest.raises(npbert.InputError, match=r"^revision is given, but .* is a path"):
        npbert.load("ner", revision="main")


# ---- hints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["<mask>", "[mask]", "{MASK}", "<extra_id_0>", "____", "[blank]"])
def test_another_models_mask_gets_a_hint(mask):
    with pytest.raises(npbert.InputError) as error:
        npbert.pipeline("fill-mask")(f"The {mask} sank.")
    assert str(error.value) == (
        "text 0: has no [MASK], so that there is nothing to fill in; its "
        f"{mask!r} is [MASK] for this model"
    )


def test_the_name_of_a_file_that_is_read_as_a_text_gets_a_hint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("reviews.txt").write_text("Funny.\n")
    assert main([CLASSIFY, "reviews.txt", "no-file.txt", "x" * 5000, "."]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert err.splitlines()[0] == (
        "npbert: 'reviews.txt' is a file, and its name was read as a text; -i reads what is in it"
    )
    assert "no-file" not in err


# ---- what things look like ----------------------------------------------------------------------


def test_everything_shows_itself_in_one_line():
    model = npbert.load("sentiment")
    assert repr(model) == (
        "<npbert.Model: family distilbert, architecture for_sequence_classification, size 2 blocks "
        "of 192, parameters 1,643,586, dtype float32, reads up to 256 tokens, labels NEGATIVE, "
        f"POSITIVE, folder {model.folder}>"
    )
    task = npbert.pipeline(CLASSIFY, model, top_k=2)
    assert repr(task) == f"<npbert text-classification, top_k=2, by {model!r}>"
    embed = npbert.pipeline("sentence-embedding", precision="int8", ranges=[[0.0] * 192] * 2)
    assert repr(embed).startswith(
        "<npbert sentence-embedding, precision='int8', ranges=array(2, 192), by <npbert.Model: "
    )
    trace = npbert.trace(model, [[2, 7, 3]])
    assert repr(trace) == "<npbert.Trace: 4 inputs, 38 activations>"
    page = npbert.explain(None, "A delight.")
    assert repr(page) == (
        f"<npbert.Explanation: a page of {len(page.html.encode()) / 1000:,.0f} kB; save(path) "
        "writes it>"
    )
    config = npbert.Config(num_blocks=1, hidden_size=12, num_attention_heads=2, vocab_size=9)
    assert repr(npbert.init(config, "base")).startswith("<npbert.Model: family distilbert, arch")
    for each in (model, task, embed, trace, page):
        assert "\n" not in repr(each)


def test_a_model_shows_itself_in_a_notebook_and_escapes_its_labels(tmp_path):
    config = npbert.Config(
        num_blocks=1, hidden_size=12, num_attention_heads=2, vocab_size=9,
        id_to_label={0: "<script>", 1: "a\nb"},
    )  # fmt: skip
    model = npbert.init(config, "for_sequence_classification")
    assert "&lt;script&gt;" in model._repr_html_()
    assert "<script>" not in model._repr_html_()
    assert model._repr_html_().startswith("<table><caption>npbert.Model</caption><tr><th")
    assert "\\n" in repr(model)
    assert "\n" not in repr(model)


# ---- a terminal ---------------------------------------------------------------------------------


def at_terminal(*args, typed=b"", stdin=None):
    """Run a command at a terminal 100 columns wide; return all that the terminal got."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    process, terminal = pty.fork()
    if not process:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        if stdin:
            os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.execv(sys.executable, [sys.executable, "-m", "npbert", *map(str, args)])
    shown = b""
    while True:
        try:
            got = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        shown += got
        if not got:
            break
        if typed and b"reads what" in shown:
            os.write(terminal, typed)
            typed = b""
    os.waitpid(process, 0)
    os.close(terminal)
    return shown.decode()


def test_a_terminal_that_is_waited_for_is_told():
    shown = at_terminal(CLASSIFY, typed=b"Funny.\n\x04")
    assert shown.startswith("npbert: reads what is typed here, a text a line; Ctrl-D ends it")
    assert '"label": "POSITIVE"' in shown
    assert "reads what is typed" not in at_terminal(CLASSIFY, "Funny.")


def test_a_progress_bar_knows_how_far_it_is_in_a_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("Funny, and warm.\n" * 300)
    for how in ({"args": ("-i", path)}, {"args": (), "stdin": path}):
        shown = at_terminal(
            CLASSIFY, *how["args"], "-o", tmp_path / "o.jsonl", stdin=how.get("stdin")
        )
        assert "100%" in shown
        assert "4.98k/4.98k" in shown
        assert "300 texts" in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("npbert text-cl", {"text-classification"}),
        ("npbert text-classification --top", {"--top-k"}),
        ("npbert token-classification --aggregation-strategy ", {"none", "simple", "first"}),
    ],
)
def test_a_shell_is_told_what_may_follow(tmp_path, line, expected):
    pytest.importorskip("argcomplete", reason="it comes with the extra completion")
    told = tmp_path / "told"
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "npbert"], env=os.environ | asked, check=True)
    assert expected <= {each.strip() for each in told.read_text().split("\n")}
