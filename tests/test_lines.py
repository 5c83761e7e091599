"""Whatever stands in a file, it is one record a line, and what is wrong with it is said there."""

import gzip
import json
import os
import random
import threading
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from npbert import InputError
from npbert.jobs.lines import form_of, parse_object, read_records
from npbert.jobs.raw_lines import ARRAY_STEP, LINE_LIMIT, Lines


def read(path: Path, raw: bytes, form: str = "lines") -> list[tuple[int, object]]:
    """Return the records of a file, each with its line; faults as text behind a question mark."""
    path.write_bytes(raw)
    with closing(Lines(path)) as lines:
        found = read_records(lines, form)
        return [(line, f"?{v}" if isinstance(v, InputError) else v) for line, v in found]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "in.txt"


def test_lines_lose_their_ends_and_nothing_else(file):
    assert read(file, b"\xef\xbb\xbfa\r\n \xe2\x80\xa8b \rc\n\xef\xbb\xbfd") == [
        (1, "a"), (2, " \u2028b \rc"), (3, "\ufeffd"),
    ]  # fmt: skip
    assert read(file, b"") == []


BLANK_LINES = {  # in each form, the same lines: two that say something, and blank ones
    "lines": (b"a\n\n \t\r\nb\n\n \n", "?is blank, expected a text"),
    "jsonl": (b"a\n\n \t\r\nb\n\n \n", "?is blank, expected a JSON object"),
    "json": (b"{\n\n} \n \n{}\n\n \n", "?is blank, expected a JSON object"),
    "csv": (b"x,y\na,\n\n \n,b\n\n \n", "?is blank"),
    "tsv": (b"x\ty\na\t\n\n \n\t\n\n \n", "?is blank"),
}


@pytest.mark.parametrize("form", BLANK_LINES)
def test_a_blank_line_is_wrong_in_every_form_and_at_the_end_it_is_nothing(file, form):
    raw, why = BLANK_LINES[form]
    found = read(file, raw, form)
    first, *blank, last = [value for _, value in found]
    assert blank == [why] * len(blank)
    assert blank
    assert why not in (first, last)
    lines = [line for line, _ in found]
    assert lines[1:-1] == list(range(lines[-1] - len(blank), lines[-1]))
    assert read(file, raw + b"\r\n" * 9, form) == found
    assert read(file, b"", form) == read(file, b"\n \n", "lines") == []


def test_thousands_of_blank_lines_are_counted_and_not_kept(file):
    with file.open("wb") as f:
        f.write(b"a\n")
        f.write(b"\n" * 30_000)
    with closing(Lines(file)) as lines:
        tracemalloc.start()
        try:
            assert len(list(read_records(lines, "lines"))) == 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20


def test_a_row_with_an_empty_field_is_not_blank(file):
    assert read(file, b'text\n""\n" "\n\n"a"', "csv") == [
        (2, {"text": ""}), (3, {"text": " "}), (4, "?is blank"), (5, {"text": "a"}),
    ]  # fmt: skip


# ---- JSON that is no line each ------------------------------------------------------------------


def values(path: Path, raw: bytes) -> list[object]:
    """Return the numbers and the values of JSON that a file holds; faults as text."""
    return [
        (number, text if text.startswith("?") else json.loads(text))
        for number, text in read(path, raw, "json")
    ]


HARD = {"a\n]}": ['é\\"', {"[": "{,"}], "\u2028,": None, "b": -1.5e3}


@pytest.mark.parametrize("indent", [None, 0, 4])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_array_is_as_many_records_as_it_has_elements(file, indent, ascii_only):
    given = [{"text": "a"}, HARD, {}, "[", [1, [HARD]]]
    text = json.dumps(given, indent=indent, ensure_ascii=ascii_only)
    for raw in (text.encode(), f"\ufeff\r\n {text}\n\n".encode(), gzip.compress(text.encode())):
        assert values(file, raw) == list(enumerate(given, 1))
    assert values(file, b"[]") == values(file, b" [ \n]\n") == []


@pytest.mark.parametrize("indent", [None, 2])
def test_objects_one_after_another_may_take_several_lines_each(file, indent):
    given = [{"text": "a"}, HARD, {}, {"b": [HARD]}]
    texts = [json.dumps(each, indent=indent) for each in given]
    firsts = [1 + sum(t.count("\n") + 1 for t in texts[:i]) for i in range(len(texts))]
    expected = list(zip(firsts, given, strict=True))
    assert values(file, "\n".join(texts).encode()) == expected
    assert read(file, b'{"a": [\n{"b": 1}\n{"c": "\n{"d": 2}', "json") == [
        (1, '{"a": [\n'), (2, '{"b": 1}'), (3, '{"c": "\n'), (4, '{"d": 2}'),
    ]  # fmt: skip


def test_an_array_wider_than_any_chunk_is_read_as_far_as_it_is_good(file):
    rng = random.Random(0)
    given = ["".join(rng.choices('\\"[]{}, aé', k=rng.randrange(3 * ARRAY_STEP))) for _ in range(8)]
    assert values(file, json.dumps(given).encode()) == list(enumerate(given, 1))
    raw = json.dumps(["a", "x" * (LINE_LIMIT + 1), "b"], ensure_ascii=False).encode()
    assert read(file, raw.replace(b'"b"', b'"\xff", "b"'), "json") == [
        (1, '"a"'),
        (2, f"?has over {LINE_LIMIT} bytes, the most that is read of an element"),
        (3, "?is not UTF-8: invalid start byte"),
        (4, '"b"'),
    ]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"[1, 2", "its array does not end; is the file cut off?"),
        (b'["a]', "its array does not end; is the file cut off?"),
        (b"[1]\n[2]", "has more behind the end of its array"),
        (b"[1]" + b" " * 2 * ARRAY_STEP + b"x", "has more behind the end of its array"),
    ],
)
def test_an_array_that_is_none_is_told(file, raw, why):
    with pytest.raises(InputError) as caught:
        read(file, raw, "json")
    assert str(caught.value) == f"{file}: {why}"


def test_a_line_that_is_not_utf_8_is_told_and_the_next_is_read(file):
    assert read(file, b"a\n\xff\nb\xc3\nc") == [
        (1, "a"),
        (2, "?is not UTF-8: invalid start byte at byte 0"),
        (3, "?is not UTF-8: invalid continuation byte at byte 1"),
        (4, "c"),
    ]


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("more", [0, 1, LINE_LIMIT, 25 * LINE_LIMIT])
def test_a_line_may_have_so_many_bytes_and_no_more(file, more, end):
    raw = b"x" * (LINE_LIMIT - len(end) + more) + end
    told = f"?has over {LINE_LIMIT} bytes, the most that is read of a line"
    assert read(file, raw) == [(1, told if more else "x" * len(raw.rstrip()))]
    between = read(file, b"a\n" + raw.rstrip() + b"\nb")
    assert [line for line, _ in between] == [1, 2, 3]
    assert between[2] == (3, "b")


def test_a_line_of_100_mb_never_stands_in_memory(file):
    with file.open("wb") as f:
        f.truncate(100_000_000)  # zeros, which are letters too
    tracemalloc.start()
    try:
        with closing(Lines(file)) as lines:
            (record,) = read_records(lines, "lines")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(record.value, InputError)
    assert peak < 6 * LINE_LIMIT


def test_a_row_of_many_lines_never_stands_in_memory_either(file):
    field = b'"' + b"x" * (LINE_LIMIT // 2) + b'"'
    told = f"?has over {LINE_LIMIT} bytes, the most that is read of a row"
    raw = b"a,b\n" + b",\n".join([field] * 9) + b'\n1,"\n'
    raw += (b"x" * 1000 + b"\n") * (2 * LINE_LIMIT // 1000) + b'z""z"\n3,4\n'
    found = read(file, raw, "csv")
    assert found[-1][1] == {"a": "3", "b": "4"}
    assert (11, told) in found


def test_gzip_is_noticed_whatever_its_name(file):
    raw = "é\nb\n".encode()
    expected = [(1, "é"), (2, "b")]
    assert read(file, gzip.compress(raw)) == expected
    assert read(file, gzip.compress(raw[:3]) + gzip.compress(raw[3:])) == expected
    assert read(file, gzip.compress(b"a,b\n1,2\n"), "csv") == [(2, {"a": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (lambda raw: raw[:40] + bytes(20) + raw[60:], "Error -3 while decompressing data"),
        (lambda raw: raw[:-8] + bytes(4) + raw[-4:], "CRC check failed"),
        (lambda raw: raw + b"more", "Not a gzipped file"),
    ],
)
def test_a_damaged_gzip_file_is_told_with_the_line_it_can_be_read_to(file, change, why):
    raw = gzip.compress(b"".join(b"%d\n" % (i * i * 7919) for i in range(9000)))
    file.write_bytes(change(raw))
    with closing(Lines(file)) as lines, pytest.raises(InputError) as caught:
        list(lines)
    beyond = f" beyond line {lines.number}" if lines.number else ""
    assert str(caught.value).startswith(
        f"{file}: cannot be read{beyond}: the gzip file is cut off or damaged: {why}"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, why in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError) as caught:
            list(Lines(path))
        assert str(caught.value) == f"{path}: cannot be read: {why}"


# ---- tables -------------------------------------------------------------------------------------


def test_rows_are_named_by_the_first_and_may_run_over_lines(file):
    raw = b'id,text\r\n1,"a ""b"",\r\nc"\r\n2,d\r\n'
    assert read(file, raw, "csv") == [
        (2, {"id": "1", "text": 'a "b",\r\nc'}),
        (4, {"id": "2", "text": "d"}),
    ]
    raw = b'id\ttext\n1\t"a,b\n2\tb"\n'  # tabs need no quotes, and texts hold some
    assert read(file, raw, "tsv") == [
        (2, {"id": "1", "text": '"a,b'}), (3, {"id": "2", "text": 'b"'}),
    ]  # fmt: skip


def test_a_bad_line_within_quotes_spoils_its_row_and_no_other(file):
    raw = b'text\n"good\n\xff bad\nhello\nworld"\nfine\n'
    assert read(file, raw, "csv") == [
        (2, "?is not UTF-8: invalid start byte at byte 0"),
        (6, {"text": "fine"}),
    ]


def test_a_file_that_is_utf_16_is_told(file):
    assert read(file, "hé".encode("utf-16"))[0] == (1, "?is UTF-16, expected UTF-8")


def test_what_is_wrong_with_a_row_is_told_and_the_next_is_read(file):
    raw = b'a,b\n1\n\n1,2,3\n"x"y,2\n1,\xff\n3,4\n"never closed,5\n6,7'
    assert read(file, raw, "csv") == [
        (2, "?has 1 fields, but there are 2 columns"),
        (3, "?is blank"),
        (4, "?has 3 fields, but there are 2 columns"),
        (5, "?is no CSV: ',' expected after '\"'"),
        (6, "?is not UTF-8: invalid start byte at byte 2"),
        (7, {"a": "3", "b": "4"}),
        (8, "?is no CSV: unexpected end of data"),
    ]


@pytest.mark.parametrize(
    ("raw", "why"),
    [(b"a,b,a\n1,2,3", "says 'a' twice"), (b"\n1", "is blank"), (b"\xff\n1", "is not UTF-8: ")],
)
def test_a_table_without_names_is_none(file, raw, why):
    with pytest.raises(InputError) as caught:
        read(file, raw, "csv")
    assert str(caught.value).startswith(f"{file}: its first row, of column names, {why}")


# ---- names and JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.jsonlines.gz", "jsonl"),
        ("a.jl", "jsonl"), ("a.json", "json"), ("A.JSON.GZ", "json"), ("a.json.txt", "lines"),
        ("a.csv.gz", "csv"), ("a.tsv", "tsv"),
        ("a.txt", "lines"), ("a", "lines"), ("a.gz", "lines"), ("jsonl", "lines"),
    ],
)  # fmt: skip
def test_a_name_says_what_a_file_holds(name, form):
    assert form_of(Path(name)) == form


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "a.parquet",
            "a .parquet file is not read as texts; --dask reads it: -i FILE -o FOLDER --dask, with "
            "pip install 'npbert[dask]'",
        ),
        ("a.XLSX", "a .xlsx file is not read as texts; save it as .csv or .jsonl"),
        ("a.pdf", "a .pdf file is not read as texts; save it as .txt"),
        (
            "a.txt.zst",
            "a .zst file is not read as texts; unpack it; gzip is the one that npbert undoes",
        ),
        ("a.npy.gz", "a .npy file is not read as texts; it holds numbers, not texts"),
    ],
)
def test_a_file_that_holds_no_text_is_not_read_as_such(name, why):
    with pytest.raises(InputError) as caught:
        form_of(Path(name))
    assert str(caught.value) == f"{name}: {why}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("  ", "is blank, expected a JSON object"),
        ("5", "is 5, expected a JSON object"),
        ('{"a": -Infinity}', "has -Infinity, which is no JSON"),
    ],
)
def test_a_line_that_is_no_json_object_says_why(text, why):
    with pytest.raises(InputError, match=f"^{why}$"):
        parse_object(text)


SLOWLY_GIVEN = {
    "gzip": (gzip.compress(b"a\nb\n"), [(1, "a"), (2, "b")]),
    "two members": (gzip.compress(b"a\n") + gzip.compress(b"b\n"), [(1, "a"), (2, "b")]),
    "zeros behind": (gzip.compress(b"a\n") + bytes(512), [(1, "a")]),
    "gzip of nothing": (gzip.compress(b""), []),
    "nothing": (b"", []),
    "its first byte alone": (b"\x1f", [(1, "\x1f")]),
    "a text with its first byte": (b"\x1fa\nb\n", [(1, "\x1fa"), (2, "b")]),
    "a line of its first byte": (b"\x1f\n\x8b", [(1, "\x1f")]),
}


@pytest.mark.parametrize("name", SLOWLY_GIVEN)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_pipe_that_brings_its_first_bytes_one_by_one_is_read_as_a_file(name, at):
    raw, expected = SLOWLY_GIVEN[name]
    there, here = os.pipe()
    with os.fdopen(there, "rb") as pipe:

        def give():
            with os.fdopen(here, "wb", buffering=0) as end:
                for part in (raw[:at], raw[at:]):
                    end.write(part)
                    time.sleep(0.03)

        giver = threading.Thread(target=give)
        giver.start()
        found = list(read_records(Lines("a pipe", lambda: pipe), "lines"))
        giver.join()
    assert [tuple(each) for each in found][: len(expected)] == expected
    assert len(found) == len(expected) or isinstance(found[-1].value, InputError)


@pytest.mark.parametrize(("end", "why"), [(-9, "cut off or damaged"), (1, None)])
def test_a_pipe_with_a_gzip_file_that_is_cut_off_is_told(end, why):
    raw = gzip.compress(b"a\nb\n")[:end]
    there, here = os.pipe()
    os.write(here, raw[:1])
    rest = threading.Timer(0.05, lambda: (os.write(here, raw[1:]), os.close(here)))
    rest.start()
    with os.fdopen(there, "rb") as pipe:
        lines = Lines("a pipe", lambda: pipe)
        if why is None:
            assert [each.text for each in lines] == ["\x1f"]
        else:
            with pytest.raises(InputError, match=why):
                list(lines)
    rest.join()
