"""What those who write policies need, and the gate does not: generate, check, test, explain, compare."""
