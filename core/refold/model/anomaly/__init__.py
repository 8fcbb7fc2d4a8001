"""What is unusual in series of counts: figures in, verdicts out. Pure."""
