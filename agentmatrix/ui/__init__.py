"""A local page for runs: the nested picture live, what was said, what waits for whom, and the answers to questions.

The extra `ui` has what it stands on (starlette, uvicorn, sse-starlette). The page is plain HTML with its own CSS and
scripts, in the wheel; it asks no other machine for anything.
"""
