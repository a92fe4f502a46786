"""Tasks composed of skills: YAML files that say what lies on the table, what is done, and when it is done."""
