"""npbert diagnose: which step of a port is the first wrong one, and what is wrong with it.

A step is wrong where the textbook, given the candidate's own earlier numbers, comes to others. Then
every known mistake is made on purpose at that step, from the same numbers; the one that was made
leaves nothing over.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.engine.spellings import explain_arguments
from npbert.errors import InputError, quote
from npbert.model import Model
from npbert.oracle.candidates import check_names
from npbert.oracle.comparison import (
    FEW_STEPS,
    LOOSEST,
    NOISE_FACTOR,
    RMS_FACTOR,
    Beside,
    Comparison,
    compare_steps,
)
from npbert.oracle.dialects import translate_errors, translate_result
from npbert.oracle.dumps import Arrays
from npbert.oracle.hypotheses import Finding, Search, explain_stages
from npbert.oracle.maps import NameMap
from npbert.oracle.measures import Error, is_masked
from npbert.oracle.mistakes import catalogue
from npbert.oracle.mistakes.masks import mask_mistakes
from npbert.oracle.mistakes.scene import Candidate, Mistake, hidden_state_name, hidden_states
from npbert.oracle.steps import step_stage, step_suffix
from npbert.oracle.tables import comparison_json, finite_json
from npbert.oracle.traces import Call, TraceLike, as_trace

FEWEST_QUIET: Final = 3  # steps that tell how a candidate rounds, if all are as coarse
NOISIEST: Final = 16  # times the noise of rounding, of all steps of a port that tells of few


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was found, in the order of the forward pass."""

    findings: list[Finding]
    comparison: Comparison
    harmless: list[Finding] = field(default_factory=list)  # from which nothing follows
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
    call.candidate = theirs
    noise = {
        step.name: Error(step.tolerance / NOISE_FACTOR, step.rms_tolerance / RMS_FACTOR)
        for step in comparison.steps
    }
    case = Candidate(
        call=call,
        theirs=theirs,
        order=order,
        noise=noise,
        bound={step.name: step.bound for step in comparison.steps},
        known=hidden_states(call, theirs, again),
        live=select_live(call, theirs, again),
    )
    findings, left = explain_all(case, again)
    loudness = measure_loudness(case, left)
    if loudness > 1 and not comparison.same:
        case = replace(
            case,
            noise={n: error.multiply(loudness) for n, error in case.noise.items()},
            bound={
                n: error.multiply(loudness).limit_to(LOOSEST) for n, error in case.bound.items()
            },
        )
        findings, _ = explain_all(case, again)
        comparison.notes.append(
            f"all steps are rounded about {loudness:.0f} times as coarsely as "
            f"{comparison.precision} rounds"
        )
    findings += find_broken_rows(call, theirs, again)
    findings = findings or find_masked_rows(case, again)
    return Diagnosis(
        findings=[f for f in findings if not f.harmless],
        harmless=[f for f in findings if f.harmless],
        comparison=comparison,
        notes=comparison.notes,
    )


def explain_all(case: Candidate, again: Arrays) -> tuple[list[Finding], dict[str, Error]]:
    """Return everything that is wrong, and what is left of the error of every step."""
    faults = catalogue(case.call.model.config)
    findings: list[Finding] = []
    left: dict[str, Error] = {}
    for stages in stage_segments(case):
        show_stage(stages, case.call.model.config.num_blocks)
        for finding in explain_stages(case, stages, again, faults, findings, left):
            join_finding(findings, finding)
    show_stage(None, 0)
    return [replace(f, causes=uphold_causes(case, f, faults, again)) for f in findings], left


def show_stage(stages: range | None, blocks: int) -> None:
    """Say on a terminal what is looked at: a fault that nobody knows is looked for everywhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    said = ""
    if stages is not None:
        last = stages[-1]
        where = "the head" if last > blocks else f"block {last} of {blocks}"
        said = f"looking for mistakes in {where if last else 'the embeddings'}"
    sys.stderr.write(f"\r\x1b[K{said}")
    sys.stderr.flush()


def measure_loudness(case: Candidate, left: Mapping[str, Error]) -> float:
    """Return how many times its noise a candidate that tells of few steps rounds, at least 1.

    What mistakes explain is taken off first, and the quietest of all steps tells, if there are
    some: then a mistake that nothing explains is in none of them.
    """
    if not FEWEST_QUIET <= len(left) < FEW_STEPS:
        return 1.0
    quietest = min(left[n].rms / case.noise[n].rms for n in left)
    return 2 * quietest if 1 < quietest <= NOISIEST / 2 else 1.0


def select_live(call: Call, theirs: Arrays, again: Arrays) -> dict[str, NDArray[np.bool]]:
    """Return which values count: of real tokens, and no NaN or infinity that came in from others.

    The first array with such values tells of them; those after it inherit them.
    """
    live: dict[str, NDArray[np.bool]] = {}
    broken = False
    for name in (n for n in again if n in theirs):
        x, counts = theirs[name], call.counted_values(name, theirs[name].shape)
        whole = np.isfinite(x) | is_masked(name, x) & (x < 0)
        live[name] = counts & whole if broken else counts
        broken = broken or not whole[counts].all()
    return live


OTHER_ROWS: Final = (
    "not all tokens are heard alike where all are masked: the mask is added, as -10000 is, or "
    "nothing is heard"
)
MASKED_ROWS: Final = (
    "rows that are fully masked become NaN: a mask of minus infinity leaves their softmax nothing; "
    "the smallest number would"
)


def find_masked_rows(case: Candidate, again: Arrays) -> list[Finding]:
    """Return which mask it is that shows in rows without any real token, and only there."""
    empty = np.flatnonzero(~case.call.inputs.key_mask.any(axis=1))
    if not len(empty):
        return []
    live = {
        n: np.isin(np.indices(x.shape)[0], empty)
        for n, x in case.theirs.items()
        if len(x) == case.call.batch
    }
    shown = replace(case, theirs={n: case.theirs[n] for n in live}, live=live)
    faults = {fault.text: fault for fault in mask_mistakes()}
    for stages in stage_segments(shown):
        for found in explain_stages(shown, stages, again, faults, [], {}):
            causes = found.causes or (OTHER_ROWS,)
            rows = ", ".join(map(str, empty))
            return [
                replace(
                    found, causes=causes, harmless=f"row {rows} is fully masked, and only there"
                )
            ]
    return []


def find_broken_rows(call: Call, theirs: Arrays, again: Arrays) -> list[Finding]:
    """Return that rows without any real token are no numbers, where these are numbers with us."""
    empty = np.flatnonzero(~call.inputs.key_mask.any(axis=1))
    for name in (n for n in again if n in theirs):
        x, ours = theirs[name], again[name]
        if not len(empty) or len(x) != len(call.inputs.key_mask):
            continue
        bad = ~np.isfinite(x) & np.isfinite(ours) & ~(is_masked(name, x) & (x < 0))
        rows = [row for row in empty.tolist() if bad[row].any()]
        if rows:
            blocks = call.model.config.num_blocks
            stage = step_stage(name, blocks)
            found = Finding(
                step=name, blocks=(stage - 1,) if 1 <= stage <= blocks else (),
                causes=(MASKED_ROWS,), error=np.inf, residual=0.0, explained=1.0, stages=(stage,),
                evidence=f"NaN in row {', '.join(map(str, rows))} of the batch, and nowhere else",
            )  # fmt: skip
            return [found]
    return []


def stage_segments(case: Candidate) -> Iterator[range]:
    """Yield stages, each with those before it of which the candidate says nothing."""
    blocks, start = case.call.model.config.num_blocks, 0
    told = {step_stage(name, blocks) for name in case.theirs}
    for stage in range(blocks + 2):
        if stage in told:
            yield range(start, stage + 1)
            # What comes after a stage is known only if the candidate tells its end.
            start = stage + 1 if hidden_state_name(stage - 1) in case.theirs else start


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
            search = Search(case, range(stage, stage + 1), {}, now)
            made = case.errors(search.run(fault, [stage]), names)
            if any(
                now[n].is_within(case.bound[n]) and not made[n].is_within(case.bound[n])
                for n in made
            ):
                return True
        return False

    if len(finding.causes) < 2:
        return finding.causes
    kept = tuple(cause for cause in finding.causes if not is_refuted(faults[cause]))
    return kept or finding.causes


def join_finding(findings: list[Finding], new: Finding) -> None:
    """Add a finding, or widen an earlier one to the blocks of this, if one cause explains both.

    So it is with what nothing explains, if it is the same step of several blocks.
    """
    for i, old in enumerate(findings):
        common = tuple(cause for cause in old.causes if cause in new.causes)
        alike = step_suffix(old.step) == step_suffix(new.step) and bool(old.blocks)
        if common or (alike and not old.causes and not new.causes):
            blocks = tuple(sorted({*old.blocks, *new.blocks}))
            findings[i] = replace(
                old, blocks=blocks, causes=common, residual=max(old.residual, new.residual),
                stages=tuple(sorted({*old.stages, *new.stages})),
                explained=min(old.explained, new.explained),
            )  # fmt: skip
            return
    findings.append(new)


CAUSES_SHOWN: Final = 4  # explanations that cannot be told apart


def findings_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON."""
    return finite_json(
        {
            "findings": [asdict(finding) for finding in diagnosis.findings],
            "harmless": [asdict(finding) for finding in diagnosis.harmless],
            "comparison": comparison_json(diagnosis.comparison),
        }
    )


def report_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield a line for every finding, for people."""
    if not diagnosis.findings:
        precision = diagnosis.comparison.precision
        yield f"nothing is wrong: every step is right within the rounding of {precision}"
    for finding in (*diagnosis.findings, *diagnosis.harmless):
        also = f" (blocks {', '.join(map(str, finding.blocks))})" if len(finding.blocks) > 1 else ""
        where = f"{finding.step}{also}"
        if not finding.causes:
            yield f"{where}: wrong by {finding.error:.1e}; no known mistake explains it"
            yield f"  {finding.evidence}"
            continue
        if not finding.explained:
            yield f"{where}: {finding.causes[0]}; wrong by {finding.error:.1e}"
            continue
        yield (
            f"{where}: {finding.causes[0]}; explains {finding.explained:.1%} "
            f"(residual {finding.residual:.1e} of {finding.error:.1e})"
        )
        if finding.evidence:
            yield f"  {finding.evidence}"
        for cause in finding.causes[1:CAUSES_SHOWN]:
            yield f"  cannot be told from: {cause}"
        if finding.harmless:
            yield f"  harmless: {finding.harmless}"
