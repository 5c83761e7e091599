"""Locate models one after another, as stdin says, and print what came of each."""

import json
import sys
import warnings
from typing import Any

from npbert.errors import NpbertError
from npbert.hub import locate


def outcome(source: str, how: dict[str, Any]) -> list[str]:
    """Return the folder or the error, and then the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said = str(locate(source, **how))
        except NpbertError as error:
            said = f"{type(error).__name__}: {error}"
    return [said, *(str(w.message) for w in caught)]


asked = json.load(sys.stdin)
if asked["room"]:  # bytes that a file may have
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (asked["room"], asked["room"]))
sys.modules.update(dict.fromkeys(asked["without"]))
outcomes = [outcome(source, how) for source, how in asked["calls"]]
imported = [name for name in ("huggingface_hub", "numpy") if sys.modules.get(name)]
bars = (
    "huggingface_hub" in imported
    and not sys.modules["huggingface_hub.utils"].are_progress_bars_disabled()
)
print(json.dumps({"outcomes": outcomes, "imported": imported, "bars": bars}))
