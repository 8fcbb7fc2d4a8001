"""What moves: applying pages, showing metrics, auditing, healing, deploying, recovering."""
