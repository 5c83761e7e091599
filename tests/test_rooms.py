"""The house stands: rooms import from rooms before them, in no circle; files fit in the head."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import npbert

HOUSE = Path(npbert.__file__).parent
PAGE = ["textbook", "encoder", "heads"]
# A room imports from itself and from rooms before it; of those in one row, none imports another.
ROOMS = [
    ["errors"], ["families"], ["page"], ["engine"], ["checkpoint"], ["hub"], ["text"], ["model"],
    ["tasks"], ["jobs"], ["oracle"], ["explaining", "distributed", "serving", "bench"], ["cli"],
    ["npbert"],  # __init__.py, which resolves its names on first use, and __main__.py
]  # fmt: skip
FILES = [p for p in sorted(HOUSE.rglob("*.py")) if "demo" not in p.parts]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def room_of(module: str) -> str:
    """Return the room of a module; those to read are one, and so are a model and its loading."""
    name = [*module.split("."), "npbert"][1]
    names = {**dict.fromkeys(PAGE, "page"), "loading": "model", "__main__": "npbert"}
    return names.get(name, name)


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, anywhere, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return {name for name in found if name in MODULES}


def imports_at_once(path: Path) -> set[str]:
    """Return the modules of ours that importing a file imports: not what functions do later."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = set()
    for node in tree.body:
        names = [f"{getattr(node, 'module', None)}.{alias.name}" for alias in node.names]
        found |= {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return found & MODULES


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_from_rooms_before_it_only(path):
    floor = {room: i for i, row in enumerate(ROOMS) for room in row}
    own = room_of(module_of(path))
    others = {room_of(name) for name in imports(path)} - {own}
    if path.name == "__init__.py" and own == "npbert":
        return  # its names are those of every room
    assert {room for room in others if floor[room] >= floor[own] and room != "npbert"} == set()


def test_no_module_imports_itself_by_way_of_others():
    arrows = {module_of(path): imports_at_once(path) - {"npbert"} for path in FILES}
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & set(left) - {name}]:
        for name in free:
            del left[name]
    assert left == {}


def test_the_house_has_few_rooms_and_few_modules():
    entries = {p.name for p in HOUSE.iterdir() if p.name != "__pycache__"}
    assert len(entries - {"__init__.py", "__main__.py", "py.typed"}) <= 20
    assert len(FILES) <= 148


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_has_at_most_400_lines_and_says_what_it_is(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))


def test_the_page_that_people_come_to_read_has_at_most_400_lines():
    pages = [HOUSE / f"{name}.py" for name in PAGE]
    assert sum(len(page.read_text("utf-8").splitlines()) for page in pages) <= 400


def test_the_public_names_are_sorted_and_there():
    assert npbert.__all__ == sorted(npbert.__all__)
    assert [name for name in npbert.__all__ if not hasattr(npbert, name)] == []
    assert set(npbert.__all__) <= set(dir(npbert))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'npbert' has no attribute 'laod'$"):
        npbert.laod  # noqa: B018


def test_every_room_is_an_attribute_on_first_use():
    rooms = [p.name for p in HOUSE.iterdir() if (p / "__init__.py").exists()]
    program = (
        "import npbert, sys; print(*(getattr(npbert, name).__name__ for name in sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *rooms, "families"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [f"npbert.{name}" for name in [*rooms, "families"]]
    program = "import npbert; print(npbert.distributed.map_dataframe.__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "npbert.distributed\n"


def test_importing_npbert_imports_neither_numpy_nor_a_room():
    program = (
        "import sys, npbert; print(*sorted(m for m in sys.modules if m.startswith('npbert.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "\n"
