"""``python -m robot_policies``: the same as the ``robot-policies`` command."""

from robot_policies.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
