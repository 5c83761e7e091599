"""A map of names that a porter writes: a template of one, read from a file, and held to a model."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from npbert.checkpoint.reading import parse_json, read_bytes
from npbert.errors import CheckpointError, InputError, listing, quote, suggest
from npbert.families import canonical_module, own_module
from npbert.model import Model
from npbert.oracle.dialects import flatten_name, parse_template
from npbert.oracle.port_names import GIVEN, MAPS, STEPS
from npbert.oracle.traces import Call, all_activations, complete_inputs

NameMap = Mapping[str, str]  # templates of a port's names, to ours
MAP_LIMIT: Final = 1 << 20  # bytes of a map; ours have 3,000


def read_map(named: str) -> Mapping[str, str]:
    """Return a map by its name, or from a JSON or TOML file.  Raises InputError."""
    if named in MAPS:
        return MAPS[named]
    path = Path(named)
    if not path.is_file():
        raise InputError(
            f"--map {named}: expected one of {', '.join(MAPS)}, or a .json or .toml file"
        )
    try:
        raw = read_bytes(path, MAP_LIMIT)
        if path.suffix == ".toml":
            table = tomllib.loads(raw.decode())
        else:
            table = parse_json(raw, str(path))
    except CheckpointError as error:
        raise InputError(str(error)) from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply to be read") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{path}: expected an object of names, theirs to npbert's")
    return table


def template_map(model: Model) -> str:
    """Return a map that says nothing yet, in TOML: what each value is called, and its axes."""
    ids = np.zeros((1, 1, 1) if model.row.has_choices else (1, 1), np.int64)
    call = Call(model, {"input_ids": ids})
    lines = [
        "# Write on the left what your port calls a value, and delete what it does not tell;",
        "# {n} is the number of a block. Then: npbert compare MODEL DUMP --map THIS_FILE",
        *(f'"{name}" = "{name}"' for name in complete_inputs(call, {"input_ids": ids})),
    ]
    for name, x in all_activations(call).items():
        template = re.sub(r"(?<=^transformer\.layer\.)0(?=\.)", "{n}", name)
        if template.startswith("transformer.layer.") and template == name:
            continue  # another block than the first
        own = own_module(model.family, name)
        if template != name:
            own = own.replace(".0.", ".{n}.", 1)
        axes = [str(x.shape[-1]) if a == "features" else a for a in model.row.axes(name)]
        axes = ["batch", "heads", "query", "key"] if x.ndim == 4 else axes
        lines.append(f'"{own}" = "{own}"  # ({", ".join(axes)})')
    return "\n".join(lines) + "\n"


def check_map(
    names: NameMap, candidate: Collection[str], family: str, exact: Collection[str]
) -> Iterator[str]:
    """Yield what is idle in a map of one's own.  Raises InputError where it leads nowhere."""
    if names in MAPS.values():
        return
    every = {*STEPS, *GIVEN, *exact}
    every |= {re.sub(r"(?<=\.)\d+(?=\.)", "{n}", name) for name in exact}
    idle = []
    for theirs, target in names.items():
        for step in re.split(r" \| |, ", target.replace("{*}", "{n}")) if target else ():
            mine = canonical_module(family, step.strip())
            if mine not in every and re.sub(r"(?<=\.)\d+(?=\.)", "{n}", mine) not in every:
                own = [own_module(family, name) for name in sorted(every)]
                raise InputError(
                    f"the map says that {quote(theirs)} is {quote(step)}, which is no value that "
                    f"npbert knows{suggest(step, own)}"
                )
        found = parse_template(theirs, target)
        squashed = [flatten_name(name) for name in candidate]
        if (
            theirs != target
            and not any(map(found.exact.fullmatch, candidate))
            and not any(map(found.squashed.fullmatch, squashed))
        ):
            idle.append(theirs)
    yield f"nothing is called so, as the map says: {listing(idle)}" if idle else ""
