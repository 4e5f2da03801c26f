"""What principals and runs did before, as policies are told it."""
