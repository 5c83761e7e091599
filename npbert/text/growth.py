"""How much longer a tokenizer.json may make a text, told from its steps and without running them.

26 replacements of "a" by "aa" make 67 million characters of one.  A hundred replacements that do
not feed each other are harmless, and so the bound follows each character through all of them.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from tokenizers import Tokenizer

TokenizerStep = dict[str, Any]  # a normalizer, a pre-tokenizer, a decoder, as tokenizer.json has it

SEARCH_TREE: Final = "precompiled_charsmap"  # SentencePiece's table of characters and their stead
BYTES_OF_CHARACTER: Final = 4.0  # in UTF-8
# A part of a regular expression: a place, or a character out of several, or this one; how often.
ATOM: Final = re.compile(
    r"(?:(?P<place>\\[bBAzZG]|[\^$])"
    r"|(?P<several>\\[sSdDwWhHntrfv]|\\[pP]\{\^?\w+\}|\[(?:\\.|[^\[\]\\])+\]|\.)"
    r"|\\(?P<sign>[^a-zA-Z0-9])|(?P<one>[^\\\[\](){}|?*+^$.]))"
    r"(?P<times>[?*+]|\{\d*,?\d*\})?"
)


def value_at(value: Any, *names: str) -> Any:
    """Return what stands in nested objects, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def list_steps(step: Any, members: str) -> Iterator[TokenizerStep]:
    """Yield the steps that a sequence has, whatever its type says; the package does not ask it."""
    if isinstance(step, dict):
        if isinstance(several := step.get(members), list):
            for each in several:
                yield from list_steps(each, members)
        else:
            yield step


def join_strings(*texts: Any) -> str:
    """Return those that are str as one."""
    return "".join(text for text in texts if isinstance(text, str))


def text_growth(steps: Sequence[TokenizerStep]) -> float:
    """Return an upper bound for how many characters the steps make of one.

    Every character has a price, at first one, so that no step makes the sum of a text dearer: from
    the last step to the first, what a step writes must be paid by what it takes away.  The highest
    price is the bound.  What Unicode's normal forms add once, up to 18 times, is not counted.
    """
    prices: dict[str, float] = {}
    usual = 1.0  # of every other character

    def price(text: str) -> float:
        return sum(prices.get(each, usual) for each in text)

    for step in reversed(steps):
        beside = join_strings(step.get("prepend"), step.get("replacement"))
        replaces = step.get("type") in (None, "Replace") and not beside and SEARCH_TREE not in step
        written = step.get("content") if replaces else None
        taken, regex = (value_at(step, "pattern", kind) for kind in ("String", "Regex"))
        some = characters_taken(regex) if isinstance(regex, str) else None
        taken = some or taken
        if isinstance(written, str) and isinstance(taken, str) and taken:
            paid, given = price(written), price(taken)
            prices |= {each: price(each) for each in taken + written}
            prices |= {each: prices[each] * max(1.0, paid / given) for each in taken}
        elif isinstance(written, str) and some is not None:
            paid = price(written)
            usual, prices = max(usual, paid), {c: max(p, paid) for c, p in prices.items()}
        elif beside or isinstance(written, str):  # it may write beside every character
            paid = price(join_strings(beside, step.get("content")))
            usual, prices = usual + paid, {c: p + paid for c, p in prices.items()}
        else:  # it may make what is dear of anything
            alone = normalizer_of(step) if prices else None
            made = [price(alone(each)) for each in prices] if alone else []
            usual, prices = max([usual, *prices.values(), *made]) * own_growth(step), {}
    return max([usual, *prices.values()])


def characters_taken(regex: str) -> str | None:
    """Return characters that every match of a regular expression has; None if it may have none.

    "" stands for one at least, which may be any.  An expression with groups is not looked into.
    """
    end, sure, found = 0, False, ""
    for atom in ATOM.finditer(regex):
        if atom.start() != end:
            return None
        end, times = atom.end(), atom["times"] or "+"
        if not (atom["place"] or times in "?*" or times.startswith(("{0", "{,", "{}"))):
            sure, found = True, found + (atom["one"] or atom["sign"] or "")
    return found if sure and end == len(regex) else None


def own_growth(step: TokenizerStep) -> float:
    """Return how many characters a step makes of one whenever it is run."""
    if isinstance(packed := step.get(SEARCH_TREE), str):
        return longest_replacement(packed)
    if step.get("handle_chinese_chars"):  # BERT's normalizer: a space on either side
        return 3.0
    return BYTES_OF_CHARACTER if step.get("type") == "ByteLevel" else 1.0


def longest_replacement(packed: str) -> float:
    """Return the most characters that SentencePiece's table writes in the place of one."""
    try:
        raw = b64decode(packed)
    except ValueError:
        return 1.0  # the package will refuse it
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]  # behind the tree
    return max([1, *map(len, texts.decode(errors="replace").split("\0"))])


def normalizer_of(step: TokenizerStep) -> Callable[[str], str] | None:
    """Return what a step does to a short text; None where it is no normalizer, or no known one."""
    if SEARCH_TREE in step:
        return None
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    try:
        found = Tokenizer.from_str(json.dumps({"model": model, "normalizer": step})).normalizer
    except Exception:  # the package throws nothing more exact
        return None
    return found.normalize_str if found is not None else None
