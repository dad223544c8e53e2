"""A game of Gobang between a team in this process and one that is served elsewhere.

agentmatrix demo --code > program.py             # a copy of it
agentmatrix serve graphs.gobang:white            # in another terminal, or on another machine
python program.py 127.0.0.1:50051/white
"""

import sys

from langgraph.graph import END, START

from agentmatrix import ChatGroup, CyclicGraph, RemoteAgent
from agentmatrix.speakers import round_robin
from agentmatrix.stops import max_turns

from .referee import LONGEST, Game, asking, heard_from, judge, turn
from .team import attack, captain, defence, proposer, team

members = {"proposer": proposer(), "attack": attack, "defence": defence, "captain": captain}
black = ChatGroup(members, speaker=round_robin(), stop=max_turns(4), reply="transcript").compile()
white = RemoteAgent(sys.argv[1]) if len(sys.argv) > 1 else team()

referee = CyclicGraph(Game, name="referee", max_rounds=LONGEST + 1)
referee.add_node("black", black, input_map=asking(seed=2), output_map=heard_from("black"))
referee.add_node("white", white, input_map=asking(seed=2), output_map=heard_from("white"))
referee.add_node("judge", judge)
referee.add_edge("black", "judge")
referee.add_edge("white", "judge")
for place in (START, "judge"):
    referee.add_conditional_edges(place, turn, ["black", "white", END])
game = referee.compile()

for update in game.stream({"moves": []}, stream_mode="updates"):
    for node, change in update.items():
        for message in change.get("messages", ()):
            print(f"{node} {message.name}: {message.text}")
        if node == "judge":
            print(change["board"], change["result"], sep="\n")
