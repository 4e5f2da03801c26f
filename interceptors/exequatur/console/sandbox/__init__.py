"""What a visitor of the demo page gets to play with: an application, policies, evidence and a worker of their own."""
