"""Issues grants and workload credentials."""
