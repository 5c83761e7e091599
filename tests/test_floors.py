"""The house stands: imports go down, files fit in the head, every module has a floor."""

import ast
from pathlib import Path

import pytest

import npbert

HOUSE = Path(npbert.__file__).parent
FLOORS = {
    0: ["errors", "explaining.markup", "hub.cache", "hub.parts", "textbook", "threads"],
    1: [
        "blas",
        "config",
        "explaining.numbers",
        "explaining.pictures",
        "files",
        "hub.fetching",
        "lines",
        "options",
    ],
    2: [
        "attending",
        "growing",
        "explaining.figures",
        "hub",
        "inputs",
        "pickles.archives",
        "pickles.opcodes",
        "taps",
        "vocabulary",
        "weights",
    ],
    3: ["checkpoint", "encoder", "kernels", "outputs", "pickles", "tokenizer"],
    4: ["folders", "heads"],
    5: ["engines", "packing", "saving", "sentences"],
    6: ["model"],
    7: ["loading"],
    8: [
        "contestants",
        "converting",
        "oracle.names",
        "oracle.layout",
        "oracle.shared",
        "tasks.shared",
    ],
    9: [
        "jobs",
        "tasks.feature_extraction",
        "tasks.fill_mask",
        "tasks.multiple_choice",
        "tasks.question_answering",
        "tasks.sentence_embedding",
        "tasks.text_classification",
        "tasks.text_ranking",
        "tasks.token_classification",
        "tasks.zero_shot",
    ],
    10: ["oracle.dumps", "oracle.replay", "tasks"],
    11: ["bench", "oracle.faults", "oracle.tracing"],
    12: [
        "oracle.evidence",
        "cli.commands",
        "cli.shared",
        "cli.source",
        "distributed.columns",
        "distributed.shared",
        "explaining.passes",
        "oracle.cases",
        "oracle.comparing",
        "oracle.mistakes_attention",
        "oracle.mistakes_blocks",
    ],
    13: [
        "cli.bench",
        "cli.convert",
        "cli.download",
        "cli.info",
        "cli.places",
        "explaining.answers",
        "explaining.steps",
        "cli.results",
        "distributed.warming",
        "oracle.mistakes_ends",
        "oracle.published",
        "oracle.mistakes_within",
    ],
    14: [
        "cli.reading",
        "distributed.frames",
        "explaining.ends",
        "explaining.views",
        "oracle.mistakes_norms",
    ],
    15: ["cli.batch", "cli.partition", "distributed", "explaining.page", "oracle.mistakes"],
    16: ["cli.cluster", "explaining.similarities", "oracle.diagnosing"],
    17: ["cli.tasks", "explaining", "oracle", "oracle.reporting"],
    18: ["cli.explain", "cli.oracle"],
    19: ["cli"],
    20: ["", "__main__"],  # "" is npbert/__init__.py, which resolves its names on first use
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}
PAGES = [p for p in sorted(HOUSE.rglob("*.py")) if "demo" not in p.parts]


def module_of(path: Path) -> str:
    return (
        ".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
    )


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if name.removeprefix("npbert.") in FLOOR}
            found |= ours or {str(node.module)}
    return {name.removeprefix("npbert").lstrip(".") for name in found if name.startswith("npbert")}


@pytest.mark.parametrize("path", PAGES, ids=module_of)
def test_a_module_imports_from_lower_floors_only(path):
    module = module_of(path)
    wrong = {name for name in imports(path) if FLOOR[name] >= FLOOR[module] and name != ""}
    assert wrong == set()


@pytest.mark.parametrize("path", PAGES, ids=module_of)
def test_a_module_has_at_most_300_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 300


def test_every_module_has_a_floor_and_every_floor_its_modules():
    assert {module_of(path) for path in PAGES} == set(FLOOR)


def test_the_page_that_people_come_to_read_has_at_most_400_lines():
    pages = [HOUSE / f"{name}.py" for name in ("textbook", "encoder", "heads")]
    assert sum(len(page.read_text("utf-8").splitlines()) for page in pages) <= 400


def test_the_public_names_are_sorted_and_there():
    assert npbert.__all__ == sorted(npbert.__all__)
    assert [name for name in npbert.__all__ if not hasattr(npbert, name)] == []
    assert set(npbert.__all__) <= set(dir(npbert))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'npbert' has no attribute 'laod'$"):
        npbert.laod  # noqa: B018
