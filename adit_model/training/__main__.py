"""`python -m adit_model.training`."""

from adit_model.training.cli import main

raise SystemExit(main())
