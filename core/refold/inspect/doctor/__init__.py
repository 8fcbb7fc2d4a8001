"""`refold doctor`: what would hurt later, looked at now; each check with a verdict and a remedy."""
