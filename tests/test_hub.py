"""Models by name: from a hub on this machine to the cache, and out of the cache with no hub."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HALF, Hub, files_of

import npbert
from npbert import HubError, InputError, NpbertWarning
from npbert.hub import locate
from npbert.hub.cache import cache_folder, hub_address, is_offline
from npbert.tasks import built_in_folder

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "golden" / "tasks"
SINGLE, DENSE = GOLDEN / "single", GOLDEN / "st_dense"
OURS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DECOYS = dict.fromkeys(
    ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "README.md",
     "openvino/openvino_model.bin", "model.fp16.safetensors", "vocab.txt", "a/config.json"),
    b"not wanted",
)  # fmt: skip
OPTIONAL = (
    "modules.json", "special_tokens_map.json", "added_tokens.json",
    "config_sentence_transformers.json", "sentence_bert_config.json",
    "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


@pytest.fixture
def hub(server: Hub) -> Hub:
    """The hub as it is on its best day, with nothing asked yet."""
    server.commits.clear()
    server.refs.clear()
    server.moods.clear()
    server.gated.clear()
    server.asked.clear()
    for shown in server.tokens.values():
        shown.clear()
    return server


def start(hub: Hub, home: Path, *calls: Any, **how: Any) -> subprocess.Popen[str]:
    """Start a process that locates models, each a name or a name and keywords."""
    without, room = how.pop("without", ()), how.pop("room", 0)
    stderr = how.pop("stderr", subprocess.PIPE)
    asked = [call if isinstance(call, tuple) else (call, {}) for call in calls]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "helpers" / "hub_child.py")],
        env={**clean, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "*",
             "HF_HUB_DISABLE_TELEMETRY": "1", **how},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
    )  # fmt: skip
    assert child.stdin
    child.stdin.write(json.dumps({"calls": asked, "without": without, "room": room}))
    child.stdin.close()
    child.stdin = None
    return child


def finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return {**json.loads(out), "stderr": err}


def run(hub: Hub, home: Path, *calls: Any, **how: Any) -> dict[str, Any]:
    return finish(start(hub, home, *calls, **how))


def said(hub: Hub, home: Path, *calls: Any, **how: Any) -> list[str]:
    """Return only what came of each, where nothing is warned of."""
    outcomes = run(hub, home, *calls, **how)["outcomes"]
    assert [warned for _, *warned in outcomes if warned] == []
    return [folder for (folder,) in outcomes]


def laid(cache: Path, name: str, files: dict[str, bytes], absent: tuple[str, ...] = ()) -> Path:
    """Lay out a repository in a cache, as other programs leave it, and return its folder."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for path, content in files.items():
        blob, link = repository / "blobs" / path.replace("/", "-"), repository / "snapshots"
        link = link / COMMIT / path
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    for path in absent:
        marker = repository / ".no_exist" / COMMIT / path
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


def only(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def logits(model: npbert.Model) -> Any:
    return model([[2, 5, 7, 3]]).logits


def message(error: type[Exception], *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        locate(*arguments, **options)
    return str(caught.value)


# From the hub to the cache


def test_a_model_is_downloaded_once_and_only_what_is_read_of_it(hub: Hub, tmp_path: Path) -> None:
    commit = hub.push("org/single", {**files_of(SINGLE), **DECOYS})
    first = run(hub, tmp_path, "org/single")
    folder = tmp_path / "hub" / "models--org--single" / "snapshots" / commit
    assert first["outcomes"] == [[str(folder)]]
    assert sorted(files_of(folder)) == sorted(OURS)
    assert len(hub.asked) == 1 + 2 * len(OURS)  # what there is, and each file's tag and bytes
    assert (first["stderr"], first["bars"]) == ("", True)  # off while nobody sees them
    hub.asked.clear()
    again = run(hub, tmp_path, "org/single", ("org/single", {"offline": True}))
    assert again["outcomes"] == [[str(folder)]] * 2
    assert (hub.asked, again["imported"]) == ([], [])
    model = npbert.load("org/single", cache_dir=tmp_path / "hub", offline=True)
    assert np.array_equal(logits(model), logits(npbert.load(SINGLE)))
    assert model.tokenizer


def test_a_terminal_shows_how_far_it_is(hub: Hub, tmp_path: Path) -> None:
    termios = pytest.importorskip("termios")
    hub.push("org/single", files_of(SINGLE))
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    finish(start(hub, tmp_path, "org/single", stderr=terminal))
    os.close(terminal)
    assert b"100%" in os.read(screen, 100_000)
    os.close(screen)


def test_the_modules_after_an_encoder_come_too(hub: Hub, tmp_path: Path) -> None:
    hub.push("org/dense", {**files_of(DENSE), "2_Dense/pytorch_model.bin": b"", "3_More/x": b""})
    (folder,) = said(hub, tmp_path, "org/dense")
    assert files_of(Path(folder)) == files_of(DENSE)
    how = {"cache_dir": tmp_path / "hub", "offline": True}
    embed = npbert.pipeline("sentence-embedding", "org/dense", **how)
    expected = npbert.pipeline("sentence-embedding", DENSE)("a bad cab")
    assert np.array_equal(embed("a bad cab"), expected)


def test_shards_come_as_their_index_names_them(hub: Hub, tmp_path: Path) -> None:
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"weight_map": {"a": one, "b": two, "c": "../d", "e": "x/f", "g": 7}}
    files = {
        "config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(),
        one: b"one", two: b"two", "model-00003-of-00003.safetensors": b"three",
    }  # fmt: skip
    hub.push("org/shards", files)
    hub.push("org/short", {name: files[name] for name in list(files)[:3]})
    folder, short = said(hub, tmp_path, "org/shards", "org/short")
    assert sorted(files_of(Path(folder))) == sorted(list(files)[:4])
    assert short == f"HubError: org/short: has no {two} at main"


def test_a_pickle_is_fetched_only_where_there_is_nothing_better(hub: Hub, tmp_path: Path) -> None:
    hub.push("org/old", {"config.json": b"{}", "pytorch_model.bin": b"", "tf_model.h5": b""})
    (folder,) = said(hub, tmp_path, "org/old")
    assert sorted(files_of(Path(folder))) == ["config.json", "pytorch_model.bin"]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, tmp_path: Path) -> None:
    old = hub.push(
        "org/single", {**files_of(SINGLE), "added_tokens.json": b"{}"}, "v1", "refs/pr/3"
    )
    new = hub.push("org/single", files_of(SINGLE))
    revisions = (new, "v1", "refs/pr/3", old, "main")
    calls = [("org/single", {"revision": revision}) for revision in revisions]
    expected = [new, old, old, old, new]
    assert [Path(folder).name for folder in said(hub, tmp_path, *calls)] == expected
    hub.asked.clear()
    again = run(hub, tmp_path, *calls)
    assert [Path(folder).name for (folder,) in again["outcomes"]] == expected
    assert (hub.asked, again["imported"]) == ([], [])


def test_a_subfolder_is_a_model_of_its_own(hub: Hub, tmp_path: Path) -> None:
    files = {f"small/a/{name}": content for name, content in files_of(SINGLE).items()}
    hub.push("org/many", {**files, "config.json": b"", "model.safetensors": b""})
    folder, wrong = said(
        hub, tmp_path, ("org/many", {"subfolder": "small/a"}), ("org/many", {"subfolder": "large"})
    )
    assert files_of(Path(folder)) == files_of(SINGLE)
    assert wrong == "HubError: org/many at main: has no folder large; it has small/a"
    assert not (Path(folder).parent.parent / "model.safetensors").exists()


def test_a_branch_that_moved_is_followed_only_when_asked(hub: Hub, tmp_path: Path) -> None:
    old = hub.push("org/single", files_of(SINGLE))
    said(hub, tmp_path, "org/single")
    new = hub.push("org/single", {**files_of(SINGLE), "added_tokens.json": b"{}"})
    calls = ("org/single", ("org/single", {"fresh": True}), "org/single")
    assert [Path(folder).name for folder in said(hub, tmp_path, *calls)] == [old, new, new]


def test_a_name_of_one_part_is_a_name(hub: Hub, tmp_path: Path) -> None:
    hub.push("distilbert-base-uncased", files_of(SINGLE))
    (folder,) = said(hub, tmp_path, "distilbert-base-uncased")
    assert Path(folder).parts[-3] == "models--distilbert-base-uncased"


def test_two_processes_may_fetch_one_model_at_once(hub: Hub, tmp_path: Path) -> None:
    commit = hub.push("org/dense", files_of(DENSE))
    both = [start(hub, tmp_path, "org/dense") for _ in range(2)]
    for child in both:
        (outcome,) = finish(child)["outcomes"]
        assert Path(outcome[0]).name == commit
        assert files_of(Path(outcome[0])) == files_of(DENSE)


# When the hub misbehaves


def test_after_a_dropped_connection_the_model_is_whole_at_the_next_try(
    hub: Hub, tmp_path: Path
) -> None:
    """New releases of huggingface_hub go on by themselves; old ones leave it to the next try."""
    hub.push("org/single", files_of(SINGLE))
    hub.moods[HALF] = 1
    first, folder = said(hub, tmp_path, "org/single", "org/single")
    assert files_of(Path(folder)) == files_of(SINGLE)
    assert first == folder or first.endswith("; try again, what came whole is kept")
    assert len([path for method, path in hub.asked if method == "GET" and "/cdn/" in path]) == 2


@pytest.mark.long  # six seconds, in which huggingface_hub tries again
def test_a_hub_that_breaks_off_leaves_nothing_that_looks_whole(hub: Hub, tmp_path: Path) -> None:
    commit = hub.push("org/single", files_of(SINGLE))
    hub.moods[HALF] = 99
    (outcome,) = said(hub, tmp_path, "org/single")
    assert outcome.startswith(
        f"HubError: org/single: is no folder here, and could not be fetched from {hub.url}: "
    )
    assert outcome.endswith("; try again, what came whole is kept")
    repository = tmp_path / "hub" / "models--org--single"
    kept = files_of(repository / "snapshots" / commit)
    assert kept == only(SINGLE, *set(OURS) - {"model.safetensors"})
    assert not (repository / "refs").exists()
    assert message(HubError, "org/single", cache_dir=tmp_path / "hub", offline=True) == (
        f"org/single: is no folder here, and {repository} has nothing of main; as this is "
        "offline, run npbert download org/single where there is a network, or unset HF_HUB_OFFLINE"
    )
    hub.moods.clear()
    hub.asked.clear()
    (folder,) = said(hub, tmp_path, "org/single")
    assert files_of(Path(folder)) == files_of(SINGLE)
    assert len(hub.asked) == 3  # what there is, and the file that was missing


def test_what_the_hub_refuses_is_said_with_what_to_do(hub: Hub, tmp_path: Path) -> None:
    for name in ("busy", "broken", "slow", "gated", "odd", "refused"):
        hub.push(f"org/{name}", files_of(SINGLE))
    hub.push("org/h5", {"config.json": b"{}", "tf_model.h5": b"", "onnx/model.onnx": b""})
    hub.push("org/text", {"README.md": b""})
    hub.gated.add("org/gated")
    moods = {"busy": 429, "broken": 500, "slow": "slow", "refused": 403}
    hub.moods.update({f"org/{name}": mood for name, mood in moods.items()})
    outcomes = said(
        hub, tmp_path, "org/none", "org/gated", ("org/odd", {"revision": "v9"}), "org/h5",
        "org/text", "org/refused", "org/busy", "org/broken", "org/slow",
        HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DOWNLOAD_TIMEOUT="1",
    )  # fmt: skip
    none, gated, odd, h5, text, refused, *again = [o.removeprefix("HubError: ") for o in outcomes]
    assert none == (
        f"org/none: is no folder here, and {hub.url} has no repository of this name, or a private "
        "one; is it spelt right? For a private one set HF_TOKEN to a token that may read it"
    )
    assert gated == (
        f"org/gated: its owners let in only whom they know; ask for access at {hub.url}/org/gated, "
        "then set HF_TOKEN to a token of yours"
    )
    assert odd == (
        "org/odd: has no revision 'v9'; its branches and tags are listed at "
        f"{hub.url}/org/odd/tree/main"
    )
    assert h5 == (
        "org/h5 at main: is an export to ONNX (onnx/model.onnx); take the model that it was made "
        "from, as save_pretrained of transformers writes it"
    )
    assert text == (
        "org/text at main: has no config.json, so it is no model of transformers; it holds "
        "README.md"
    )
    assert refused == (
        f"org/refused: {hub.url} refuses the token (HTTP 403); is HF_TOKEN right, and not expired?"
    )
    for name, why, outcome in zip(moods, ("429", "500", "timed out"), again, strict=False):
        before = f"org/{name}: is no folder here, and could not be fetched from {hub.url}: "
        assert outcome.startswith(before)
        assert why in outcome.removeprefix(before)
        assert outcome.endswith("; try again, what came whole is kept")
    assert [method for method, path in hub.asked if "/resolve/" in path] == []
    assert not (tmp_path / "hub").exists()


def test_a_token_opens_what_is_closed_and_is_shown_to_nobody_else(hub: Hub, tmp_path: Path) -> None:
    hub.push("org/gated", files_of(SINGLE))
    hub.gated.add("org/gated")
    (folder,) = said(hub, tmp_path, "org/gated", HF_TOKEN="hf_secretsecret")
    assert Path(folder).is_dir()
    assert hub.tokens == {"hub": {"Bearer hf_secretsecret"}, "cdn": set()}
    broken = (
        "hf_broken\nsecret"  # as it is pasted; a header cannot hold it, and the library says it
    )
    hub.moods["org/broken"] = 500
    outcomes = said(
        hub, tmp_path / "other", ("org/gated", {"token": broken}), ("org/gated", {"token": False}),
        ("org/broken", {"token": "my secret"}), HF_TOKEN="hf_secretsecret",
    )  # fmt: skip
    assert outcomes[0].startswith("HubError: org/gated: ")
    assert "secret" not in "".join(outcomes)
    assert "its owners let in only whom they know" in outcomes[1]
    assert "Bad ***" in outcomes[2]


def test_no_hub_no_library_and_no_room_are_said(hub: Hub, tmp_path: Path) -> None:
    hub.push("org/single", files_of(SINGLE))
    nobody = "http://user:secret@127.0.0.1:9"  # the port of discard, where nobody listens
    (outcome,) = said(hub, tmp_path, "org/single", HF_ENDPOINT=nobody)
    assert outcome.startswith(
        "HubError: org/single: is no folder here, and could not be fetched from "
        "http://***@127.0.0.1:9: "
    )
    assert said(hub, tmp_path, "org/single", without=["huggingface_hub"]) == [
        "HubError: org/single: is no folder here, and models are fetched from the hub with "
        "huggingface_hub, which is not installed: pip install 'npbert[hub]'"
    ]
    assert said(hub, tmp_path, ("org/single", {"offline": False}), HF_HUB_OFFLINE="1") == [
        "HubError: org/single: huggingface_hub was told to stay offline when it was imported, by "
        "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE; unset them and start again"
    ]
    assert said(hub, tmp_path, "org/single", room=20_000) == [
        f"HubError: org/single: {tmp_path / 'hub'} cannot be written: File too large; make room, "
        "or choose another place by cache_dir (--cache-dir) or HF_HOME"
    ]


# What others left in the cache


def test_what_is_not_known_of_a_cached_model_is_found_out(hub: Hub, tmp_path: Path) -> None:
    """Someone used only the encoder: config and weights are there, and pooling is not."""
    cache = tmp_path / "hub"
    laid(cache, "org/dense", only(DENSE, "config.json", "model.safetensors"))
    repository = cache / "models--org--dense"
    commit = hub.push("org/dense", files_of(DENSE))
    (outcome,) = run(hub, tmp_path, ("org/dense", {"offline": True}))["outcomes"]
    assert outcome == [
        str(repository / "snapshots" / COMMIT),
        "org/dense: what is cached is used, but nobody knows whether the repository also has "
        "modules.json, tokenizer.json, tokenizer_config.json, special_tokens_map.json, "
        "added_tokens.json, config_sentence_transformers.json, sentence_bert_config.json, and "
        "this is offline; npbert download org/dense finds out",
    ]
    hub.moods["/api/"] = 500
    (outcome,) = run(hub, tmp_path, "org/dense")["outcomes"]
    assert outcome[0] == str(repository / "snapshots" / COMMIT)
    assert f"and could not be fetched from {hub.url}: " in outcome[1]
    hub.moods.clear()
    (folder,) = said(hub, tmp_path, "org/dense")
    assert folder == str(repository / "snapshots" / commit)
    assert files_of(Path(folder)) == files_of(DENSE)


def test_a_marker_says_that_a_repository_has_no_such_file(tmp_path: Path) -> None:
    folder = laid(tmp_path, "org/single", files_of(SINGLE), OPTIONAL)
    assert locate("org/single", cache_dir=tmp_path) == folder
    laid(tmp_path, "org/open", files_of(SINGLE), OPTIONAL[1:])
    with pytest.warns(NpbertWarning, match="whether the repository also has modules.json, and"):
        npbert.load("org/open", cache_dir=tmp_path, offline=True)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_half_model_is_none_without_a_network(tmp_path: Path, name: str) -> None:
    files = files_of(SINGLE)
    del files[name]
    laid(tmp_path, "org/half", files, OPTIONAL)
    assert message(HubError, "org/half", cache_dir=tmp_path, offline=True) == (
        f"org/half: is no folder here, and {tmp_path / 'models--org--half'} has no {name} of main; "
        "as this is offline, run npbert download org/half where there is a network, or unset "
        "HF_HUB_OFFLINE"
    )


@pytest.mark.parametrize("odd", ["", "not a commit", "../../..", "é", "0" * 39])
def test_a_damaged_ref_is_as_none(tmp_path: Path, odd: str) -> None:
    laid(tmp_path, "org/single", files_of(SINGLE), OPTIONAL)
    (tmp_path / "models--org--single" / "refs" / "main").write_text(odd, "utf-8")
    found = message(HubError, "org/single", cache_dir=tmp_path, offline=True)
    assert "has nothing of main" in found


@pytest.mark.parametrize("kind", ["pipe", "folder", "sparse", "binary", "outward", "loop"])
def test_a_ref_that_is_no_small_file_is_as_none_and_becomes_one(
    hub: Hub, tmp_path: Path, kind: str
) -> None:
    commit = hub.push("org/single", files_of(SINGLE))
    ref = laid(tmp_path / "hub", "org/single", files_of(SINGLE)).parents[1] / "refs" / "main"
    ref.unlink()
    if kind == "pipe":
        os.mkfifo(ref)
    elif kind == "folder":
        ref.mkdir()
    elif kind == "loop":
        ref.symlink_to("main")
    else:
        ref.write_bytes({"sparse": b"", "binary": b"\xff\0" * 999}.get(kind, b"../../../../etc"))
        os.truncate(ref, 4 << 30 if kind == "sparse" else ref.stat().st_size)
    assert locate_offline(tmp_path) == "nothing of main"
    ((folder, *warned),) = run(hub, tmp_path, "org/single")["outcomes"]
    assert (Path(folder).name, files_of(Path(folder))) == (commit, only(SINGLE, *OURS))
    if kind != "folder":
        assert (ref.is_symlink(), ref.read_text(), warned) == (False, commit, [])
    else:
        assert warned == [
            f"{ref}: cannot be written: Is a directory; the model is there, but the cache does not "
            "say so: the hub is asked again at each use, and offline it may not be found"
        ]


def locate_offline(home: Path) -> str:
    """Return what a cache has of a model, as the error says it."""
    found = message(HubError, "org/single", cache_dir=home / "hub", offline=True)
    return found.partition("models--org--single has ")[2].partition(";")[0]


PLANTS = {
    "models--org--single": "", "models--org--single/blobs": "", "models--org--single/refs": "",
    "models--org--single/snapshots": "", "models--org--single/snapshots/COMMIT": "",
    "models--org--single/.no_exist": "", "models--org--single/.no_exist/COMMIT": "",
    "models--org--single/.no_exist/COMMIT/modules.json": "new",
    "models--org--single/blobs/TAG.incomplete": "victim", ".locks": "",
    ".locks/models--org--single": "", ".locks/models--org--single/TAG.lock": "victim",
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTS)
def test_no_download_writes_through_a_link_in_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    files = files_of(SINGLE)
    commit = hub.push("org/single", files)
    tag = hashlib.sha1(files["model.safetensors"]).hexdigest()
    elsewhere, cache = tmp_path / "elsewhere", tmp_path / "hub"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("mine")
    link = cache / planted.replace("COMMIT", commit).replace("TAG", tag)
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere / PLANTS[planted])
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert message(HubError, "org/single", cache_dir=cache) == (
        f"{link}: a link, or no file, through which a download would write outside of the cache; "
        "delete it, or choose another place by cache_dir (--cache-dir) or HF_HOME"
    )
    assert files_of(elsewhere) == {"victim": b"mine"}


def test_pipes_in_place_of_drafts_and_locks_hold_nobody_up(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("org/single", files_of(SINGLE))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("models--org--single/blobs/0.incomplete", ".locks/models--org--single/0.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
        assert str(tmp_path / name) in message(HubError, "org/single", cache_dir=tmp_path)
        (tmp_path / name).unlink()


def test_links_in_snapshots_are_read_wherever_they_lead_and_never_written_through(
    hub: Hub, tmp_path: Path
) -> None:
    commit = hub.push("org/single", files_of(SINGLE))
    snapshot = tmp_path / "hub" / "models--org--single" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "weights").write_bytes(files_of(SINGLE)["model.safetensors"])
    (snapshot / "model.safetensors").symlink_to(shared / "weights")
    (snapshot / "config.json").symlink_to(shared / "not there")
    (folder,) = said(hub, tmp_path, "org/single")
    assert files_of(Path(folder)) == only(SINGLE, *OURS)
    assert list(shared.iterdir()) == [shared / "weights"]


@pytest.mark.long
def test_eight_processes_fetch_one_model_at_once(hub: Hub, tmp_path: Path) -> None:
    commit = hub.push("org/dense", files_of(DENSE))
    for child in [start(hub, tmp_path, "org/dense") for _ in range(8)]:
        (outcome,) = finish(child)["outcomes"]
        assert (Path(outcome[0]).name, len(outcome)) == (commit, 1)
    assert_whole(tmp_path / "hub" / "models--org--dense", commit, files_of(DENSE))


@pytest.mark.long
def test_a_download_that_is_killed_at_any_moment_is_completed_by_the_next(
    hub: Hub, tmp_path: Path
) -> None:
    commit = hub.push("org/dense", files_of(DENSE))
    moments = np.random.default_rng(7).uniform(0.3, 1.6, int(os.environ.get("NPBERT_KILLS", 4)))
    for i, moment in enumerate(moments):
        home = tmp_path / str(i)
        victims = [start(hub, home, "org/dense") for _ in range(2)]
        time.sleep(moment)
        for child in victims:
            child.kill()
            child.communicate()
        (folder,) = said(hub, home, "org/dense")
        assert_whole(home / "hub" / "models--org--dense", commit, files_of(DENSE))
        assert said(hub, home, ("org/dense", {"offline": True})) == [folder]


def assert_whole(repository: Path, commit: str, files: dict[str, bytes]) -> None:
    """See that a cache holds these files once, each in a blob, and a ref."""
    assert files_of(repository / "snapshots" / commit) == files
    names = {hashlib.sha1(content).hexdigest(): content for content in files.values()}
    blobs = {n: b for n, b in files_of(repository / "blobs").items() if "incomplete" not in n}
    assert blobs == names
    assert (repository / "refs" / "main").read_text() == commit


TASKS = {
    "text-classification": "single", "token-classification": "bio", "fill-mask": "",
    "question-answering": "qa", "multiple-choice": "choice", "zero-shot-classification": "nli",
    "sentence-embedding": "st_dense", "text-ranking": "cross1", "feature-extraction": "plain",
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_every_task_takes_a_name(tmp_path: Path, task: str) -> None:
    source = GOLDEN / TASKS[task] if TASKS[task] else built_in_folder(task)
    laid(tmp_path, "org/it", files_of(source))
    with pytest.warns(NpbertWarning, match="what is cached is used"):
        made = npbert.pipeline(task, "org/it", cache_dir=tmp_path, offline=True)
    assert type(made) is type(npbert.pipeline(task, source))


# Names and paths


def test_what_exists_here_or_looks_like_a_path_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    paths = ("org/name", "./nowhere", "../nowhere", "~/nowhere", "/nowhere", "a/b/c", "trace.npz")
    for path in paths:
        assert locate(path) == Path(path)
    assert locate(Path("nowhere")) == Path("nowhere")
    assert locate("org", subfolder="name") == Path("org/name")
    assert message(InputError, "org/name", revision="main") == (
        "revision is given, but org/name is a path; only models on the hub have use for a revision"
    )
    assert "only models on the hub have use for a token" in message(InputError, "org", token="x")


HOSTILE = ("../x", "a/../b", "org/name/../..", "org/..", "a\0b", "a--b/c", "org/na me", "-a/b",
           "org/a.", "c:\\d", "a\\b", "org//b", "http://127.0.0.1/a", "é/b", "a" * 97)  # fmt: skip


def test_hostile_names_ask_nobody_and_write_nothing(hub: Hub, tmp_path: Path) -> None:
    odd = ("../x", "a/../b", "/etc", "a\0b", "a//b", "a\\b", ".", "x" * 256)
    calls = [("org/name", {what: it}) for what in ("revision", "subfolder") for it in odd]
    outcomes = said(hub, tmp_path / "home", *HOSTILE, *calls)
    for outcome, name in zip(outcomes, HOSTILE, strict=False):
        told = "HubError: http://127.0.0.1/a: is an address, expected a folder, or the name of "
        assert outcome.startswith(told) if "://" in name else outcome == str(Path(name))
    for outcome, (_, how) in zip(outcomes[len(HOSTILE) :], calls, strict=True):
        ((what, _),) = how.items()
        assert outcome.startswith(f"InputError: {what} is ")
    assert hub.asked == []
    assert not (tmp_path / "home").exists()
    with pytest.raises(npbert.CheckpointError, match="no such folder"):
        npbert.load("a/../b")


def test_a_model_in_hand_needs_no_hub() -> None:
    model = npbert.load(SINGLE)
    with pytest.raises(InputError) as caught:
        npbert.pipeline("text-classification", model, revision="v1", offline=True)
    assert str(caught.value) == (
        "revision, offline: given with a Model, which is loaded already; pass them to npbert.load"
    )


def test_arguments_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    expected = "source is None, expected the path of a folder, or a name on the hub"
    assert message(InputError, None) == expected
    assert message(InputError, "org/name", token=b"x") == (
        "token is a bytes, expected a string or a bool"
    )
    assert message(InputError, "org/name", cache_dir=7) == (
        "cache_dir is 7, expected the path of a folder"
    )


# The environment and the command line


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x", "HF_HOME": "~/h"}, "~/h/hub"),
        ({"HF_HOME": "/h", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "$HOME/c"}, "~/c"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    said: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert cache_folder(None) == Path(expected).expanduser()
    assert cache_folder("~/mine") == Path("~/mine").expanduser()


def test_offline_and_the_address_are_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert (is_offline(), hub_address()) == (False, "https://huggingface.co")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    assert hub_address() == "http://127.0.0.1:9"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        for value, expected in (
            ("1", True),
            ("on", True),
            ("Yes", True),
            ("true", True),
            ("0", False),
        ):
            monkeypatch.setenv(name, value)
            assert is_offline() is expected
        monkeypatch.delenv(name)


def npbert_command(hub: Hub, home: Path, *arguments: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "npbert", *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "*"},
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def test_the_command_prints_the_folder_and_others_take_the_name(hub: Hub, tmp_path: Path) -> None:
    commit = hub.push("org/single", files_of(SINGLE), "v1")
    where = ("--revision", "v1", "--cache-dir", str(tmp_path / "c"))
    folder = tmp_path / "c" / "models--org--single" / "snapshots" / commit
    assert npbert_command(hub, tmp_path, "download", "org/single", *where) == (0, f"{folder}\n", "")
    status, out, err = npbert_command(
        hub, tmp_path, "text-classification", "-m", "org/single", *where, "--offline", "a bad cab"
    )
    assert (status, err) == (0, "")
    expected = npbert.pipeline("text-classification", SINGLE)("a bad cab")
    assert json.loads(out)["label"] == expected["label"]
    status, out, err = npbert_command(hub, tmp_path, "info", "org/single", "--offline")
    assert (status, out) == (3, "")
    assert err.startswith("npbert: org/single: is no folder here, and ")
