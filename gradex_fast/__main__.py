"""``python -m gradex_fast`` is the command ``gradex-fast``."""

from gradex_fast.cli import main

raise SystemExit(main())
