"""What stands, in a config that crosses, for a part that cannot.

Where it was made it becomes the part itself again, when it comes back with an event or a checkpoint.
"""

from __future__ import annotations

from typing import Any, Final

from agentmatrix.errors import EncodeError
from agentmatrix.wire.extensions import PartDecoder, PartEncoder, Tag

__all__ = ["UnencodableValue"]


class UnencodableValue:
    """Placeholder for a part of a caller's config that cannot be encoded: any use of it raises.

    Args:
        reason: the sentence to raise with; it names the part and its type.
    """

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        object.__setattr__(self, "_reason", reason)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise EncodeError(object.__getattribute__(self, "_reason"))

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise EncodeError(object.__getattribute__(self, "_reason"))

    __call__ = __iter__ = __getitem__ = __len__ = __bool__ = __str__ = __setattr__ = __setitem__ = _refuse
    __enter__ = __exit__ = __aenter__ = __aexit__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __await__ = __aiter__ = __next__ = __anext__ = __add__ = __fspath__ = __lt__ = __gt__ = _refuse

    def __repr__(self) -> str:
        return f"<not encodable: {object.__getattribute__(self, '_reason')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (UnencodableValue, (object.__getattribute__(self, "_reason"),))


def reason_of(value: UnencodableValue) -> str:
    """The sentence that a placeholder raises with."""
    reason: str = object.__getattribute__(value, "_reason")
    return reason


def encode_unencodable(encoder: PartEncoder, value: UnencodableValue, depth: int) -> list[Any]:
    """Encode a placeholder."""
    return [UNENCODABLE.ext, reason_of(value)]


def _decode(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    (reason,) = decoder.decode_rest(payload, depth)
    return decoder.unencodable(UnencodableValue(str(reason)), str(reason))


UNENCODABLE: Final = Tag(49, _decode)
