"""The paper's second task: a national policy, by a boss, its ministers and their experts, 590 in all."""

from __future__ import annotations

from agentmatrix.testing import ScriptedChatModel

from .script import END, Call, add, script, status, write

TASK = "Draft a national policy."


def staff(ministers: int = 9, experts: int = 580) -> ScriptedChatModel:
    """The scripted staff. Each expert writes a file; each superior checks what is reported to it."""

    def begin(prompt: str) -> list[Call]:
        shares = [experts // ministers + (i < experts % ministers) for i in range(ministers)]
        hired = [add(f"minister{i}", f"Recruit {share} experts.") for i, share in enumerate(shares)]
        return [*hired, status(", ".join(call["args"]["name"] for call in hired), ""), END]

    def recruit(prompt: str, number: str, share: str) -> list[Call]:
        hired = [add(f"expert{number}_{i}", "Write your part of the policy.") for i in range(int(share))]
        return [*hired, status(", ".join(call["args"]["name"] for call in hired), ""), END]

    def draft(prompt: str, name: str) -> list[Call]:
        return [write(f"{name}.md", f"The policy of {name}.\n"), status("", f"{name}.md"), END]

    return script([(r"boss\nDraft", begin), (r"minister(\d+)\nRecruit (\d+)", recruit), (r"(expert\w+)\nWrite", draft)])
