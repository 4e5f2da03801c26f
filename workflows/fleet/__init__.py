"""A fleet on one machine: an authority service, two workers, clients, PostgreSQL and Temporal, each its own process."""
