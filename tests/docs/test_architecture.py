"""The page on the house names each room, and its picture has the floors that the imports keep to."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_layers import LAYERS, PACKAGE, dotted, imports, modules, room

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_each_room_has_a_row() -> None:
    named = re.findall(r"`(\w+)/?`", "".join(re.findall(r"^(\| `.*?\|)", PAGE, re.MULTILINE)))
    assert not LAYERS.keys() - set(named), "say in docs/architecture.md what these rooms are for"
    assert len(named) == len(set(named))


def test_the_picture_has_the_floors_of_the_layers() -> None:
    (picture,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    drawn = {room: int(floor) for floor, *rooms in map(str.split, picture.splitlines()) for room in rooms}
    assert drawn == LAYERS


def test_the_wings_do_not_import_each_other() -> None:
    wings = [{"remote", "host", "session", "transport", "wire"}, {"chat", "compose", "scheduling", "engine"}]
    for path in modules(PACKAGE):
        for own, other in (wings, reversed(wings)):
            if room(dotted(path)) in own:
                assert not {room(name) for name in imports(path)} & other, f"{dotted(path)} imports the other wing"


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
