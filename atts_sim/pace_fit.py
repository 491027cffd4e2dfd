"""How soon the chains of a question come to an answer: a logistic regression with effects of questions and chains.

Effects of questions are normal, of as many kinds as there are columns that vary by question (Laplace's approximation,
their covariance by EM). A chain is lost or not: a lost one is further from its answer by `delay` on the logit. Which
are lost is summed out: steps are Newton's on the marginal likelihood, whose Hessian is that of the complete data less
the covariance of the chains' scores (Louis, JRSS B 1982).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atts_sim.regression import MOST_SD

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROUNDS = 200
_TOLERANCE = 1e-3
_DELAYS = (1.5, 3.0, 5.0)  # at first: far and few, or near and many, are apart as optima
_DELAY_PENALTY = 0.02
_LOST, _OTHERS = 1.0, 20.0  # prior, as chains that are lost and that are not


@dataclass(frozen=True, slots=True)
class Trials:
    """hits, question, chain: [rows], in the order of chains, each of one question. fixed: [rows, columns], with the
    penalty [columns, columns] of their coefficients. varying: [rows, kinds], whose coefficients are a question's
    own."""

    hits: Floats
    question: Ints
    chain: Ints
    fixed: Floats
    penalty: Floats
    varying: Floats
    questions: int


@dataclass(frozen=True, slots=True)
class Paced:
    """fixed: [columns]. effects: [questions, kinds], posterior means; roots: [questions, kinds, kinds], Cholesky's of
    their posterior covariance where all else is as found. lost: the share of chains."""

    fixed: Floats
    effects: Floats
    roots: Floats
    lost: float
    delay: float


def fit_pace(trials: Trials) -> Paced:
    """The best, by Laplace's approximation of the evidence, of the fits that begin with several delays."""
    chains = _Chains(trials)
    return max((_fit(trials, chains, delay) for delay in _DELAYS), key=lambda fit: fit[0])[1]


def _fit(trials: Trials, chains: _Chains, delay: float) -> tuple[float, Paced]:
    """Evidence and the coefficients of greatest posterior density, given the effects' covariance."""
    columns, (questions, kinds) = len(trials.penalty), (trials.questions, trials.varying.shape[1])
    effects = slice(columns, columns + questions * kinds)
    theta = np.zeros(effects.stop + 2)
    theta[-2:] = delay, np.log(_LOST / _OTHERS)
    penalty = np.zeros((len(theta), len(theta)))
    penalty[:columns, :columns] = trials.penalty
    penalty[-2, -2] = _DELAY_PENALTY
    covariance = np.eye(kinds)
    for _ in range(_ROUNDS):
        penalty[effects, effects] = np.kron(np.eye(questions), np.linalg.inv(covariance))
        at = chains.at(theta)
        hessian = penalty + (at.observed if _positive(penalty + at.observed) else at.complete)
        step = np.linalg.solve(hessian, at.score - penalty @ theta)
        step /= max(1.0, float(np.abs(step).max()))
        evidence = at.log_density - (theta @ penalty @ theta + _log_det(hessian[effects, effects])) / 2
        evidence -= questions * _log_det(covariance) / 2
        theta = theta + step
        theta[-2] = abs(theta[-2])
        unsure = np.linalg.inv(hessian)[effects, effects].reshape(questions, kinds, questions, kinds)
        unsure = np.einsum("qiqj->qij", unsure)
        own = theta[effects].reshape(questions, kinds)
        before, covariance = covariance, _bounded((own.T @ own + unsure.sum(axis=0)) / questions)
        if max(np.abs(step).max(), np.abs(covariance - before).max() / covariance.max()) < _TOLERANCE:
            break
    # What all questions share is as it is for who draws them.
    apart = np.linalg.inv(hessian[effects, effects]).reshape(questions, kinds, questions, kinds)
    apart = np.einsum("qiqj->qij", apart)
    means = own + _skew(trials, chains.third(theta), apart)
    found = Paced(theta[:columns], means, np.linalg.cholesky(apart), float(_expit(theta[-1])), float(theta[-2]))
    return float(evidence), found


def _skew(trials: Trials, third: Floats, covariance: Floats) -> Floats:
    """[questions, kinds] by how much the effects' posterior mean differs from its mode, to first order. A question of
    few answers is as likely to have still fewer: drawn about the mode, its chains would answer too often."""
    wide = np.einsum("ri,rij,rj->r", trials.varying, covariance[trials.question], trials.varying)
    pulled = np.zeros((trials.questions, trials.varying.shape[1]))
    np.add.at(pulled, trials.question, (third * wide)[:, None] * trials.varying)
    skew: Floats = np.einsum("qij,qj->qi", covariance, pulled) / 2
    return skew


def _log_expit(x: Floats) -> Floats:
    logs: Floats = -np.logaddexp(0.0, -np.asarray(x))
    return logs


def _expit(x: Floats) -> Floats:
    chances: Floats = np.exp(_log_expit(x))
    return chances


def _log_det(matrix: Floats) -> float:
    return float(np.linalg.slogdet(matrix)[1])


def _positive(matrix: Floats) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def _bounded(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    bounded: Floats = (vectors * np.clip(values, 1e-4, MOST_SD**2)) @ vectors.T
    return bounded


class _At(NamedTuple):
    """Of the log likelihood with the prior of the share that is lost: itself, its gradient in the coefficients, the
    delay and the logit of the share, and the negative Hessians of the complete data's and of its own."""

    log_density: float
    score: Floats
    complete: Floats
    observed: Floats


class _Chains:
    def __init__(self, trials: Trials) -> None:
        from scipy.sparse import csr_array

        rows, kinds = trials.varying.shape
        columns = trials.fixed.shape[1]
        at, place = np.nonzero(trials.fixed)
        own = columns + trials.question[:, None] * kinds + np.arange(kinds)
        places = np.concatenate([at, np.repeat(np.arange(rows), kinds)]), np.concatenate([place, own.ravel()])
        values = np.concatenate([trials.fixed[at, place], trials.varying.ravel()])
        self._design = csr_array((values, places), shape=(rows, columns + trials.questions * kinds))
        self._hits = trials.hits
        starts = np.flatnonzero(np.diff(trials.chain, prepend=-1))
        self._of = np.repeat(np.arange(len(starts)), np.diff(starts, append=rows))
        self._sums = csr_array((np.ones(rows), (self._of, np.arange(rows))))

    def third(self, theta: Floats) -> Floats:
        """[rows] third derivatives of the complete data's log likelihood in a row's logit."""
        chances, _, lost = self._states(theta)
        weights = np.stack([1 - lost, lost])[:, self._of]
        third: Floats = -(weights * chances * (1 - chances) * (1 - 2 * chances)).sum(axis=0)
        return third

    def _states(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """[2, rows] chances of an answer, [chains, 2] log likelihoods of those that are not lost and that are, with the
        shares of both, and [chains] the chance of being lost."""
        hits, (delay, lost_logit) = self._hits, theta[-2:]
        logits = self._design @ theta[:-2]
        logits = np.stack([logits, logits - delay])
        of_chains = self._sums @ np.where(hits > 0, _log_expit(logits), _log_expit(-logits)).T
        of_chains += _log_expit(np.array([-lost_logit, lost_logit]))
        return _expit(logits), of_chains, _expit(of_chains[:, 1] - of_chains[:, 0])

    def at(self, theta: Floats) -> _At:
        """At these coefficients, delay and logit."""
        design, hits, lost_logit = self._design, self._hits, theta[-1]
        chances, of_chains, lost = self._states(theta)
        shares = _log_expit(np.array([-lost_logit, lost_logit]))
        log_density = np.logaddexp(*of_chains.T).sum() + shares @ (_OTHERS, _LOST)
        weights = np.stack([1 - lost, lost])[:, self._of]
        missed, curved = hits - chances, weights * chances * (1 - chances)
        share, prior = _expit(lost_logit), _LOST + _OTHERS
        score = np.array([
            *(design.T @ (weights * missed).sum(axis=0)),
            -(weights[1] * missed[1]).sum(),
            lost.sum() + _LOST - (len(lost) + prior) * share,
        ])  # fmt: skip
        complete = np.zeros((len(theta), len(theta)))
        complete[:-2, :-2] = (design.T @ (design * curved.sum(axis=0)[:, None])).toarray()
        complete[:-2, -2] = complete[-2, :-2] = -(design.T @ curved[1])
        complete[-2, -2] = curved[1].sum()
        complete[-1, -1] = (len(lost) + prior) * share * (1 - share)
        # A chain's score if it is lost less its score if it is not.
        apart = (self._sums @ (design * (missed[1] - missed[0])[:, None])).toarray()
        apart = np.column_stack([apart, -(self._sums @ missed[1]), np.ones(len(lost))])
        return _At(float(log_density), score, complete, complete - apart.T @ (apart * (lost * (1 - lost))[:, None]))
