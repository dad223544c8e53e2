"""Requests for approval, as LangChain's `HumanInTheLoopMiddleware` makes them, and the words that answer them.

The middleware pauses with all tool calls of a model's turn (`action_requests`), or with one call each
(`"type": "tool_approval"`). It takes decisions as dicts; a person says `approve`, `reject: why`, `edit {"amount": 5}`,
or `respond: text`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentmatrix.errors import AnswerError

__all__ = ["Action", "ApprovalRequest", "approval_request"]

_DECISIONS: Final = ("approve", "edit", "reject", "respond")
_SHORT: Final = {
    "a": "approve",
    "y": "approve",
    "yes": "approve",
    "n": "reject",
    "no": "reject",
    "e": "edit",
    "r": "reject",
}


@dataclass(frozen=True, slots=True)
class Action:
    """A tool call that waits for a decision.

    Attributes:
        name: of the tool.
        args: its arguments.
        description: what the middleware says about it.
        allowed: the decisions that it takes: `approve`, `edit`, `reject`, `respond`.
    """

    name: str
    args: Mapping[str, Any]
    description: str
    allowed: tuple[str, ...]

    @property
    def how_to_answer(self) -> str:
        """The words that are an answer, in one line."""
        words = {
            "approve": "approve",
            "edit": 'edit {"argument": value}',
            "reject": "reject: why",
            "respond": "respond: text",
        }
        return ", ".join(words[decision] for decision in self.allowed)

    def decision(self, text: str) -> dict[str, Any]:
        """The decision that words stand for.

        Args:
            text: `approve`, `reject` or `reject: why`, `edit` and a JSON object of arguments that change,
                `respond: text`; or the decision itself as JSON.

        Raises:
            AnswerError: it is none of these, or not allowed.
        """
        if (given := _object(text)) is not None and "type" in given:
            return self._checked(given)
        word, rest = _word(text)
        kind = _SHORT.get(word, word)
        if kind == "approve" and not rest:
            return self._checked({"type": "approve"})
        if kind == "reject":
            return self._checked({"type": "reject", **({"message": rest} if rest else {})})
        if kind == "respond" and rest:
            return self._checked({"type": "respond", "message": rest})
        if kind == "edit":
            args = _object(rest)
            if args is None:
                raise AnswerError(f"say what changes in the call of {self.name!r} as JSON: edit {_example(self.args)}")
            return self._checked({"type": "edit", "edited_action": {"name": self.name, "args": {**self.args, **args}}})
        raise AnswerError(f"{text!r} is no decision about {self.name!r}: {self.how_to_answer}")

    def _checked(self, decision: dict[str, Any]) -> dict[str, Any]:
        if decision["type"] not in self.allowed:
            raise AnswerError(f"{decision['type']!r} is not allowed for {self.name!r}: {self.how_to_answer}")
        return decision


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """All that one question asks about.

    Attributes:
        actions: the tool calls, in order.
        is_batched: whether the answer is a list of decisions, one for each.
    """

    actions: tuple[Action, ...]
    is_batched: bool

    def answer(self, texts: Sequence[str]) -> dict[str, Any]:
        """The value to resume with.

        Args:
            texts: a decision for each action, in order; one alone is for all of them.

        Raises:
            AnswerError: there are too few or too many, or one is no decision.
        """
        if len(texts) == 1:
            texts = [texts[0]] * len(self.actions)
        if len(texts) != len(self.actions):
            raise AnswerError(f"{len(self.actions)} tool calls wait for a decision each, and {len(texts)} were given")
        decisions = [action.decision(text) for action, text in zip(self.actions, texts, strict=True)]
        return {"decisions": decisions} if self.is_batched else decisions[0]


def approval_request(value: Any, schema: Any = None) -> ApprovalRequest | None:
    """The request in the value of an interrupt; None where it is another kind of question.

    Args:
        value: of the interrupt.
        schema: the JSON schema of its answer, where it has one.
    """
    if not isinstance(value, Mapping):
        return None
    if value.get("type") == "tool_approval" and isinstance(value.get("args"), Mapping):
        allowed = _allowed_by(schema)
        action = Action(str(value.get("name")), value["args"], str(value.get("description") or ""), allowed)
        return ApprovalRequest((action,), is_batched=False)
    requests = value.get("action_requests")
    if not (isinstance(requests, Sequence) and requests and all(_is_action(request) for request in requests)):
        return None
    configs = {
        config.get("action_name"): tuple(config.get("allowed_decisions") or _DECISIONS)
        for config in value.get("review_configs") or ()
        if isinstance(config, Mapping)
    }
    actions = [
        Action(
            request["name"],
            request.get("args") or {},
            str(request.get("description") or ""),
            configs.get(request["name"], _DECISIONS),
        )
        for request in requests
    ]
    return ApprovalRequest(tuple(actions), is_batched=True)


def _is_action(request: Any) -> bool:
    return (
        isinstance(request, Mapping)
        and isinstance(request.get("name"), str)
        and isinstance(request.get("args") or {}, Mapping)
    )


def _allowed_by(schema: Any) -> tuple[str, ...]:
    """The decisions that a schema names as the constants of a field `type`."""
    text = json.dumps(schema, default=str) if schema else ""
    found = tuple(decision for decision in _DECISIONS if f'"const": "{decision}"' in text)
    return found or _DECISIONS


def _word(text: str) -> tuple[str, str]:
    """The first word, and what is said after it and a colon or a blank."""
    found = re.match(r"\s*(\w+)\s*:?\s*(.*)", text, re.DOTALL)
    return (found[1].lower(), found[2].strip()) if found else ("", "")


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _example(args: Mapping[str, Any]) -> str:
    return json.dumps(dict(list(args.items())[:1]), default=str) if args else '{"argument": "value"}'
