"""The history of a turn, where a summary is for all members: of those who speak at once, one makes it."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig

from agentmatrix.chat.history import History, ShortenedHistory, Summary
from agentmatrix.chat.turn import Turn

__all__ = ["ashorten_turn", "shorten_turn"]


def shorten_turn(history: History, turn: Turn, config: RunnableConfig) -> ShortenedHistory:
    """The messages that are left of those of the turn. Of members who speak at once one makes a summary for all."""
    if turn.shared is None:
        return history.shorten(turn.given, None, turn.summary, config)
    with turn.at.claims.lock:
        if turn.summary_key not in turn.at.claims.summaries:
            short = history.shorten(turn.given, turn.shared, _last_summary(turn), config)
            _keep(short, turn)
            return short
    return history.with_summary(turn.given, turn.shared, turn.at.claims.summaries[turn.summary_key])


async def ashorten_turn(history: History, turn: Turn, config: RunnableConfig) -> ShortenedHistory:
    """The same as `shorten_turn`, async."""
    if turn.shared is None:
        return await history.ashorten(turn.given, None, turn.summary, config)
    async with turn.at.claims.alock:
        if turn.summary_key not in turn.at.claims.summaries:
            short = await history.ashorten(turn.given, turn.shared, _last_summary(turn), config)
            _keep(short, turn)
            return short
    return history.with_summary(turn.given, turn.shared, turn.at.claims.summaries[turn.summary_key])


def _last_summary(turn: Turn) -> Summary | None:
    """The last summary: of the state, unless somebody who speaks at the same time has made one since."""
    made_at, summary = turn.at.claims.last_summary
    return summary if summary and made_at >= len(turn.at.events) else turn.summary


def _keep(short: ShortenedHistory, turn: Turn) -> None:
    """Has the summary stand for all who speak at the same time."""
    summary = short.summary or _last_summary(turn)
    turn.at.claims.summaries[turn.summary_key] = summary
    turn.at.claims.last_summary = (len(turn.at.events), summary)
