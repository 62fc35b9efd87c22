"""Our words against the paper's, and the paper's published figures.

What belongs here: text that does not depend on any result. What does not: definitions of figures (``sections``).
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "CooperBench: Why Coding Agents Cannot be Your Teammates Yet, arXiv 2601.13295v2"


@dataclass(frozen=True, slots=True)
class Term:
    """One word."""

    ours: str
    theirs: str
    difference: str


TERMS: tuple[Term, ...] = (
    Term("pair", "task", "A task of one repository and two of its features; the paper calls that a task."),
    Term(
        "task",
        "–",
        "A state of a repository with all its features. Pairs of one task share code and tests, so that every interval "
        "and test over seeds here is clustered by task.",
    ),
    Term(
        "solo, coop-comm, coop-nocomm",
        "Solo, Coop",
        "Settings: one agent with both features; two agents with one feature each, with or without messages.",
    ),
    Term(
        "seed",
        "–",
        "An independent repetition of a setting. It sets no random generator, and seeds are never pooled as if they "
        "were independent pairs.",
    ),
    Term("cell", "–", "A setting and a seed: one run of the harness over all pairs of the subset."),
    Term(
        "upstream's verdict",
        "success",
        "Both features' tests pass as the harness says, whichever way it merged; how it merges changed between "
        "versions, and the merge policy is part of the provenance below.",
    ),
    Term(
        "strict verdict",
        "–",
        "A pass counts only for solo, or for a clean or identical merge of two patches that both applied. Comparisons "
        "here are by this verdict.",
    ),
    Term(
        "infra_error",
        "–",
        "Infrastructure ended the agents or the evaluation. Neither pass nor fail: never in a numerator, always in a "
        "count beside the rate, and the bounds show what it could change.",
    ),
    Term("clean verdict", "–", "A pass or a fail. Rates are over these, unless their name says otherwise."),
    Term(
        "difficulty",
        "difficulty",
        "1 − mean pass over a pair's judged solo seeds. The paper averages over models and rescales; an "
        "experiment here has one model.",
    ),
    Term(
        "area, leave-one-seed-out",
        "AUC",
        "Area under success over difficulty. The paper's own area, beside it, uses the same solo seeds for difficulty "
        "and for solo's score: it is circular, has no interval, and depends on the number of seeds.",
    ),
    Term(
        "retention",
        "retention",
        "Mean success of a setting over mean success of solo on common pairs, with Fieller's interval over tasks; the "
        "ratio of areas stands in success_auc.",
    ),
)


@dataclass(frozen=True, slots=True)
class Published:
    """One figure as the paper states it."""

    what: str
    figure: str
    where: str


PUBLISHED: tuple[Published, ...] = (
    Published("Collaborative coding tasks (pairs), over 12 libraries in 4 languages", "over 600", "abstract"),
    Published(
        "Success of agents that work together against one agent doing both, on average over the agents evaluated",
        "30 % lower",
        "abstract",
    ),
)
"""Only what the paper's abstract states word for word. Figures of single models are not repeated here: they could not
be checked against the paper itself when this was written."""

NOT_COMPARABLE = (
    "Not comparable with the figures above: other models and agents, another subset of pairs, and a harness of another "
    "version, which may merge by another policy. Figures of single models are left out, because only the paper's "
    "abstract could be checked."
)
