"""The only door to LangGraph's and LangChain's private names; it imports nothing of ours.

The rest of the package takes what it needs from the files in here, so that a new release is met in one place.
`tests/test_pregel_door.py` calls each private name as these files do, and says what to mend.

- `config_keys`: the reserved keys of a config, sorted by how they cross to another process.
- `config_values`: the objects behind these keys: scratchpad, replay state, runtime, checkpoint namespace.
- `run_control`: who hears of a requested drain.
- `token_usage`: counts the tokens of the chat models that are called in a context.
- `callback_handlers`: callback managers, LangGraph's stream handlers, LangChain's hooks.
- `state_graph`: what a `StateGraph` has been told.
- `compiled_graph`: how a compiled graph is changed.
- `task_config`: what the config of a task says.
- `virtual_tasks`: one task that stands for several nodes.

`agentmatrix.engine`, which extends LangGraph's loop, has private imports of its own.
"""
