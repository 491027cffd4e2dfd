"""Gates without calibration: none, a threshold, cues in the text."""

from __future__ import annotations

from atts_runtime.control.gates.base import Due, Gate, Segment


class Open(Gate):
    """Every segment stands."""

    name = "open"
    about = "every segment stands"
    judges = "nothing"


class Shut(Gate):
    """There are no drafts: the target writes every segment."""

    name = "shut"
    about = "the target writes every segment"
    drafts = False
    judges = "nothing"


class Threshold(Gate):
    """Reject a segment whose score is above `Knobs.threshold`: an absolute limit, as SpecReason's is, where the score
    is a judgement that the target writes out; ours is the likelihood that it gives for nothing."""

    name = "threshold"
    about = "score above a threshold in nats per token"
    paper = "Pan et al. 2025, arXiv 2504.07891"

    def judge(self, segment: Segment) -> Due:
        assert segment.ell is not None
        return segment.verdict(segment.ell > self.knobs.threshold)


class Cue(Gate):
    """Reject a segment in which the draft stops to reflect (`Knobs.cues`): there the larger model does better."""

    name = "cue"
    about = "the segment holds a word of reflection"
    paper = "Yang et al. 2025, arXiv 2504.12329"
    judges = "text"

    def judge(self, segment: Segment) -> Due:
        return segment.verdict(segment.cue)
