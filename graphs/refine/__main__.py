"""All four datasets with any chat model: `python -m graphs.refine --model local`, or `--model provider:name`."""

from __future__ import annotations

from .._claims import parser_with_model
from . import main

if __name__ == "__main__":
    raise SystemExit(main(parser_with_model("graphs.refine", __doc__).parse_args().model))
