"""What a worker is: measured, signed, verified, and verified again while it runs."""
