"""Agents on frameworks that people use, behind the gate: OpenAI Agents SDK, Pydantic AI, and tools of an MCP server."""
