"""What changes metrics: applying pages, publishing views, auditing, healing, deploying, recovering."""
