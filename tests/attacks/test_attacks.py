"""A short run of each attack. What is not defended yet is in a table, and leaves it with its defence.

The scripts run at full size by hand: `python tests/attacks/kill_host.py --help`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.attacks import (
    forging_host,
    hostile_caller,
    hostile_host,
    kill_host,
    kill_parent,
    live_remote,
    load,
    local,
    network,
    restart_drain,
    secrets_tls,
    streams,
    unauthenticated,
)
from tests.attacks.kit import Attack, Attacks

SCRIPTS = {
    module.__name__.rpartition(".")[2]: module.attacks
    for module in (
        kill_host,
        kill_parent,
        restart_drain,
        network,
        load,
        streams,
        unauthenticated,
        hostile_caller,
        hostile_host,
        forging_host,
        secrets_tls,
        live_remote,
        local,
    )
}

OPEN_GATES: dict[str, str] = {}
"""By the name of an attack that succeeds today: what is missing."""


def _short() -> list[tuple[str, Attack]]:
    return [(script, attack) for script, table in SCRIPTS.items() for attack in table.all if attack.short is not None]


@pytest.mark.parametrize("attack", [pytest.param(attack, id=f"{script}-{attack.name}") for script, attack in _short()])
def test_attack(attack: Attack) -> None:
    """An open gate that holds fails too: it leaves the table."""
    figures = attack.run(short=True)
    assert figures["outcome"] == "value", figures
    assert figures["holds"] is (attack.name not in OPEN_GATES), figures


def test_names_tell_attacks_apart() -> None:
    names = [attack.name for table in SCRIPTS.values() for attack in table.all]
    assert len(set(names)) == len(names)
    assert OPEN_GATES.keys() <= {attack.name for _, attack in _short()}


def test_every_script_has_a_short_run() -> None:
    scripts = {path.stem for path in Path(__file__).parent.glob("*.py") if "attacks.main()" in path.read_text()}
    assert {script for script, _ in _short()} == scripts - {"test_attacks"}


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_one_module_knows_internal_names(path: Path) -> None:
    public = {"agentmatrix", "agentmatrix.live", "agentmatrix.errors"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert path.stem == "internals" or not name.startswith("agentmatrix") or name in public, name


def test_an_attack_that_hangs_or_fails_does_not_hold() -> None:
    table = Attacks("")

    @table.add("fails")
    def fail() -> dict[str, object]:
        raise ValueError("no")

    figures = table.all[0].run()
    assert (figures["outcome"], figures["holds"], figures["why"]) == ("error", False, "ValueError: no")
