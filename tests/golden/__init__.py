"""What must not change unnoticed. Each module is also a script that writes its JSON file anew with ``--write``."""
