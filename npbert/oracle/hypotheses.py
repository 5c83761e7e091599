"""Which mistake explains what is off: every formula of the catalogue is tried in a step's place.

A formula is a hypothesis.  It explains a step where it lowers the root mean square of its error
five times or more, and does so on every step that it touches; of several the one that leaves least
is told, and those that leave as little beside it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from npbert.oracle.dumps import Arrays
from npbert.oracle.evidence import describe_error, find_foreign_weights
from npbert.oracle.measures import Error, is_masked
from npbert.oracle.mistakes.scene import Candidate, Injection, Mistake, apply_at_step, run_mistakes
from npbert.oracle.steps import step_stage, step_suffix

SUSPICIOUS: Final = 3.0  # times the noise, in the mean, from which on an explanation is looked for
CLEARED: Final = 2.0  # times the noise, in the mean, that count as none
LEFT: Final = 1e-3  # of an error that was explained, and need not be explained again
AS_GOOD: Final = 1.5  # times what the best explanation leaves: as good, where that is noise
AS_POOR: Final = 1.02  # the same, where more than noise is left
FEW_VALUES: Final = 30  # of so few, chance explains a share
FEW_LEAVE: Final = 0.75  # of their error, in the mean: what an inexact mistake may leave
AT_ONCE: Final = 6  # faults that may be in one stage together


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: where, what, and how sure that is."""

    step: str  # the first one that shows it
    blocks: tuple[int, ...]  # in which blocks, if in blocks
    causes: tuple[str, ...]  # that cannot be told apart; none where nothing explains it
    error: float  # of the step, in units of its greatest value
    residual: float  # what is left when it is explained
    stages: tuple[int, ...]  # 0 the embeddings, 1 the first block, ...
    explained: float = 0.0  # the share of the error, in the mean, that the cause explains
    harmless: str = ""  # why nothing follows from it, if so
    evidence: str = ""  # what is seen, where nothing explains it


class Fit(NamedTuple):
    """A mistake that explains the first step that is off."""

    fault: Mistake
    stages: Sequence[int]
    made: dict[str, Error]  # what it leaves of every step
    unexplained: int  # steps that stay off
    score: float  # what it leaves of the steps that it touches, in units of their noise


def explain_stages(
    case: Candidate, stages: range, again: Arrays, faults: Mapping[str, Mistake],
    before: Sequence[Finding], left: dict[str, Error],
) -> Iterator[Finding]:  # fmt: skip
    """Yield what is wrong with some stages, one after the other; `left` gets what is left of each.

    A step that nothing explains is told too, and what comes after it is looked at all the same.
    """
    blocks = case.call.model.config.num_blocks
    names = [n for n in case.order if n in case.theirs and step_stage(n, blocks) in stages]
    seen = [name for name in names if step_stage(name, blocks) == stages[-1]]
    search = Search(case, stages, {}, case.errors(again, seen))
    first = dict(search.now)
    for _ in range(len(seen) + AT_ONCE):
        off = search.find_suspects(first)
        left |= search.now
        if not off:
            return
        known = {cause: faults[cause] for f in before for cause in f.causes if cause in faults}
        fits = search.find_fits(off, known)
        if not search.has_good(fits):  # what was wrong before is not all of it
            fits = search.find_fits(off, faults)
        if not search.has_good(fits) and len(stages) > 1:  # weights may be wrong in one block
            fits += search.find_fits(off, faults, each=True)
        now = search.now[off[0]]
        if not fits:
            search.settled.add(off[0])
            if not now.is_within(case.bound[off[0]]) and off[0] not in search.blurred:
                is_alone = len(search.window(off[0])) == 1
                yield Finding(
                    step=off[0], blocks=blocks_of(stages, blocks),
                    causes=find_foreign_weights(case, off[0], again[off[0]], is_alone),
                    error=now.most, residual=now.most, stages=(stages[-1],),
                    evidence=describe_error(case, off[0], again),
                )  # fmt: skip
            continue
        best = search.best_fits(fits)
        fit = best[0]
        rest = fit.made[off[0]]
        yield Finding(
            step=off[0],
            blocks=blocks_of(fit.stages, blocks),
            causes=tuple(dict.fromkeys(each.fault.text for each in best)),
            error=now.most,
            residual=rest.most,
            stages=tuple(fit.stages),
            explained=share_of_error(now, rest, fit.fault),
            harmless=fit.fault.harmless,
        )
        search.take(fit)


@dataclass
class Search:
    """What is known of some stages: which mistakes were made, and what they leave."""

    case: Candidate
    stages: range
    active: dict[int, list[Mistake]]
    now: dict[str, Error]  # of the steps that are seen

    def __post_init__(self) -> None:
        self.settled: set[str] = set()  # steps that nothing explains, and that were told
        self.explained: set[str] = set()
        self.blurred: set[str] = set()  # of which a mistake explains a share, in its own way
        self.runs: list[Injection] = []

    def find_suspects(self, first: Mapping[str, Error]) -> list[str]:
        """Return the steps for which an explanation is to be looked for."""
        made = []
        for name, error in self.now.items():
            if name in self.settled or error.rms <= SUSPICIOUS * self.case.noise[name].rms:
                continue
            was = first[name].limit_to(Error(1e3, 1e3))
            if name not in self.explained or not error.is_within(was.multiply(LEFT)):
                made.append(name)
        return made

    def run(
        self, fault: Mistake, where: Sequence[int], kept: Collection[str] | None = None
    ) -> Arrays:
        """Return what the stages compute with one mistake more, in some of them."""
        made = {s: [*self.active.get(s, ()), *[fault] * (s in where)] for s in self.stages}
        return self.run_from(where[0], made, self.now if kept is None else kept).rows()

    @property
    def base(self) -> Injection:
        """The pass with what is taken for granted, run when it is first asked for."""
        if not self.runs:
            self.runs.append(self.run_from(self.stages.start, self.active, ()))
        return self.runs[0]

    def run_from(
        self, stage: int, mistakes: Mapping[int, list[Mistake]], kept: Collection[str]
    ) -> Injection:
        """Run the stages from one on, with what came before it as it is."""
        case, known = self.case, self.base.before if stage > self.stages.start else {}
        stages = range(stage, self.stages.stop)
        known = {**case.known, **known}
        return run_mistakes(case.call, case.theirs, known, stages, mistakes, kept)

    def take(self, fit: Fit) -> None:
        """Go on with a mistake taken for granted."""
        for stage in fit.stages:
            self.active.setdefault(stage, []).append(fit.fault)
        self.explained |= {n for n in self.now if fit.made[n] != self.now[n]}
        if fit.fault.is_inexact:
            self.blurred |= self.explained
        self.now = fit.made
        self.runs.clear()

    def find_fits(
        self, off: Sequence[str], faults: Mapping[str, Mistake], *, each: bool = False
    ) -> list[Fit]:
        """Return the faults that explain the first step that is off.

        They are tried in all stages at once, or in `each` of them.
        """
        fits = []
        window = self.window(off[0])
        for fault, where in self.candidate_mistakes(window, faults, each=each):
            if len(window) == 1:
                alone = {off[0]: apply_at_step(self.base, off[0], fault)}
                left = self.case.errors(alone, off[:1])[off[0]]
                if not self.is_explained(off[0], left, fault.leaves):
                    continue
            tried = self.run(fault, where)
            if not self.is_explained(
                off[0], self.case.errors(tried, off[:1])[off[0]], fault.leaves
            ):
                continue
            made = self.now | self.case.errors(tried, list(self.now))
            touched = [n for n in self.now if made[n] != self.now[n]]
            if all(self.is_upheld(n, made[n], fault, off) for n in touched):
                score = max(made[n].rms / self.case.noise[n].rms for n in touched)
                fits.append(Fit(fault, where, made, len(set(off) - set(touched)), score))
        return fits

    def is_upheld(self, name: str, left: Error, fault: Mistake, off: Sequence[str]) -> bool:
        """Tell whether a step that a mistake touches speaks for it, or at least not against it."""
        if name in off and not fault.is_inexact:
            return self.is_explained(name, left, fault.leaves)
        return left.rms <= max(SUSPICIOUS * self.case.noise[name].rms, 1.1 * self.now[name].rms)

    def is_explained(self, name: str, left: Error, share: float) -> bool:
        """Tell whether little is left of the error of a step."""
        now = self.now[name].limit_to(Error(1.0, 1.0))
        if self.case.live[name].sum() <= FEW_VALUES:
            share = min(share, FEW_LEAVE)
        if left.rms <= CLEARED * self.case.noise[name].rms and left.rms < now.rms / 2:
            return True
        return left.rms <= share * now.rms and left.most <= max(0.5, 2 * share) * now.most

    def window(self, first: str) -> set[tuple[int, str]]:
        """Return the steps, by stage, that may be behind the first one that is off.

        Only what happens after the last step that is known, and right, can be behind it.
        """
        case, blocks = self.case, self.case.call.model.config.num_blocks
        order = [n for n in case.order if step_stage(n, blocks) in self.stages]
        end = order.index(first)
        begin = max((i for i, n in enumerate(order[:end]) if n in case.theirs), default=-1)
        return {(step_stage(n, blocks), step_suffix(n)) for n in order[begin + 1 : end + 1]}

    def candidate_mistakes(
        self, window: set[tuple[int, str]], faults: Mapping[str, Mistake], *, each: bool
    ) -> Iterator[tuple[Mistake, Sequence[int]]]:
        """Yield faults that may be made at some steps, and the stages to try them in."""
        for fault in faults.values():
            there = [s for s in self.stages if any((s, step) in window for step in fault.steps)]
            if there and not each:
                yield fault, there
            elif len(there) > 1:
                yield from ((fault, [stage]) for stage in there)
                if len(there) > 2 and fault.in_later_blocks:
                    yield fault, there[1:]

    def has_good(self, fits: Sequence[Fit]) -> bool:
        """Tell whether one explains everything that is off, to what rounding leaves."""
        return any(fit.unexplained == 0 and fit.score <= CLEARED for fit in fits)

    def best_fits(self, fits: Sequence[Fit]) -> list[Fit]:
        """Return the explanations that none other is better than."""
        exact = [fit for fit in fits if not fit.fault.is_inexact] or list(fits)
        least = min(fit.unexplained for fit in exact)
        left = [fit for fit in exact if fit.unexplained == least]
        score = min(fit.score for fit in left)
        factor = AS_GOOD if score <= SUSPICIOUS else AS_POOR
        best = [fit for fit in left if fit.score <= max(score * factor, AS_GOOD)]
        return self.choose_by_padding(best) if len(best) > 1 else best

    def choose_by_padding(self, best: list[Fit]) -> list[Fit]:
        """Keep those of equally good explanations that fit what was computed for padding too."""
        case, blocks = self.case, self.case.call.model.config.num_blocks
        names = [n for n in case.theirs if step_stage(n, blocks) in self.stages]
        live = {  # a masked score may be minus infinity
            n: np.isfinite(x) | (is_masked(n, x) & ~np.isnan(x))
            for n, x in ((n, case.theirs[n]) for n in names)
        }
        everywhere = replace(case, live=live, noise=case.noise)

        def count_beyond(fit: Fit) -> int:
            made = everywhere.errors(self.run(fit.fault, fit.stages, names), names)
            return sum(not e.most <= max(case.bound[n].most, LEFT) for n, e in made.items())

        counts = [count_beyond(fit) for fit in best]
        return [fit for fit, n in zip(best, counts, strict=True) if n == min(counts)]


def share_of_error(now: Error, rest: Error, fault: Mistake) -> float:
    """Return which share of an error a mistake explains: in the mean, where it is inexact."""
    was, left = (now.rms, rest.rms) if fault.is_inexact else (now.most, rest.most)
    return max(1 - left / was, 0.0) if np.isfinite(was) else 1.0


def blocks_of(stages: Sequence[int], blocks: int) -> tuple[int, ...]:
    """Return which blocks some stages are."""
    return tuple(stage - 1 for stage in stages if 1 <= stage <= blocks)
