"""A question as models are told it: its text, and the system message that a chat template puts before it."""

from __future__ import annotations

__all__ = ["Prompt"]


class Prompt(str):
    """The question's text; ``system`` is None where the models get no system message."""

    __slots__ = ("system",)
    system: str | None

    def __new__(cls, text: str, system: str | None = None) -> Prompt:
        prompt = super().__new__(cls, text)
        prompt.system = system
        return prompt

    @property
    def messages(self) -> list[dict[str, str]]:
        """What a chat template takes."""
        before = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*before, {"role": "user", "content": str(self)}]

    @property
    def plain(self) -> str:
        """All of it as one text, for a model without a chat template."""
        return str(self) if self.system is None else f"{self.system}\n\n{self}"
