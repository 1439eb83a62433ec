"""One module for each command: ``SUMMARY``, ``add_options``, ``files`` (known before computing) and ``run``."""
