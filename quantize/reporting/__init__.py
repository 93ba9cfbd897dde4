"""What quantizing did, as facts, tables and a page."""
