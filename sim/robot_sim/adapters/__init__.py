"""Tasks of other libraries, unchanged, behind the task contract."""
