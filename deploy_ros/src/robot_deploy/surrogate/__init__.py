"""A simulated arm behind the topics of a real one. It is a surrogate: what works here is not thereby safe elsewhere."""
