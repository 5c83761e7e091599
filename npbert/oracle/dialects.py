"""A port's names as ours: translated on the way in, and told in its family's own on the way out.

Inside the oracle every family's steps have the canonical names.  canonical_names takes what a port
calls them, by the tables of port_names; translate_result tells everything as the family does.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

from npbert.errors import InputError, quote
from npbert.families import BLOCK_PREFIX, DEFAULT_FAMILY, FAMILIES, canonical_module, own_module
from npbert.oracle.port_names import BETWEEN, GIVEN, MAPS, OPERATIONS, PYTORCH, STEPS

# Around the names of a model's steps: wrappers of training and of exporters, and the encoder in a
# larger model; behind them the number of an output.
ENCODERS: Final = "|".join(re.escape(row.prefix.rstrip(".")) for row in FAMILIES.values())
WRAPPERS: Final = re.compile(
    rf"^(?:/|__module\.|_orig_mod\.|tf_\w+/|StatefulPartitionedCall/|\w*_backbone/|"
    rf"serving_default_|intermediates[./]|"
    rf"(?:model|module|base_model|(?:\d+\.)?auto_model|{ENCODERS})[./])*"
    rf"(?:(?:{ENCODERS})_)?(?=.)"
)
NAME_ENDINGS: Final = re.compile(r"(?:;.*|_output_0|:0|[./]__call__(?:[./]0)*)$")
INSIDE: Final = re.compile(r"(?:aten::\w*[a-z0-9]|batchnorm|^__call__[./]0)[./]")
PLURAL: Final = re.compile(r"(?i)(layer|block)s(?![a-z])")
PLACEHOLDER: Final = re.compile(r"\{([1-9]\d{0,3}|)([nL])(?:\+(\d{1,9}))?\}")
NUMBER, ANYTHING = "\x01", "\x02"  # stand for placeholders while a template is squashed


def flatten_name(text: str) -> str:
    """Return a name without what systems write differently: case, plurals and separators."""
    text = PLURAL.sub(r"\1", text)
    text = re.sub(rf"(?<=[0-9{NUMBER}])[^0-9A-Za-z{NUMBER}{ANYTHING}]+(?=[0-9{NUMBER}])", "|", text)
    return re.sub(rf"[^0-9A-Za-z|{NUMBER}{ANYTHING}]+", "", text).lower()


@dataclass(frozen=True)
class Template:
    """A port's name for a step of some block, to be matched as it is, or squashed."""

    exact: re.Pattern[str]
    squashed: re.Pattern[str]
    target: str
    looks: str  # squashed, and its number marked
    times: int = 1
    plus: int = 0
    of_all: bool = False  # the number is one of all blocks, not of one
    starts_at_zero: bool = False  # which is left out

    @property
    def has_star(self) -> bool:
        """Whether anything may stand somewhere in it."""
        return ANYTHING in self.looks

    def block(self, match: re.Match[str] | None, blocks: int | None, first: int) -> int | None:
        """Return which block a match is of, 0 where it has no number; None for none.

        first : the number of the first block, where templates say {n} alone
        """
        if match is None:
            return None
        if "n" not in match.groupdict():
            return 0
        number = int(match["n"] or 0)
        if self.of_all:
            return 0 if blocks is not None and number == self.times * blocks + self.plus else None
        n, rest = divmod(number - self.plus, self.times)
        n -= first if self.times == 1 and not self.plus and not self.starts_at_zero else 0
        return n if rest == 0 and n >= 0 and (blocks is None or n < blocks) else None


@cache
def parse_template(template: str, target: str) -> Template:
    """Return a template as patterns.  Raises InputError for two numbers, or two stars."""
    found = list(PLACEHOLDER.finditer(template))
    if len(found) > 1 or template.count("*") > 1 or NUMBER in template or ANYTHING in template:
        raise InputError(
            f"the map has the template {quote(template)}, expected {{n}} or {{n+1}} at most once, "
            "and * at most once"
        )
    times, unit, plus = found[0].groups() if found else ("", "n", None)
    marked = PLACEHOLDER.sub(NUMBER, template).replace("*", ANYTHING)
    number = r"(?P<n>\d{1,9})" + "?" * bool(times)  # what counts from 0 leaves the 0 out

    def pattern(text: str) -> re.Pattern[str]:
        return re.compile(re.escape(text).replace(NUMBER, number).replace(ANYTHING, ".*"))

    looks = flatten_name(marked)
    return Template(
        pattern(marked), pattern(looks), target, looks, int(times or 1), int(plus or 0),
        unit == "L", bool(times),
    )  # fmt: skip


class TemplateIndex:
    """Templates by what they look like without numbers, so that few are tried on a name."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self.places: dict[str, list[tuple[int, Template]]] = defaultdict(list)
        for place, each in enumerate(templates):
            looks = {ANYTHING} if each.has_star else {each.looks}
            looks |= {each.looks.replace(NUMBER, "")} if each.starts_at_zero else set()
            for look in looks:
                self.places[look].append((place, each))

    def find(
        self, name: str, key: str, blocks: int | None, first: int
    ) -> Iterator[tuple[int, Template, int]]:
        """Yield the templates that fit a name, as it is and then squashed, and of which block."""
        looks = {key[: m.start()] + NUMBER + key[m.end() :] for m in re.finditer(r"\d+", key)}
        tried = [each for look in (key, ANYTHING, *looks) for each in self.places.get(look, ())]
        for text, squashed in ((name, False), (key, True)):
            for place, each in sorted(tried, key=lambda row: row[0]):
                pattern = each.squashed if squashed else each.exact
                n = each.block(pattern.fullmatch(text), blocks, first)
                if n is not None:
                    yield place, each, n


class NameReading(NamedTuple):
    """What a name is: the step, or the steps that its array holds; and how sure that is."""

    steps: str  # empty: a value between steps
    rank: int  # of two names of one step, the lower one counts
    sure: bool = True  # or else another value has the same name in another version of a system


class NameReader:
    """Reads names, by a map, a system's table, and the names of a family."""

    def __init__(
        self, table: Mapping[str, str], dialect: Mapping[str, str], family: str,
        blocks: int | None, known: Collection[str], first: int,
    ) -> None:  # fmt: skip
        self.family, self.blocks, self.known, self.first = family, blocks, known, first
        theirs = [parse_template(*row) for row in table.items()]
        self.equal = 0 if table in MAPS.values() else len(theirs)  # rows that have equal rights
        around = FAMILIES[family].results
        rows = {} if table is PYTORCH else dialect
        end = len(theirs) + len(rows) if rows != PYTORCH else len(theirs)
        self.unsure = range(self.equal if table != PYTORCH else end, end)
        rest = [parse_template(*row) for each in (rows, PYTORCH, around) for row in each.items()]
        self.table, self.rest = TemplateIndex(theirs[: self.equal]), TemplateIndex(theirs + rest)
        steps = {name: s for s in (*GIVEN, *STEPS) for name in (s, own_module(family, s))}
        self.own = TemplateIndex(parse_template(*row) for row in steps.items())
        self.last = len(theirs) + len(rest)
        self.between = [
            re.compile(BETWEEN[name]) for name in BETWEEN if MAPS[name] in (table, dialect)
        ]

    def read(self, name: str) -> NameReading | None:
        """Return what a name is; None for one that is not understood."""
        bare = INSIDE.sub("", NAME_ENDINGS.sub("", WRAPPERS.sub("", name)))
        key = flatten_name(bare)
        own = self.find_match(self.own, bare, key)
        found = self.find_match(self.table, bare, key)
        if found is None and own is not None:
            return NameReading(own[0], -1)
        found = found or self.find_match(self.rest, bare, key)
        if found is not None:
            is_own = own is not None and own[0] == found[0]
            rank = -1 if is_own else max(found[1] - self.equal + 1, 0)
            return NameReading(found[0], rank, found[1] not in self.unsure)
        module, _, operation = bare.replace("/", ".").rpartition(".")
        if operation == "0":  # of a tuple of one
            return self.read(module)
        if module and (own := self.find_match(self.own, module, flatten_name(module))) is not None:
            if operation.lower() not in OPERATIONS:
                return NameReading("", 0)
            rank = self.last + OPERATIONS.index(operation.lower())
            return NameReading(own[0], rank, sure=False)
        return NameReading("", 0) if any(each.fullmatch(name) for each in self.between) else None

    def find_match(self, index: TemplateIndex, bare: str, key: str) -> tuple[str, int] | None:
        """Return the steps of the first template that fits, and which that is."""
        for place, each, n in index.find(bare, key, self.blocks, self.first):
            if (steps := self.select_target(each.target, n)) is not None:
                return steps, place
        return None

    def select_target(self, target: str, n: int) -> str | None:
        """Return the steps that a target names, in block n; None where the model has none."""
        if not target:
            return ""
        steps = [canonical_module(self.family, s.strip()) for s in target.split("|")]
        steps = [s.replace("{n}", str(n)) for s in steps]
        if len(steps) > 1 and self.known:
            steps = [s for s in steps if s in self.known]
        if not steps:
            return None
        parts = steps[0].split(", ")
        blocks = range(self.blocks or 0)
        every = [p.replace("{*}", str(i)) for p in parts for i in (blocks if "{*}" in p else [0])]
        return ", ".join(canonical_module(self.family, s) for s in every) or None


def canonical_names(
    theirs: Iterable[str],
    table: Mapping[str, str],
    family: str = DEFAULT_FAMILY,
    *,
    dialect: Mapping[str, str] = PYTORCH,
    blocks: int | None = None,
    known: Collection[str] = (),
    first: int = 0,
    fits: Callable[[str, str], bool] = lambda name, steps: True,
) -> dict[str, str]:
    """Return our name for each of theirs; one that nothing fits is taken for a step's own.

    The table comes first, then the family's own names, the dialect's table, and PyTorch's.  A name
    of a value between steps is left out; that of an array which holds several steps has them all,
    separated by commas.  `blocks` says how many there are, `first` the number of the first one, and
    `known` which steps, where a table leaves that open; `fits` whether the array of a name may be
    of these steps, where a system gives one name to different values.

    A hook hears a step under its own name, and once more as the result of the modules around it:
    its own name counts, then one that the table has, then the innermost module.  Raises InputError
    where two names have equal rights to one of ours.
    """
    reader = NameReader(table, dialect, family, blocks, known, first)
    readings = {name: reader.read(name) for name in theirs}
    for name, found in readings.items():
        if found is not None and found.steps and not found.sure and not fits(name, found.steps):
            readings[name] = NameReading("", 0)
    rank = {name: 0 if found is None else found.rank for name, found in readings.items()}
    made: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in sorted(readings, key=rank.__getitem__):
        found = readings[name]
        steps = canonical_module(family, WRAPPERS.sub("", name)) if found is None else found.steps
        rival = taken.get(steps)
        if not steps:
            continue
        if rival is None:
            made[name], taken[steps] = steps, name
        elif rank[name] == rank[rival]:
            raise InputError(f"{quote(rival)} and {quote(name)} are both {steps}")
    return {name: made[name] for name in readings if name in made}


def guess_dialect(
    theirs: Collection[str], family: str, blocks: int | None, known: Collection[str]
) -> tuple[str, int]:
    """Return in which of the maps most names are steps, and the number of the first block.

    That is PyTorch's, and 0, where no other has more.
    """

    def count_names(title: str, first: int = 0) -> int:
        reader = NameReader({}, MAPS[title], family, blocks, known, first)
        found = [read.steps for name in theirs if (read := reader.read(name)) is not None]
        return sum(set(steps.split(", ")) <= everything for steps in found)

    everything = set(known)
    if count_names("pytorch") == len(theirs):
        return "pytorch", 0
    counts = {(title, first): count_names(title, first) for first in (0, 1) for title in MAPS}
    return max(counts, key=counts.__getitem__)


def detect_family(names: Iterable[str]) -> str:
    """Return the family whose own names most of these are; of none, the first."""
    given = list(names)
    counts = {f: sum(canonical_module(f, name) != name for name in given) for f in FAMILIES}
    return max(counts, key=counts.__getitem__)


STEP_IN_TEXT: Final = re.compile(r"^\w+(?=: | has )|[A-Za-z]\w*(?:\.\w+)+|[A-Za-z]+_\w+")
Told = TypeVar("Told")


def translate_text(family: str, text: str) -> str:
    """Return a step's name, or a text that mentions steps, in the names of a family.

    Mistakes name a step of a block without the block, and queries, keys and values as q_lin alone.
    """
    if not FAMILIES[family].modules:
        return text
    if (own := own_module(family, text)) != text:
        return own

    def own_name(match: re.Match[str]) -> str:
        name, number = match[0], "0"
        block = BLOCK_PREFIX.replace("{n}", number)
        for prefix in ("", block, f"{block}attention."):
            own = own_module(family, prefix + name)
            if own != prefix + name:
                return own.partition(f".{number}.")[2] if prefix else own
        return name

    return STEP_IN_TEXT.sub(own_name, text)


def translate_result(family: str, result: Told) -> Told:
    """Return a result of the oracle with every text in it, and every key, as translate_text says.

    result : texts, lists, tuples, mappings and dataclasses of such; anything else stays as it is
    """
    value: Any = result
    if isinstance(value, str):
        value = translate_text(family, value)
    elif isinstance(value, dict):
        value = {translate_text(family, k): translate_result(family, x) for k, x in value.items()}
    elif isinstance(value, list) or type(value) is tuple:
        value = type(value)(translate_result(family, each) for each in value)
    elif is_dataclass(value) and not isinstance(value, type):
        made = {f.name: translate_result(family, getattr(value, f.name)) for f in fields(value)}
        value = replace(value, **made)
    translated: Told = value
    return translated


@contextmanager
def translate_errors(family: str) -> Iterator[None]:
    """Tell what is wrong with an input in the names of a family."""
    try:
        yield
    except InputError as error:
        raise InputError(translate_text(family, str(error))) from None
