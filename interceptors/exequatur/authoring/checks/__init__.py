"""What is wrong with policies, all at once and with its place."""
