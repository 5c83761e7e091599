"""npbert diagnose: which step of a port is the first wrong one, and what is wrong with it.

A step is wrong where the textbook, given the candidate's own earlier numbers, comes to others. Then
every known mistake is made on purpose at that step, from the same numbers; the one that was made
leaves nothing over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError, quote
from npbert.model import Model
from npbert.oracle.candidates import check_names
from npbert.oracle.comparison import Beside, Comparison, compare_steps, comparison_json, finite_json
from npbert.oracle.dialects import translate_errors, translate_result
from npbert.oracle.dumps import Arrays
from npbert.oracle.maps import NameMap
from npbert.oracle.mistakes import catalogue
from npbert.oracle.mistakes.scene import (
    Candidate,
    Mistake,
    hidden_state_name,
    hidden_states,
    run_mistakes,
    step_stage,
    step_suffix,
)
from npbert.oracle.traces import TraceLike, as_trace, distance, is_masked

WORD_STEP_NAME: Final = "embeddings.word_embeddings"
IDS_SHOWN: Final = 3  # tokens of which is said what they are


def describe_ids(case: Candidate) -> str:
    """Say which ids a candidate embedded, where these are others than its input_ids."""
    call, table = case.call, case.call.model.encoder.word_embeddings
    columns = call.layout.columns(WORD_STEP_NAME, case.theirs[WORD_STEP_NAME])
    wrong = np.flatnonzero(np.abs(columns - table[call.pack.ids].T).max(axis=0) > 1e-6)
    said = []
    for i in wrong[:IDS_SHOWN].tolist():
        off = np.abs(table - columns[:, i]).max(axis=1)
        if off.min() > 1e-6 * np.abs(table).max():
            return ""
        place = divmod(i, call.length)
        said.append(f"{place} has the embedding of {off.argmin()}, not of {call.pack.ids[i]}")
    more = f" and {len(wrong) - IDS_SHOWN} more" if len(wrong) > IDS_SHOWN else ""
    return f"other ids than input_ids: {', '.join(said)}{more}"


def describe_error(case: Candidate, name: str, again: Arrays) -> str:
    """Say what is seen of a step that nothing explains."""
    live = case.live[name]
    if name == WORD_STEP_NAME and (said := describe_ids(case)):
        return said
    ours, theirs = again[name][live].astype(float), case.theirs[name][live].astype(float)
    fits = np.isfinite(theirs)
    if not fits.all():
        return f"{(~fits).sum()} of {fits.size} values are not finite"
    a, b = float(ours @ ours), float(theirs @ theirs)
    cosine = float(ours @ theirs) / max((a * b) ** 0.5, 1e-300)
    factor = float(ours @ theirs) / max(a, 1e-300)
    rest = float(np.abs(theirs - factor * ours).max() / max(np.abs(theirs).max(), 1e-300))
    wrong = np.abs(theirs - ours) > case.tolerance[name] * np.abs(ours).max()
    if rest <= case.tolerance[name]:
        return f"every value is {factor:.6g} times what it should be"
    offset = theirs - ours
    if np.ptp(offset) <= case.tolerance[name] * np.abs(ours).max():
        return f"every value has {offset.mean():.6g} added"
    return (
        f"{wrong.mean():.1%} of its values are wrong; cosine {cosine:.6f}, "
        f"root mean square {(b / max(a, 1e-300)) ** 0.5:.4g} times ours"
    )


# How many steps are still off, how far each is, which fault, in which stages.
Result = tuple[int, dict[str, float], Mistake, Sequence[int]]
LEFT: Final = 1e-3  # of an error, or less than its tolerance: what an explanation may leave over
AT_ONCE: Final = 4  # faults that may be in one stage together


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: where, what, and how sure that is."""

    step: str  # the first one that shows it
    blocks: tuple[int, ...]  # in which blocks, if in blocks
    causes: tuple[str, ...]  # that cannot be told apart; none where nothing explains it
    error: float  # of the step, in units of its greatest value
    residual: float  # what is left when it is explained
    stages: tuple[int, ...]  # 0 the embeddings, 1 the first block, ...
    harmless: str = ""  # why nothing follows from it, if so
    evidence: str = ""  # what is seen, where nothing explains it


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was found, in the order of the forward pass."""

    findings: list[Finding]
    comparison: Comparison
    notes: list[str] = field(default_factory=list)


@explain_arguments
def diagnose(
    model: Model, candidate: TraceLike, *, names: NameMap | None = None, partial: bool = False
) -> Diagnosis:
    """Find what is wrong with a candidate, and name it.

    Parameters
    ----------
    model : Model
        The one that was ported; load it with dtype="float64".
    candidate : Trace, mapping of names to arrays, or path
        The port's activations, some or all, and its inputs; a path is that of a .safetensors or
        .npz file, or of a folder of .npy files.
    names : mapping, optional
        Templates of names, theirs to ours; see oracle.port_names.  What fits none is read as the
        names of the system that most of them are of.
    partial : bool
        Judge a candidate by the arrays that were understood, though most were not.

    Raises
    ------
    InputError
        For a candidate that cannot be compared.
    """
    if not isinstance(model, Model):
        raise InputError(
            f"model is {quote(model)}, expected a Model: npbert.load(folder, dtype='float64')"
        )
    with translate_errors(model.family):
        beside = compare_steps(model, as_trace(candidate), check_names(names), partial)
    return translate_result(model.family, find_mistakes(beside))


def find_mistakes(beside: Beside) -> Diagnosis:
    """Find what is wrong with a candidate beside its model."""
    call, order, theirs, again, comparison = beside
    theirs = drop_broken(theirs, order)
    call.candidate = theirs
    case = Candidate(
        call=call,
        theirs=theirs,
        order=order,
        tolerance={step.name: step.tolerance for step in comparison.steps},
        known=hidden_states(call, theirs, again),
        live={name: call.live_values(name, x.shape) for name, x in theirs.items()},
    )
    faults = catalogue(call.model.config)
    findings: list[Finding] = []
    for stages in stage_segments(case):
        for finding in explain_stages(case, stages, again, faults, findings):
            join_finding(findings, finding)
    findings = [replace(f, causes=uphold_causes(case, f, faults, again)) for f in findings]
    return Diagnosis(findings=findings, comparison=comparison, notes=comparison.notes)


def drop_broken(theirs: Arrays, order: Sequence[str]) -> Arrays:
    """Return what a candidate has, but no array with NaN or infinity that follows from another."""
    kept: Arrays = {}
    broken = False
    for name in order:
        if name in theirs:
            x = theirs[name]
            whole = bool((np.isfinite(x) | is_masked(name, x) & (x < 0)).all())
            if whole or not broken:
                kept[name] = x
            broken = broken or not whole
    return kept


def stage_segments(case: Candidate) -> Iterator[range]:
    """Yield stages, each with those before it of which the candidate says nothing."""
    blocks, start = case.call.model.config.num_blocks, 0
    told = {step_stage(name, blocks) for name in case.theirs}
    for stage in range(blocks + 2):
        if stage in told:
            yield range(start, stage + 1)
            # What comes after a stage is known only if the candidate tells its end.
            start = stage + 1 if hidden_state_name(stage - 1) in case.theirs else start


def explain_stages(
    case: Candidate,
    stages: range,
    again: Arrays,
    faults: Mapping[str, Mistake],
    before: list[Finding],
) -> Iterator[Finding]:
    """Yield what is wrong with some stages, one after the other."""
    blocks = case.call.model.config.num_blocks
    names = [n for n in case.order if n in case.theirs and step_stage(n, blocks) in stages]
    seen = [name for name in names if step_stage(name, blocks) == stages[-1]]
    active: dict[int, list[Mistake]] = {}
    now = case.errors(again, seen)
    # What is left of an error that was explained need not be explained.
    allowed = {n: max(case.tolerance[n], LEFT * min(now[n], 1e3)) for n in seen}
    for _ in range(AT_ONCE):
        off = [n for n in seen if not now[n] <= case.tolerance[n]]
        if not off:
            return
        named = {cause: faults[cause] for finding in before for cause in finding.causes}
        results = fitting_mistakes(case, stages, active, now, named)
        if not any(found[0] == 0 for found in results):  # what was wrong before is not all of it
            results = fitting_mistakes(case, stages, active, now, faults)
        if not results and len(stages) > 1:  # code is wrong in every block, weights may be in one
            results = fitting_mistakes(case, stages, active, now, faults, each=True)
        if not results and active and all(now[n] <= allowed[n] for n in off):
            return
        if not results:
            yield Finding(
                step=off[0], blocks=blocks_of(stages, blocks), causes=(), error=now[off[0]],
                residual=now[off[0]], stages=(stages[-1],),
                evidence=describe_error(case, off[0], again),
            )  # fmt: skip
            return
        least = min(found[0] for found in results)
        best = [found for found in results if found[0] == least]
        best = choose_by_padding(case, stages, active, best) if len(best) > 1 else best
        _, made, fault, where = best[0]
        yield Finding(
            step=off[0],
            blocks=blocks_of(where, blocks),
            causes=tuple(dict.fromkeys(found[2].text for found in best)),
            error=now[off[0]],
            residual=made[off[0]],
            stages=tuple(where),
            harmless=fault.harmless,
        )
        for stage in where:
            active.setdefault(stage, []).append(fault)
        now = made


def choose_by_padding(
    case: Candidate, stages: range, active: Mapping[int, list[Mistake]], best: list[Result]
) -> list[Result]:
    """Keep those of equally good explanations that fit what was computed for padding too."""
    blocks = case.call.model.config.num_blocks
    names = [n for n in case.theirs if step_stage(n, blocks) in stages]

    def count_beyond(found: Result) -> int:
        made = run_with_mistake(case, stages, active, found[2], found[3])
        every = (np.ones(made[n].shape, bool) for n in names)
        off = (distance(n, made[n], case.theirs[n], e) for n, e in zip(names, every, strict=True))
        return sum(not d <= max(case.tolerance[n], LEFT) for n, d in zip(names, off, strict=True))

    counts = [count_beyond(found) for found in best]
    return [found for found, n in zip(best, counts, strict=True) if n == min(counts)]


def run_with_mistake(
    case: Candidate,
    stages: range,
    active: Mapping[int, list[Mistake]],
    fault: Mistake,
    where: Sequence[int],
) -> Arrays:
    """Return what some stages compute with one mistake more, in some of them."""
    mistakes = {s: [*active.get(s, ()), *([fault] if s in where else ())] for s in stages}
    return run_mistakes(case.call, case.theirs, case.known, stages, mistakes)


def fitting_mistakes(
    case: Candidate, stages: range, active: Mapping[int, list[Mistake]], now: Mapping[str, float],
    faults: Mapping[str, Mistake], *, each: bool = False,
) -> list[Result]:  # fmt: skip
    """Return the faults that explain the first wrong step, and what they leave of the others.

    They are tried in all stages at once, or in `each` of them.
    """
    off = [n for n in now if not now[n] <= case.tolerance[n]]
    allowed = max(case.tolerance[off[0]], LEFT * min(now[off[0]], 1e3))
    results: list[Result] = []
    for fault, where in candidate_mistakes(case, stages, off[0], faults, each=each):
        tried = run_with_mistake(case, stages, active, fault, where)
        if case.errors(tried, off[:1])[off[0]] <= allowed:
            made = case.errors(tried, list(now))
            left = [
                n for n in off if not made[n] <= max(case.tolerance[n], LEFT * min(now[n], 1e3))
            ]
            new = [n for n in now if n not in off and not made[n] <= case.tolerance[n]]
            results.append((len(left) + len(new), made, fault, where))
    return results


def candidate_mistakes(
    case: Candidate, stages: range, first: str, faults: Mapping[str, Mistake], *, each: bool
) -> Iterator[tuple[Mistake, Sequence[int]]]:
    """Yield faults that may be behind the first wrong step, and the stages to try them in.

    Only what happens after the last step that is known, and right, can be behind it.
    """
    blocks = case.call.model.config.num_blocks
    order = [n for n in case.order if step_stage(n, blocks) in stages]
    end = order.index(first)
    begin = max((i for i, n in enumerate(order[:end]) if n in case.theirs), default=-1)
    window = {(step_stage(n, blocks), step_suffix(n)) for n in order[begin + 1 : end + 1]}
    for fault in faults.values():
        there = [s for s in stages if any((s, suffix) in window for suffix in fault.steps)]
        if there and not each:
            yield fault, there
        elif len(there) > 1:
            yield from ((fault, [stage]) for stage in there)


def blocks_of(stages: Sequence[int], blocks: int) -> tuple[int, ...]:
    """Return which blocks some stages are."""
    return tuple(stage - 1 for stage in stages if 1 <= stage <= blocks)


def uphold_causes(
    case: Candidate, finding: Finding, faults: Mapping[str, Mistake], again: Arrays
) -> tuple[str, ...]:
    """Return the causes that no other stage speaks against, or all if every one is refuted.

    A mistake in every norm would be seen in every norm that the candidate tells of, unless it is
    too small to be seen there.
    """
    blocks = case.call.model.config.num_blocks
    told: dict[int, list[str]] = {}
    for name in case.theirs:
        told.setdefault(step_stage(name, blocks), []).append(name)

    def is_refuted(fault: Mistake) -> bool:
        for stage, names in told.items():
            if stage in finding.stages or not any(step_suffix(n) in fault.steps for n in names):
                continue
            now = case.errors(again, names)
            made = case.errors(
                run_with_mistake(case, range(stage, stage + 1), {}, fault, [stage]), names
            )
            if any(now[n] <= case.tolerance[n] < made[n] for n in names if n in made):
                return True
        return False

    if len(finding.causes) < 2:
        return finding.causes
    kept = tuple(cause for cause in finding.causes if not is_refuted(faults[cause]))
    return kept or finding.causes


def join_finding(findings: list[Finding], new: Finding) -> None:
    """Add a finding, or widen an earlier one to the blocks of this, if one cause explains both."""
    for i, old in enumerate(findings):
        common = tuple(cause for cause in old.causes if cause in new.causes)
        if common:
            blocks = tuple(sorted({*old.blocks, *new.blocks}))
            findings[i] = replace(
                old, blocks=blocks, causes=common, residual=max(old.residual, new.residual),
                stages=tuple(sorted({*old.stages, *new.stages})),
            )  # fmt: skip
            return
    findings.append(new)


CAUSES_SHOWN: Final = 4  # explanations that cannot be told apart


def findings_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON."""
    return finite_json(
        {
            "findings": [asdict(finding) for finding in diagnosis.findings],
            "comparison": comparison_json(diagnosis.comparison),
        }
    )


def report_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a line for every finding, for people."""
    if not diagnosis.findings:
        precision = diagnosis.comparison.precision
        yield f"nothing is wrong: every step is right within the rounding of {precision}"
    for finding in diagnosis.findings:
        also = f" (blocks {', '.join(map(str, finding.blocks))})" if len(finding.blocks) > 1 else ""
        where = f"{finding.step}{also}"
        if not finding.causes:
            yield f"{where}: wrong by {finding.error:.1e}; no known mistake explains it"
            yield f"  {finding.evidence}"
            continue
        share = 1 - finding.residual / finding.error if np.isfinite(finding.error) else 1.0
        yield (
            f"{where}: {finding.causes[0]}; explains {share:.1%} "
            f"(residual {finding.residual:.1e} of {finding.error:.1e})"
        )
        for cause in finding.causes[1:CAUSES_SHOWN]:
            yield f"  cannot be told from: {cause}"
        if finding.harmless:
            yield f"  harmless: {finding.harmless}"
