"""Events from files: lines (bytes to text), readers (text to records), mapper (records to events)."""
