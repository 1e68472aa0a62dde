"""Settings worth measuring next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kneepoint.search.pareto import hypervolume
from kneepoint.search.sampling.evidence import Evidence
from kneepoint.search.sampling.posterior import Codes, Floats, Prior
from kneepoint.search.sampling.proposer import Proposer
from kneepoint.search.sampling.warps import WARPS

COUNTS = (4,) * 8
WEIGHTS = np.arange(1, 9) / 36
PROPOSER = Proposer(COUNTS, ((0, 1),), (Prior.flat(COUNTS),) * 2, (WARPS,) * 2, np.ones(2))


def losses(codes: Codes) -> Floats:
    """What every choice costs, and what it spoils."""
    return np.stack([codes.mean(axis=1) / 3.3, 0.9 * ((3 - codes) ** 2 / 9) @ WEIGHTS], axis=1)


def evidence(count: int = 20) -> Evidence:
    codes = np.random.default_rng(0).integers(4, size=(count, 8))
    values = losses(codes)
    return Evidence(codes, values, np.zeros_like(values), np.ones(count, bool), np.zeros((0, 8), np.int64))


def propose(proposer: Proposer, known: Evidence, count: int = 6) -> Codes:
    found = proposer.propose(known, lambda codes: codes.tobytes(), np.random.default_rng(1), count)
    return np.stack([codes for codes, _ in found])


def test_proposals_add_to_the_front() -> None:
    known = evidence()
    found = losses(propose(PROPOSER, known))
    before = hypervolume(known.losses)
    assert hypervolume(np.concatenate((known.losses, found))) > 1.03 * before


def test_nothing_is_proposed_that_is_known_pending_or_seen() -> None:
    known = evidence()
    first = propose(PROPOSER, known)
    pending = replace(known, pending=first)
    second = propose(PROPOSER, pending)
    assert not {row.tobytes() for row in (*known.codes, *first)} & {row.tobytes() for row in second}
    banned = {row.tobytes() for row in first}

    def identify(codes: Codes) -> bytes | None:
        return None if codes.tobytes() in banned else codes.tobytes()

    found = PROPOSER.propose(known, identify, np.random.default_rng(1), 6)
    assert not banned & {codes.tobytes() for codes, _ in found}
    assert PROPOSER.propose(known, lambda _: None, np.random.default_rng(1), 6) == []


def test_the_same_draws_propose_the_same() -> None:
    assert (propose(PROPOSER, evidence()) == propose(PROPOSER, evidence())).all()


def test_a_price_is_believed() -> None:
    """The first loss is told: it is another one than was measured, and only settings that are cheap by it are left."""

    def price(codes: Codes) -> Floats:
        return np.stack([np.where(codes[:, 0] == 0, 0.1, 0.99), np.full(len(codes), np.nan)], axis=1)

    found = propose(replace(PROPOSER, price=price), evidence(), count=3)
    assert (found[:, 0] == 0).mean() > 0.5


def test_what_the_limits_forbid_is_not_looked_for() -> None:
    limited = replace(PROPOSER, limits=np.array([1.0, 0.2]))
    known = evidence()
    known = replace(known, feasible=known.losses[:, 1] <= 0.2)
    for _ in range(3):  # the first ones learn
        found = propose(limited, known)
        both = np.concatenate((known.codes, found))
        values = losses(both)
        known = Evidence(both, values, np.zeros_like(values), values[:, 1] <= 0.2, known.pending)
    assert (losses(found)[:, 1] <= 0.25).mean() > 0.6


def test_every_front_is_worked_on() -> None:
    two = replace(
        PROPOSER,
        fronts=((0, 2), (1, 2)),
        priors=(Prior.flat(COUNTS),) * 3,
        warps=(WARPS,) * 3,
        limits=np.ones(3),
    )
    codes = np.random.default_rng(0).integers(4, size=(24, 8))
    early, late = codes[:, :4].mean(axis=1) / 3.3, codes[:, 4:].mean(axis=1) / 3.3
    values = np.stack([early, late, losses(codes)[:, 1]], axis=1)
    known = Evidence(codes, values, np.zeros_like(values), np.ones(24, bool), np.zeros((0, 8), np.int64))
    found = propose(two, known, count=12)
    assert found[:, :4].mean(axis=1).min() < 0.7 or found[:, 4:].mean(axis=1).min() < 0.7
    assert (found[:, :4].mean(axis=1) - found[:, 4:].mean(axis=1)).std() > 0.2


def test_what_stands_for_the_same_is_proposed_once() -> None:
    found = PROPOSER.propose(evidence(), lambda codes: int(codes[0]), np.random.default_rng(1), 4)
    assert len({int(codes[0]) for codes, _ in found}) == len(found)


def test_what_is_probably_infeasible_is_left_alone() -> None:
    hidden = replace(PROPOSER, hidden=True)
    known = replace(evidence(60), feasible=evidence(60).codes[:, 0] == 0)
    assert (propose(hidden, known)[:, 0] == 0).mean() > (propose(PROPOSER, known)[:, 0] == 0).mean()
