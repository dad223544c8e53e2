"""Generated from protos/agentmatrix/wire/v1; see the Makefile."""
