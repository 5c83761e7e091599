"""A name is what the field calls the thing: STYLE as tests.

A function that does something begins with a verb, one that returns something with the noun for
what it returns; a public name stands in one module; a fact's name stands in its row.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import npbert
from npbert.families import ARCHITECTURES
from npbert.tasks.rows import TASKS

HOUSE = Path(npbert.__file__).parent
FILES = [p for p in sorted(HOUSE.rglob("*.py")) if "demo" not in p.parts]

# What a function's name may begin with.  A new word is added here, if it is a verb or a noun.
FIRST = """
absence activation add address affine answer answers apply array arrow ask assemble assign attend
attention average axes bars base batch batches begin bench blame blas block blocks buffer build
cache call candidate case catalogue cause cell chain chances change characters check checks choice
choose class classification classify close collect colour column columns commit companion compare
comparison compute config connect context convert count data decode decoder describe detect
diagnose digest digits dimensions discard distance draw drop dropout dump effects embed embedding
embeddings encode encoder encoding end entity entry erf errors escape execute explain exponentials
extend facts fault feature feed fetch ffn field fill filling find findings finish fit flag flatten
float32 forget form frame function gather gelu give group guard guess hand hash head heads heat
helper highlight hold html hub id import importance infer init input int8 integer interleave items
job join keep keys kit label layer layout length limit linear list listing lists load locate log
logits machine main make map mask mean measure merge model modification module multiply name nbytes
norm normalize normalizer note number oklab omission open option output override pack pad page pair
palette pandas parameter parse part parts pass pattern peak pick pieces pin pipeline place png pool
pooler pooling pop port position predict prepare price print probabilities product project quantize
query question quote raise rank ranking reach read readings rebuild record records rectangle
reference refuse release remove rename replace replay report repository repr request require reset
residual resume return reword rms room round rounding row rows run save scale score scores scratch
script search select sentence sequence serve set settings setup shake shape shard share shorten
show sigmoid similarity sinusoids size sizes slices softmax softplus sort source span spans spell
split spread stage step storage stream suggest summarize swap sync table take tanh tap targets task
teardown tell template text thread time token tokenize tokens trace transformer translate transpose
truncation unit uphold value values vector verdict verify warn weights window word wordpiece write
zero
"""
# What a longer name may begin with, but no name may be: they say how, or which, of what follows.
QUALIFYING = """
all as best built canonical causal complete counted default finite first fitting from greatest has
hidden is large last live longest masked missing narrowest needs no own partial per plain possible
reads safe self semantic sinusoidal small stored to unique unknown weighted with worst
"""
FIRST_WORDS, QUALIFIERS = set(FIRST.split()), set(QUALIFYING.split())
# Model.packed, a name of the library before these rules, and npbert.serving.app; what zipfile and
# io ask of a file, and asyncio of a protocol
PUBLIC = {
    "packed", "app", "readable", "readinto", "seekable", "connection_lost", "connection_made",
    "pause_writing", "do_GET",
}  # fmt: skip
SHARED = {
    # the verbs that the textbook defines and the kernels have
    **dict.fromkeys(
        ("activation", "add_norm", "attention", "feed_forward", "gelu", "layer_norm", "linear",
         "self_attention"),
        "the vocabulary of the forward pass",
    ),
}  # fmt: skip


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE).with_suffix("").parts)


def is_property(node: ast.FunctionDef) -> bool:
    names = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
    return bool(names & {"property", "cached_property"})


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_function_is_a_verb_phrase_or_named_for_what_it_returns(path):
    wrong = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and not is_property(node):
            first, _, rest = node.name.strip("_").partition("_")
            dunder = node.name.startswith("__")
            if not (dunder or first in FIRST_WORDS or (rest and first in QUALIFIERS)):
                wrong.append(node.name)
    assert set(wrong) <= PUBLIC


def test_every_word_of_the_lists_begins_some_name():
    used = {
        node.name.strip("_").partition("_")[0]
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert (FIRST_WORDS | QUALIFIERS) - used == set()


def public_names(path: Path) -> set[str]:
    """Return the names that a module defines, and not only imports."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_stands_in_two_modules():
    homes = defaultdict(list)
    for path in FILES:
        for name in public_names(path):
            homes[name].append(module_of(path))
    assert {n: at for n, at in homes.items() if len(at) > 1 and n not in SHARED} == {}


def strings(path: Path) -> set[str]:
    """Return the strings of a module that are not its documentation."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def test_an_architectures_name_stands_in_its_row_and_in_those_of_tasks():
    named = {module_of(path) for path in FILES if strings(path) & (set(ARCHITECTURES) - {"base"})}
    assert named <= {"families", "tasks.rows"}


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_name_stands_in_its_row(task):
    # A built-in model may have the name of its task, and no row of it is needed for that.  Types
    # want a name spelt out where npbert.pipeline is overloaded.
    named = {module_of(path) for path in FILES if task in strings(path)}
    assert named - {"tasks.__init__"} == {"tasks.rows"}


def test_flags_are_parsed_in_one_room():
    for path in FILES:
        text = path.read_text("utf-8")
        if path.parent.name != "cli":
            assert "argparse" not in text
            assert "Namespace" not in text
